"""What is left of a rollout after a week, and how one looks in a terminal."""

import asyncio
import time

import pytest
from rich.console import Console

from gateway.commands.fleet.plan import load
from gateway.commands.fleet.screen import screen
from gateway.commands.fleet.tally import Kind, Tally
from gateway.remote import trust_root
from tests.commands.cli_scene import Ran, call
from tests.remote.crowd import Crowd
from tests.remote.office import BAD, NEW, OLD, Office

EX_USAGE, EX_DATAERR, EX_TEMPFAIL, EX_CONFIG = 64, 65, 75, 78
FASTER = 200.0
WEEK_S = 7 * 86_400


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the operator's time run fast."""
    monkeypatch.setattr("gateway.commands.fleet.shelf.QUIET_S", 0.25)
    monkeypatch.setattr("gateway.commands.fleet.widen.TICK_S", 0.02)
    monkeypatch.setattr("gateway.commands.fleet.widen._now", lambda: asyncio.get_running_loop().time() * FASTER)


def revoke(office: Office, *more: str, stream: str = "fleet") -> Ran:
    return call("fleet", "revoke", stream, *more, *office.at_broker())


def test_what_expired_is_signed_anew_to_go_back(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    assert office.publish(office.signed(OLD, 4)).code == 0
    now = time.time()
    with Crowd(office.port, []):
        path = office.document(NEW)
        lonely = office.rollout(path, "--stages", "10%,100%", "--stage-timeout", "10m")
        assert lonely.code == EX_TEMPFAIL
        assert "too few poles have fleet seq 5 in force by now: no pole of 0" in lonely.out
    folder = ["--folder", str(path.with_suffix(".rollout"))]
    monkeypatch.setattr("time.time", lambda: now + WEEK_S + 1)

    with Crowd(office.port, ["p1"]) as crowd:
        late = office.rollout(path, keys=())
        assert late.code == EX_DATAERR
        assert "has expired; go back: polegate fleet revoke fleet --folder" in late.err
        alone = revoke(office, *folder)
        assert (alone.code, "name the keys: --key" in alone.err) == (EX_DATAERR, True)
        assert revoke(office, *folder, *office.keys("c1", "c2")).code == 0
        there = office.document_there()
        assert (there.settings, there.seq, there.expires > now + WEEK_S) == (OLD, 8, True)
        assert "goes back already" in revoke(office, *folder).out
        assert crowd.published[-1] == there
        assert office.publish(office.signed(BAD, 9)).code == 0
        other = revoke(office, *folder)
        assert (other.code, "which is not of that rollout" in other.err) == (EX_DATAERR, True)


def test_what_cannot_be_revoked_is_told(office: Office) -> None:
    old = office.folder / "old.toml"
    old.write_text(OLD)
    for more, stream, code, told in (
        ([], "fleet", EX_USAGE, "say either --folder or --settings"),
        (["--settings", str(old)], "fleets", EX_USAGE, '"fleets" is no stream'),
        (["--settings", str(old)], "fleet", EX_DATAERR, "nothing lies at the broker for fleet"),
        (["--folder", str(office.folder)], "fleet", EX_DATAERR, "is no folder of a rollout"),
        (["--settings", str(office.folder / "none")], "fleet", EX_CONFIG, "none: is not there"),
    ):
        ran = revoke(office, *more, stream=stream)
        assert (ran.code, told in ran.err) == (code, True), ran.err


def test_a_terminal_shows_a_bar_for_each_stage_and_why_poles_failed(
    office: Office, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.commands.fleet.screen.Console", lambda: Console(width=140, force_terminal=True))
    with Crowd(office.port, ["p1"]):
        path = office.document(NEW)
        assert office.rollout(path, "--stages", "100%").code == 0
    plan = load(path.with_suffix(".rollout"), trust_root.first((office.folder / "root.json").read_bytes()))
    tally = Tally()
    tally.poles |= {Kind.GOOD: 3, Kind.BAD: 2, Kind.TRIED: 5}
    tally.reasons[Kind.BAD, "RB_SENSORS: meter [red]gave no value"] = ["p1", "p2"]
    with screen() as shown:
        shown.stage(plan.stages[0], 1, tally)
        shown.say("stopped")
    drawn = capsys.readouterr().out
    assert "━" in drawn
    assert "3 in force, 2 failed, 5 on trial of 10" in drawn
    assert "RB_SENSORS: meter [red]gave no value" in drawn
    assert "p1, p2" in drawn
    assert "stopped" in drawn

"""``polegate fleet rollout`` and ``revoke`` at a real broker, with poles that answer as the test says."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway.remote.document import Document, Rollout
from gateway.remote.verdict import Code
from gateway.words.messages import ConfigVerdict
from hil.process import Process
from tests.commands.cli_scene import Ran, call
from tests.remote.crowd import Crowd, Pole, well
from tests.remote.office import BAD, NEW, OLD, Office

STOPPED, EX_DATAERR, EX_TEMPFAIL, EX_CONFIG = 1, 65, 75, 78
LIMIT_S = 60.0
HURRIED = """
from gateway.__main__ import main
from gateway.commands.fleet import shelf
shelf.QUIET_S = 0.25
main()
"""
NAMES = [f"p{n}" for n in range(40)]
FASTER = 200.0
TWO = ["--stages", "10%,100%"]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for what may be retained, and for poles that nobody knew."""
    monkeypatch.setattr("gateway.commands.fleet.shelf.QUIET_S", 0.25)
    monkeypatch.setattr("gateway.commands.fleet.widen.TICK_S", 0.02)
    monkeypatch.setattr("gateway.commands.fleet.widen.LEAST_S", 0.0)


def poorly(pole: str, found: Document) -> tuple[Code, str]:
    """Fail with what is bad."""
    del pole
    return (Code.RB_SENSORS, "meter gave no value") if found.settings == BAD else (Code.COMMITTED, "")


def canaries(found: Document, names: Sequence[str] = NAMES) -> set[str]:
    assert found.rollout
    return {name for name in names if found.rollout.takes(name)}


def until(true: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    give_up = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def revoke(office: Office, *more: str) -> Ran:
    return call("fleet", "revoke", "fleet", *more, *office.at_broker())


def test_a_good_layer_comes_to_all_stage_after_stage_and_can_be_revoked(office: Office) -> None:
    assert office.publish(office.signed(OLD, 4)).code == 0
    with Crowd(office.port, NAMES) as crowd:
        until(lambda: crowd.running(OLD) == set(NAMES))
        path = office.document(NEW)
        ran = office.rollout(path, *TWO)
        assert (ran.code, ran.err) == (0, "")
        assert crowd.running(NEW) == set(NAMES)
        stages = crowd.published[-2:]
        assert [(stage.seq, stage.rollout.permyriad) for stage in stages if stage.rollout] == [(5, 1000), (6, 10_000)]
        first = {pole.name for pole in crowd.poles.values() if (5, NEW) in pole.ran}
        assert first == canaries(stages[0])
        assert f"stage 1 of 2, 10 % of the poles, fleet seq 5: {len(first)} in force of {len(first)}\n" in ran.out
        assert f"fleet seq 6 is in force: {len(NAMES)} in force of {len(NAMES)}" in ran.out

        again = office.rollout(path, keys=())
        assert (again.code, len(crowd.published)) == (0, 3)

        folder = path.with_suffix(".rollout")
        assert revoke(office, "--folder", str(folder)).code == 0
        until(lambda: crowd.running(OLD) == set(NAMES))
        assert (crowd.published[-1].seq, crowd.published[-1].rollout) == (7, None)
        assert "goes back already" in revoke(office, "--folder", str(folder)).out
        assert office.rollout(path).code == STOPPED

        empty = office.folder / "empty.toml"
        empty.write_text("")
        assert revoke(office, "--settings", str(empty)).code == EX_DATAERR
        assert revoke(office, "--settings", str(empty), *office.keys("c1")).code == EX_DATAERR
        assert revoke(office, "--settings", str(empty), *office.keys("c1", "c2")).code == 0
        until(lambda: crowd.running("") == set(NAMES))
        assert "goes back already" in revoke(office, "--settings", str(empty), *office.keys("c1", "c2")).out


def test_a_bad_layer_stays_with_its_share_and_goes_back(office: Office) -> None:
    assert office.publish(office.signed(OLD, 4)).code == 0
    with Crowd(office.port, NAMES, poorly) as crowd:
        until(lambda: crowd.running(OLD) == set(NAMES))
        path = office.document(BAD)
        ran = office.rollout(path, *TWO)
        assert ran.code == STOPPED
        share = canaries(crowd.published[1])
        assert crowd.ever_ran(BAD) == share
        assert 0 < len(share) < len(NAMES) / 4
        assert crowd.running(OLD) == set(NAMES)
        assert [found.seq for found in crowd.published] == [4, 5, 7]
        there = office.document_there()
        assert (there.settings, there.seq, there.rollout) == (OLD, 7, None)
        assert "stopped: more than 5 % of the poles failed with fleet seq 5" in ran.out
        assert f"{len(share)} failed: RB_SENSORS: meter gave no value: {', '.join(sorted(share))}" in ran.out
        assert "no pole runs it; fleet seq 7 lies at the broker" in ran.out
        again = office.rollout(path)
        assert (again.code, len(crowd.published)) == (STOPPED, 3)
        assert "no pole runs it" in again.out

        path.with_suffix(".layer").write_text(NEW)
        other = office.rollout(path)
        assert (other.code, "holds another rollout" in other.err) == (EX_DATAERR, True)
        path.with_suffix(".rollout").rename(office.folder / "old")
        assert office.rollout(path, *TWO).code == 0
        assert crowd.published[-1].seq == 9


@pytest.mark.parametrize(("most", "code"), [("40%", 0), ("30%", STOPPED)])
def test_the_failure_rate_decides(office: Office, most: str, code: int) -> None:
    some = set(NAMES[:14])  # 35 %

    def answer(pole: str, found: Document) -> tuple[Code, str]:
        return poorly(pole, found) if pole in some else well(pole, found)

    with Crowd(office.port, NAMES, answer) as crowd:
        ran = office.rollout(office.document(BAD), "--stages", "100%", "--max-failures", most)
        assert ran.code == code
        assert "14 failed" in ran.out
        assert crowd.running(BAD) == (set(NAMES) - some if code == 0 else set())
        assert crowd.running("") >= some  # nothing was before, so an empty layer


def as_process(office: Office, path: Path) -> Process:
    """Return a rollout that can be killed."""
    command = ["fleet", "rollout", str(path), *office.keys("c1", "c2"), *office.at_broker(), *TWO]
    return Process([sys.executable, "-c", HURRIED, *command], office.folder / "rollout.log")


def test_what_was_killed_goes_on_and_no_number_is_used_twice(office: Office) -> None:
    path = office.document(NEW)
    killed = as_process(office, path)
    with Crowd(office.port, NAMES) as crowd:
        crowd.holds = True
        killed.start()
        until(lambda: bool(crowd.published))
        killed.kill()
        crowd.release()
        ran = office.rollout(path, keys=())
        assert ran.code == 0
        assert crowd.running(NEW) == set(NAMES)
        assert [found.seq for found in crowd.published] == [1, 2]


def test_an_end_from_the_keyboard_leaves_what_is_there(office: Office) -> None:
    path = office.document(NEW)
    ended = as_process(office, path)
    with Crowd(office.port, NAMES) as crowd:
        crowd.holds = True
        ended.start()
        until(lambda: bool(crowd.published))
        assert ended.stop() == EX_TEMPFAIL
        assert "Run the same command to go on" in ended.output()
        assert office.document_there().seq == 1


def test_a_stage_whose_time_is_over_is_neither_good_nor_bad(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    with Crowd(office.port, NAMES) as crowd:
        crowd.holds = True
        path = office.document(NEW)
        with monkeypatch.context() as patch:
            patch.setattr("gateway.commands.fleet.widen._now", lambda: asyncio.get_running_loop().time() * FASTER)
            ran = office.rollout(path, *TWO, "--stage-timeout", "1m")
        assert (ran.code, len(crowd.published)) == (EX_TEMPFAIL, 1)
        assert "too few poles have fleet seq 1 in force by now" in ran.out
        assert "Run the same command to go on" in ran.out
        crowd.release()
        assert office.rollout(path, keys=()).code == 0


def test_silent_poles_and_unreadable_reports_are_counted_apart(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.fleet.widen.SILENT_S", 2.0)
    salt = "s"
    share = canaries_of(salt, 1000)
    away, broken = sorted(share)[:2]
    with Crowd(office.port, [name for name in NAMES if name not in (away, broken)]) as crowd:
        crowd.publish(f"pole/1/{broken}/config/reported", b"[").wait_for_publish(5)
        poles = office.folder / "poles"
        poles.write_text("\n".join(NAMES))
        path = office.document(NEW, **{"rollout.salt": salt})
        ran = office.rollout(path, "--stages", "100%", "--poles", str(poles))
        assert ran.code == 0, ran.err
        assert len(crowd.running(NEW)) == len(NAMES) - 2
        assert (
            "2 silent, they take what lies at the broker when they come: " + ", ".join(sorted((away, broken)))
            in ran.out
        )
        assert f"1 report what cannot be read: {broken} ({broken}: " in ran.out


def canaries_of(salt: str, permyriad: int) -> set[str]:
    return {name for name in NAMES if Rollout(salt=salt, permyriad=permyriad).takes(name)}


def test_poles_that_do_not_believe_it_are_failures(office: Office) -> None:
    class Strangers(Crowd):
        def _take(self, pole: Pole, found: Document, sha: str) -> None:
            del found, sha
            pole.last = ConfigVerdict(stream="fleet", seq=0, sha="", code=103, name="SIG", text="no key")
            self.say(pole)

    with Strangers(office.port, NAMES):
        ran = office.rollout(office.document(NEW), *TWO)
        assert ran.code == STOPPED
        assert "failed: SIG: no key" in ran.out


def test_a_group_is_who_has_noted_its_documents(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.fleet.widen.LEAST_S", 1.0)
    with Crowd(office.port, NAMES[:30]), Crowd(office.port, NAMES[30:], groups=("group/harbour",)) as harbour:
        path = office.document(NEW, stream="group/harbour")
        ran = office.rollout(path, "--stages", "50%,100%")
        assert ran.code == 0, ran.err
        assert harbour.running(NEW) == set(NAMES[30:])
        assert "10 in force of 10" in ran.out


def test_people_sign_one_after_the_other(office: Office) -> None:
    path = office.document(NEW)
    with Crowd(office.port, NAMES) as crowd:
        alone = office.rollout(path, *TWO, keys=["c1"])
        assert alone.code == EX_DATAERR
        assert "1 of the keys that may sign it signed; it takes 2; who may sign runs, for each file there" in alone.err
        folder = path.with_suffix(".rollout")
        for each in folder.iterdir():
            assert call("fleet", "sign", str(each), *office.keys("c2"), "--out", str(each)).code == 0
        assert office.rollout(path, keys=()).code == 0
        assert len(crowd.published) == 2


def test_somebody_else_at_work_ends_it(office: Office) -> None:
    with Crowd(office.port, NAMES) as crowd:
        crowd.holds = True
        other = office.signed(OLD, 9).read_bytes()

        def meddle() -> None:
            until(lambda: bool(crowd.published))
            crowd.publish("fleet/1/config/all", other)

        meddling = threading.Thread(target=meddle)
        meddling.start()
        path = office.document(NEW)
        ran = office.rollout(path, *TWO)
        meddling.join()
        assert (ran.code, "somebody else is at work" in ran.err) == (EX_DATAERR, True)
        assert office.lies() == other
        again = office.rollout(path)
        assert (again.code, "which is not of this rollout" in again.err) == (EX_DATAERR, True)
        assert office.lies() == other


@pytest.mark.parametrize(
    ("there", "document", "options", "keys", "code", "told"),
    [
        ({}, {}, [], [], EX_DATAERR, "name the keys that sign it"),
        ({}, {}, [], ["x"], EX_DATAERR, "no key that may sign it"),
        ({}, {"trial.confirm": "server"}, [], ["c1", "c2"], EX_DATAERR, "nobody would confirm"),
        ({}, {"note": 7}, [], ["c1", "c2"], EX_DATAERR, 'no document: "note" must be a text in quotes, not 7'),
        ({}, {"settings": "none.toml"}, [], ["c1", "c2"], EX_CONFIG, "none.toml: is not there"),
        ({}, {}, ["--stages", "1%,2%,100%"], ["c1", "c2"], EX_DATAERR, "--stages 25%,100%"),
        ({"seq": 4}, {"seq": 4}, [], ["c1", "c2"], EX_DATAERR, "seq 4 is not newer than what lies at the broker; 5 is"),
        ({"seq": 4, "keys": ["x"]}, {}, [], ["c1", "c2"], EX_DATAERR, "not known what to go back to"),
        ({"seq": 4, "rollout": 500}, {}, [], ["c1", "c2"], EX_DATAERR, "for 5 % of the poles only"),
    ],
)
def test_what_cannot_be_rolled_out_is_told(
    office: Office,
    there: dict[str, int | list[str]],
    document: dict[str, object],
    options: list[str],
    keys: list[str],
    code: int,
    told: str,
) -> None:
    path = office.document(NEW, **{"rollout.salt": "s", **document})
    with Crowd(office.port, NAMES[:3]) as crowd:
        if there:
            more = {"rollout.salt": "r", "rollout.permyriad": 500} if "rollout" in there else {}
            signers = there.get("keys", ["c1", "c2"])
            assert isinstance(signers, list)
            raw = office.signed(OLD, 4, *signers, **more).read_bytes()
            crowd.publish("fleet/1/config/all", raw).wait_for_publish(5)
            until(lambda: bool(crowd.published))
        ran = office.rollout(path, *(options or ["--stages", "100%"]), keys=keys)
        assert (ran.code, told in ran.err) == (code, True), ran.err
        assert len(crowd.published) == bool(there)


def test_a_broker_that_forgot_is_told_by_what_poles_have_seen(office: Office) -> None:
    assert office.publish(office.signed(OLD, 4)).code == 0
    with Crowd(office.port, NAMES) as crowd:
        until(lambda: crowd.running(OLD) == set(NAMES))
        crowd.poles.clear()  # what follows is heard by none
        crowd.publish("fleet/1/config/all", b"").wait_for_publish(5)
    ran = office.rollout(office.document(NEW))
    assert ran.code == EX_DATAERR
    assert "40 of 40 poles have seen fleet seq 4 already" in ran.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--stages", "1%,10%"], "the last one is 100%"),
        (["--stages", "10%,1%,100%"], "each stage is larger"),
        (["--stages", "x"], "no share; write 0.5%"),
        (["--max-failures", "5"], "5 is no share; write"),
        (["--poles", "/none"], "cannot be read"),
    ],
)
def test_a_wrong_command_is_told(tmp_path: Path, options: list[str], told: str) -> None:
    ran = call("fleet", "rollout", str(tmp_path), "--root", "r", "--broker", "mqtt://a", *options)
    assert (ran.code, told in ran.err) == (64, True), ran.err

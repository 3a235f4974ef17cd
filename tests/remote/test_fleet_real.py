"""Rollouts to poles with the real confirmed commit, and to thousands of light ones."""

import json
import sys
from pathlib import Path

import pytest

from gateway.remote import document, envelope
from gateway.remote.document import Document
from hil.process import Process
from tests.remote.crowd import Crowd
from tests.remote.office import BAD, NEW, OLD, Office
from tests.remote.real_poles import RealPoles
from tests.remote.test_fleet_rollout import STOPPED, canaries, until

SCRIPT = """
import resource, time
from gateway.__main__ import main
begin = time.monotonic()
try:
    main()
finally:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{time.monotonic() - begin:.1f} s, {usage.ru_utime:.1f} s of CPU, {usage.ru_maxrss // 1024} MB")
"""
TRIAL = {"trial.window_s": 60, "trial.hold_s": 5}


@pytest.mark.parametrize(
    ("count", "faster", "tick_s", "stages"),
    [(8, 60.0, 0.02, "30%,100%"), pytest.param(200, 5.0, 0.5, "5%,50%,100%", marks=pytest.mark.soak)],
)
def test_a_bad_layer_is_run_by_its_share_alone_and_all_are_back(
    office: Office, monkeypatch: pytest.MonkeyPatch, count: int, faster: float, tick_s: float, stages: str
) -> None:
    monkeypatch.setattr("gateway.remote.remote.TICK_S", tick_s)
    monkeypatch.setattr("gateway.remote.prove_way.PAUSE_S", tick_s)
    monkeypatch.setattr("gateway.commands.fleet.shelf.QUIET_S", 0.2)
    monkeypatch.setattr("gateway.commands.fleet.widen.LEAST_S", 0.5)
    monkeypatch.setattr("gateway.commands.fleet.widen.TICK_S", 0.05)
    names = [f"p{n}" for n in range(count)]
    root = (office.folder / "root.json").read_bytes()
    with RealPoles(office.folder / "poles", office.port, names, root, faster=faster, tick_s=tick_s) as poles:
        assert office.publish(office.signed(OLD, 1, **TRIAL)).code == 0
        poles.until(lambda pole: pole.commit.state.of("fleet").active_seq == 1)

        path = office.document(BAD, **TRIAL, **{"rollout.salt": "salt"})
        ran = office.rollout(path, "--stages", stages)
        print(ran.out)  # noqa: T201  # what the operator sees
        assert ran.code == STOPPED, ran.err
        share = canaries(_first(path), names)
        assert share
        assert poles.ever_ran(BAD) <= share
        assert poles.running(OLD) == set(names)
        assert "failed: RB_UPSTREAM: " in ran.out
        assert "no pole runs it" in ran.out
        poles.until(lambda pole: pole.commit.state.of("fleet").active_seq == office.document_there().seq)

        path.with_suffix(".rollout").rename(office.folder / "stopped")
        good = office.rollout(office.document(NEW, **TRIAL, **{"rollout.salt": "salt"}), "--stages", stages)
        print(good.out)  # noqa: T201
        assert good.code == 0, good.err
        assert poles.running(NEW) == set(names)


def _first(path: Path) -> Document:
    sealed = envelope.read((path.with_suffix(".rollout") / "stage-1.json").read_bytes())
    return document.parsed(sealed.payload)


@pytest.mark.soak
def test_thousands_of_poles(office: Office) -> None:
    names = [f"p{n}" for n in range(2000)]
    with Crowd(office.port, names) as crowd:
        path = office.document(NEW)
        command = ["fleet", "rollout", str(path), *office.keys("c1", "c2"), *office.at_broker()]
        assert _timed(office, "rollout", *command) == 0
        assert crowd.running(NEW) == set(names)
        assert _timed(office, "status", "fleet", "status", *office.broker(), "--json") == 0
        counts = json.loads((office.folder / "status.log").read_text().splitlines()[-2])
        assert (counts["poles"], counts["bad"]) == (2000, 0)


def _timed(office: Office, name: str, *arguments: str) -> int:
    """Run a command as a process, and print the time it took and the most memory."""
    log = office.folder / f"{name}.log"
    process = Process([sys.executable, "-c", SCRIPT, *arguments], log)
    process.start()
    until(lambda: not process.running, 600.0)
    print(f"{name} of 2,000 poles: {log.read_text().splitlines()[-1]}")  # noqa: T201  # a figure
    return process.stop()

"""A configuration on trial: what is refused, what is accepted, what is rolled back and when; on the virtual clock."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.config.faults import Fault, SettingsError
from gateway.host.trial_file import TrialFile
from gateway.remote.reload import LOOK_S, Reload
from gateway.words.standing import Echo
from hil.vclock import run

NS = 1_000_000_000
WELL = Echo(taken=True, came_back=True)
DEAD = Echo(taken=False, came_back=False, why="connection refused")
WITHIN_S = {"slow": 200.0, "old": 100.0}
HOUR_S = 3600.0


class Pole:
    """A pole that does as it is told. A configuration is a word.

    Attributes:
        applied: what was applied, and when.
        silent: devices that give nothing under a configuration.
        echoes: what comes of the uplink under it.
        asked_of_the_uplink: whether a new broker must do as well as the old one, at each apply.
        alive: devices that are healthy before.
        patience_s: what each may take.
    """

    def __init__(self, path: Path) -> None:
        self.applied: list[tuple[float, str]] = []
        self.silent: dict[str, set[str]] = {}
        self.echoes: dict[str, Echo] = {}
        self.asked_of_the_uplink: list[bool] = []
        self.alive = frozenset({"a", "b"})
        self.patience_s = 30.0
        self.file = "old"
        self.faults: list[Fault] = []
        self.job: asyncio.Task[None]
        self.trial_file = TrialFile(path / "trial.json")
        self.begin("old")

    def begin(self, running: str) -> None:
        """Start the gateway with a configuration."""
        self.running = running
        self.asked = asyncio.Event()
        self.reload = Reload(
            self,
            running,
            read=self._read,
            cannot=lambda _, new: "the id needs a restart" if new == "other id" else "",
            digest=lambda word: f"#{word}",
            uplink_within=lambda word: WITHIN_S.get(word, 7.0),
            file=self.trial_file,
            now=lambda: round(asyncio.get_running_loop().time() * NS),
        )
        self.job = asyncio.create_task(self.reload.run(self.asked))

    def _read(self) -> str:
        if self.faults:
            raise SettingsError(self.faults)
        return self.file

    async def apply(self, configuration: str, before: Echo) -> None:
        """Run that from now on."""
        self.asked_of_the_uplink.append(before.taken)
        if configuration == "impossible":
            raise OSError("no such adapter")
        self.running = configuration
        self.applied.append((asyncio.get_running_loop().time(), configuration))

    def healthy(self) -> frozenset[str]:
        """Name who is."""
        return self.alive

    def waits_for(self, devices: Collection[str]) -> dict[str, float]:
        """Return who is silent, and what each may take."""
        return {name: self.patience_s for name in devices if name in self.silent.get(self.running, set())}

    async def echo(self) -> Echo:
        """Return what comes of it."""
        await asyncio.sleep(0.1)
        return self.echoes.get(self.running, WELL)

    async def change(self, file: str, after: float = HOUR_S) -> None:
        """Change the file, ask for a reload, and let time pass."""
        self.file = file
        self.asked.set()
        await asyncio.sleep(after)

    @property
    def words(self) -> list[str]:
        """What was applied, in order."""
        return [word for _, word in self.applied]

    def verdict(self) -> tuple[str, str, str]:
        """Return the last one: result, digest, why."""
        assert self.reload.verdict is not None
        return self.reload.verdict[:3]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemd is told."""
    said: list[str] = []
    monkeypatch.setattr("gateway.remote.reload.notify", said.append)
    monkeypatch.setattr("gateway.remote.reload.notify_reloading", lambda: said.append("RELOADING=1"))
    return said


def play(folder: Path, scene: Callable[[Pole], Awaitable[None]]) -> None:
    async def main() -> None:
        pole = Pole(folder)
        try:
            await scene(pole)
        finally:
            pole.job.cancel()
            await asyncio.wait([pole.job])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def remembered(folder: Path) -> Any:  # noqa: ANN401  # any JSON
    path = folder / "trial.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_what_works_is_accepted_as_soon_as_all_have_proved_it(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        pole.silent["new"] = {"b"}
        pole.echoes["new"] = DEAD
        await pole.change("new", 5)
        assert pole.reload.standing().digest == "#new"
        assert pole.reload.standing().trial == pytest.approx(95, abs=LOOK_S)
        assert remembered(tmp_path) == {"digest": "#new", "why": ""}
        assert told == ["RELOADING=1", "READY=1\nSTATUS=configuration #new runs, on trial"]
        pole.silent.clear()
        await asyncio.sleep(5)
        assert pole.reload.verdict is None
        pole.echoes.clear()
        await asyncio.sleep(2 * LOOK_S + 0.1)
        assert pole.verdict() == ("accepted", "#new", "")
        assert pole.reload.standing().trial is None
        assert pole.reload.standing().since == pytest.approx(0.1 * NS)
        assert (pole.words, remembered(tmp_path)) == (["new"], None)
        assert told[2:] == ["STATUS=configuration #new runs"]
        await pole.change("newer")
        pole.silent["newest"] = {"a"}
        await pole.change("newest")
        assert pole.words == ["new", "newer", "newest", "newer"]

    play(tmp_path, scene)


def test_the_same_content_again_changes_nothing_at_all(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        before = pole.reload.standing()
        await pole.change("old")
        assert (pole.applied, pole.reload.standing(), remembered(tmp_path)) == ([], before, None)
        assert told == ["RELOADING=1", "READY=1\nSTATUS=configuration #old runs"]

    play(tmp_path, scene)


def test_a_file_with_faults_is_refused_with_all_of_them_and_what_runs_goes_on(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        pole.faults = [Fault("pole.toml", 3, '"every" must be more than 0, not 0'), Fault("pole.toml", 9, "is missing")]
        with capture_logs() as logs:
            await pole.change("new")
        why = 'pole.toml:3: "every" must be more than 0, not 0 (and 1 more: polegate check)'
        assert pole.verdict() == ("refused", "", why)
        (line,) = logs
        assert line["faults"] == list(map(str, pole.faults))
        assert (pole.applied, pole.reload.standing().digest, remembered(tmp_path)) == ([], "#old", None)
        assert told[1:] == [f"READY=1\nSTATUS=configuration #old runs; the last change: refused, {why}"]
        pole.faults = []
        await pole.change("old")
        assert pole.verdict() == ("accepted", "#old", "")
        assert pole.applied == []

    play(tmp_path, scene)


def test_what_needs_a_restart_is_refused(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        await pole.change("other id")
        assert pole.verdict() == ("refused", "#other id", "the id needs a restart")
        assert pole.applied == []

    play(tmp_path, scene)


def test_a_device_that_gives_nothing_in_its_time_brings_the_old_one_back(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        pole.silent["new"] = {"b"}
        await pole.change("new")
        why = "b gave no values within 30 s, and did before"
        assert pole.verdict() == ("rolled-back", "#new", why)
        (began, _), (back, _) = pole.applied
        assert back - began == pytest.approx(30, abs=2 * LOOK_S)
        assert (pole.words, pole.reload.standing().digest) == (["new", "old"], "#old")
        assert pole.asked_of_the_uplink == [True, False]  # going back must work whatever the old broker does
        assert remembered(tmp_path) == {"digest": "#new", "why": why}
        assert told[-1] == f"STATUS=configuration #old runs; the last change: rolled-back, {why}"

    play(tmp_path, scene)


def test_an_uplink_that_does_not_come_back_in_its_time_brings_the_old_one_back(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        pole.echoes["new"] = DEAD
        await pole.change("new")
        (began, _), (back, _) = pole.applied
        assert back - began == pytest.approx(WITHIN_S["old"], abs=2 * LOOK_S)
        assert pole.verdict() == (
            "rolled-back",
            "#new",
            "the uplink did not come back within 100 s: connection refused",
        )

    play(tmp_path, scene)


def test_the_accepted_one_says_how_long_a_trial_takes(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        pole.echoes["slow"] = DEAD
        await pole.change("slow")
        (began, _), (back, _) = pole.applied
        assert back - began == pytest.approx(WITHIN_S["old"], abs=2 * LOOK_S)

    play(tmp_path, scene)


def test_what_is_published_and_does_not_come_back_is_no_uplink_where_it_did_before(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        pole.echoes["new"] = Echo(taken=True, came_back=False, why="it did not come back")
        await pole.change("new")
        assert pole.words == ["new", "old"]
        pole.echoes["old"] = pole.echoes["new"]  # the broker never let the pole read it
        await pole.change("new")
        assert pole.words == ["new", "old", "new"]
        assert pole.verdict()[0] == "accepted"

    play(tmp_path, scene)


def test_what_was_dead_before_proves_nothing(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        pole.alive = frozenset({"a"})
        pole.silent["new"] = {"b"}
        pole.echoes["old"] = pole.echoes["new"] = DEAD
        await pole.change("new", 1)
        assert pole.verdict() == ("accepted", "#new", "")

    play(tmp_path, scene)


def test_what_cannot_be_applied_is_rolled_back_at_once(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        await pole.change("impossible", 1)
        assert pole.verdict() == ("rolled-back", "#impossible", "it cannot be applied: OSError('no such adapter')")
        assert (pole.words, pole.reload.standing().digest) == (["old"], "#old")

    play(tmp_path, scene)


def test_another_one_during_a_trial_begins_a_trial_and_what_comes_back_is_the_last_accepted(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        pole.silent |= {"new": {"a"}, "newer": {"a"}}
        await pole.change("new", 20)
        pole.alive = frozenset({"b"})  # for now: what was well before the first counts
        await pole.change("newer")
        assert pole.words == ["new", "newer", "old"]
        (_, (began, _), (back, _)) = pole.applied
        assert back - began == pytest.approx(30, abs=2 * LOOK_S)
        assert pole.verdict()[:2] == ("rolled-back", "#newer")

    play(tmp_path, scene)


def test_the_old_file_during_a_trial_ends_it(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        pole.silent["new"] = {"a"}
        await pole.change("new", 20)
        await pole.change("old", 1)
        assert pole.words == ["new", "old"]
        assert pole.verdict() == ("accepted", "#old", "")
        assert (pole.reload.standing().trial, remembered(tmp_path)) == (None, None)

    play(tmp_path, scene)


@pytest.mark.parametrize("fault", [True, False])
def test_a_faulty_file_or_the_same_during_a_trial_does_not_touch_it(tmp_path: Path, fault: bool) -> None:  # noqa: FBT001
    async def scene(pole: Pole) -> None:
        pole.silent["new"] = {"a"}
        await pole.change("new", 20)
        pole.faults = [Fault("pole.toml", 1, "no")] if fault else []
        await pole.change("new", 5)
        assert pole.reload.standing().trial == pytest.approx(5, abs=1)
        await asyncio.sleep(HOUR_S)
        assert pole.words == ["new", "old"]
        assert pole.applied[1][0] - pole.applied[0][0] == pytest.approx(30, abs=2 * LOOK_S)

    play(tmp_path, scene)


def test_who_starts_with_what_was_rolled_back_says_so_until_a_reload_is_accepted(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        pole.silent["new"] = {"b"}
        await pole.change("new")
        pole.job.cancel()
        await asyncio.wait([pole.job])
        with capture_logs() as logs:
            pole.begin("new")
        result, digest, why = pole.verdict()
        assert (result, digest) == ("rolled-back", "#new")
        assert why.startswith("it was rolled back (b gave no values within 30 s")
        assert why.endswith("and runs because the gateway was started with it")
        assert [line["log_level"] for line in logs] == ["error"]
        pole.applied.clear()
        await pole.change("new")
        assert (pole.verdict()[0], pole.applied, remembered(tmp_path)) == ("accepted", [], None)

    play(tmp_path, scene)


def test_who_is_killed_in_a_trial_says_so_when_it_starts_with_that_and_not_with_another(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        pole.silent["new"] = {"b"}
        await pole.change("new", 5)
        for running, verdict in (("other", None), ("new", "unproven")):
            pole.job.cancel()
            await asyncio.wait([pole.job])
            pole.begin(running)
            assert pole.reload.verdict is None if verdict is None else pole.verdict()[0] == verdict
        assert pole.verdict()[2] == "the gateway ended while it was on trial, and was started with it"

    play(tmp_path, scene)


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b'{"digest": "#old"}', b"\xff\xfe", b"null"])
def test_a_damaged_memory_of_trials_says_nothing_and_stops_nobody(tmp_path: Path, said: bytes) -> None:
    (tmp_path / "trial.json").write_bytes(said)

    async def scene(pole: Pole) -> None:
        assert pole.reload.verdict is None
        await pole.change("new")
        assert pole.verdict()[0] == "accepted"
        assert remembered(tmp_path) is None

    play(tmp_path, scene)


def test_a_disk_that_refuses_keeps_no_trial_back(tmp_path: Path) -> None:
    async def scene(pole: Pole) -> None:
        pole.trial_file = TrialFile(tmp_path / "nowhere" / "trial.json")
        pole.job.cancel()
        pole.begin("old")
        pole.silent["new"] = {"b"}
        with capture_logs() as logs:
            await pole.change("new")
        assert pole.words == ["new", "old"]
        assert any(line["event"] == "what is tried cannot be stored" for line in logs)

    play(tmp_path, scene)

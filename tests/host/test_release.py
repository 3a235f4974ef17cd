"""A release from within: how it proves healthy, what is told of it, and that it waits for no file it does not know."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.commands.run import command as run_command
from gateway.host import release
from gateway.host.release import GivenUp, Releases
from gateway.jobs.pole_state import VERSION
from gateway.jobs.prove_release import LOOK_S, PROVED_S, prove_release
from gateway.jobs.tell_watchdog import Watched
from hil.vclock import run
from tests.commands.cli_scene import call
from tests.host.test_release_script import Disk

EX_CONFIG = 78
Wear = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A machine with a release that has proved healthy, and a newer one."""
    disk = Disk(tmp_path / "disk")
    monkeypatch.setattr(release, "ROOT", disk.root)
    monkeypatch.setenv("STATE_DIRECTORY", str(disk.mark.parent))
    disk.install("1.0")
    disk.prove("1.0")
    disk.install("1.1")
    return disk


@pytest.fixture
def wear(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Wear:
    """Give a function that makes this process one of a release."""
    return lambda name: monkeypatch.setattr(release, "CODE", disk.releases / name)


def test_a_checkout_is_no_release_and_has_nothing_to_prove() -> None:
    assert release.own() == ""
    assert release.is_proved() is True
    assert not release.is_on_trial()


def test_what_the_script_writes_is_what_is_read(disk: Disk, wear: Wear) -> None:
    wear("1.1")
    assert release.look() == Releases("1.1", "1.0")
    assert not release.is_on_trial()
    for start in range(1, 4):
        disk.run("start")
        assert release.look() == Releases("1.1", "1.0", starts=start)
        assert release.is_on_trial()
        disk.run("stop", result="watchdog")
    disk.run("start")
    there = release.look()
    assert there.given_up is not None
    assert there == Releases("1.0", "", given_up=GivenUp("1.1", "1.0", there.given_up.at, "watchdog"))
    assert not release.is_on_trial()


def test_what_the_gateway_notes_is_what_the_script_reads(disk: Disk, wear: Wear) -> None:
    wear("1.1")
    disk.run("start")
    assert release.is_proved() is False
    release.prove()
    assert release.is_proved() is True
    assert not release.is_on_trial()
    for _ in range(5):
        disk.crash()
    assert disk.code() == "1.1"


@pytest.mark.parametrize("content", ["", "1.1", "1.1 1.0 yesterday exit-code", "\xff"])
def test_what_is_not_understood_counts_as_not_there(disk: Disk, content: str) -> None:
    (disk.state / "given-up").write_text(content, encoding="latin-1")
    (disk.state / "starts").write_text(content, encoding="latin-1")
    assert release.look() == Releases("1.1", "1.0")


def watched(**counts: int) -> list[Watched]:
    return [Watched(name, count, 1.0) for name, count in counts.items()]


def test_healthy_is_what_ran_for_minutes_and_in_which_every_job_came_on() -> None:
    counts = {"buffer": 1, "device": 0}
    proved: list[float] = []

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        proving = asyncio.create_task(prove_release(lambda: watched(**counts), lambda: proved.append(loop.time())))
        began = loop.time()
        await asyncio.sleep(PROVED_S * 3)
        assert not proving.done()
        counts["device"] = 1
        await proving
        assert proved == [loop.time()]
        assert loop.time() - began <= PROVED_S * 3 + LOOK_S
        counts["device"] = 2
        began = loop.time()
        await prove_release(lambda: watched(**counts), lambda: proved.append(loop.time()))
        assert loop.time() - began == PROVED_S

    run(scene())


def test_a_disk_that_refuses_is_told_once_and_asked_again() -> None:
    tries: list[None] = []

    def prove() -> None:
        tries.append(None)
        if len(tries) < 4:
            raise OSError("no space left")

    with capture_logs() as logs:
        run(prove_release(lambda: watched(buffer=1), prove))
    assert [entry["log_level"] for entry in logs] == ["warning", "info"]
    assert len(tries) == 4


def test_version_tells_which_release_runs_and_which_was_given_up(disk: Disk, wear: Wear) -> None:
    wear("1.1")
    ours = f"polegate {VERSION}\n"
    assert call("version")[:2] == (0, f"{ours}current   1.1\nprevious  1.0\n")
    disk.run("start")
    assert call("version")[:2] == (0, f"{ours}current   1.1, on trial: start 1 of 3\nprevious  1.0\n")
    release.prove()
    assert call("version")[:2] == (0, f"{ours}current   1.1\nprevious  1.0\n")
    disk.prove("1.0")
    disk.run("stop", result="oom-kill")
    for _ in range(3):
        disk.crash("oom-kill")
    code, out, _ = call("version")
    assert code == 1
    assert out.startswith(f"{ours}current   1.0\ngiven up  1.1, 2")
    assert "it did not prove healthy in three starts; the last ended with oom-kill\n" in out
    assert out.endswith("dpkg still names 1.1. Why it failed: journalctl -u polegate. Then install another release.\n")


def test_version_is_of_use_where_there_are_no_releases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(release, "ROOT", tmp_path)
    assert call("version") == (0, f"polegate {VERSION}\n", "")


@pytest.mark.parametrize("trial", [True, False])
def test_a_new_release_does_not_wait_for_a_file_that_the_one_before_may_know(
    disk: Disk, wear: Wear, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, trial: bool
) -> None:
    wear("1.1")
    disk.run("start")
    if not trial:
        release.prove()
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setattr("gateway.host.log.start", lambda: None)
    waited: list[Path] = []

    async def wait_for(path: Path, _tell: object) -> None:
        waited.append(path)

    monkeypatch.setattr("gateway.commands.run_wait.wait_for", wait_for)
    path = tmp_path / "pole.toml"
    assert run_command.main(["--config", str(path)], standalone_mode=False) == 0
    path.write_text("# nothing yet\n")
    assert run_command.main(["--config", str(path)], standalone_mode=False) == 0
    assert waited == [path, path]  # there is none, or nothing in it: nothing that another release could know
    path.write_text('[pole]\nid = "pole-7"\nnever_heard_of = 1\n')
    code = run_command.main(["--config", str(path)], standalone_mode=False)
    assert (code, waited) == ((EX_CONFIG, [path] * 2) if trial else (0, [path] * 3))

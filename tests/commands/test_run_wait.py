"""``polegate run`` as a service that has no configuration, or one with faults: it says so, and waits for it."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.commands.run_wait import last_good, wait_for
from gateway.config.settings import Settings
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import LOCAL, Standing, State
from hil.daemon import Daemon

BROUGHT = Path(__file__).parents[2] / "systemd/debian/pole.toml"  # by the package
BROUGHT_SHA256 = "27c58d62af809617e81ce20661622012ca6bae1fea67f877130b3fd0457b7b46"
NOTHING = 'holds no setting; the least is [pole] with its "id" and [uplink] with its "url"'
SOUND = '[pole]\nid = "pole-7"\n[uplink]\nurl = "mqtt://127.0.0.1:1"\n[buffer]\npath = "{}/buffer.db"\n'
ROOT = b'[buffer]\npath = "/"\n'
LIMIT_S = 60.0

Hear = Callable[[], str]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(LIMIT_S)
        yield listening


@pytest.fixture
def hear(manager: socket.socket) -> Hear:
    """Give a function that returns what is told next, but for the watchdog."""

    def hear() -> str:
        while (told := manager.recv(4096).decode()) == "WATCHDOG=1":
            pass
        return told

    return hear


@pytest.fixture
def service(tmp_path: Path, manager: socket.socket) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, env={"NOTIFY_SOCKET": str(manager.getsockname()), "WATCHDOG_USEC": "600000"})
    yield daemon
    daemon.kill()


def write(path: Path, text: str) -> None:
    """Write a file as an editor does: nobody sees half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def events(service: Daemon) -> list[dict[str, str]]:
    return [json.loads(line) for line in service.output().splitlines() if line.startswith("{")]


def test_what_is_not_provisioned_says_so_and_works_from_the_moment_it_is(
    service: Daemon, hear: Hear, manager: socket.socket, tmp_path: Path
) -> None:
    service.start()
    assert hear() == f"READY=1\nSTATUS=not provisioned: {service.config}: is not there; it is taken once it is written"
    for _ in range(10):
        assert manager.recv(4096) == b"WATCHDOG=1"
    pid = service.pid

    write(service.config, "[pole]\n[uplik]\n")
    status = f"READY=1\nSTATUS=waits for a configuration without faults: {service.config}"
    assert hear() == f'{status}: section [uplink] is missing; it needs "url" (and 2 more, see the log)'
    faults = [event["fault"] for event in events(service) if event["event"] == "the configuration has a fault"]
    assert len(faults) == 3
    assert any("uplik" in fault for fault in faults)

    write(service.config, SOUND.format(tmp_path))
    assert hear() == "READY=1\nSTATUS=running"
    assert service.pid == pid
    assert service.stop() == 0
    assert hear() == "STOPPING=1"


def test_what_the_package_brings_is_not_provisioned_until_it_is_edited(
    service: Daemon, hear: Hear, tmp_path: Path
) -> None:
    shutil.copy(BROUGHT, service.config)
    service.start()
    waits = f"READY=1\nSTATUS=not provisioned: {service.config}: {NOTHING}; it is taken once it is written"
    assert hear() == waits
    pid = service.pid
    assert [event["event"] for event in events(service)] == ["not provisioned: there is no configuration"]

    write(service.config, BROUGHT.read_text() + "[pole")
    assert "STATUS=waits for a configuration without faults" in hear()
    write(service.config, BROUGHT.read_text())
    assert hear() == waits
    write(service.config, BROUGHT.read_text() + SOUND.format(tmp_path))
    os.kill(pid, signal.SIGHUP)
    assert hear() == "READY=1\nSTATUS=running"
    assert service.pid == pid
    write(service.config, BROUGHT.read_text())
    os.kill(pid, signal.SIGHUP)
    assert hear().startswith("RELOADING=1")
    assert f"the last change: refused, SEMANTIC: {service.config}: holds no setting" in hear()


def test_what_the_package_brings_is_the_same_in_every_release() -> None:
    """Else dpkg would ask about it on every pole, and an upgrade over the air waits for an answer."""
    assert hashlib.sha256(BROUGHT.read_bytes()).hexdigest() == BROUGHT_SHA256


def test_a_signal_ends_the_wait(service: Daemon, hear: Hear) -> None:
    service.start()
    hear()
    assert service.stop() == 0
    assert hear() == "STOPPING=1"
    assert not service.database.exists()


def test_sighup_has_the_file_looked_at_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.commands.run_wait.LOOK_S", 1e6)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    path = tmp_path / "pole.toml"

    async def main() -> Settings | None:
        ready = asyncio.Event()
        waiting = asyncio.create_task(wait_for(path, lambda _: ready.set()))
        async with asyncio.timeout(LIMIT_S):
            await ready.wait()
        path.write_text(SOUND.format(tmp_path))
        os.kill(os.getpid(), signal.SIGHUP)
        return await waiting

    settings = asyncio.run(main())
    assert settings is not None
    assert settings.root.pole.id == "pole-7"


def test_the_same_faults_are_told_once(service: Daemon, hear: Hear, manager: socket.socket) -> None:
    service.config.write_text("[pole]\n")
    service.start()
    hear()
    for _ in range(6):
        assert manager.recv(4096) == b"WATCHDOG=1"
    told = [event for event in events(service) if event["event"] == "the configuration has a fault"]
    assert len(told) == len({event["fault"] for event in told})


def test_a_pole_that_ran_goes_on_with_what_was_in_force_though_the_file_has_faults(
    service: Daemon, hear: Hear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = SOUND.format(tmp_path)
    service.config.write_text(sound)
    assert last_good(service.config) is None
    service.start()
    assert hear() == "READY=1\nSTATUS=running"
    assert service.stop() == 0
    hear()
    write(service.config, "[pole")  # it is looked for where it is by default
    monkeypatch.setattr("gateway.commands.run_wait.BufferSettings", lambda: SimpleNamespace(path=tmp_path / "b"))
    assert last_good(service.config) is not None
    write(service.config, f'\ufeff[pole]\n[buffer]\npath = "{tmp_path}/buffer.db"\n')  # as Windows editors begin a file
    service.start()
    assert hear() == "READY=1\nSTATUS=running"
    status = hear()
    assert "the last change: refused, SEMANTIC: " in status
    assert "section [uplink] is missing" in status
    write(service.config, sound)
    os.kill(service.pid, signal.SIGHUP)
    assert hear().startswith("RELOADING=1")
    assert "refused" not in hear()


def test_a_pole_that_ran_goes_on_though_the_file_is_no_text(service: Daemon, hear: Hear, tmp_path: Path) -> None:
    sound = SOUND.format(tmp_path)
    service.config.write_text(sound)
    service.start()
    hear()
    assert service.stop() == 0
    hear()
    service.config.write_bytes(f"# Königstraße\n{sound}".encode("latin-1"))
    service.start()
    assert hear() == "READY=1\nSTATUS=running"
    assert f"refused, SEMANTIC: {service.config}:1: byte f6 is not UTF-8; save the file as UTF-8; what is" in hear()


@pytest.mark.parametrize(
    "bad",
    [
        "{}[pole\n",
        "[pole\n{}",
        "[buffer\n{}",
        "{}# \xff\n",
        "{}x = 1\n",
        "{}a = " + "[" * 10_000,
        "{}#" + "." * 300_000,
        '[remote]\nnot so\nstate = "{folder}/config"\n[pole\n',
        '[pole]\nnote = """\n[remote]\nstate = "/elsewhere"\n"""\n[remote]\nstate = """\n{folder}/config"""\n',
    ],
)
def test_where_it_lies_what_was_in_force_is_found_in_any_file(tmp_path: Path, bad: str) -> None:
    path, sound = tmp_path / "pole.toml", SOUND.format(tmp_path)
    folder = ConfigFolder(tmp_path / "config")
    sha = folder.keep(sound.encode())
    folder.save(State().with_stream(LOCAL, Standing(sha=sha, active=sha)))
    path.write_bytes(bad.format(sound, folder=tmp_path).encode("latin-1"))
    settings = last_good(path)
    assert settings is not None
    assert settings.root.pole.id == "pole-7"


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        b"\xff",
        b"buffer = 1\nremote = 2\n",
        b"[buffer]\npath = 3\n",
        b'[buffer]\npath = "/"',
        b'[buffer]\npath = "\\u0000"',
    ],
)
def test_what_was_in_force_is_not_known_where_no_file_says_where_it_lies(tmp_path: Path, garbage: bytes | None) -> None:
    path = tmp_path / "pole.toml"
    if garbage is not None:
        path.write_bytes(garbage)
    assert last_good(path) is None

"""What systemd is told, over its socket; and that it never keeps the gateway waiting."""

import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.host.notify import notify, notify_reloading
from tests.sensors.stage import open_files


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = f"@polegate-{uuid.uuid4()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listening


def test_a_state_arrives_as_one_datagram(manager: socket.socket) -> None:
    notify("READY=1")
    notify("STATUS=12 packs wait\nWATCHDOG=1")
    assert manager.recv(4096) == b"READY=1"
    assert manager.recv(4096) == b"STATUS=12 packs wait\nWATCHDOG=1"


def test_a_manager_that_does_not_read_costs_nothing(manager: socket.socket) -> None:
    files = open_files()
    for _ in range(10_000):  # its queue is full after a few hundred
        notify("WATCHDOG=1")
    assert open_files() == files
    assert manager.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody-listens", "x" * 300, "relative"])
def test_nobody_at_the_address_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


@pytest.mark.parametrize("address", [None, ""])
def test_without_systemd_nothing_is_done(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr("gateway.host.notify.socket", None)
    notify("READY=1")


def test_a_process_that_may_open_no_more_files_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setattr("gateway.host.notify.socket.socket", refuse)
    notify("WATCHDOG=1")


def test_a_reload_is_told_with_the_time_that_systemd_compares(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    notify_reloading()
    word, stamp = manager.recv(4096).decode().split("\n")
    assert word == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000

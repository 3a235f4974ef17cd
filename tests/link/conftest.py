"""Brokers with TLS that hurry, and authorities."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.broker import Broker as Mosquitto
from hil.broker import mosquitto
from tests.link.mosquitto_scene import Lab
from tests.link.pki import Authority


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Give a function that starts a broker; reconnects and looks at the files hurry."""
    monkeypatch.setattr("gateway.link.uplink.FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("gateway.link.uplink.LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr("gateway.link.uplink.FEW_MINUTES_S", 0.2)
    monkeypatch.setattr("gateway.link.uplink.LOOK_S", 0.05)
    with contextlib.ExitStack() as stack:

        def start(extra: str = "", web: str | None = None) -> Mosquitto:
            folder = tmp_path / "mosquitto"
            folder.mkdir()
            broker = mosquitto(folder, extra, web)
            broker.start()
            stack.callback(broker.stop)
            return broker

        yield start


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "other")

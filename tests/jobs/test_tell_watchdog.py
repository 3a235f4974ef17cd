"""The watchdog: fed while every job makes progress, whatever the world is like, and no longer."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from drivers.contract import NoReply, Values
from gateway.config.settings_file import load
from gateway.host.notify import watchdog_s
from gateway.jobs import progress
from gateway.jobs.tell_watchdog import FEEDS, Watched, tell_watchdog
from gateway.link.uplink import LONGEST_ROUND_S, Uplink
from gateway.sensors.poll import poll
from hil.broker import free_port
from hil.daemon import Daemon
from hil.scripted_broker import NOTHING, Accept, Close, Deed, Refuse, ScriptedBroker
from hil.vclock import run
from tests.link.broker_scene import WILL, play, where
from tests.sensors.stage import Shelf
from tests.sensors.test_poll import Actor, NoPort

PERIOD_S = 60.0
DAY_S = 86_400.0
LIMIT_S = 60.0

Told = list[tuple[float, str]]


@contextlib.asynccontextmanager
async def feeding(watched: Callable[[], list[Watched]]) -> AsyncIterator[Told]:
    told: Told = []
    loop = asyncio.get_running_loop()
    job = asyncio.create_task(tell_watchdog(watched, lambda state: told.append((loop.time(), state)), PERIOD_S))
    try:
        yield told
        assert not job.done()
    finally:
        job.cancel()
        await asyncio.wait([job])


def fed(told: Told) -> list[float]:
    return [at for at, state in told if state == "WATCHDOG=1"]


def longest_gap(told: Told, end: float) -> float:
    times = [*fed(told), end]
    return max(after - before for before, after in itertools.pairwise(times))


def device_that(act: Callable[[], Coroutine[Any, Any, Values]]) -> Actor:
    device = Actor(id="actor", driver="actor", port="bus", every=10.0)
    device._act = act  # noqa: SLF001  # ours
    return device


async def polled_for(seconds: float, act: Callable[[], Coroutine[Any, Any, Values]]) -> Told:
    """Poll a device, and watch over that."""
    device = device_that(act)
    shelf = Shelf(device)
    job = asyncio.create_task(poll(device, NoPort(), shelf.account))
    within = progress._longest(device, [device])  # noqa: SLF001  # the bound that the gateway has
    async with feeding(lambda: [Watched("device actor", shelf.health.looks, within)]) as told:
        await asyncio.sleep(seconds)
    job.cancel()
    await asyncio.wait([job])
    return told


def test_a_device_that_never_answers_is_looked_at_and_that_is_progress() -> None:
    async def nothing() -> Values:
        await asyncio.sleep(1)
        raise NoReply("nothing")

    told = run(polled_for(DAY_S, nothing))
    assert longest_gap(told, DAY_S) <= PERIOD_S / FEEDS
    assert not [state for _, state in told if state != "WATCHDOG=1"]


def test_a_device_that_has_nothing_to_tell_is_looked_at_too() -> None:
    async def empty() -> Values:
        return {}

    assert longest_gap(run(polled_for(DAY_S, empty)), DAY_S) <= PERIOD_S / FEEDS


def test_a_poll_that_never_ends_is_named_and_the_watchdog_starves() -> None:
    looks = 0

    async def stuck() -> Values:
        nonlocal looks
        looks += 1
        if looks > 3:
            await asyncio.Event().wait()
        return {"level": looks}

    with capture_logs() as logs:
        told = run(polled_for(DAY_S, stuck))
    last = fed(told)[-1]
    assert 600 < last < 1200
    assert told[-1] == (last + PERIOD_S / FEEDS, "STATUS=stuck: device actor; starting anew soon")
    assert [line["stuck"] for line in logs if line["log_level"] == "critical"] == ["device actor"]


def test_what_goes_on_after_all_is_fed_again() -> None:
    async def main() -> Told:
        counts = [0, 0]
        async with feeding(lambda: [Watched("one", counts[0], 100), Watched("two", counts[1], 200)]) as told:
            await asyncio.sleep(250)
            counts[0] += 1
            await asyncio.sleep(50)
            counts[1] += 1
            await asyncio.sleep(50)
        return told

    told = run(main())
    assert [state for _, state in told if state != "WATCHDOG=1"] == [
        "STATUS=stuck: one; starting anew soon",
        "STATUS=stuck: one, two; starting anew soon",
        "STATUS=stuck: two; starting anew soon",
        "STATUS=running",
    ]
    assert [at for at in fed(told) if 120 <= at < 300] == []
    assert fed(told)[-1] == 340


def test_a_job_that_is_taken_away_is_not_waited_for() -> None:
    async def main() -> Told:
        jobs = [Watched("old", 0, 100)]
        async with feeding(lambda: jobs) as told:
            await asyncio.sleep(90)
            jobs[:] = [Watched("new", 0, 100)]
            await asyncio.sleep(90)
        return told

    assert longest_gap(run(main()), 180) <= PERIOD_S / FEEDS


@pytest.mark.parametrize("deed", [Close(), NOTHING, Refuse(0x87), Refuse(0x88)], ids=str)
def test_a_broker_that_is_away_for_a_day_lets_nobody_starve(deed: Deed) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: deed
        await _watch_uplink(broker, DAY_S)

    play(scene)


def test_nor_does_one_that_is_there_and_has_nothing_to_say() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: Accept()
        await _watch_uplink(broker, DAY_S / 12)

    play(scene)


async def _watch_uplink(broker: ScriptedBroker, seconds: float) -> None:
    uplink = Uplink(where(broker.port), WILL)
    running = asyncio.create_task(uplink.run())
    async with feeding(lambda: [Watched("uplink", uplink.rounds, LONGEST_ROUND_S)]) as told:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
    assert longest_gap(told, began + seconds) <= PERIOD_S / FEEDS
    running.cancel()
    await asyncio.wait([running])
    await uplink.close()


@pytest.mark.parametrize(
    ("period", "process", "expected"),
    [("60000000", None, 60.0), ("500000", "own", 0.5), ("60000000", "1", None), (None, None, None)],
)
def test_the_period_is_what_systemd_says_to_this_very_process(
    monkeypatch: pytest.MonkeyPatch, period: str | None, process: str | None, expected: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", period), ("WATCHDOG_PID", process)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert watchdog_s() == expected


def test_every_device_of_the_example_has_a_bound_above_its_own_pauses() -> None:
    settings = load(Path(__file__).parents[2] / "config" / "pole.toml")
    bounds = {device.id: progress._longest(device, settings.devices) for device in settings.devices}  # noqa: SLF001  # the same
    assert all(600 < bound < 100_000 for bound in bounds.values()), bounds


# The process as a whole. A driver of somebody else's brings the faults.

PLUGIN = """
    import time
    from pathlib import Path
    from typing import ClassVar, Literal
    from drivers.contract import Asked, Channel

    class Faulty(Asked):
        driver: Literal["faulty"]
        MAKE: ClassVar = "nobody's"
        DATASET: ClassVar = "air"
        CHANNELS: ClassVar = {"level": Channel("level", "m")}

        def decode(self, frame: bytes) -> dict:
            return {}

        async def poll(self, port: object) -> dict:
            while Path("HANG").exists():
                time.sleep(0.01)
            return {"level": 1.0}
"""
CONFIG = """\
[pole]
id = "pole-7"
[uplink]
url = "mqtt://127.0.0.1:{port}"
[buffer]
path = "{folder}/buffer.db"
[port.bus]
path = "tcp://127.0.0.1:{port}"
[[device]]
id = "one"
driver = "faulty"
port = "bus"
every = 0.1
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(LIMIT_S)
        yield listening


@pytest.fixture
def daemon(tmp_path: Path, manager: socket.socket) -> Iterator[Daemon]:
    del manager
    plugin = tmp_path / "plugin"
    (plugin / "faulty-1.dist-info").mkdir(parents=True)
    (plugin / "faulty-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    (plugin / "faulty-1.dist-info" / "entry_points.txt").write_text("[polegate.drivers]\nfaulty = faulty:Faulty\n")
    (plugin / "faulty.py").write_text(textwrap.dedent(PLUGIN).replace("HANG", str(tmp_path / "hang")))
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000", "PYTHONPATH": str(plugin)}
    daemon = Daemon(tmp_path, env=env)
    daemon.config.write_text(CONFIG.format(port=free_port(), folder=tmp_path))
    daemon.start()
    yield daemon
    daemon.kill()


def _hear_all(manager: socket.socket) -> None:
    give_up = time.monotonic() + LIMIT_S
    while time.monotonic() < give_up:
        manager.recv(4096)


def test_a_healthy_gateway_feeds_though_the_broker_is_away_and_a_hung_one_says_where_when_it_is_ended(
    daemon: Daemon, manager: socket.socket, tmp_path: Path
) -> None:
    told: list[str] = []
    give_up = time.monotonic() + LIMIT_S
    while told.count("WATCHDOG=1") < 20:  # no broker was ever there
        told.append(manager.recv(4096).decode())
        assert time.monotonic() < give_up, told
    assert "READY=1\nSTATUS=running" in told
    assert set(told) == {"WATCHDOG=1", "READY=1\nSTATUS=running"}

    (tmp_path / "hang").touch()
    manager.settimeout(2.0)  # seven times its period
    with pytest.raises(TimeoutError):
        _hear_all(manager)
    assert daemon.running
    assert daemon.stop(signal.SIGABRT) == -signal.SIGABRT  # as systemd does
    said = daemon.output()
    assert "Fatal Python error: Aborted" in said
    assert "faulty.py" in said
    assert "in poll" in said

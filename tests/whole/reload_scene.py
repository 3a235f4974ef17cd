"""A pole whose file is changed while it runs: meters on TCP, two on one RS-485 pair, a broker with and without TLS."""

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hil import broker
from hil.daemon import Daemon
from hil.modbus_tcp import ModbusTcp
from hil.receiver import Heard, Receiver
from hil.rs485 import Rs485
from hil.twins.modbus import noise, sdm630
from hil.wire import Wire
from tests.link.pki import Authority
from tests.whole.bench_pole import METER

POLE = "test-pole"
METERS = 3
EVERY_S = 1.0
MISSED = 1.75  # intervals between two readings where a poll is missing; one may be late
ROOMY_S = 30.0  # for what works, on a busy machine

HEAD = """\
[pole]
id = "{pole}"
[uplink]
url = "{url}"
ca_file = "{ca}"
[buffer]
path = "{folder}/buffer.db"
[reload]
uplink_within = {uplink_within}
device_within = {device_within}
hold = 0.5
[dataset.energy]
send_every = 0.2
commit_within = 0.5
[dataset.noise]
send_every = 0.2
commit_within = 0.5
[port.pair]
path = "{folder}/pair"
baud = 9600
"""
NOISE = """
[[device]]
id = "noise-{unit}"
driver = "modbus"
port = "pair"
unit = {unit}
profile = "rs485-noise-meter"
every = {every}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a test works with."""

    daemon: Daemon
    receiver: Receiver
    heard: Heard
    meters: list[ModbusTcp]
    pair: Rs485
    authority: Authority
    marks: list[Any] = field(default_factory=list)

    def edit(self, old: str, new: str) -> None:
        """Change the file."""
        text = self.daemon.config.read_text()
        assert text.count(old) == 1, old
        self.daemon.config.write_text(text.replace(old, new))

    def reload(self) -> None:
        """Ask for it, as systemctl does."""
        os.kill(self.daemon.pid, signal.SIGHUP)

    def configuration(self) -> dict[str, Any]:
        """Return what the pole tells of its configuration."""
        told: dict[str, Any] = (self.daemon.status() or {}).get("configuration", {})
        return told

    async def judged(self, result: str, *, within: float = 15.0) -> dict[str, Any]:
        """Wait for a verdict other than the last one, and return it."""
        before = self.marks[-1] if self.marks else None
        await self.until(lambda: self.configuration().get("last", before) != before, within)
        told = self.configuration()
        self.marks.append(told["last"])
        assert told["last"]["result"] == result, told
        assert "trial" not in told
        return told

    async def until(self, true: Callable[[], bool], within: float = 15.0) -> None:
        """Wait for something outside this process."""
        give_up = time.monotonic() + within
        while not await asyncio.to_thread(true):
            assert time.monotonic() < give_up, self.daemon.output()[-3000:]
            await asyncio.sleep(0.05)

    async def good(self, device: str, more: int = 2) -> None:
        """Wait until a device has given some more values."""
        begin = self.counts(device)
        await self.until(lambda: self.counts(device) >= begin + more)

    def counts(self, device: str) -> int:
        """Return how many looks gave values."""
        return int((self.daemon.status() or {}).get("devices", {}).get(device, {}).get("good", 0))

    def steps(self, device: str) -> list[float]:
        """Return how long after each other readings were taken, in intervals."""
        channel = "voltage_l1" if device.startswith("meter") else "sound_level"
        times = sorted({r.time for r in self.heard.records if r.name == f"{POLE}/{device}/{channel}"})
        return [(after - before) / EVERY_S for before, after in itertools.pairwise(times)]

    async def all_is_well(self, unchanged: list[str]) -> None:
        """Prove that these devices missed nothing, and that nothing committed was lost."""
        for device in unchanged:
            await self.good(device, 1)
        await self.until(lambda: not self.heard.holes() and bool(self.heard.packs))
        for device in unchanged:
            assert max(self.steps(device)) < MISSED, device
        for number, meter in enumerate(self.meters):
            assert meter.connects == 1 or f"meter-{number}" not in unchanged
        epochs = {epoch for packs in self.heard.packs.values() for epoch, _ in packs}
        assert epochs == {1}


@contextlib.asynccontextmanager
async def scene(folder: Path, *, within: float = ROOMY_S, tls: bool = False) -> AsyncIterator[Scene]:
    """Start all, and wait until every device has given values and the first packs have come.

    Args:
        folder: where all of it lies.
        within: seconds that a trial may take.
        tls: the pole speaks it.
    """
    authority = Authority(folder)
    pair_of_keys = authority.issue("127.0.0.1", file="broker")
    tls_port = broker.free_port()
    mosquitto = broker.mosquitto(folder, f"listener {tls_port} 127.0.0.1\n{pair_of_keys.lines}")
    mosquitto.start()
    meters = [ModbusTcp([sdm630(1, seed=number)]) for number in range(METERS)]
    for meter in meters:
        await meter.start()
    pair = Rs485(Wire(folder / "pair"), [noise(1), noise(2)], baud=9600)
    pair.plug()
    daemon = Daemon(folder)
    text = HEAD.format(
        pole=POLE,
        url=f"mqtts://127.0.0.1:{tls_port}" if tls else f"mqtt://127.0.0.1:{mosquitto.port}",
        ca=authority.cert,
        folder=folder,
        uplink_within=within,
        device_within=within,
    )
    if not tls:
        text = text.replace(f'ca_file = "{authority.cert}"\n', "")
    text += "".join(METER.format(n=n, port=meter.port, every=EVERY_S) for n, meter in enumerate(meters))
    text += "".join(NOISE.format(unit=unit, every=EVERY_S) for unit in (1, 2))
    daemon.config.write_text(text)
    try:
        with Receiver(mosquitto.port) as receiver:
            daemon.start()
            it = Scene(daemon, receiver, receiver.heard(POLE), meters, pair, authority)
            for device in ("meter-0", "meter-1", "meter-2", "noise-1", "noise-2"):
                await it.good(device, 1)
            await it.until(lambda: {"energy", "noise"} <= it.heard.packs.keys())
            yield it
    finally:
        await asyncio.to_thread(daemon.stop)
        for meter in meters:
            await meter.close()
        pair.close()
        mosquitto.stop()

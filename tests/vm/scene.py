"""What stands around the guest, on the test machine: a broker and the way to it, meters that count, a receiver."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hil import broker
from hil.faults import Faults
from hil.modbus_tcp import ModbusTcp
from hil.receiver import Heard, Receiver
from hil.relay import Relay
from hil.twins.modbus import HOLDING, ModbusSlave, Registers
from tests.vm.guest import HOST, LOOK_S, Guest

POLE = "pole-7"
PACE_S = 0.5
COMMIT_WITHIN_S = 1.0
SLACK_S = 2.0  # from an answer on the test machine to its reading in a guest whose processor is emulated
LIMIT_S = 180.0
METERS = 3

HEAD = """\
[pole]
id = "{pole}"
[uplink]
url = "mqtt://{host}:{port}"
[dataset.counts]
send_every = {pace}
commit_within = {within}
"""
METER = """
[port.meter-{n}]
path = "tcp://{host}:{port}"
[[device]]
id = "meter-{n}"
driver = "modbus"
port = "meter-{n}"
profile = "counter"
every = 0.2
timeout = 10.0
"""
PROFILE = """\
maker = "nobody"
model = "counter"
source = "counts its answers, so that each reading comes once"
dataset = "counts"
[[register]]
channel = "count"
address = 0
type = "uint32"
unit = "count"
title = "Answers so far"
"""

T = TypeVar("T")


class Meter(ModbusSlave):
    """Counts how often it was asked, and says so.

    Attributes:
        said: what it said, and when (time.monotonic).
    """

    def __init__(self, name: str) -> None:
        """Set it."""
        super().__init__(
            unit=1, faults=Faults(0, name), registers={HOLDING: self._next}, truth=lambda _: {}, turnaround_s=0.0
        )
        self.said: list[tuple[int, float]] = []

    def _next(self, _: float) -> Registers:
        count = len(self.said) + 1
        self.said.append((count, time.monotonic()))
        return {0: count >> 16, 1: count & 0xFFFF}


@dataclass
class Site:
    """What is around the pole's computer.

    Attributes:
        broker: a mosquitto.
        relay: the way to the broker.
        receiver: hears all.
        meters: by name.
        configuration: of a gateway here.
        loop: where relay and meters run, in a thread.
        promised: by meter, what must come.
    """

    broker: broker.Broker
    relay: Relay
    receiver: Receiver
    meters: dict[str, Meter]
    configuration: str
    loop: asyncio.AbstractEventLoop
    promised: dict[str, set[int]] = field(default_factory=dict)
    _before: dict[str, int] = field(default_factory=dict)  # counts said until the last cut

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something where relay and devices live."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(LIMIT_S)

    def cut_uplink(self) -> None:
        """Cut the way to the broker."""
        self.loop.call_soon_threadsafe(self.relay.cut)

    def restore_uplink(self) -> None:
        """Give it back."""
        self.loop.call_soon_threadsafe(self.relay.restore)

    @property
    def heard(self) -> Heard:
        """What the receiver has heard so far; it goes on growing."""
        return self.receiver.heard(POLE)

    def came(self, meter: str) -> set[int]:
        """Return the counts of a meter that came."""
        return set(self.heard.values(f"{POLE}/{meter}/count"))

    def asked(self) -> dict[str, int]:
        """Return how often each meter was asked."""
        return {name: len(meter.said) for name, meter in self.meters.items()}

    def power_cut(self, guest: Guest) -> None:
        """Cut the guest's power. What was said in this life, longer ago than the commit may take, must come."""
        guest.cut()
        until = time.monotonic() - COMMIT_WITHIN_S - PACE_S - SLACK_S
        for name, meter in self.meters.items():
            said = meter.said[self._before.get(name, 0) :]
            self.promised.setdefault(name, set()).update(count for count, at in said if at <= until)
        self._before = self.asked()

    def lost(self) -> dict[str, list[int]]:
        """Return what must have come and did not."""
        missing = {name: sorted(promised - self.came(name)) for name, promised in self.promised.items()}
        return {name: counts for name, counts in missing.items() if counts}

    def invented(self) -> dict[str, list[int]]:
        """Return what came and was never said."""
        extra = {name: sorted(self.came(name) - {count for count, _ in m.said}) for name, m in self.meters.items()}
        return {name: counts for name, counts in extra.items() if counts}

    def gaps(self, since: Mapping[str, int]) -> dict[str, list[int]]:
        """Return what did not come of all that was said after some counts and before the last one that came."""
        missing = {}
        for name, count in since.items():
            came = self.came(name)
            missing[name] = sorted(set(range(count + 1, max(came, default=0))) - came)
        return {name: counts for name, counts in missing.items() if counts}

    def wait(self, true: Callable[[], bool], what: str, within: float = LIMIT_S) -> None:
        """Wait for something that the receiver hears."""
        self.receiver.wait(true, within, what)

    def be_asked(self, more: int) -> None:
        """Wait until each meter was asked that many times more."""
        enough = {name: count + more for name, count in self.asked().items()}
        give_up = time.monotonic() + LIMIT_S
        while any(self.asked()[name] < count for name, count in enough.items()):
            if time.monotonic() > give_up:
                raise TimeoutError(f"the gateway does not poll: {self.asked()}")
            time.sleep(LOOK_S)

    def all_come(self, more: int = 2) -> None:
        """Wait until that many new readings of each meter have come."""
        enough = {name: len(self.came(name)) + more for name in self.meters}
        self.wait(lambda: all(len(self.came(name)) >= count for name, count in enough.items()), "readings")


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Put it up."""
    mosquitto = broker.mosquitto(folder)
    mosquitto.start()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    meters = {f"meter-{n}": Meter(f"meter-{n}") for n in range(METERS)}
    servers = [ModbusTcp([meter]) for meter in meters.values()]
    relay = Relay(mosquitto.port)

    async def up() -> None:
        await asyncio.gather(relay.start(), *(server.start() for server in servers))

    async def down() -> None:
        await asyncio.gather(relay.close(), *(server.close() for server in servers))

    asyncio.run_coroutine_threadsafe(up(), loop).result(LIMIT_S)
    text = HEAD.format(pole=POLE, host=HOST, port=relay.port, pace=PACE_S, within=COMMIT_WITHIN_S)
    text += "".join(METER.format(n=n, host=HOST, port=server.port) for n, server in enumerate(servers))
    try:
        with Receiver(mosquitto.port) as receiver:
            yield Site(mosquitto, relay, receiver, meters, text, loop)
    finally:
        asyncio.run_coroutine_threadsafe(down(), loop).result(LIMIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        mosquitto.stop()


def provision(guest: Guest, configuration: str) -> None:
    """Give the gateway its configuration, as a technician does."""
    guest.write("/etc/polegate/profiles/counter.toml", PROFILE)
    guest.write("/etc/polegate/pole.toml", configuration)
    guest.run("systemd-tmpfiles", "--create", "polegate.conf")
    guest.wait(guest.status, LIMIT_S, "the configuration was not taken")

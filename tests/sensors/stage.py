"""A stage for the collecting half: real doors on emulated lines and an emulated air, all on the virtual clock."""

import asyncio
import contextlib
import tomllib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from drivers.contract import Advert, Asked, Driver, LineSettings, Values
from drivers.modbus import Modbus
from gateway.sensors.account import Account
from gateway.sensors.line import Line, LinePort, Tap, Wire
from gateway.sensors.radio import Radio
from gateway.sensors.serial_wire import SerialWire
from gateway.words.health import DeviceHealth
from gateway.words.reading import Quality, Reading
from hil.bluez import FakeBlueZ
from hil.bus import BusCanary, PrivateBus
from hil.line import Mode
from hil.rs485 import Rs485
from hil.twins.modbus import ModbusSlave
from hil.twins.ruuvi import COMPANY_ID, RuuviTag
from hil.vclock import run
from hil.wire import Wire as Adapter

NS = 1_000_000_000
PROFILES = Path(__file__).parents[2] / "config" / "profiles"
NOISE = tomllib.loads((PROFILES / "rs485-noise-meter.toml").read_text())
ENERGY = tomllib.loads((PROFILES / "eastron-sdm630.toml").read_text())


def meter(unit: int, profile: dict[str, Any] = NOISE, **settings: object) -> Modbus:
    """Return the driver of a Modbus device."""
    section = {"id": f"unit-{unit}", "driver": "modbus", "port": "bus", "unit": unit, "profile": profile}
    return Modbus.model_validate(section | settings)


def only(*channels: str) -> dict[str, Any]:
    """Return the energy meter's profile with these channels alone."""
    return ENERGY | {"register": [register for register in ENERGY["register"] if register["channel"] in channels]}


@contextlib.asynccontextmanager
async def line_on(wire: Wire, tap: Tap | None = None) -> AsyncIterator[Line]:
    """Run a line on a wire."""
    line = Line("bus", wire, tap=tap)
    job = asyncio.create_task(line.run())
    try:
        yield line
    finally:
        job.cancel()
        await asyncio.wait([job])


@contextlib.asynccontextmanager
async def rs485(
    link: Path,
    slaves: Iterable[ModbusSlave],
    *,
    seed: int = 1,
    mode: Mode = "uart",
    echo: bool = False,
    baud: int = 9600,
    tap: Tap | None = None,
) -> AsyncIterator[tuple[Rs485, Line]]:
    """Put slaves on a pair of wires, its adapter in the socket, and a line at the gateway's end."""
    with contextlib.closing(Rs485(Adapter(link), slaves, seed=seed, mode=mode, echo=echo)) as pair:
        pair.plug()
        async with line_on(SerialWire(str(link), LineSettings(baud=baud)), tap) as line:
            await line.opened()
            yield pair, line


async def read(line: Line, device: Asked) -> Values:
    """Poll a device once."""
    return await device.poll(LinePort(line, device.place(), device.timeout))


def now() -> float:
    """Return the time on the stage, seconds."""
    return asyncio.get_running_loop().time()


def open_files() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Shelf:
    """What one device gave: its ``readings``, its ``health``, and the channel names ``noted``."""

    def __init__(
        self,
        driver: Driver,
        clock: Callable[[], float] | None = None,
        *,
        note: Callable[[str, Iterable[str]], None] = lambda _device, _names: None,
    ) -> None:
        """Open an account for the device, on the clock of the stage unless there is another (seconds)."""
        clock = clock or asyncio.get_running_loop().time
        self._also_note = note
        self.readings: list[Reading] = []
        self.noted: list[tuple[str, list[str]]] = []
        self.health = DeviceHealth()
        self.account = Account(
            driver,
            health=self.health,
            now=lambda: round(clock() * NS),
            note=self._note,
            keep=self.readings.append,
        )

    def _note(self, device: str, names: Iterable[str]) -> None:
        self._also_note(device, names)
        self.noted.append((device, list(names)))

    def times(self, channel: str) -> list[float]:
        """Return when a channel was read, seconds."""
        return [reading.at / NS for reading in self.readings if channel in reading.values]

    def lapses(self) -> list[tuple[float, str, str]]:
        """Return every record of quality: when, of what ("" for the device), and why."""
        return [
            (reading.at / NS, name.removesuffix("quality").removesuffix("/"), value.why)
            for reading in self.readings
            for name, value in reading.values.items()
            if isinstance(value, Quality)
        ]


class Air:
    """An emulated bluetoothd on a bus of its own, a tag that talks, and the radio that hears it.

    Attributes:
        heard: when the tag was heard, and what it said.
        stale: what was heard that was not being said then: a reading that BlueZ remembers, under a new time.
        silent: whether the tag keeps quiet.
    """

    def __init__(self, bus: PrivateBus, bluez: FakeBlueZ, every: float) -> None:
        """Wire the radio; nothing runs yet. The tag talks ``every`` so many seconds."""
        self._every = every
        self.bus = bus
        self.bluez = bluez
        self.radio = Radio("hci0")
        self.tag = RuuviTag("CB:B8:33:4C:88:4F")
        self.heard: list[tuple[float, Advert]] = []
        self.stale: list[tuple[float, Advert]] = []
        self.silent = False
        self.job: asyncio.Task[None]
        self._said = b""
        self.radio.hear(self.tag.address, self._hear)

    async def talk(self) -> None:
        """Let the tag talk, for ever."""
        while True:
            await asyncio.sleep(self._every)
            if not self.silent:
                self.bluez.advertise(self.tag.address, self.tag.heartbeat(), -60)
                self._said = self.tag.payload()

    async def until_heard(self, *, within: float) -> float:
        """Wait until the tag is heard next, and return how many seconds that took."""
        began, count = now(), len(self.heard)
        while len(self.heard) == count:
            assert now() - began < within, f"not heard within {within} s; {self.radio.trouble()}"
            await asyncio.sleep(0.05)
        return self.heard[count][0] - began

    def _hear(self, advert: Advert) -> None:
        fresh = advert.manufacturer[COMPANY_ID] == self._said and advert.rssi == -60
        (self.heard if fresh else self.stale).append((now(), advert))


def _pass_over_lost_sends(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Be silent about what dbus-fast leaves behind: when its bus dies, the futures of messages it could not send."""
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)


def on_air(
    directory: Path,
    scene: Callable[[Air], Coroutine[Any, Any, None]],
    *,
    every: float = 1.0,
    version: tuple[int, int] = (5, 66),
    with_bus: bool = True,
    with_bluetoothd: bool = True,
) -> None:
    """Play a scene on a bus in ``directory``; the radio finds it in the environment, as it would the system's."""
    bus = PrivateBus(directory)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(_pass_over_lost_sends)
        bluez = FakeBlueZ(bus.address, version)
        if with_bus and with_bluetoothd:
            await bluez.start()
        air = Air(bus, bluez, every)
        air.job = asyncio.create_task(air.radio.run())
        talk = asyncio.create_task(air.talk())
        try:
            await scene(air)
            assert not air.job.done() or air.job.cancelled()
            assert air.stale == []
        finally:
            for task in (air.job, talk):
                task.cancel()
            await asyncio.wait([air.job, talk])
            await bluez.stop()
            bus.stop()  # ends the connection of bleak, which it would keep beyond the loop
            await asyncio.sleep(1)

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        if with_bus:
            bus.start()
        try:
            run(main(), BusCanary(bus.address))
        finally:
            bus.stop()

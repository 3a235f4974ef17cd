"""The emulated pole of the demo: thirteen devices on an RS-485 pair, a TCP port, four UARTs and the air."""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hil.air import Air, Beacon
from hil.bluez import FakeBlueZ
from hil.bus import PrivateBus
from hil.modbus_tcp import ModbusTcp
from hil.rs485 import Rs485
from hil.twins.modbus import noise, sdm630
from hil.twins.nmea0183 import Nmea0183
from hil.twins.pms5003 import Pms5003
from hil.twins.ruuvi import RuuviAir, RuuviTag
from hil.twins.sds011 import Sds011
from hil.twins.sps30 import Sps30
from hil.uart import Uart
from hil.wire import Wire

NAME = "demo-pole"
CABINET = "cabinet"  # the RS-485 pair
DUST = "dust"  # the UART whose adapter a visitor may pull
SILENT = "meter-sign"  # the slave a visitor may silence
SILENT_UNIT = 2

HEAD = """\
[pole]
id = "{pole}"

[uplink]
url = "mqtt://127.0.0.1:{port}"

[buffer]
path = "{folder}/buffer.db"

[dataset.energy]
send_every = 2.0
[dataset.air]
send_every = 2.0
"""


SPECIAL = {DUST: "\nwarm_up = 3.0"}  # a visitor does not wait the half minute that a real SPS30 needs
NOTHING = "(it never sent anything)"


@dataclass(frozen=True, slots=True)
class Station:
    """One device of the pole.

    Attributes:
        id: its name in the configuration.
        section: the rest of its [[device]] section.
        truth: what a right reader gets from it now, by channel.
    """

    id: str
    section: str
    truth: Callable[[], Mapping[str, object]]


class Pole:
    """The pole. ``async with`` plugs everything in.

    Attributes:
        stations: its devices.
        env: what the gateway must have in its environment to find the emulated BlueZ.
    """

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self._folder = folder
        self._seed = seed
        self._ports: dict[str, str] = {}
        self._lines: dict[str, Rs485 | Uart] = {}
        self._bus = PrivateBus(folder)
        self._powered = True
        self.stations: list[Station] = []
        self.env: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        """Start the bus, plug in the adapters, switch the devices on."""
        self._add_cabinet()
        await self._add_charger()
        self._add_uarts()
        self.env["DBUS_SYSTEM_BUS_ADDRESS"] = self._bus.start()
        self.bluez = FakeBlueZ(self._bus.address)
        await self.bluez.start()
        self._air = await Air(self.bluez, self._seed).__aenter__()
        self._add_tags()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Switch everything off."""
        await self._air.__aexit__(kind, error, trace)
        await self.bluez.stop()
        self._bus.stop()
        await self._charger.close()
        for line in self._lines.values():
            line.close()

    def configuration(self, broker_port: int) -> str:
        """Return the TOML for a gateway on this pole."""
        text = HEAD.format(pole=NAME, port=broker_port, folder=self._folder)
        text += "".join(f"\n[port.{name}]\n{settings}\n" for name, settings in self._ports.items())
        for station in self.stations:
            text += f'\n[[device]]\nid = "{station.id}"\n{station.section}\n'
        return text

    def expected(self) -> set[str]:
        """Name every channel of every device, as it is called at the broker; a device that sent nothing has one."""
        return {
            f"{NAME}/{station.id}/{channel}" for station in self.stations for channel in station.truth() or [NOTHING]
        }

    def pull(self, port: str) -> None:
        """Pull an adapter, or plug it in again."""
        line = self._lines[port]
        if line.wire.plugged:
            line.unplug()
        else:
            line.plug()

    def silence(self) -> None:
        """Switch the slave off that a visitor may silence, or on again."""
        cabinet = self._lines[CABINET]
        assert isinstance(cabinet, Rs485)  # noqa: S101  # made so below
        slave = cabinet.slaves[SILENT_UNIT]
        slave.alive = not slave.alive

    def switch_bluetooth(self) -> None:
        """Switch the Bluetooth adapter off, or on again."""
        self._powered = not self._powered
        self.bluez.power(on=self._powered)

    def _wire(self, name: str) -> Wire:
        link = self._folder / "serial" / "by-id" / f"usb-HIL_{name}-if00-port0"
        link.parent.mkdir(parents=True, exist_ok=True)
        self._ports[name] = f'path = "{link}"'
        return Wire(link)

    def _add_cabinet(self) -> None:
        slaves = {
            "meter-mains": sdm630(1, seed=self._seed),
            SILENT: sdm630(SILENT_UNIT, seed=self._seed + 1),
            "noise-street": noise(3, seed=self._seed),
            "noise-yard": noise(4, seed=self._seed + 1),
        }
        line = self._lines[CABINET] = Rs485(self._wire(CABINET), slaves.values(), seed=self._seed)
        self._ports[CABINET] += "\nbaud = 19200"
        line.plug()
        for name, slave in slaves.items():
            profile = "eastron-sdm630" if name.startswith("meter") else "rs485-noise-meter"
            section = f'driver = "modbus"\nport = "{CABINET}"\nunit = {slave.unit}\nprofile = "{profile}"\nevery = 2.0'
            self.stations.append(Station(name, section, slave.truth))

    async def _add_charger(self) -> None:
        slave = sdm630(1, seed=self._seed + 2)
        self._charger = ModbusTcp([slave])
        await self._charger.start()
        self._ports["charger"] = f'path = "tcp://127.0.0.1:{self._charger.port}"'
        section = 'driver = "modbus"\nport = "charger"\nprofile = "eastron-sdm630"\nevery = 2.0'
        self.stations.append(Station("meter-charger", section, slave.truth))

    def _add_uarts(self) -> None:
        devices: dict[str, Sps30 | Pms5003 | Sds011 | Nmea0183] = {
            DUST: Sps30(seed=self._seed),
            "dust-b": Pms5003(seed=self._seed),
            "dust-c": Sds011(seed=self._seed),
            "gnss": Nmea0183(seed=self._seed),
        }
        for name, device in devices.items():
            line = self._lines[name] = Uart(self._wire(name), device, seed=self._seed)
            line.plug()
            section = f'driver = "{type(device).__name__.lower()}"\nport = "{name}"\nevery = 2.0'
            self.stations.append(Station(name, section + SPECIAL.get(name, ""), device.truth))

    def _add_tags(self) -> None:
        tags: dict[str, RuuviTag | RuuviAir] = {
            "tag-door": RuuviTag("CB:B8:33:4C:88:01", temperature=7.4),
            "tag-mast": RuuviTag("CB:B8:33:4C:88:02", data_format=3, temperature=-3.2),
            "air-north": RuuviAir("CB:B8:33:4C:88:03", temperature=-2.9),
            "air-south": RuuviAir("CB:B8:33:4C:88:04", data_format=6, temperature=-2.1),
        }
        for name, tag in tags.items():
            self._air.add(Beacon(tag.address, _weather(tag), 1.285))
            section = f'driver = "ruuvi"\naddress = "{tag.address}"\nevery = 2.0'
            self.stations.append(Station(name, section, tag.truth))


def _weather(tag: RuuviTag | RuuviAir) -> Callable[[], bytes]:
    """Let a tag's temperature move a little with time, and send."""
    mean = tag.temperature or 0.0

    def heartbeat() -> bytes:
        tag.temperature = mean + 0.5 * math.sin(asyncio.get_running_loop().time() / 60)
        return tag.heartbeat()

    return heartbeat

"""A scene with an emulated BlueZ and an unmodified bleak, on a virtual clock."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from bleak import BleakScanner
from bleak.args.bluez import BlueZScannerArgs, OrPattern
from bleak.assigned_numbers import AdvertisementDataType
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from dbus_fast import Message, Variant

from hil.adverts import Advert, encode
from hil.bluez import FakeBlueZ
from hil.bus import BusCanary, PrivateBus
from hil.bus_client import BusClient
from hil.vclock import run

ADDRESS = "CB:B8:33:4C:88:4F"
HCI0 = "/org/bluez/hci0"
DEVICE = f"{HCI0}/dev_CB_B8_33_4C_88_4F"
RUUVI = 0x0499
RUUVI_ONLY: BlueZScannerArgs = {
    "or_patterns": [OrPattern(0, AdvertisementDataType.MANUFACTURER_SPECIFIC_DATA, b"\x99\x04")]
}


def play(
    directory: Path,
    scene: Callable[[FakeBlueZ], Coroutine[Any, Any, None]],
    version: tuple[int, int] = (5, 66),
) -> None:
    """Run a scene on a bus of its own in ``directory``; bleak and ``other_client`` find it in the environment."""
    bus = PrivateBus(directory)

    async def main() -> None:
        bluez = FakeBlueZ(bus.address, version)
        await bluez.start()
        try:
            await scene(bluez)
        finally:
            await bluez.stop()
            bus.stop()  # ends the connection of bleak, which it would keep beyond the loop
            await asyncio.sleep(1)

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.start())
        try:
            run(main(), BusCanary(bus.address))
        finally:
            bus.stop()


def ruuvi(payload: bytes = b"\x05") -> bytes:
    """Return an advert of Ruuvi's company id."""
    return encode(Advert(flags=6, manufacturer_data={RUUVI: payload}))


class Scan:
    """A scanner and what it heard."""

    def __init__(self, mode: Literal["active", "passive"] = "active", args: BlueZScannerArgs | None = None) -> None:
        self.heard: list[AdvertisementData] = []
        self.lines: list[str] = []
        self.scanner = BleakScanner(self._on_advert, scanning_mode=mode, bluez=args or {})

    async def __aenter__(self) -> Self:
        await self.scanner.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.scanner.stop()

    @property
    def payloads(self) -> list[bytes]:
        """Ruuvi's manufacturer data of each advert."""
        return [advert.manufacturer_data[RUUVI] for advert in self.heard]

    def _on_advert(self, device: BLEDevice, advert: AdvertisementData) -> None:
        self.heard.append(advert)
        self.lines.append(f"{asyncio.get_running_loop().time():.6f} {device.address} {advert!r}")


@asynccontextmanager
async def other_client() -> AsyncIterator[BusClient]:
    """A client of the bus besides bleak."""
    client = BusClient(os.environ["DBUS_SYSTEM_BUS_ADDRESS"], lambda _: False)
    await client.connect()
    yield client
    await client.close()


async def ask(client: BusClient, path: str, method: str, signature: str = "", *body: object) -> Any:  # noqa: ANN401  # as the method has it
    """Call a method of BlueZ and return what it returns, or the name of the error."""
    interface, _, member = method.rpartition(".")
    reply = await client.call(Message("org.bluez", path, interface, member, signature=signature, body=list(body)))
    return reply.error_name or (reply.body[0] if reply.body else None)


async def get(client: BusClient, path: str, interface: str, name: str) -> Any:  # noqa: ANN401  # as the property has it
    """Get a property, or the name of the error."""
    value = await ask(client, path, "org.freedesktop.DBus.Properties.Get", "ss", interface, name)
    return value.value if isinstance(value, Variant) else value

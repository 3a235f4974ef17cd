"""``polegate probe``: read one device once, as the gateway would, and show what went over the wire."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import click

from drivers.contract import Advert, Advertised, Asked, DeviceError, Driver, NoReply, OnPort, Streamed, Values
from gateway import log
from gateway.app import line_of
from gateway.commands.check import report
from gateway.faults import SettingsError, mean
from gateway.line import Line, LinePort
from gateway.settings import Settings
from gateway.settings_file import load

OPEN_S = 3.0


@click.command("probe")
@click.argument("device")
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The configuration file.")
def command(device: str, path: Path) -> int:
    """Read DEVICE once and show bytes and values; exit 1 where it gives none."""
    try:
        settings = load(path)
    except SettingsError as error:
        return report(error.faults)
    found = {each.id: each for each in settings.devices}
    if device not in found:
        raise click.UsageError(f'{path} has no device "{device}"{mean(device, found)}')
    log.start(logging.ERROR)  # what is wrong is said at the end
    try:
        values = asyncio.run(_read(found[device], settings))
    except DeviceError as error:
        click.echo(f"{type(error).__name__}: {error}. {error.hint}", err=True)
        return 1
    for name, value in values.items():
        unit = found[device].channel(name).unit
        click.echo(f"{name:<24} {'no reading' if value is None else value} {unit}".rstrip())
    return 0


async def _read(device: Driver, settings: Settings) -> Values:
    if isinstance(device, Advertised):
        return await _from_air(device, settings.root.bluetooth.adapter)
    if not isinstance(device, OnPort):
        raise TypeError(f"{type(device)} is no kind of driver there is")
    line = line_of(settings, device.port, tap=_show)
    keeping = asyncio.create_task(line.run())
    try:
        try:
            async with asyncio.timeout(OPEN_S):
                await line.opened()
        except TimeoutError:
            raise line.trouble() or NoReply(f"port {device.port} did not open") from None
        if isinstance(device, Asked):
            return await device.poll(LinePort(line, device.place(), device.timeout))
        return await _from_line(device, line)
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


async def _from_line(device: OnPort, line: Line) -> Values:
    assert isinstance(device, Streamed)  # noqa: S101  # a device on a port is asked or talks by itself
    first = First(device, line.trouble)
    line.stream(device.seek, device.LONGEST, first.take)
    return await first.values(device.SILENT_AFTER_S)


async def _from_air(device: Advertised, adapter: str) -> Values:
    from gateway.radio import Radio  # noqa: PLC0415  # bleak is for those who hear adverts

    radio = Radio(adapter)
    first = First(device, radio.trouble)

    def take(advert: Advert) -> None:
        if (payload := device.payload(advert)) is not None:
            _show("<", payload)
            first.take(payload)

    radio.hear(device.address, take)
    scanning = asyncio.create_task(radio.run())
    try:
        return await first.values(device.SILENT_AFTER_S)
    finally:
        scanning.cancel()
        await asyncio.wait([scanning])


class First:
    """Waits for the first frame of a talker that gives values."""

    def __init__(self, device: Driver, trouble: Callable[[], DeviceError | None]) -> None:
        self._device = device
        self._trouble = trouble
        self._loss: DeviceError | None = None
        self._found: asyncio.Future[Values] = asyncio.get_running_loop().create_future()

    def take(self, frame: bytes) -> bool:
        """Take a frame; tell whether it was one."""
        try:
            values = self._device.decode(frame)
        except DeviceError as loss:
            self._loss = loss
            return False
        if values and not self._found.done():
            self._found.set_result(values)
        return True

    async def values(self, within: float) -> Values:
        """Wait for it. Raises what was wrong with the last frame, with the port, or NoReply."""
        try:
            async with asyncio.timeout(within):
                return await self._found
        except TimeoutError:
            raise self._loss or self._trouble() or NoReply(f"nothing came for {within:.0f} s") from None


def _show(way: str, data: bytes) -> None:
    click.echo(f"{way} {data.hex(' ')}")

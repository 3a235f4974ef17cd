"""``polegate probe``: read one device once, as the gateway would, and show what went over the wire."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from drivers.contract import Advert, Advertised, Asked, DeviceError, Driver, NoReply, NotReady, OnPort, Streamed, Values
from gateway import shares
from gateway.commands.check import FILE, report
from gateway.commands.values import table
from gateway.config.faults import SettingsError, mean
from gateway.config.settings import Settings
from gateway.config.settings_file import load
from gateway.config.toml_text import quoted
from gateway.host import log
from gateway.sensors.crew import line_on
from gateway.sensors.line import Line, LinePort
from gateway.sensors.listen import silence, unread

OPEN_S = 3.0
ROW = 16  # bytes
TEXT = 8  # bytes that can all be printed are text; fewer are so by chance
PRINTABLE = range(0x20, 0x7F)


@click.command("probe")
@click.argument("device")
@click.option("--config", "path", metavar="FILE", required=True, type=FILE, help="The configuration file.")
def command(device: str, path: Path) -> int:
    """Read DEVICE once, as the gateway would, and show the bytes on the wire (> sent, < received) and the values.

    DEVICE is the id of a [[device]] of the configuration. A serial port has one owner: stop the gateway first.

    Exit code 1: the device gives no values. 64: the command is wrong. 78: the configuration has faults.
    """
    try:
        settings = load(path)
    except SettingsError as error:
        return report(error.faults)
    found = {each.id: each for each in settings.devices}
    if device not in found:
        raise click.UsageError(f"{path} has no device {quoted(device)}{mean(device, found)}")
    log.start(logging.ERROR)  # what is wrong is said at the end
    tape = Tape()
    try:
        values = asyncio.run(_read(found[device], settings, tape))
    except DeviceError as error:
        tape.flush()
        click.echo(f"{device}: {error.word}: {error}. {error.hint}", err=True)
        return 1
    tape.flush()
    click.echo("\n".join(table(found[device], values)))
    return 0


class Tape:
    """Prints what goes over the wire, in rows, however small the pieces are in which it comes."""

    def __init__(self) -> None:
        self._way = ""
        self._row = b""

    def show(self, way: str, data: bytes) -> None:
        """Print bytes, or keep them until the row is full."""
        if way != self._way:
            self.flush()
        self._way = way
        self._row += data
        while len(self._row) >= ROW:
            self._print(self._row[:ROW])
            self._row = self._row[ROW:]

    def flush(self) -> None:
        """Print what is left."""
        if self._row:
            self._print(self._row)
        self._row = b""

    def _print(self, row: bytes) -> None:
        text = "".join(chr(byte) if byte in PRINTABLE else "." for byte in row)
        is_text = len(row) >= TEXT and text.count(".") <= row.count(b".") + row.count(b"\r") + row.count(b"\n")
        click.echo(f"{self._way} {row.hex(' '):<{3 * ROW}} {text if is_text else ''}".rstrip())


async def _read(device: Driver, settings: Settings, tape: Tape) -> Values:
    if isinstance(device, Advertised):
        return await _from_air(device, settings.root.bluetooth.adapter, tape)
    if not isinstance(device, OnPort):
        raise TypeError(f"{type(device)} is no kind of driver there is")
    line = line_on(device.port, shares.way(settings, device.port), tap=tape.show)
    keeping = asyncio.create_task(line.run())
    try:
        try:
            async with asyncio.timeout(OPEN_S):
                await line.opened()
        except TimeoutError:
            if keeping.done():  # it never ends by itself: what ended it is to be told
                keeping.result()
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
    return await first.values()


async def _from_air(device: Advertised, adapter: str, tape: Tape) -> Values:
    from gateway.sensors.radio import Radio  # noqa: PLC0415  # bleak is for those who hear adverts

    radio = Radio(adapter)
    first = First(device, radio.trouble)

    def take(advert: Advert) -> None:
        if (payload := device.payload(advert)) is not None:
            tape.show("<", payload)
            tape.flush()
            first.take(payload)

    radio.hear(device.address, take)
    jobs = [asyncio.create_task(radio.run()), asyncio.create_task(first.end_with(radio.gone()))]
    try:
        return await first.values()
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)


class First:
    """Waits for the first frame of a talker that gives values."""

    def __init__(self, device: Streamed | Advertised, trouble: Callable[[], DeviceError | None]) -> None:
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
        if not values and not isinstance(self._loss, NotReady):  # one that says why tells more
            self._loss = unread(frame)
        if values and not self._found.done():
            self._found.set_result(values)
        return True

    async def end_with(self, gone: Coroutine[Any, Any, None]) -> None:
        """End the wait with the trouble of the port when this comes to an end."""
        await gone
        if (trouble := self._trouble()) and not self._found.done():
            self._found.set_exception(trouble)

    async def values(self) -> Values:
        """Wait for it. Raises what was wrong with the last frame, with the port, or NoReply."""
        within = self._device.SILENT_AFTER_S
        click.echo(f"it talks by itself; listening for {within:.0f} s at the most", err=True)
        try:
            async with asyncio.timeout(within):
                return await self._found
        except TimeoutError:
            raise self._loss or self._trouble() or silence(self._device) from None

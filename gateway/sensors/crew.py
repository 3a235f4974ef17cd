"""Those who read the devices: a task for each line, for the radio and for each device, started and stopped one by one.

A roster says who is wanted, in frozen values. Who stands on the new one as on the old one is not touched: a poll under
way goes on, an open port stays open. So a line is stopped where its path or its settings change, and with it all
devices on it; a device also where anything in its section changes. All who stop do so before anybody starts: the
port may be wanted under another name.

A device that is asked stops between two questions, since an answer to one who is gone would come while the next one
on the line asks.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

from drivers.contract import Advertised, Asked, Driver, LineSettings, OnPort, Streamed
from gateway.sensors.account import Account
from gateway.sensors.line import Line, LinePort, Tap, Wire
from gateway.sensors.listen import Ear
from gateway.sensors.poll import poll
from gateway.sensors.serial_wire import SerialWire
from gateway.sensors.tcp_wire import TcpWire

LAST_ANSWER_S = 2.0  # a device that is asked for longer is stopped in the middle

Job = Coroutine[Any, Any, None]
Task = asyncio.Task[None]


class Way(NamedTuple):
    """What a line is.

    Attributes:
        path: of a serial port; "" for TCP.
        tcp: host and port of a TCP connection.
        settings: of a serial port.
    """

    path: str = ""
    tcp: tuple[str, int] | None = None
    settings: LineSettings = LineSettings()


class Roster(NamedTuple):
    """Who is wanted.

    Attributes:
        devices: all of them.
        ways: of each port that they hang on, by its name.
        adapter: the Bluetooth adapter.
    """

    devices: tuple[Driver, ...]
    ways: Mapping[str, Way]
    adapter: str

    def on_air(self) -> bool:
        """Tell whether somebody is to be heard by Bluetooth."""
        return any(isinstance(device, Advertised) for device in self.devices)


NOBODY = Roster((), {}, "")


class _OnLine(NamedTuple):
    way: Way
    line: Line
    task: Task


class _OnAir(NamedTuple):
    adapter: str
    radio: Any  # gateway.sensors.radio.Radio, which is imported where it is wanted
    task: Task


class _Member(NamedTuple):
    device: Driver
    task: Task
    pause: Callable[[], Job]
    leave: Callable[[], None]


class Crew:
    """The tasks."""

    def __init__(self, start: Callable[[Job], Task], account: Callable[[Driver], Account]) -> None:
        """Begin with none.

        Args:
            start: starts a task.
            account: opens the account of a device.
        """
        self._start = start
        self._account = account
        self._lines: dict[str, _OnLine] = {}
        self._radio: _OnAir | None = None
        self._members: dict[str, _Member] = {}

    async def dismiss(self, roster: Roster) -> None:
        """Stop those who do not stand on a roster as they are, after the answer to what they asked last."""
        closing = {name for name, each in self._lines.items() if roster.ways.get(name) != each.way}
        deaf = self._radio is not None and not (roster.on_air() and roster.adapter == self._radio.adapter)
        wanted = {device.id: device for device in roster.devices}
        leaving = [
            each
            for name, each in self._members.items()
            if wanted.get(name) != each.device
            or (isinstance(each.device, OnPort) and each.device.port in closing)
            or (isinstance(each.device, Advertised) and deaf)
        ]
        await asyncio.gather(*(_stop_between(each) for each in leaving))
        for each in leaving:
            each.leave()
            del self._members[each.device.id]
        await _end(self._lines.pop(name).task for name in closing)
        if self._radio is not None and deaf:
            await _end([self._radio.task])
            self._radio = None

    def enlist(self, roster: Roster) -> None:
        """Start those on a roster who are not there."""
        for name, way in roster.ways.items():
            if name not in self._lines:
                line = line_on(name, way)
                self._lines[name] = _OnLine(way, line, self._start(line.run()))
        if self._radio is None and roster.on_air():
            from gateway.sensors.radio import Radio  # noqa: PLC0415  # bleak takes 8 MB that a pole without Bluetooth keeps

            radio = Radio(roster.adapter)
            self._radio = _OnAir(roster.adapter, radio, self._start(radio.run()))
        for device in roster.devices:
            if device.id not in self._members:
                self._members[device.id] = self._member(device, self._account(device))

    @property
    def radio(self) -> Any:  # noqa: ANN401  # gateway.sensors.radio.Radio, which is imported where it is wanted
        """The radio; None: nobody is heard."""
        return self._radio.radio if self._radio else None

    async def end(self) -> None:
        """Stop all at once."""
        tasks = [each.task for each in self._members.values()] + [each.task for each in self._lines.values()]
        await _end([*tasks, self._radio.task] if self._radio else tasks)

    def _member(self, device: Driver, account: Account) -> _Member:
        if isinstance(device, Asked):
            port = LinePort(self._lines[device.port].line, device.place(), device.timeout)
            return _Member(device, self._start(poll(device, port, account)), port.idle, _nothing)
        assert isinstance(device, Streamed | Advertised)  # noqa: S101  # there is no other kind
        ear = Ear(device, account)
        if isinstance(device, Streamed):
            line = self._lines[device.port].line
            line.stream(ear.seek, device.LONGEST, ear.frame)
            return _Member(device, self._start(ear.listen(line.trouble)), _at_once, line.hush)
        assert self._radio is not None  # noqa: S101  # somebody is on air
        radio, address = self._radio.radio, device.address
        radio.hear(address, ear.advert)
        task = self._start(ear.listen(radio.trouble))
        return _Member(device, task, _at_once, lambda: radio.forget(address, ear.advert))


def line_on(name: str, way: Way, tap: Tap | None = None) -> Line:
    """Make the line of a port. ``tap`` sees all bytes."""
    wire: Wire = TcpWire(*way.tcp) if way.tcp else SerialWire(way.path, way.settings)
    return Line(name, wire, tap=tap)


async def _stop_between(member: _Member) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_ANSWER_S):
            await member.pause()
    await _end([member.task])


async def _end(tasks: Iterable[Task]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending)


async def _at_once() -> None:
    return


def _nothing() -> None:
    return

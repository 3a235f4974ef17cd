"""A door's discipline: who may speak on a line, and when. The line itself is a serial port or a TCP connection.

One line, many devices. The rules, each paid for by somebody's wrong data:

* One asks at a time, in the order they came.
* Nobody speaks before the line was silent for 3.5 characters; what came unasked until then is thrown away.
* An answer is what the driver's ``seek`` accepts for this very request, wherever it begins.
* What came instead is told for what it is: an adapter that hears itself gives the question back, and a slow device a
  late answer to an earlier question. Neither is a bad frame of the device that was asked. A device that has answered
  since, or was asked long ago, is not late: what looks like it is a frame of somebody else.
* After a time-out, or when the asker gave up, *that device* is left alone for ``LATE_S``: a late answer to the
  old request could pass for the answer to the new one. The others go on. Where requests are numbered (``tagged``)
  this is not needed.
* A port that goes away fails the asker at once. It is opened again as soon as it is there. A TCP connection on which
  nothing is answered counts as gone.

Asking needs no buffer of its own to survive a cancelled asker: bytes that come late are thrown away before the
next request.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import structlog

from drivers.contract import BadFrame, DeviceError, NoReply, PortGone, Seek

LATE_S = 1.0
BABBLE_S = 1.0
REOPEN_S = 1.0
LOG_PAUSE_S = 60.0  # a port that comes and goes is told once a minute
MUTE_S, MOST_UNANSWERED = 30.0, 5  # a TCP connection on which so many questions got no byte for so long is gone
MOST_HELD = 65_536  # bytes that may come while one answer is awaited
MISSED, MISSED_S = 8, 10.0  # questions whose late answers are known, and until when one is taken for that
HINT_SLOW = "A device on this port takes longer than its `timeout`; set that higher."
HINT_BUG = "Report it, with the traceback in the log."
SHOWN = 32  # bytes of an answer that is none, for the log

Tap = Callable[[str, bytes], None]
"""Sees bytes: "<" came in, ">" went out."""

log = structlog.get_logger()


class Wire(Protocol):
    """What carries the bytes of a line.

    Attributes:
        transport: what it is.
        character_s: seconds one character takes on it; 0 where that is not known.
        silence_s: seconds without a byte that end a frame; 0 where frames need no silence.
    """

    transport: Literal["serial", "tcp"]
    character_s: float
    silence_s: float

    async def open(self, on_data: Callable[[bytes], None], on_lost: Callable[[PortGone], None]) -> None:
        """Open it. Raises PortGone."""

    def write(self, data: bytes) -> None:
        """Send; ``on_lost`` is called where that fails."""

    def close(self) -> None:
        """Close it; ``on_lost`` is not called."""


class Missed(NamedTuple):
    """A question that was not answered in time: who was asked, what finds the answer, and when it was given up."""

    place: str
    seek: Seek
    at: float


class Line:
    """One line and those who take turns on it."""

    def __init__(self, name: str, wire: Wire, *, tap: Tap | None = None) -> None:
        """Make it; ``run`` opens it.

        Args:
            name: the name of its [port] section, for the log.
            wire: carries the bytes.
            tap: sees all bytes.
        """
        self._name = name
        self._wire = wire
        self._tap = tap or (lambda _way, _data: None)
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._came = asyncio.Event()
        self._changed = asyncio.Event()
        self._tried = asyncio.Event()
        self._buffer = bytearray()
        self._quiet_from = 0.0
        self._gone: PortGone | None = PortGone(f"port {name} is not open")
        self._take: Callable[[], None] | None = None
        self._noise = 0
        self._held: dict[str, float] = {}
        self._unanswered = 0
        self._missed: deque[Missed] = deque(maxlen=MISSED)
        self._came_at = 0.0
        self._log_says: str | None = None
        self._gone_told_at = -LOG_PAUSE_S

    @property
    def transport(self) -> Literal["serial", "tcp"]:
        """What the line is."""
        return self._wire.transport

    async def run(self) -> None:
        """Keep the line open, for ever."""
        try:
            while True:
                await self._open()
                opened_at = self._loop.time()
                while self._gone is None:
                    self._changed.clear()
                    await self._changed.wait()
                # A port that opens and is lost at once (a device that takes one connection only) is not hammered.
                await asyncio.sleep(max(0.0, opened_at + REOPEN_S - self._loop.time()))
        finally:
            self._wire.close()

    async def opened(self) -> None:
        """Wait until the line is open."""
        while self._gone is not None:
            self._changed.clear()
            await self._changed.wait()

    def stream(self, seek: Seek, longest: int, take: Callable[[bytes], bool]) -> None:
        """Hand over frames as they arrive; the line then belongs to this one talker.

        Args:
            seek: finds the first complete frame.
            longest: bytes of the longest frame.
            take: takes a frame and tells whether it was one; if not, the search goes on one byte further.
        """
        self._take = lambda: self._cut(seek, longest, take)

    def hush(self) -> None:
        """Hand over nothing more: the line belongs to those who ask again."""
        self._take = None
        self._buffer.clear()

    def trouble(self) -> DeviceError | None:
        """Tell why nothing is heard: the port is gone, or what came since the last frame or call holds none."""
        if self._gone is not None:
            return self._gone
        noise, self._noise = self._noise, 0
        return BadFrame(f"{noise} bytes came, and no frame was in them") if noise else None

    async def exchange(self, place: str, request: bytes, seek: Seek, within: float, *, tagged: bool) -> bytes:
        """Take a turn: send, and return the answer. Raises as :meth:`drivers.contract.Port.ask`.

        Args:
            place: who is asked.
            request: what is sent.
            seek: finds the answer.
            within: seconds from the last byte sent to the last byte of the answer.
            tagged: a late answer cannot pass for one to the next request.
        """
        await self._tried.wait()  # at the start all ask before the port had its chance
        await self._take_turn(place)
        try:
            await self._silence()
            self._buffer.clear()
            self._tap(">", request)
            self._wire.write(request)
            self._quiet_from = self._loop.time() + len(request) * self._wire.character_s
            answered = False
            try:
                answer = await self._answer(request, seek, self._quiet_from + within)
                answered = True
                self._forgive(place)
            except (NoReply, BadFrame):  # one that was given up for another reason says nothing of the device
                self._missed.append(Missed(place, seek, self._loop.time()))
                raise
            finally:
                if not answered:
                    self._unanswered += 1
                    if not tagged:
                        self._held[place] = self._loop.time() + LATE_S
            return answer
        finally:
            self._turn.release()
            self._connect_anew_if_mute()

    def seconds_for(self, characters: int) -> float:
        """Return how long that many characters take on the wire."""
        return characters * self._wire.character_s

    async def _open(self) -> None:
        while True:
            try:
                await self._wire.open(self._on_data, self._on_lost)
            except PortGone as error:
                self._gone = error
                self._tell_gone(error)
                self._tried.set()
                await asyncio.sleep(REOPEN_S)
            else:
                self._tell_open()
                self._gone = None
                self._quiet_from = self._came_at = self._loop.time()  # what was on it before, nobody heard
                self._changed.set()
                self._tried.set()
                return

    def _on_data(self, data: bytes) -> None:
        self._tap("<", data)
        self._unanswered = 0
        self._quiet_from = self._came_at = self._loop.time()
        if self._take is not None:
            self._buffer += data
            self._take()
        elif self._turn.locked():
            self._buffer += data
            del self._buffer[:-MOST_HELD]
            self._came.set()

    def _on_lost(self, error: PortGone) -> None:
        self._tell_gone(error)
        self._gone = error
        self._buffer.clear()
        self._changed.set()
        self._came.set()

    def _tell_gone(self, error: PortGone) -> None:
        now = self._loop.time()
        if str(error) != self._log_says and now - self._gone_told_at >= LOG_PAUSE_S:
            self._log_says, self._gone_told_at = str(error), now
            log.warning(str(error), port=self._name, hint=error.hint)

    def _tell_open(self) -> None:
        if self._log_says != "":
            self._log_says = ""
            log.info("port is open", port=self._name)

    def _connect_anew_if_mute(self) -> None:
        """End a connection on which nothing is answered: the far end may have forgotten it without a word."""
        mute_s = self._loop.time() - self._came_at
        if self._wire.transport == "tcp" and self._unanswered >= MOST_UNANSWERED and mute_s >= MUTE_S:
            self._unanswered = 0
            self._wire.close()
            self._on_lost(PortGone(f"no byte came for {mute_s:.0f} s, whatever was asked; connecting anew"))

    def _must_be_open(self) -> None:
        if self._gone is not None:
            raise PortGone(str(self._gone), hint=self._gone.hint)

    async def _take_turn(self, place: str) -> None:
        """Wait until it is this device's turn, and it is not left alone; that may begin while it waits."""
        while True:
            until = self._held.get(place, 0.0)
            await asyncio.sleep(max(0.0, until - self._loop.time()))
            await self._turn.acquire()
            if self._held.get(place, 0.0) == until:
                return
            self._turn.release()

    async def _silence(self) -> None:
        """Wait until the line was silent long enough to speak. Raises PortGone, BadFrame."""
        self._must_be_open()
        gives_up = self._loop.time() + BABBLE_S
        heard = -1.0
        while heard != self._quiet_from:
            if self._loop.time() > gives_up:
                raise BadFrame(
                    f"the line was not silent for {self._wire.silence_s * 1000:.1f} ms in {BABBLE_S:.0f} s",
                    hint="Something talks all the time: another master, a wrong baud rate, or A and B swapped.",
                )
            heard = self._quiet_from
            await asyncio.sleep(max(0.0, heard + self._wire.silence_s - self._loop.time()))
        self._must_be_open()

    async def _answer(self, request: bytes, seek: Seek, deadline: float) -> bytes:
        self._must_be_open()  # the port may have been lost in the very write
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    self._came.clear()
                    await self._came.wait()
                    self._must_be_open()
                    if span := seek(bytes(self._buffer)):
                        return bytes(self._buffer[slice(*span)])
        except TimeoutError:
            if not self._buffer:
                raise NoReply("no reply in time") from None
            if self._buffer == request:
                raise NoReply(
                    "no reply in time; only the question came back, from an adapter that hears itself"
                ) from None
            shown = self._buffer[:SHOWN].hex(" ") + (" ..." if len(self._buffer) > SHOWN else "")
            if late := self._late():
                raise NoReply(
                    f"no reply in time, but a late one of {late} to an earlier question: {shown}", hint=HINT_SLOW
                ) from None
            raise BadFrame(f"{len(self._buffer)} bytes came that are no answer: {shown}") from None

    def _late(self) -> str | None:
        """Name the device whose late answer came."""
        for missed in list(self._missed):
            try:
                if self._came_at - missed.at < MISSED_S and missed.seek(bytes(self._buffer)):
                    return missed.place
            except Exception:  # anybody's driver: its fault is not that of the one asked now
                log.exception("a driver failed", port=self._name, device=missed.place, hint=HINT_BUG)
                self._missed.remove(missed)
        return None

    def _forgive(self, place: str) -> None:
        """Forget what a device missed: it answers one question after the other, so nothing of before is to come."""
        self._missed = deque((missed for missed in self._missed if missed.place != place), MISSED)

    def _cut(self, seek: Seek, longest: int, take: Callable[[bytes], bool]) -> None:
        while span := seek(bytes(self._buffer)):
            start, end = span
            sound = take(bytes(self._buffer[start:end]))
            self._noise = 0 if sound else self._noise + start + 1
            del self._buffer[: end if sound else start + 1]
        if (excess := len(self._buffer) - longest) > 0:
            self._noise += excess
            del self._buffer[:excess]


class LinePort:
    """One device's share of a line: the :class:`drivers.contract.Port` of a driver that asks."""

    def __init__(self, line: Line, place: str, timeout: float) -> None:
        """Make it.

        Args:
            line: the line it shares.
            place: the device as the line sees it; a late answer is a matter of the place, not of the asker.
            timeout: seconds the device may take to begin its answer.
        """
        self._line = line
        self._place = place
        self._timeout = timeout
        self._idle = asyncio.Event()
        self._idle.set()
        self.transport = line.transport

    async def ask(self, request: bytes, seek: Seek, *, size: int, tagged: bool = False) -> bytes:
        """Send and return the answer; see :meth:`drivers.contract.Port.ask`."""
        within = self._timeout + self._line.seconds_for(size)
        self._idle.clear()
        try:
            return await self._line.exchange(self._place, request, seek, within, tagged=tagged)
        finally:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until the device is not being asked: who stops then leaves no answer that others would speak into."""
        await self._idle.wait()

    async def wait(self, seconds: float) -> None:
        """Let time pass; the line is free meanwhile."""
        await asyncio.sleep(seconds)

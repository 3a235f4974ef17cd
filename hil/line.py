"""What is on the wires and when: the model of time under ``hil.rs485`` and ``hil.uart``.

A pty moves bytes at once. Here each *talk* (a message somebody sends) has a start and takes its characters' time, and
the gateway gets a character only when its last bit is over. Where two talk at the same time on one pair of wires,
what is heard is neither: the first one's characters arrive garbled, the second one's not at all. An adapter that
hears itself (``echo``) gets the gateway's own characters back; one that does not is deaf while it sends.

Characters do not reach the gateway one by one. How they do is the adapter's *mode*:

==========  ==========================================================================================
``uart``    each as it is over
``fifo``    16550: fourteen at a time; what is fewer, four character times after the last
``ftdi16``  FT232: full packets of 62; what is fewer, when the 16 ms latency timer expires, which runs
            on and on from the packet before (FTDI AN232B-04)
``ftdi1``   the same with the timer set to 1 ms
==========  ==========================================================================================

Every moment is computed from the start of the talk, so errors do not add up; a wake-up that is late sends all that
is due.
"""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from hil.faults import seeded
from hil.timer import Timer
from hil.wire import Wire

Mode = Literal["uart", "fifo", "ftdi16", "ftdi1"]

CLOCK_GRAIN_S = 1e-9
"""A timer set to a time may find the clock this much before it: asyncio adds up floats."""


@dataclass
class _Talk:
    start: float
    data: bytes
    char_s: float
    host: bool = False
    over: int = 0

    def over_at(self, count: int) -> float:
        return self.start + count * self.char_s

    @property
    def end(self) -> float:
        return self.over_at(len(self.data))


class _Adapter:
    """The receiving half of a USB-serial chip: characters go in, packets come out."""

    def __init__(self, mode: Mode, now: float) -> None:
        self._size = {"uart": 1, "fifo": 14, "ftdi16": 62, "ftdi1": 62}[mode]
        self._latency_s = {"ftdi16": 0.016, "ftdi1": 0.001}.get(mode)
        self._waiting = bytearray()
        self._ready = bytearray()
        self._first_at = self._last_at = 0.0
        self._char_s = 0.0
        self._packet_at = now

    @property
    def wants(self) -> int:
        """How many characters more until it must be looked at: a full packet, or the first one that waits a time."""
        if self._latency_s is not None and not self._waiting:
            return 1
        return self._size - len(self._waiting)

    @property
    def flush_at(self) -> float | None:
        """When what waits goes although it is no full packet."""
        if not self._waiting:
            return None
        if self._latency_s is None:
            return self._last_at + 4 * self._char_s
        expired = math.floor((self._first_at - self._packet_at) / self._latency_s)
        return self._packet_at + (expired + 1) * self._latency_s

    def take(self, at: float, character: int, char_s: float) -> None:
        """Receive a character that was over at ``at``."""
        self.flush(at)
        if not self._waiting:
            self._first_at = at
        self._last_at, self._char_s = at, char_s
        self._waiting.append(character)
        if len(self._waiting) == self._size:
            self._packet(at)

    def flush(self, now: float) -> None:
        """Let go what has waited long enough."""
        at = self.flush_at
        if at is not None and at <= now:
            self._packet(at)

    def ready(self) -> bytes:
        """Return what the gateway gets now."""
        ready = bytes(self._ready)
        self._ready.clear()
        return ready

    def _packet(self, at: float) -> None:
        self._ready += self._waiting
        self._waiting.clear()
        self._packet_at = at


class Line:
    """One wire with time on it. Needs a running event loop when made; close it while that loop runs.

    Attributes:
        wire: the adapter at the gateway's end.
        echo: whether it hears itself. May be changed at any time.
        counts: what happened. ``garbled``: characters that were hit by another talker's.
    """

    def __init__(self, wire: Wire, *, seed: int, mode: Mode, half_duplex: bool, echo: bool = False) -> None:
        self.wire = wire
        self.counts: Counter[str] = Counter()
        self._dice = seeded(seed, wire.link.name)
        self._mode = mode
        self._half_duplex = half_duplex
        self.echo = echo
        self._loop = asyncio.get_running_loop()
        self._adapter = _Adapter(mode, self._loop.time())
        self._talks: list[_Talk] = []
        self._host_end = 0.0
        self._timer = Timer(self._advance)
        wire.on_bytes = self._host_talks

    def plug(self) -> None:
        """Plug the adapter in."""
        self._adapter = _Adapter(self._mode, self._loop.time())
        self.wire.plug()

    def unplug(self) -> None:
        """Pull the adapter out. What it was sending breaks off; the devices talk on, unheard."""
        self.wire.unplug()
        self._talks = [talk for talk in self._talks if not talk.host]
        self._host_end = 0.0

    def babble(self, seconds: float) -> None:
        """Somebody talks rubbish from now on, over everybody else."""
        char_s = self.wire.char_s
        self._talk(self._loop.time(), self._dice.randbytes(math.ceil(seconds / char_s)))

    def close(self) -> None:
        """Pull the adapter and stop all that is planned."""
        self.unplug()
        self._timer.close()

    def _talk(self, start: float, data: bytes) -> float:
        """Let a device send from ``start`` on, and return when it is over."""
        talk = _Talk(start, data, self.wire.char_s)
        if data:
            self._talks.append(talk)
            self._timer.set(self._next())
        return talk.end

    def _host_talks(self, data: bytes) -> None:
        """The gateway wrote: its adapter sends as soon as it is through with what it was given before."""
        talk = _Talk(max(self._loop.time(), self._host_end), data, self.wire.char_s, host=True)
        self._host_end = talk.end
        self._talks.append(talk)
        self._timer.set(self._next())

    def _heard(self, data: bytes, at: float) -> None:
        """Take what the gateway's characters were like at the devices' end; the last was over at ``at``."""
        raise NotImplementedError

    def _advance(self) -> None:
        """Move on to the present: receive what is over, hand on what the adapter lets go."""
        now = self._loop.time() + CLOCK_GRAIN_S
        heard = bytearray()
        heard_at = now
        for at, number, talk in self._over(now):
            character, audible = self._received(talk, number)
            if talk.host:
                heard.append(character)
                heard_at = at
            if audible:
                self._adapter.take(at, character, talk.char_s)
        self._adapter.flush(now)
        if packet := self._adapter.ready():
            self.wire.send(packet)
        unfinished = [talk.start for talk in self._talks if talk.over < len(talk.data)]
        since = min([now, *unfinished])
        self._talks = [talk for talk in self._talks if talk.end > since or talk.over < len(talk.data)]
        self._timer.set(self._next())
        if heard:
            self._heard(bytes(heard), heard_at)

    def _over(self, now: float) -> list[tuple[float, int, _Talk]]:
        """Return the characters that are over and not received yet, in the order of time."""
        over = []
        for talk in self._talks:
            while talk.over < len(talk.data) and talk.over_at(talk.over + 1) <= now:
                over.append((talk.over_at(talk.over + 1), talk.over, talk))
                talk.over += 1
        return sorted(over, key=lambda item: item[0])

    def _received(self, talk: _Talk, number: int) -> tuple[int, bool]:
        """Return what became of a talk's character on the wires, and whether it reaches the gateway."""
        character = talk.data[number]
        audible = not talk.host or self.echo
        if others := self._talking_over(talk, number):
            self.counts["garbled"] += 1
            character ^= self._dice.randrange(1, 256)
            deaf = not self.echo and any(other.host for other in others)
            audible = audible and not deaf and all(talk.start <= other.start for other in others)
        return character, audible

    def _talking_over(self, talk: _Talk, number: int) -> list[_Talk]:
        start, end = talk.over_at(number) + CLOCK_GRAIN_S, talk.over_at(number + 1) - CLOCK_GRAIN_S
        return [
            other
            for other in self._talks
            if other is not talk
            and (self._half_duplex or other.host == talk.host)
            and other.start < end
            and other.end > start
        ]

    def _next(self) -> float | None:
        """Return when something next reaches the gateway or the devices."""
        times = [at] if (at := self._adapter.flush_at) is not None else []
        for talk in self._talks:
            left = len(talk.data) - talk.over
            if left:
                enough = left if talk.host and not self.echo else min(left, self._adapter.wants)
                times.append(talk.over_at(talk.over + enough))
        return min(times, default=None)

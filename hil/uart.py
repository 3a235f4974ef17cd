"""One device on one wire, whatever it speaks: it answers, or talks by itself, or plays a recording.

Transmit and receive are separate pairs here, so gateway and device may talk at the same time. What the device sends
takes its characters' time; a device that is still sending goes on after it, and what it would have said by itself
meanwhile is dropped.
"""

from collections import deque
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from hil.faults import BYTE_KINDS, Faults, Kind
from hil.line import Line, Mode
from hil.timer import Timer
from hil.wire import Wire

KINDS: frozenset[Kind] = BYTE_KINDS | {"silent", "late", "dup"}
"""The faults that have a meaning here."""


@runtime_checkable
class Answers(Protocol):
    """A device that is asked."""

    turnaround_s: float
    """From the end of a request to the answer's first bit."""

    def hear(self, data: bytes) -> bytes:
        """Take bytes as they come, which need not be one whole request, and return what to send; perhaps nothing."""


@runtime_checkable
class Talks(Protocol):
    """A device that sends by itself."""

    period: float
    """Seconds from one message to the next."""

    def speak(self) -> bytes:
        """Return the next message; perhaps nothing."""


class Uart(Line):
    """The device, its wire, and what goes wrong between them. Needs a running event loop when made.

    Args:
        wire: the adapter, unplugged.
        device: what is on it.
        seed: for noise and faults.
        mode: how received characters reach the gateway, see ``hil.line``.
        baud: how the device is set: at another speed it and the gateway hear noise of one another. None: as the
            gateway speaks.

    Attributes:
        alive: a dead device neither hears nor talks.
        faults: where its faults are armed.
        counts: ``heard`` (bytes the device heard), ``answered`` and ``spoken`` (messages), ``dropped`` (messages it
            had no time for), ``garbled`` (characters somebody babbled over).
    """

    def __init__(
        self,
        wire: Wire,
        device: Answers | Talks,
        *,
        seed: int = 0,
        mode: Mode = "fifo",
        baud: int | None = None,
    ) -> None:
        super().__init__(wire, seed=seed, mode=mode, half_duplex=False)
        self._baud = baud
        self.device = device
        self.alive = True
        self.faults = Faults(seed, wire.link.name)
        self._free_at = 0.0
        self._speech = Timer(self._speak)
        if isinstance(device, Talks):
            self._speak_at = self._loop.time() + device.period
            self._speech.set(self._speak_at)

    def close(self) -> None:
        """Pull the adapter and stop the device."""
        super().close()
        self._speech.close()

    def _heard(self, data: bytes, at: float) -> None:
        if not self.alive or not isinstance(self.device, Answers):
            return
        self.counts["heard"] += len(data)
        if answer := self.device.hear(self._sampled(data)):
            self._say("answered", answer, at + self.device.turnaround_s)

    def _speak(self) -> None:
        assert isinstance(self.device, Talks)  # noqa: S101  # nobody else set the timer
        at = self._speak_at
        self._speak_at += self.device.period
        self._speech.set(self._speak_at)
        if not self.alive:
            return
        if self._free_at > at:
            self.counts["dropped"] += 1
        elif message := self.device.speak():
            self._say("spoken", message, at)

    def _say(self, how: str, message: bytes, start: float) -> None:
        struck = self.faults.strike(KINDS)
        if "silent" in struck:
            return
        message = self.faults.damage(message, struck) * (2 if "dup" in struck else 1)
        self._free_at = self._talk(max(start + struck.get("late", 0.0), self._free_at), self._sampled(message))
        self.counts[how] += 1

    def _sampled(self, data: bytes) -> bytes:
        """Return what the other end makes of it, which samples the wire at its own speed."""
        return data if self._baud in {None, self.wire.baud} else self._dice.randbytes(len(data))


class Replay:
    """Plays recorded messages, one each ``period`` seconds, once or for ever."""

    def __init__(self, messages: Iterable[bytes], period: float, *, for_ever: bool = False) -> None:
        self.period = period
        self._messages = deque(messages)
        self._for_ever = for_ever

    def speak(self) -> bytes:
        """Return the next message; nothing when all are played."""
        if not self._messages:
            return b""
        message = self._messages.popleft()
        if self._for_ever:
            self._messages.append(message)
        return message

"""Plantower PMS5003: fine dust by laser, on a UART (9600 8N1).

In active mode, as after power-up, it sends a frame every second; in passive mode, when asked. A frame is 42 4D, the
length, thirteen words and the sum of all bytes before it, all high byte first. A sensor that warms up sends
zeros for all that it measures; the last word says its version as ever.

Source: Plantower, PMS5003 series data manual, appendices I (frame) and II (commands).
"""

import struct
from collections.abc import Sequence

from hil.faults import seeded
from hil.truth import Said, Truth, Wander, now

_HEAD = b"\x42\x4d"
_COMMAND_SIZE = 7
_MODE, _READ, _SLEEP = 0xE1, 0xE2, 0xE4
_VERSION_AND_ERROR = 0x9700


class Pms5003:
    """The sensor. ``warm_up_s`` is how long it sends zeros after power-up and after sleep."""

    period = 1.0
    turnaround_s = 0.010

    def __init__(self, *, seed: int = 0, warm_up_s: float = 0.0) -> None:
        self._dust = Wander(seeded(seed, "pms5003"), 14.0, 9.0)
        self._warm_up_s = warm_up_s
        self._warm_at = now() + warm_up_s
        self._active = True
        self._asleep = False
        self._received = b""
        self._said = Said()

    def truth(self, at: float | None = None) -> Truth:
        """Return what was sent last at a time (s of the loop; None is now); nothing while it warms up.

        Mass in ug/m3 under atmospheric conditions (words 4 to 6), particles per cm3 (words 7 to 12, sent per 0.1 L).
        """
        return self._said.at(at)

    def speak(self) -> bytes:
        """Return a frame in active mode."""
        return self._frame() if self._active and not self._asleep else b""

    def hear(self, data: bytes) -> bytes:
        """Take bytes, carry out the commands in them."""
        self._received += data
        answers = b""
        while (start := self._received.find(_HEAD)) >= 0 and len(self._received) - start >= _COMMAND_SIZE:
            command = self._received[start : start + _COMMAND_SIZE]
            if _sum(command[:-2]) == command[-2:]:
                answers += self._obey(command[2], command[4])
                self._received = self._received[start + _COMMAND_SIZE :]
            else:
                self._received = self._received[start + 1 :]
        return answers

    def _obey(self, command: int, argument: int) -> bytes:
        if command == _SLEEP and argument == 1:
            self._asleep, self._active = False, True
            self._warm_at = now() + self._warm_up_s
            return b""  # it acknowledges by talking again
        if self._asleep:
            return b""
        if command == _READ:
            return b"" if self._active else self._frame()
        if command == _MODE and argument in (0, 1):
            self._active = argument == 1
        elif command == _SLEEP and argument == 0:
            self._asleep = True
        else:
            return b""
        answer = _HEAD + bytes((0, 4, command, argument))
        return answer + _sum(answer)

    def _frame(self) -> bytes:
        if now() < self._warm_at:
            self._said.note({})
            return frame([*[0] * 12, _VERSION_AND_ERROR])
        dust = self._dust.at(now())
        mass = [round(dust * share) for share in (0.64, 1.0, 1.08)]
        factory = [round(dust * share) for share in (0.66, 1.05, 1.19)]
        counts = [round(dust * share) for share in (187.0, 53.0, 11.2, 1.9, 0.42, 0.11)]
        truth = dict(zip(("pm1", "pm2_5", "pm10"), map(float, mass), strict=True))
        for channel, count in zip(("n0_3", "n0_5", "n1", "n2_5", "n5", "n10"), counts, strict=True):
            truth[channel] = count / 100
        self._said.note(truth)
        return frame([*factory, *mass, *counts, _VERSION_AND_ERROR])


def frame(words: Sequence[int]) -> bytes:
    """Return thirteen words as they are on the wire."""
    content = struct.pack(">2sH13H", _HEAD, 28, *words)
    return content + _sum(content)


def _sum(content: bytes) -> bytes:
    return sum(content).to_bytes(2, "big")

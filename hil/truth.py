"""What twins know: quantities that move with time, and what a right reader must make of what was sent.

A quantity is a function of time with nothing stored, so the truth of any moment can be asked for later. What a
talking device said is remembered instead, because only what was said can be read.
"""

import asyncio
import math
import random
import struct
from bisect import bisect_right
from collections import deque

Truth = dict[str, float]
"""Channel name to value, in the unit the channel has in DESIGN.md and its drivers."""

_REMEMBERED = 4096


class Wander:
    """A quantity that moves about its mean, never further than ``swing`` from it: three seeded waves.

    Its integral over time is exact, so that a meter's energy fits its power.
    """

    def __init__(self, dice: random.Random, mean: float, swing: float) -> None:
        self._mean = mean
        self._waves = [
            (share * swing, 2 * math.pi / (period_s * dice.uniform(0.8, 1.25)), dice.uniform(0, 2 * math.pi))
            for share, period_s in ((0.6, 311.0), (0.3, 47.0), (0.1, 7.0))
        ]

    def at(self, time: float) -> float:
        """Return the value at ``time`` (s)."""
        return self._mean + sum(size * math.sin(speed * time + phase) for size, speed, phase in self._waves)

    def integral(self, time: float) -> float:
        """Return the integral from 0 to ``time`` (value times s)."""
        waves = sum(
            size / speed * (math.cos(phase) - math.cos(speed * time + phase)) for size, speed, phase in self._waves
        )
        return self._mean * time + waves


class Said:
    """What a device said and when: the last few thousand messages."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_REMEMBERED)
        self._truths: deque[Truth] = deque(maxlen=_REMEMBERED)

    def note(self, truth: Truth) -> None:
        """Remember what is being said now."""
        self._times.append(now())
        self._truths.append(truth)

    def at(self, time: float | None) -> Truth:
        """Return what had been said last at ``time`` (None: by now); nothing if nothing had."""
        count = bisect_right(self._times, now() if time is None else time)
        return dict(self._truths[count - 1]) if count else {}


def now() -> float:
    """Return the running loop's time (s)."""
    return asyncio.get_running_loop().time()


def shortest(value: float) -> float:
    """Return the shortest decimal that is the same number as ``value`` in 32-bit floating point.

    What a meter sends as float32 0x43663333 is 230.1999969482421875 in full and 230.2 to everybody.
    """
    sent = struct.pack(">f", value)
    (in_full,) = struct.unpack(">f", sent)
    candidates = (float(f"{in_full:.{digits}g}") for digits in range(6, 10))  # nine always do
    return next(decimal for decimal in candidates if struct.pack(">f", decimal) == sent)

"""How each device does: counts that only grow, and when it last gave something.

Nothing is decided by it. The state message and the status socket show it.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class DeviceHealth:
    """One device.

    Attributes:
        good: looks that gave values.
        lost: looks that gave none, by the word of the error.
        last_good: when the last good one was, nanoseconds of CLOCK_BOOTTIME; None: never.
        lapse: word of the error that keeps it from giving values; "" while it gives them.
        trouble: the same in words, with what to do.
        latest: last value of each channel, for people at the pole.
    """

    good: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    last_good: int | None = None
    lapse: str = ""
    trouble: str = ""
    latest: dict[str, Any] = field(default_factory=dict)

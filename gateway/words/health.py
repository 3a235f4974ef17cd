"""How each device does: counts that only grow, and when it last gave something.

The state message and the status socket show it, and the watchdog takes the looks for the progress of who looks.
Nothing else is decided by it.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class DeviceHealth:
    """One device.

    Attributes:
        looks: looks and frames that came to an end, whatever they gave.
        good: looks that gave values.
        lost: looks that gave none, by the word of the error.
        last_good: when the last good one was, nanoseconds of CLOCK_BOOTTIME; None: never.
        lapse: word of the error that keeps it from giving values; "" while it gives them.
        lapses: how often it ceased to give values, by that word.
        since: when that changed last, nanoseconds of CLOCK_BOOTTIME; 0: never.
        text: the lapse in words.
        hint: what to do.
        latest: last value of each channel, for people at the pole.
        without: channels of which it was told that they have no reading.
    """

    looks: int = 0
    good: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    last_good: int | None = None
    lapse: str = ""
    lapses: Counter[str] = field(default_factory=Counter)
    since: int = 0
    text: str = ""
    hint: str = ""
    latest: dict[str, Any] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)

    @property
    def trouble(self) -> str:
        """The lapse in words, with what to do; "" for none."""
        return f"{self.text}. {self.hint}" if self.text else ""

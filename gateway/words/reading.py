"""What travels through the gateway: a reading, a lapse in its quality, a sealed pack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

REJECTED, ACCEPTED = 1, 4
"""Values of LwM2M resource 6042, measurement quality indicator: rejected with certainty, accepted."""


class Quality(NamedTuple):
    """Why there are no numbers from here on, or that there are again.

    Attributes:
        code: LwM2M 6042.
        why: one word: ``no-reply``, ``bad-frame``, ...; ``ok`` when it is over.
    """

    code: int
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at one device.

    Attributes:
        device: id of the device.
        dataset: where it belongs.
        at: when it was taken, nanoseconds of CLOCK_BOOTTIME.
        values: channel to number, text, flag or quality; never empty.
    """

    device: str
    dataset: str
    at: int
    values: Mapping[str, int | float | bool | str | Quality]

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that have a value here."""
        return tuple(name for name, value in self.values.items() if not isinstance(value, Quality))


class Pack(NamedTuple):
    """Readings of one dataset, sealed: stored, sent and counted as one, byte for byte.

    Attributes:
        dataset: where its readings belong.
        epoch: the run of the gateway that sealed it; grows by one at each start.
        n: number of the pack in its dataset and epoch, from 1 without a hole.
        readings: how many values it holds.
        taken: when its first reading was taken, nanoseconds of CLOCK_BOOTTIME of the boot it was sealed in.
        blob: the payload as it goes on the wire.
        offset: nanoseconds that were added to stamps for the time since 1970.
        certain: the kernel held the time of day for right when it was sealed.
    """

    dataset: str
    epoch: int
    n: int
    readings: int
    taken: int
    blob: bytes
    offset: int = 0
    certain: bool = True

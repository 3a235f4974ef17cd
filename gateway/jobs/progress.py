"""How far each job is, for systemd's watchdog, and how long each may take at the most, whatever becomes of its work.

What waits for the broker by its nature is not here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from drivers.contract import Advertised, Asked, Driver, Streamed
from gateway.jobs.tell_watchdog import Watched
from gateway.link.uplink import LONGEST_ROUND_S, Uplink
from gateway.sensors.poll import LONGEST_PAUSE_S
from gateway.store.buffer import LONGEST_ANSWER_S, Buffer
from gateway.words.health import DeviceHealth

LONGEST_LOOK_S = 600.0  # a driver may wait for its device for minutes: a fan runs before the first sample


class Radio(Protocol):
    """What is asked of :class:`gateway.sensors.radio.Radio`, which is imported only where it is wanted."""

    @property
    def rounds(self) -> int:
        """How often it went on."""

    @property
    def longest_round_s(self) -> float:
        """How long that takes at the most."""


def progress_of(
    devices: Sequence[Driver], health: Mapping[str, DeviceHealth], buffer: Buffer, uplink: Uplink, radio: Radio | None
) -> list[Watched]:
    """Tell how far each job is."""
    jobs = [
        Watched("buffer", buffer.answers, LONGEST_ANSWER_S),
        Watched("uplink", uplink.rounds, LONGEST_ROUND_S),
    ]
    if radio is not None:
        jobs.append(Watched("bluetooth", radio.rounds, radio.longest_round_s))
    return jobs + [Watched(f"device {each.id}", health[each.id].looks, _longest(each, devices)) for each in devices]


def _longest(device: Driver, devices: Sequence[Driver]) -> float:
    """Return the seconds in which a look at a device must have come to an end, whatever became of it."""
    if isinstance(device, Streamed | Advertised):
        return 3 * device.SILENT_AFTER_S + LONGEST_LOOK_S
    if not isinstance(device, Asked):
        return math.inf
    turns = sum(5.0 + 10 * other.timeout for other in devices if isinstance(other, Asked) and other.port == device.port)
    return device.every + LONGEST_PAUSE_S + turns + LONGEST_LOOK_S

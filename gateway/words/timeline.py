"""What is known of the time of day of each run, and packs put right by it.

A Pi has no clock chip. A pack that is sealed before the kernel holds the time of day for right carries a guess and
says so. If that boot's time becomes certain later, the pack goes out with the right time. If it never does, the pack
goes out marked, with the boot it belongs to and between which times that boot must have been: after the last run
before it whose time is certain had begun, and before the first one after it had.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from gateway.words import senml
from gateway.words.payload import packed, unpacked
from gateway.words.reading import Pack

NS = 1_000_000_000
BOOT_DIGITS = 8


class Epoch(NamedTuple):
    """A run of the gateway.

    Attributes:
        id: its number.
        boot: of the machine in which it ran.
        started: nanoseconds of CLOCK_BOOTTIME in that boot.
        utc: what to add to stamps of that boot for nanoseconds since 1970; None: it was never certain.
    """

    id: int
    boot: str
    started: int
    utc: int | None


class Timeline:
    """The runs there were."""

    def __init__(self, epochs: Callable[[], Iterable[Epoch]]) -> None:
        """Make it; ``epochs`` tells the runs, oldest first."""
        self._epochs = epochs

    def payload(self, pack: Pack) -> bytes:
        """Return a pack as it is to be sent: as it was sealed, unless its time was a guess."""
        if pack.certain:
            return pack.blob
        epochs = list(self._epochs())
        own = next((epoch for epoch in epochs if epoch.id == pack.epoch), None)
        if own is None:
            return pack.blob
        if own.utc is not None:
            return packed(senml.amended(unpacked(pack.blob), shift=own.utc - pack.offset, without="clock"))
        labels: dict[str, str | int] = {"boot": own.boot[:BOOT_DIGITS]}
        begun = [(epoch.id, epoch.started + epoch.utc) for epoch in epochs if epoch.utc is not None]
        if before := [at for number, at in begun if number < pack.epoch]:
            labels["earliest"] = before[-1] // NS
        if after := [at for number, at in begun if number > pack.epoch]:
            labels["latest"] = after[0] // NS
        return packed(senml.amended(unpacked(pack.blob), labels=labels))

"""A job: gather readings by dataset, and seal them into packs.

A pack is sealed once: encoded, compressed, numbered. From then on it is bytes. It is sealed when its first reading
is ``send_every`` seconds old, or when it holds so much that a larger one would not compress better. While there is no
uplink it goes on until it must be on the disk: larger packs and fewer commits spare the flash.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from gateway.words.catalogue import Catalogue
from gateway.words.payload import packed
from gateway.words.reading import Pack, Reading
from gateway.words.senml import encode

MOST_VALUES = 2000


class Clock(Protocol):
    """The clocks a pack is stamped with; see :class:`gateway.host.clock.Clock`."""

    def now(self) -> int:
        """Return nanoseconds since boot."""

    def utc_offset(self) -> int:
        """Return what to add for nanoseconds since 1970."""

    def synchronised(self) -> bool:
        """Tell whether that is right."""


class Rhythm(Protocol):
    """How a dataset is packed: seconds until a pack is sealed, and until it is on disk, from its first reading."""

    @property
    def send_every(self) -> float:
        """Return the one."""

    @property
    def commit_within(self) -> float:
        """Return the other."""


@dataclass(slots=True)
class _Open:
    """A pack that is not sealed yet.

    Attributes:
        timer: seals it.
        readings: in it.
        values: in those.
    """

    timer: asyncio.TimerHandle
    readings: list[Reading] = field(default_factory=list)
    values: int = 0


class Packer:
    """The open packs."""

    def __init__(
        self,
        pole: str,
        *,
        epoch: int,
        after: Callable[[str], str],
        rhythm: Callable[[str], Rhythm],
        catalogue: Catalogue,
        clock: Clock,
        put: Callable[[Pack, float], None],
        may_wait: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make it.

        Args:
            pole: what all names begin with.
            epoch: number of this run.
            after: tells, by dataset, where the last run ended.
            rhythm: tells that of a dataset.
            catalogue: knows the unit of each channel.
            clock: the machine's.
            put: takes a sealed pack, and the seconds it may stay in RAM.
            may_wait: tells that nobody would get a pack now: then it goes on until it must be on the disk.
        """
        self._pole = pole
        self._epoch = epoch
        self._after = after
        self._rhythm = rhythm
        self._catalogue = catalogue
        self._clock = clock
        self._put = put
        self._loop = asyncio.get_running_loop()
        self._may_wait = may_wait
        self._open: dict[str, _Open] = {}
        self._sealed: dict[str, int] = {}

    def keep(self, reading: Reading) -> None:
        """Take a reading."""
        dataset = reading.dataset
        pack = self._open.get(dataset)
        if pack is None:
            timer = self._loop.call_later(self._rhythm(dataset).send_every, self._due, dataset)
            pack = self._open[dataset] = _Open(timer)
        pack.readings.append(reading)
        pack.values += len(reading.values)
        if pack.values >= MOST_VALUES:
            self.seal(dataset)

    def _due(self, dataset: str) -> None:
        rhythm = self._rhythm(dataset)
        if self._may_wait() and (longer := rhythm.commit_within - rhythm.send_every) > 0:
            self._open[dataset].timer = self._loop.call_later(longer, self.seal, dataset)
        else:
            self.seal(dataset)

    def seal(self, dataset: str) -> None:
        """Seal the open pack of a dataset and hand it on."""
        sealed = self._open.pop(dataset)
        sealed.timer.cancel()
        number = self._sealed[dataset] = self._sealed.get(dataset, 0) + 1
        offset, certain = self._clock.utc_offset(), self._clock.synchronised()
        blob = encode(
            sealed.readings,
            pole=self._pole,
            unit_of=self._catalogue.unit,
            utc_offset=offset,
            labels=self._labels(dataset, number, certain=certain),
        )
        taken = sealed.readings[0].at
        pack = Pack(dataset, self._epoch, number, sealed.values, taken, packed(blob), offset, certain)
        age = (self._clock.now() - pack.taken) / 1e9
        self._put(pack, max(0.0, self._rhythm(dataset).commit_within - age))

    def seal_all(self) -> None:
        """Seal all that is open: the gateway stops."""
        for dataset in list(self._open):
            self.seal(dataset)

    def seal_those(self, datasets: Collection[str]) -> None:
        """Seal what is open of some datasets: from now on they are packed, or described, in another way."""
        for dataset in self._open.keys() & set(datasets):
            self.seal(dataset)

    def _labels(self, dataset: str, number: int, *, certain: bool) -> dict[str, int | str]:
        labels: dict[str, int | str] = {"epoch": self._epoch, "seq": number, "cat": self._catalogue.hash(dataset)}
        if number == 1 and (after := self._after(dataset)):
            labels["after"] = after
        if not certain:
            labels["clock"] = "unsynchronised"
        return labels

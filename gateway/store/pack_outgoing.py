"""Who is next: packs that wait, in RAM and in the file, in the order in which they are to be sent.

First those of urgent datasets, then what was sealed since the link came up, then the backlog, oldest first and no more
of it than is asked for. Of each the packs in RAM come before those in the file. What is taken is out until it is given
back or leaves.
"""

import asyncio
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from gateway.store.held import Held
from gateway.store.pack_ahead import Ahead, Waiting
from gateway.store.pack_disk import Disk
from gateway.store.pack_sql import Dropped, SqlError

RETRY_S = 5.0


class Outgoing:
    """The packs that wait.

    Attributes:
        out: those that are taken, by number.
    """

    def __init__(
        self,
        disk: Disk,
        ram: Mapping[int, Held],
        *,
        urgent: frozenset[str],
        disk_first: bool,
        leaves: Callable[[int], bool],
        damaged: Callable[[Sequence[Dropped]], None],
    ) -> None:
        """Make it.

        Args:
            disk: where rows are read from.
            ram: the packs in RAM, taken or not.
            urgent: datasets that go before all.
            disk_first: while the file works, packs in RAM are not given.
            leaves: tells, by number, that a row waits no more though it is still there.
            damaged: takes the rows that were found damaged.
        """
        self._disk = disk
        self._ram = ram
        self._urgent = urgent
        self._disk_first = disk_first
        self._leaves = leaves
        self._damaged = damaged
        self._loop = asyncio.get_running_loop()
        self._rows = Waiting(disk.read, urgent)
        self._work = asyncio.Event()
        self._old = math.inf  # packs of the backlog that may still be taken
        self._readable, self._unread = True, False
        self.out: dict[int, Held] = {}

    async def take(self, limit: int) -> list[Held]:
        """Wait for packs that are not taken, and take up to ``limit``."""
        rows = self._rows
        while True:
            self._work.clear()  # before looking: what comes while the file is read is not missed
            held = self._from_ram(limit, urgent=True)
            held += await self._from_file(rows.urgent, limit - len(held))
            held += self._from_ram(limit - len(held), urgent=False)
            held += await self._from_file(rows.live, limit - len(held))
            old = await self._from_file(rows.backlog, min(limit - len(held), self._old))
            self._old -= len(old)
            for each in old:
                each.old = True
            if held or old:
                return held + old
            if not (self._can_read(rows.urgent, rows.live) or (self._old > 0 and self._can_read(rows.backlog))):
                await self._work.wait()

    def release(self, held: Held) -> None:
        """It is to be taken again."""
        del self.out[held.number]
        held.taken = False
        if held.stored:
            self._rows.again(held.number, held.pack.dataset)
        self._work.set()

    def came(self, stored: Iterable[Held] = ()) -> None:
        """There is more: in RAM, or these rows."""
        for held in stored:
            if not held.taken:
                self._rows.came(held.number, held.pack.dataset)
        self._work.set()

    def drop(self, numbers: Collection[int]) -> None:
        """These leave, taken or not."""
        for number in numbers & self.out.keys():
            self.out.pop(number).left = True
        self._rows.drop(numbers)

    def begin_backlog(self, newest: int) -> None:
        """A link came up: rows up to that one are the backlog."""
        self._rows.begin_backlog(newest)
        self._work.set()

    def allow_backlog(self, packs: int) -> None:
        """So many packs of the backlog may be taken from now on."""
        self._old = packs
        self._work.set()

    def hurry(self, urgent: frozenset[str]) -> None:
        """These datasets go before all from now on."""
        if urgent != self._urgent:
            self._urgent = urgent
            self._rows.hurry(urgent)
            self._work.set()

    def rest(self, dataset: str) -> None:
        """Give none of a dataset."""
        self._rows.rest(dataset)

    def resume(self, dataset: str) -> None:
        """Give them again."""
        self._rows.resume(dataset)
        self._work.set()

    def opened(self, datasets: frozenset[str]) -> None:
        """The file was opened and has rows of these datasets."""
        self._rows.opened(datasets)

    def again_all(self) -> None:
        """Read all rows again."""
        self._rows.again_all()
        self._work.set()

    def _from_ram(self, limit: int, *, urgent: bool) -> list[Held]:
        if self._disk_first and self._disk.is_open and not self._disk.trouble:
            return []
        ready = (
            held
            for held in self._ram.values()
            if not held.taken
            and held.pack.dataset not in self._rows.resting
            and (held.pack.dataset in self._urgent) == urgent
        )
        return self._taken(list(itertools.islice(ready, limit)))

    async def _from_file(self, rows_of: Ahead, limit: float) -> list[Held]:
        """Take rows that wait and are not out; none for a while where the file cannot be read."""
        if limit <= 0 or not self._can_read(rows_of):
            return []
        try:
            rows, damaged = await rows_of.take(
                int(limit), lambda number: not (number in self.out or self._leaves(number))
            )
        except (SqlError, OSError) as error:
            self._disk.tell(str(error))
            self._readable, self._unread = False, True
            self._loop.call_later(RETRY_S, self._read_again)
            return []
        if self._unread:
            self._unread = False
            self._disk.tell("")
        self._damaged(damaged)
        return self._taken([Held(row.id, row.pack, stored=True) for row in rows])

    def _can_read(self, *rows: Ahead) -> bool:
        return self._readable and any(some.has_some for some in rows)

    def _read_again(self) -> None:
        self._readable = True
        self._work.set()

    def _taken(self, batch: list[Held]) -> list[Held]:
        for held in batch:
            held.taken = True
            self.out[held.number] = held
        return batch

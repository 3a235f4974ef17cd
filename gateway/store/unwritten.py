"""What waits for the next commit: packs in RAM, and what is to change of rows.

New packs wait until they are due; all that wait are committed with the first, the oldest first. What was acknowledged
or set aside in RAM is written with them where it is to stay. Rows that leave, and what was lost, ride along; they are
written by themselves only after a while.
"""

import asyncio
import math
from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from gateway.store.held import Held, up_to
from gateway.store.level import HISTORY
from gateway.store.pack_sql import COMMIT_BYTES, Dropped, Loss, Row, Written, loss_of, victim_of

DELETE_WITHIN_S = 60.0  # acknowledged rows leave by then even if nothing else is written
RAM_BYTES = 32 * 1024 * 1024


class Batch(NamedTuple):
    """What is committed at once.

    Attributes:
        packs: that wait.
        history: that were acknowledged.
        aside: that no broker takes.
        leaving: numbers of rows that leave.
        losses: to be remembered.
    """

    packs: list[Held]
    history: list[Held]
    aside: list[Row]
    leaving: list[int]
    losses: list[Loss]

    def rows(self) -> list[Row]:
        """Return the new rows."""
        waiting = [Row(held.number, held.pack) for held in self.packs]
        return waiting + [Row(held.number, held.pack, HISTORY) for held in self.history] + self.aside


class Unwritten:
    """It.

    Attributes:
        ram: packs that were not acknowledged, by number.
        history: packs that were, and are to stay.
        aside: packs that no broker takes.
        leaving: numbers of rows that leave.
    """

    def __init__(self, changed: asyncio.Event) -> None:
        """Make it; ``changed`` is set when something is to be written sooner than :meth:`due` told."""
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._leave_by = math.inf
        self._losses: list[Loss] = []
        self.ram: dict[int, Held] = {}
        self.history: dict[int, Held] = {}
        self.aside: dict[int, Row] = {}
        self.leaving: set[int] = set()

    def due(self) -> float:
        """Return when the next commit is due, in the loop's time."""
        return min(min((held.due for held in self.ram.values()), default=math.inf), self._leave_by)

    def gives(self, number: int) -> bool:
        """Tell that a row waits no more though it is still there."""
        return number in self.leaving or number in self.aside

    @property
    def takes_back(self) -> bool:
        """Tell whether the file has something as lost that is not."""
        return any(loss.packs < 0 for loss in self._losses)

    def lost(self, dropped: Iterable[Dropped], left: Container[int] = ()) -> list[Dropped]:
        """Return those of some packs that still waited when they gave way; that the others are lost is taken back.

        Args:
            dropped: the packs.
            left: numbers of packs that had no row and wait no more.
        """
        lost = []
        for row in dropped:
            if row.id in left or self.gives(row.id):
                self._losses.append(row.loss.taken_back())
                self._leave_soon()
            else:
                lost.append(row)
        return lost

    def packs(self) -> list[Row]:
        """Return the packs that have no row yet, but for those set aside."""
        return [Row(held.number, held.pack) for held in (*self.history.values(), *self.ram.values())]

    def leave(self, number: int) -> None:
        """A row leaves."""
        self.leaving.add(number)
        self._leave_soon()

    def wrote_in_vain(self, number: int) -> None:
        """A pack waits no more since it was being written: its row leaves, or is set aside with the next commit."""
        self.history.pop(number, None)
        if number not in self.aside:
            self.leave(number)

    def keep(self, held: Held) -> None:
        """A pack that was acknowledged before it had a row is to stay as history."""
        self.history[held.number] = held
        self._leave_soon()

    def set_aside(self, held: Held, level: int) -> None:
        """No broker takes a pack: it is written as soon as it would have been."""
        self.ram.pop(held.number, None)
        self.aside[held.number] = Row(held.number, held.pack, level)
        self._leave_by = min(self._leave_by, held.due, self._loop.time() + DELETE_WITHIN_S)
        self._changed.set()

    def batch(self) -> Batch | None:
        """Return what is to be written next, the oldest first; None: there is nothing."""
        batch = Batch(
            up_to(COMMIT_BYTES, self.ram.values()),
            up_to(COMMIT_BYTES, self.history.values()),
            list(self.aside.values()),
            list(self.leaving),
            list(self._losses),
        )
        return batch if any(batch) else None

    def wrote(self, batch: Batch, written: Written) -> list[Dropped]:
        """Forget what was written, but for the packs that wait; return those that gave way and waited."""
        del self._losses[: len(batch.losses)]
        for held in batch.history:
            self.history.pop(held.number, None)
        for row in batch.aside:
            self.aside.pop(row.id, None)
        self.leaving.difference_update(batch.leaving)
        lost = self.lost(written.dropped, {held.number for held in batch.packs if held.left})
        self.leaving.difference_update(row.id for row in written.dropped)
        self._leave_by = math.inf
        if self.leaving or self.history or self.aside or self.takes_back:
            self._leave_soon()
        return lost

    def bound(self, rank: Callable[[Held], tuple[int, int]]) -> tuple[list[Dropped], list[int]]:
        """Let packs go that the disk does not take and RAM cannot hold: the least important first, then the oldest.

        Returns:
            Those that waited; the numbers of those that were set aside.
        """
        in_ram = [*(held.pack for held in self.ram.values()), *(row.pack for row in self.aside.values())]
        excess = sum(len(pack.blob) for pack in in_ram) - RAM_BYTES
        self.history.clear()
        aside: list[int] = []
        if excess > 0:
            aside = list(self.aside)
            for row in self.aside.values():
                self._losses.append(loss_of([victim_of(row)], "refused"))
                self.leave(row.id)  # it may have a row, which would wait again
            self.aside.clear()
        dropped: list[Dropped] = []
        for held in sorted(self.ram.values(), key=rank):
            if excess <= 0:
                break
            excess -= len(held.pack.blob)
            del self.ram[held.number]
            held.left = True  # it may be written at this moment
            dropped.append(Dropped(held.number, loss_of([victim_of(Row(held.number, held.pack))], "refused")))
        self._losses += [row.loss for row in dropped]
        return dropped, aside

    def _leave_soon(self) -> None:
        if self._leave_by == math.inf:
            self._leave_by = self._loop.time() + DELETE_WITHIN_S
            self._changed.set()

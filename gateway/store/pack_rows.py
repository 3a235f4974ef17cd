"""The rows of the buffer's file, once it is open: what a commit does, and what is read.

One row is one sealed pack, framed (:mod:`gateway.store.frame`), so that a flipped bit is noticed and a damaged file can
be read without SQLite (:mod:`gateway.store.pack_raw`). Who gives way when the file is full is
:mod:`gateway.store.pack_room`.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gateway.store import frame, pack_counts, pack_epochs, pack_sql
from gateway.store.level import FRESH, HISTORY, SET_ASIDE, is_sound, level_of, stored
from gateway.store.pack_room import HISTORY_RANK, SET_ASIDE_RANK, Room, Victim
from gateway.store.pack_space import Space
from gateway.store.pack_sql import (
    ALL,
    Dropped,
    Loss,
    Row,
    Which,
    Written,
    is_full,
    loss_of,
    one,
    room_for,
    transaction,
    victim_of,
)

AT_A_TIME = 100
Waiting = dict[int, int]
"""The numbers of the rows that wait, and how many readings are in each."""


class Rows:
    """The rows. Every method may raise SqlError."""

    def __init__(self, room: Room, space: Space, *, history: bool) -> None:
        """Set it; ``begin`` begins it.

        Args:
            room: who gives way.
            space: how much there is.
            history: acknowledged packs stay while there is room.
        """
        self._room = room
        self._space = space
        self._history = history
        self._highest = 0  # no row has a greater number
        self._unnoted = 0  # commits since it was noted how many rows there are
        self._is_stale = False
        self._sql: sqlite3.Connection
        self._boot = ""

    def begin(self, sql: sqlite3.Connection, boot: str) -> tuple[int, int]:
        """Go on with a file that was opened, in this boot of the machine; return the packs and readings that wait."""
        self._sql = sql
        self._boot = boot
        self._highest = one(sql, "SELECT coalesce(max(id), 0) FROM pack")
        self._space.begin(sql)
        self._is_stale = False
        return pack_counts.recall(sql, self._room)

    def write(
        self,
        rows: Sequence[Row],
        leaving: Iterable[int],
        losses: Iterable[Loss] = (),
        *,
        forget_before: int | None = None,
    ) -> Written:
        """Delete what leaves, make room, insert: one transaction, one fsync.

        Args:
            rows: new packs; with a level of HISTORY those that were acknowledged already, with one of SET_ASIDE and
                below those that no broker takes, which may have a row.
            leaving: numbers of rows that were acknowledged.
            losses: to be remembered.
            forget_before: packs of the history that were taken before leave, nanoseconds of CLOCK_BOOTTIME.
        """
        leaving = list(leaving)
        losses = list(losses)
        try:
            return self._write(rows, leaving, losses, forget_before)
        except sqlite3.OperationalError as error:
            if not is_full(error) or self._space.is_bound:
                raise
            self._space.gave_up_ballast(error)
            self._space.stop_growing()
            return self._write(rows, leaving, losses, forget_before)

    def _write(
        self, rows: Sequence[Row], leaving: Sequence[int], losses: Sequence[Loss], forget_before: int | None
    ) -> Written:
        with self._changing():
            for some in range(0, len(leaving), AT_A_TIME):
                self._acknowledged(leaving[some : some + AT_A_TIME])
            if forget_before is not None:
                self._room.forget(self._sql, pack_epochs.taken_before(self._sql, self._boot, forget_before))
            known = [row.id for row in rows if row.id <= self._highest]  # the journal may give a pack again
            there = self.which_are_there(known)
            self._write_again(row for row in rows if row.id in there)
            rows, dropped, refused = self._make_room([row for row in rows if row.id not in there])
            is_noted = not self._append(rows) or self._unnoted >= pack_counts.NOTED_EVERY
            if is_noted:
                pack_counts.note(self._sql, self._room)
            if losses:
                pack_sql.add_losses(self._sql, losses)
        self._unnoted = 0 if is_noted else self._unnoted + 1
        self._space.lay_ballast()
        return Written(dropped, refused, self._room.set_aside())

    def read(self, after: int, limit: int, which: Which = ALL) -> tuple[list[Row], int, list[Dropped]]:
        """Return up to ``limit`` rows that wait and whose number is greater than ``after``, in order.

        Returns:
            The rows; the number to go on after; rows that were damaged, which are deleted and counted as lost.
        """
        condition, values = which.condition()
        found = self._sql.execute(
            "SELECT id, dataset, n, readings, taken, level, frame FROM pack WHERE id > ? AND level >= 0"  # noqa: S608  # our own words
            f"{condition} ORDER BY id LIMIT ?",
            (after, *values, limit),
        ).fetchall()
        rows, damaged = self._sound(found)
        return rows, found[-1][0] if found else after, damaged

    def verify(self, after: int, limit: int) -> tuple[int, list[Dropped], Waiting | None]:
        """Look at up to ``limit`` rows whose number is greater than ``after``, in order, whether they wait or not.

        Returns:
            The number to go on after, the same where there are no more; rows that waited and were damaged, which are
            deleted and counted as lost; what waits now, where the level of a row was none.
        """
        found = self._sql.execute(
            "SELECT id, dataset, n, readings, taken, level, frame FROM pack WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        ).fetchall()
        _, damaged = self._sound(found)
        waiting = None
        if not all(is_sound(level) for *_, level, _ in found):
            pack_counts.count(self._sql, self._room)
            waiting = self.waiting()
        return found[-1][0] if found else after, damaged, waiting

    def _sound(self, found: Iterable[Sequence[Any]]) -> tuple[list[Row], list[Dropped]]:
        """Take the packs out of whole rows; delete those that are damaged, and return those of them that waited."""
        rows, damaged = [], []
        for *columns, framed in found:
            try:
                rows.append(Row(*frame.unseal(framed), level_of(columns[-1])))
            except frame.Damaged:
                damaged.append(Victim.of_row(*columns))
        if damaged:
            return rows, self._give_up(damaged)
        return rows, []

    def waiting(self) -> Waiting:
        """Return what waits."""
        return dict(self._sql.execute("SELECT id, readings FROM pack WHERE level >= 0").fetchall())

    def held(self, dataset: str, epoch: int, first: int, last: int, limit: int) -> list[Row]:
        """Return packs of a dataset by epoch and n, acknowledged or not, up to ``limit``, in order of n."""
        span = frame.number_of(epoch, 0), frame.number_of(epoch, frame.LARGEST_COUNT)  # SQLite knows no 2**63
        found = self._sql.execute(
            "SELECT frame, level FROM pack WHERE id BETWEEN ? AND ? AND dataset = ? AND n BETWEEN ? AND ?"
            " ORDER BY id LIMIT ?",
            (*span, dataset, first, last, limit),
        )
        rows = []
        for framed, level in found:
            try:
                rows.append(Row(*frame.unseal(framed), level_of(level)))
            except frame.Damaged:
                continue  # it is told where it is to be sent
        return rows

    def which_are_there(self, numbers: Sequence[int]) -> set[int]:
        """Return those of some numbers that have a row."""
        there: set[int] = set()
        for some in range(0, len(numbers), AT_A_TIME):
            wanted = numbers[some : some + AT_A_TIME]
            query = f"SELECT id FROM pack WHERE id IN ({', '.join('?' * len(wanted))})"  # noqa: S608  # question marks
            there.update(number for (number,) in self._sql.execute(query, wanted))
        return there

    def retry(self) -> int:
        """Let the rows that were set aside wait again, and return how many they are."""
        dead = f"level <= {SET_ASIDE}"
        with self._changing():
            rows = self._sql.execute(f"SELECT dataset, level, readings FROM pack WHERE {dead}").fetchall()  # noqa: S608  # our own words
            self._sql.execute(f"UPDATE pack SET level = {FRESH} WHERE {dead}")  # noqa: S608  # the same
            for dataset, level, readings in rows:
                self._room.left(dataset, level_of(level), readings)
                self._room.came(dataset, FRESH, readings)
            pack_counts.note(self._sql, self._room)
        return len(rows)

    def used_bytes(self) -> int:
        """Return the bytes of the pages in use."""
        return self._space.used_bytes()

    def _acknowledged(self, numbers: Sequence[int]) -> None:
        these = f"WHERE id IN ({', '.join('?' * len(numbers))})"
        if self._history:
            select = f"SELECT id, dataset, level, readings FROM pack {these}"  # noqa: S608  # question marks
            for number, dataset, level, readings in self._sql.execute(select, numbers).fetchall():
                self._room.moved((number, dataset, level_of(level), readings), HISTORY)
            self._sql.execute(f"UPDATE pack SET level = {HISTORY} {these}", numbers)  # noqa: S608  # the same
        else:
            delete = f"DELETE FROM pack {these} RETURNING dataset, level, readings"  # noqa: S608  # the same
            for dataset, level, readings in self._sql.execute(delete, numbers):
                self._room.left(dataset, level_of(level), readings)

    def _write_again(self, rows: Iterable[Row]) -> None:
        """Let rows be set aside, or wait again where nobody knew that they had been."""
        for number, pack, level in rows:
            old = level_of(self._one("SELECT level FROM pack WHERE id = ?", number))
            if level <= SET_ASIDE or old < FRESH <= level:
                self._room.moved((number, pack.dataset, old, pack.readings), level)
                self._sql.execute("UPDATE pack SET level = ? WHERE id = ?", (stored(level), number))

    def _make_room(self, rows: list[Row]) -> tuple[list[Row], list[Dropped], set[int]]:
        dropped: list[Dropped] = []
        refused: set[int] = set()
        while rows and not self._space.take(room_for(rows)):
            least = self._room.least()
            new = min(rows, key=self._refused_first)
            if least is not None and least <= self._rank(new):
                victims = self._room.give_way(self._sql, least)
                reason = "evicted"
                if not victims:
                    pack_counts.count_rows(self._sql, self._room)
            else:
                rows.remove(new)
                refused.add(new.id)
                victims, reason = [victim_of(new)], "refused"
            dropped += self._lose(victims, reason)
        return rows, dropped, refused

    def _refused_first(self, row: Row) -> tuple[int, int]:
        """Order new packs: the least important first, the older first; of what is to be kept the newer first."""
        return self._rank(row), -row.id if self._room.rule(row.pack.dataset) == "keep" else row.id

    def _rank(self, row: Row) -> int:
        if row.level >= FRESH:
            return self._room.rank(row.pack.dataset)
        return HISTORY_RANK if row.level == HISTORY else SET_ASIDE_RANK

    def _lose(self, victims: Iterable[Victim], reason: str) -> list[Dropped]:
        lost = [(victim, loss_of([victim], reason)) for victim in victims if victim.level != HISTORY]
        pack_sql.add_losses(self._sql, (loss for _, loss in lost))
        return [Dropped(victim.id, loss) for victim, loss in lost if victim.level >= FRESH]

    def _give_up(self, damaged: Sequence[Victim]) -> list[Dropped]:
        with self._changing():
            for victim in damaged:
                self._sql.execute("DELETE FROM pack WHERE id = ?", (victim.id,))
                self._room.left(victim.dataset, victim.level, victim.readings)
            lost = self._lose(damaged, "damaged")
            pack_counts.note(self._sql, self._room)
        return lost

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """A transaction. Where it fails, what is known of the rows is read from the file before the next."""
        if self._is_stale:
            pack_counts.recall(self._sql, self._room)
            self._is_stale = False
        try:
            with transaction(self._sql):
                yield
        except BaseException:
            self._is_stale = True
            self._space.forget()
            raise

    def _append(self, rows: Sequence[Row]) -> bool:
        """Insert rows; tell whether they only came behind all others, and nothing else has changed."""
        self._sql.executemany(
            "INSERT INTO pack(id, dataset, n, readings, taken, level, frame) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (number, pack.dataset, pack.n, pack.readings, pack.taken, stored(level), frame.seal(number, pack))
                for number, pack, level in rows
            ),
        )
        behind = self._highest
        for number, pack, level in rows:
            self._room.came(pack.dataset, level, pack.readings)
            self._room.reached(pack.dataset, (pack.epoch, pack.n))
            self._highest = max(self._highest, number)
        return self._room.only_grew and all(row.id > behind for row in rows)

    def _one(self, query: str, *parameters: object) -> int:
        return one(self._sql, query, *parameters)

"""A door: the buffer's file. All of it runs on the buffer's one thread, over one connection.

One row is one sealed pack, framed (:mod:`gateway.store.frame`), so that a flipped bit is noticed and a damaged file can
be read without SQLite (:mod:`gateway.store.pack_raw`). Opening never fails because of what is in the file: it is set
aside, and what is sound in it is taken over (:mod:`gateway.store.pack_mend`). Who gives way when the file is full is
:mod:`gateway.store.pack_room`.
"""

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gateway.store import frame, pack_mend, pack_raw, pack_sql
from gateway.store.pack_room import (
    FRESH,
    HISTORY,
    HISTORY_RANK,
    SET_ASIDE,
    SET_ASIDE_RANK,
    Room,
    Terms,
    Victim,
    sound_level,
)
from gateway.store.pack_sql import (
    ALL,
    WAL_BYTES,
    Contents,
    Dropped,
    Loss,
    Mended,
    Row,
    Which,
    Written,
    connect,
    is_damage,
    loss_of,
    one,
    room_for,
    transaction,
    victim_of,
)
from gateway.words.timeline import Epoch

BALLAST_BYTES = 1_500_000
SALVAGE_BATCH = 256
AT_A_TIME = 100
NOTHING = pack_raw.Tail([], is_damage=False)


class PackFile:
    """The file. Every method may raise SqlError; :func:`is_damage` tells whether ``mend`` helps.

    Attributes:
        path: where it lies.
    """

    def __init__(
        self, path: Path, max_bytes: int, terms: Mapping[str, Terms] | None = None, *, history: bool = False
    ) -> None:
        """Set it; ``open`` opens it.

        Args:
            path: the database; its folder is made where it is not there.
            max_bytes: how large the file and its WAL may become.
            terms: by dataset, who gives way; it may change.
            history: acknowledged packs stay while there is room.
        """
        self.path = path
        self._most_bytes = self._max_bytes = max_bytes - WAL_BYTES
        self._ballast = path.with_name(f"{path.name}.ballast")
        self._room = Room(terms if terms is not None else {})
        self._history = history
        self._batches = itertools.count(1)
        self._epoch = self._page_bytes = 0
        self._beginning: tuple[str, int, int | None] = ("", 0, None)
        self._sql: sqlite3.Connection

    def open(self, boot: str, started: int = 0, utc: int | None = None, epoch: int = 0) -> Contents:
        """Open or make it and begin an epoch; whatever is in the file, it is mended. Raises OSError as well.

        Args:
            boot: id of this boot of the machine.
            started: now, nanoseconds of CLOCK_BOOTTIME.
            utc: what to add for nanoseconds since 1970, where that is certain.
            epoch: the one that began already, before the file could be opened; 0: the next one.
        """
        pack_mend.make_folder(self.path.parent)
        self._beginning = boot, started, utc
        why = self._what_is_wrong()
        if why:
            pack_mend.set_aside(self.path)
        tail = pack_raw.dropped_by_sqlite(self.path)  # before SQLite overwrites it
        try:
            return self._open(why, tail, epoch)
        except (sqlite3.Error, *pack_sql.UNREADABLE) as error:
            if not is_damage(error):
                raise
            pack_mend.set_aside(self.path)
            return self._open(str(error), tail, epoch)

    def mend(self, why: str) -> tuple[Mended | None, set[int]]:
        """Mend the file that turned out to be damaged while it was open.

        Returns:
            What was found, and the numbers of the rows that wait.
        """
        self._sql.close()
        pack_mend.set_aside(self.path)
        self._sql = self._connect()
        self._sql.execute(pack_sql.ADD_EPOCH, (self._epoch, *self._beginning))
        mended = self._take_over(why, NOTHING)
        self._count()
        return mended, {number for (number,) in self._sql.execute("SELECT id FROM pack WHERE level >= 0")}

    def take_over(self, copy: Path) -> Contents:
        """Insert what a copy has that is not here. Raises OSError."""
        self._insert_missing(pack_raw.Salvage(copy))
        return self._contents(*self._count(), None)

    def _what_is_wrong(self) -> str:
        """Return what SQLite would not notice, or could not even look at; "" for nothing."""
        if pack_mend.mending(self.path).parent.exists() and not self.path.exists():
            return "the file was being mended when the gateway ended"
        if self.path.is_dir():
            return "there is a folder in its place"
        if self.path.exists() and not self.path.stat().st_size and pack_mend.highest_epoch(self.path):
            return "the file is empty"
        if not self.path.exists() and pack_mend.highest_epoch(self.path):
            return "the file is gone"
        return ""

    def _open(self, why: str, tail: pack_raw.Tail, epoch: int) -> Contents:
        self._sql = self._connect()
        try:
            self._epoch = self._begin(epoch)
            pack_mend.note_epoch(self.path, max(self._epoch, pack_mend.highest_epoch(self.path)))
            mended = self._take_over(why, tail)
            if tail.packs:
                self._sql.execute("PRAGMA wal_checkpoint(RESTART)")  # else they lie there still at the next start
            packs, readings = self._count() if mended or tail.packs else self._recall()
        except BaseException:
            self._sql.close()
            raise
        return self._contents(packs, readings, mended)

    def _connect(self) -> sqlite3.Connection:
        sql = connect(self.path)
        self._page_bytes = one(sql, "PRAGMA page_size")
        self._lay_ballast()
        return sql

    def _begin(self, epoch: int) -> int:
        boot, started, utc = self._beginning
        self._recall()
        highest = max(self._one("SELECT coalesce(max(id), 0) FROM epoch"), pack_mend.highest_epoch(self.path))
        epoch = epoch or highest + 1
        with transaction(self._sql):
            oldest = self._one("SELECT coalesce(min(id), 0) FROM pack") >> frame.EPOCH_SHIFT
            self._sql.execute("DELETE FROM epoch WHERE id < ? AND id < ? - 100", (oldest or epoch, epoch))
            if utc is not None:
                self.know_utc(boot, utc)
            self._sql.execute(pack_sql.ADD_EPOCH, (epoch, boot, started, utc))
        return epoch

    def _contents(self, packs: int, readings: int, mended: Mended | None) -> Contents:
        return Contents(
            epoch=self._epoch,
            marks={name: (e, n) for name, e, n in self._sql.execute("SELECT dataset, epoch, n FROM mark WHERE n > 0")},
            epochs=[Epoch(*row) for row in self._sql.execute("SELECT id, boot, started, utc FROM epoch ORDER BY id")],
            packs=packs,
            readings=readings,
            set_aside=self._room.set_aside(),
            waiting=self._room.waiting(),
            mended=mended,
        )

    def _recall(self) -> tuple[int, int]:
        """Return packs and readings that wait, as the last commit noted them."""
        marks = self._sql.execute("SELECT dataset, levels, readings FROM mark").fetchall()
        groups = []
        for dataset, levels, readings in marks:
            rows = {int(level): packs for level, packs in json.loads(levels).items()}
            groups += [(dataset, level, packs, 0) for level, packs in rows.items()]
            groups.append((dataset, FRESH, 0, readings))
        self._room.count(groups)
        waiting = sum(packs for _, level, packs, _ in groups if level >= FRESH)
        return waiting, sum(readings for *_, readings in marks)

    def _count(self) -> tuple[int, int]:
        """Count packs and readings that wait, row by row, and note it."""
        groups = self._sql.execute(
            "SELECT dataset, level, count(*), sum(readings) FROM pack GROUP BY dataset, level"
        ).fetchall()
        self._room.count(groups)
        with transaction(self._sql):
            self._sql.execute("UPDATE mark SET levels = '{}', readings = 0")
            self._note_counts()
        waiting = [(packs, readings) for _, level, packs, readings in groups if level >= FRESH]
        return sum(packs for packs, _ in waiting), sum(readings for _, readings in waiting)

    def _note_counts(self) -> None:
        changed = list(self._room.changed())
        self._sql.executemany(pack_sql.ADVANCE_MARK, ((dataset, 0, 0) for *_, dataset in changed))
        self._sql.executemany("UPDATE mark SET levels = ?, readings = ? WHERE dataset = ?", changed)

    def _take_over(self, why: str, tail: pack_raw.Tail) -> Mended | None:
        """Insert what a damaged file, or the damaged end of a log, still holds."""
        packs = self._insert_missing(tail.packs)
        old, aside, damaged = pack_mend.mending(self.path), "", 0
        if old.parent.exists():
            if old.is_file() or Path(f"{old}-wal").is_file():
                salvaged = pack_raw.Salvage(old)
                packs += self._insert_missing(salvaged)
                damaged = salvaged.damaged
            aside = str(pack_mend.keep_aside(self.path))
        elif packs and tail.is_damage:
            why = "the end of its log was damaged"
        return Mended(why, packs, damaged, aside) if why else None

    def _insert_missing(self, found: Iterable[pack_raw.Found]) -> int:
        inserted = 0
        rest = iter(found)
        while some := list(itertools.islice(rest, SALVAGE_BATCH)):
            there = self.which_are_there([each.number for each in some])
            new = [each for each in some if each.number not in there]
            self.write([Row(each.number, each.pack, sound_level(each.level)) for each in new], ())
            inserted += len(new)
        return inserted

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
            forget_before: packs of the history that were taken before leave, nanoseconds since 1970.
        """
        leaving = list(leaving)
        losses = list(losses)
        try:
            return self._write(rows, leaving, losses, forget_before)
        except sqlite3.OperationalError as error:
            if not self._gave_up_ballast(error):
                raise
            return self._write(rows, leaving, losses, forget_before)

    def _write(
        self, rows: Sequence[Row], leaving: Sequence[int], losses: Sequence[Loss], forget_before: int | None
    ) -> Written:
        saved = self._room.save()
        try:
            with transaction(self._sql):
                for some in range(0, len(leaving), AT_A_TIME):
                    self._acknowledged(leaving[some : some + AT_A_TIME])
                if forget_before is not None:
                    self._room.forget(self._sql, forget_before)
                there = self.which_are_there([row.id for row in rows])  # the journal may give a pack again
                self._set_aside(row for row in rows if row.id in there and row.level <= SET_ASIDE)
                rows, dropped, refused = self._make_room([row for row in rows if row.id not in there])
                self._insert(rows)
                self._note_counts()
                if losses:
                    pack_sql.add_losses(self._sql, losses)
        except BaseException:
            self._room.restore(saved)
            raise
        self._lay_ballast()
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
        rows, damaged = [], []
        for *columns, framed in found:
            try:
                rows.append(Row(*frame.unseal(framed), columns[-1]))
            except frame.Damaged:
                damaged.append(Victim(*columns))
        if damaged:
            self._give_up(damaged)
        return rows, found[-1][0] if found else after, [Dropped(victim.id, victim.readings) for victim in damaged]

    def held(self, dataset: str, epoch: int, first: int, last: int, limit: int) -> list[Row]:
        """Return packs of a dataset by epoch and n, acknowledged or not, up to ``limit``, in order of n."""
        span = frame.number_of(epoch, 0), frame.number_of(epoch + 1, 0)
        found = self._sql.execute(
            "SELECT frame, level FROM pack WHERE id >= ? AND id < ? AND dataset = ? AND n BETWEEN ? AND ?"
            " ORDER BY id LIMIT ?",
            (*span, dataset, first, last, limit),
        )
        rows = []
        for framed, level in found:
            try:
                rows.append(Row(*frame.unseal(framed), level))
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

    def losses(self) -> tuple[int, list[Loss]]:
        """Return what was lost and not told yet, and the number of that batch; what is lost from now on is another."""
        batch: int | None = self._sql.execute("SELECT min(batch) FROM lost WHERE batch > 0").fetchone()[0]
        if batch is None:
            batch = frame.number_of(self._epoch, next(self._batches))
            self._sql.execute(pack_sql.CLOSE_LOST, {"batch": batch})
        rows = self._sql.execute(
            "SELECT dataset, epoch, reason, packs, readings, first, last, since, until FROM lost WHERE batch = ?"
            " ORDER BY epoch, dataset, reason",
            (batch,),
        )
        return batch, [Loss(*row) for row in rows]

    def told(self, batch: int) -> None:
        """The receiver knows of a batch."""
        self._sql.execute("DELETE FROM lost WHERE batch = ?", (batch,))

    def know_utc(self, boot: str, utc: int) -> None:
        """Store what to add to the stamps of a boot."""
        self._sql.execute("UPDATE epoch SET utc = ? WHERE boot = ? AND utc IS NULL", (utc, boot))

    def retry(self) -> int:
        """Let the rows that were set aside wait again, and return how many they are."""
        dead = f"level <= {SET_ASIDE}"
        with transaction(self._sql):
            rows = self._sql.execute(f"SELECT dataset, level, readings FROM pack WHERE {dead}").fetchall()  # noqa: S608  # our own words
            self._sql.execute(f"UPDATE pack SET level = {FRESH} WHERE {dead}")  # noqa: S608  # the same
            for dataset, level, readings in rows:
                self._room.left(dataset, level, readings)
                self._room.came(dataset, FRESH, readings)
            self._note_counts()
        return len(rows)

    def used_bytes(self) -> int:
        """Return the bytes of the pages in use."""
        return (self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")) * self._page_bytes

    def close(self) -> None:
        """Close it. The log goes with that, and is grown again by the next who opens it."""
        self._sql.close()

    def _acknowledged(self, numbers: Sequence[int]) -> None:
        these = f"WHERE id IN ({', '.join('?' * len(numbers))})"
        if self._history:
            select = f"SELECT id, dataset, level, readings FROM pack {these}"  # noqa: S608  # question marks
            for row in self._sql.execute(select, numbers).fetchall():
                self._room.moved(row, HISTORY)
            self._sql.execute(f"UPDATE pack SET level = {HISTORY} {these}", numbers)  # noqa: S608  # the same
        else:
            delete = f"DELETE FROM pack {these} RETURNING dataset, level, readings"  # noqa: S608  # the same
            for row in self._sql.execute(delete, numbers):
                self._room.left(*row)

    def _set_aside(self, rows: Iterable[Row]) -> None:
        for number, pack, level in rows:
            old = self._one("SELECT level FROM pack WHERE id = ?", number)
            self._room.moved((number, pack.dataset, old, pack.readings), level)
            self._sql.execute("UPDATE pack SET level = ? WHERE id = ?", (level, number))

    def _make_room(self, rows: list[Row]) -> tuple[list[Row], list[Dropped], set[int]]:
        dropped: list[Dropped] = []
        refused: set[int] = set()
        while rows and self.used_bytes() + room_for(rows) > self._max_bytes:
            least = self._room.least()
            new = min(rows, key=self._refused_first)
            if least is not None and least <= self._rank(new):
                victims = self._room.give_way(self._sql, least)
                reason = "evicted"
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
        lost = [victim for victim in victims if victim.level != HISTORY]
        pack_sql.add_losses(self._sql, (loss_of([victim], reason) for victim in lost))
        return [Dropped(victim.id, victim.readings) for victim in lost if victim.level >= FRESH]

    def _give_up(self, damaged: Sequence[Victim]) -> None:
        with transaction(self._sql):
            for victim in damaged:
                self._sql.execute("DELETE FROM pack WHERE id = ?", (victim.id,))
                self._room.left(victim.dataset, victim.level, victim.readings)
            self._lose(damaged, "damaged")
            self._note_counts()

    def _insert(self, rows: Sequence[Row]) -> None:
        self._sql.executemany(
            "INSERT INTO pack(id, dataset, n, readings, taken, level, frame) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (number, pack.dataset, pack.n, pack.readings, pack.taken, level, frame.seal(number, pack))
                for number, pack, level in rows
            ),
        )
        for row in rows:
            self._room.came(row.pack.dataset, row.level, row.pack.readings)
        last = {pack.dataset: (pack.epoch, pack.n) for _, pack, _ in sorted(rows, key=lambda row: row.id)}
        self._sql.executemany(pack_sql.ADVANCE_MARK, ((dataset, *place) for dataset, place in last.items()))

    def _lay_ballast(self) -> None:
        """Keep a little of the disk back for the day it is full: then even a deletion needs room."""
        if self._ballast.exists() or shutil.disk_usage(self.path.parent).free < 4 * BALLAST_BYTES:
            return
        with contextlib.suppress(OSError), self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)  # allocates, writes nothing
        self._max_bytes = self._most_bytes

    def _gave_up_ballast(self, error: sqlite3.OperationalError) -> bool:
        """Where the disk is full, free the ballast, and let the file not grow beyond what it is. Tell whether."""
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL or not self._ballast.exists():
            return False
        self._ballast.unlink()
        self._max_bytes = min(self._max_bytes, self._one("PRAGMA page_count") * self._page_bytes)
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def _one(self, query: str, *parameters: object) -> int:
        return one(self._sql, query, *parameters)

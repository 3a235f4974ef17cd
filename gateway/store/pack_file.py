"""A door: the buffer's file. All of it runs on the buffer's one thread, over one connection.

Opening never fails because of what is in the file: it is set aside, and what is sound in it is taken over
(:mod:`gateway.store.pack_mend`, :mod:`gateway.store.pack_raw`). What is done with its rows once it is open is
:mod:`gateway.store.pack_rows`.
"""

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gateway.host import durable
from gateway.store import frame, pack_counts, pack_epochs, pack_mend, pack_raw, pack_sql
from gateway.store.pack_room import Ends, Room, Terms
from gateway.store.pack_rows import Rows
from gateway.store.pack_space import Space
from gateway.store.pack_sql import (
    Contents,
    Loss,
    Mended,
    Row,
    connect,
    is_damage,
    one,
    transaction,
)
from gateway.words.timeline import Epoch

COLUMNS_OF_LOST = [str, int, str, int, int, int, int, int, int, int]
MOST_LOSSES = 100  # in one batch: some 10 kB as a message


class PackFile(Rows):
    """The file. Every method may raise SqlError; :func:`is_damage` tells whether ``mend`` helps.

    Attributes:
        path: where it lies.
        is_open: it can be used.
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
        super().__init__(Room(terms if terms is not None else {}), Space(path, max_bytes), history=history)
        self.path = path
        self.is_open = False
        self._batches = itertools.count(1)
        self._epoch = 0
        self._beginning: tuple[str, int, int | None] = ("", 0, None)
        self._rescued: list[tuple[str | int, ...]] = []  # of what is set aside: what was lost and not told yet
        self._ends: Ends = {}  # the same: where its packs end
        self._places: list[pack_mend.Place] = []  # of the database and its log

    def open(
        self, boot: str, started: int = 0, utc: int | None = None, epoch: int = 0, *, above: int = 0, damage: str = ""
    ) -> Contents:
        """Open or make it and begin an epoch; whatever is in the file, it is mended. Raises OSError as well.

        Args:
            boot: id of this boot of the machine.
            started: now, nanoseconds of CLOCK_BOOTTIME.
            utc: what to add for nanoseconds since 1970, where that is certain.
            epoch: the one that began already, before the file could be opened, or was mended; 0: the next one.
            above: the next one is greater than this.
            damage: what turned out to be wrong with the file since it was opened; "": nothing.
        """
        self._beginning = boot, started, utc
        pack_mend.make_folder(self.path.parent)
        if pack_mend.is_under_way(self.path):
            damage = ""  # it is known, and what is there now is being made
        if damage:
            self._ends = self._room.last
            self._rescue()
        why = damage or pack_mend.what_is_wrong(self.path)
        if why:
            pack_mend.set_aside(self.path)
        tail = pack_raw.dropped_by_sqlite(self.path)  # before SQLite overwrites it
        try:
            return self._open(why, tail, epoch, above)
        except (sqlite3.Error, *pack_sql.UNREADABLE) as error:
            if not is_damage(error):
                raise
            why = str(error)
        pack_mend.set_aside(self.path)  # not while the error is there: its frames keep the old file locked
        return self._open(why, tail, epoch, above)

    def take_over(self, copy: Path) -> Contents:
        """Insert what a copy has that is not here. Raises OSError."""
        salvaged = pack_raw.Salvage(copy)
        self._insert_missing(salvaged)
        self.learn(salvaged.epochs)
        return self._contents(*pack_counts.count(self._sql, self._room), None)

    def _open(self, why: str, tail: pack_raw.Tail, epoch: int, above: int) -> Contents:
        self._sql = connect(self.path)
        try:
            waiting = self._begin(epoch, above)
            mended = self._take_over(why, tail)
            if tail.packs:
                self._sql.execute("PRAGMA wal_checkpoint(RESTART)")  # else they lie there still at the next start
            if mended or tail.packs:
                waiting = pack_counts.count(self._sql, self._room)
            self._places = pack_mend.places_of(self.path)
        except BaseException:
            self._rescue()
            raise
        self._rescued, self._ends = [], {}
        self.is_open = True
        return self._contents(*waiting, mended)

    def _rescue(self) -> None:
        """Close the file, and keep what it says was lost, as far as that can be read."""
        with contextlib.suppress(sqlite3.Error, *pack_sql.UNREADABLE):  # what is wrong is told by who calls
            for row in self._sql.execute(f"SELECT {pack_sql.LOST} FROM lost").fetchall():  # noqa: S608  # our own words
                if list(map(type, row)) == COLUMNS_OF_LOST and row not in self._rescued:
                    self._rescued.append(row)
        self.close()

    def _begin(self, epoch: int, above: int) -> tuple[int, int]:
        """Begin the epoch and note it; return the packs and readings that wait.

        The ballast is for a disk that is full at this moment as well.
        """
        try:
            waiting = self.begin(self._sql, self._beginning[0])
            self._note_epoch(epoch, above)
        except (sqlite3.OperationalError, OSError) as error:
            if not self._space.gave_up_ballast(error):
                raise
            waiting = self.begin(self._sql, self._beginning[0])
            self._space.stop_growing()
            self._note_epoch(epoch, above)
        return waiting

    def _note_epoch(self, epoch: int, above: int) -> None:
        boot, started, utc = self._beginning
        known = self._one("SELECT coalesce(max(id), 0) FROM epoch WHERE id <= ?", frame.LAST_EPOCH)
        highest = max(known, pack_mend.highest_epoch(self.path), above)
        self._epoch = epoch = epoch or min(highest + 1, frame.LAST_EPOCH)  # after two thousand million starts
        with transaction(self._sql):
            pack_epochs.put_right(self._sql)
            pack_epochs.forget(self._sql, epoch)
            if utc is not None:
                pack_epochs.know_utc(self._sql, boot, utc)
            pack_epochs.add(self._sql, [Epoch(epoch, boot, started, utc)])
        pack_mend.note_epoch(self.path, max(highest, epoch))

    def _contents(self, packs: int, readings: int, mended: Mended | None) -> Contents:
        return Contents(
            epoch=self._epoch,
            marks={dataset: place for dataset, place in self._room.last.items() if place > (0, 0)},
            epochs=pack_epochs.known(self._sql),
            packs=packs,
            readings=readings,
            set_aside=self._room.set_aside(),
            waiting=self._room.waiting(),
            mended=mended,
        )

    def _take_over(self, why: str, tail: pack_raw.Tail) -> Mended | None:
        """Insert what a damaged file, or the damaged end of a log, still holds."""
        packs = self._insert_missing(tail.packs)
        self.learn(tail.epochs)
        old, aside, damaged = pack_mend.mending(self.path), "", 0
        if old.parent.exists():
            if pack_mend.is_under_way(self.path):
                why = why or pack_mend.CUT_OFF
            self._remember(self._rescued)
            for dataset, place in self._ends.items():
                self._room.reached(dataset, place)
            if old.is_file() or pack_mend.log_of(old).is_file():
                salvaged = pack_raw.Salvage(old)
                packs += self._insert_missing(salvaged)
                self.learn(salvaged.epochs)
                damaged = salvaged.damaged
            aside = pack_mend.keep_aside(self.path)
        elif packs and tail.is_damage:
            why = "the end of its log was damaged"
        return Mended(why, packs, damaged, aside) if why else None

    def _insert_missing(self, found: Iterable[pack_raw.Found]) -> int:
        """Insert packs that are not there, a commit at a time; return how many are there now that were not.

        Where the disk is full that is an error: nothing gives way for what is in another file as well.
        """
        inserted = 0
        for some in _commits(found):
            self._space.grow_again()
            there = self.which_are_there([each.number for each in some])
            new = [Row(each.number, each.pack, each.level) for each in some if each.number not in there]
            inserted += len(new) - len(self._write(new, (), (), None).dropped)
        return inserted

    def _remember(self, losses: Iterable[tuple[str | int, ...]]) -> None:
        """Go on remembering what was lost and not told yet."""
        with transaction(self._sql):
            self._sql.executemany(
                f"INSERT OR IGNORE INTO lost({pack_sql.LOST}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # our own words
                losses,
            )

    def losses(self) -> tuple[int, list[Loss]]:
        """Return what was lost and not told yet, and the number of that batch.

        What is lost from now on is another, and so is what is more than brokers take in one message.
        """
        batch: int | None = self._sql.execute("SELECT min(batch) FROM lost WHERE batch > 0").fetchone()[0]
        if batch is None:
            batch = self._next_batch()
            self._sql.execute(pack_sql.CLOSE_LOST, {"batch": batch})
        rows = self._sql.execute(
            "SELECT dataset, epoch, reason, packs, readings, first, last, since, until FROM lost WHERE batch = ?"
            " ORDER BY epoch, dataset, reason LIMIT ?",
            (batch, MOST_LOSSES),
        )
        losses = [Loss(*row) for row in rows]
        if len(losses) == MOST_LOSSES:
            end = losses[-1]
            self._sql.execute(
                "UPDATE lost SET batch = ? WHERE batch = ? AND (epoch, dataset, reason) > (?, ?, ?)",
                (self._next_batch(), batch, end.epoch, end.dataset, end.reason),
            )
        return batch, losses

    def _next_batch(self) -> int:
        return frame.number_of(self._epoch, next(self._batches))

    def told(self, batch: int) -> None:
        """The receiver knows of a batch."""
        self._sql.execute("DELETE FROM lost WHERE batch = ?", (batch,))

    def know_utc(self, boot: str, utc: int) -> None:
        """Store what to add to the stamps of a boot."""
        if boot == self._beginning[0]:
            self._beginning = *self._beginning[:2], utc
        with transaction(self._sql):
            pack_epochs.know_utc(self._sql, boot, utc)

    def learn(self, epochs: Iterable[Epoch]) -> None:
        """Store what another file knows of runs."""
        boot, _, utc = self._beginning
        with transaction(self._sql):
            pack_epochs.add(self._sql, epochs)
            if utc is not None:
                pack_epochs.know_utc(self._sql, boot, utc)

    def was_taken(self) -> bool:
        """Tell whether the file was taken from its place since it was opened. Raises OSError."""
        return pack_mend.places_of(self.path)[0] != self._places[0]

    def put_back(self) -> None:
        """Write the file that was taken from its place there again; it is to be opened then. Raises OSError.

        What lies there in its stead is kept as what is damaged is.
        """
        pack_mend.make_folder(self.path.parent)
        new = self.path.with_name(f"{self.path.name}.new")
        try:
            with contextlib.closing(sqlite3.connect(new)) as copy:
                self._sql.backup(copy)
        except BaseException:
            for part in self.path.parent.glob(f"{new.name}*"):
                part.unlink()
            raise
        log = pack_mend.log_of(self.path)
        if pack_mend.places_of(self.path)[1] == self._places[1]:
            log.unlink(missing_ok=True)  # what is in it belongs to what we have open, and to nothing else
        pack_mend.set_aside(self.path)
        if pack_mend.is_under_way(self.path):
            pack_mend.keep_aside(self.path)
        new.rename(self.path)
        durable.sync_folder(self.path.parent)
        self.close()

    def close(self) -> None:
        """Close it. The log goes with that, and is grown again by the next who opens it."""
        self.is_open = False
        self._sql.close()

    def _one(self, query: str, *parameters: object) -> int:
        return one(self._sql, query, *parameters)


def _commits(found: Iterable[pack_raw.Found]) -> Iterator[list[pack_raw.Found]]:
    """Divide packs into as many at a time as one commit takes."""
    some, size = list[pack_raw.Found](), 0
    for each in found:
        if some and size + len(each.pack.blob) > pack_sql.COMMIT_BYTES:
            yield some
            some, size = [], 0
        some.append(each)
        size += len(each.pack.blob)
    if some:
        yield some

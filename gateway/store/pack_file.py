"""A door: the buffer's file. All of it runs on the buffer's one thread, over one connection.

Opening never fails because of what is in the file: it is set aside, and what is sound in it is taken over
(:mod:`gateway.store.pack_mend`, :mod:`gateway.store.pack_raw`). What is done with its rows once it is open is
:mod:`gateway.store.pack_rows`.
"""

import itertools
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.store import frame, pack_counts, pack_epochs, pack_mend, pack_raw, pack_sql
from gateway.store.pack_room import Room, Terms
from gateway.store.pack_rows import Rows, Waiting
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

SALVAGE_BATCH = 256
MOST_LOSSES = 100  # in one batch: some 10 kB as a message
NOTHING = pack_raw.Tail([], [], is_damage=False)


class PackFile(Rows):
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
        super().__init__(Room(terms if terms is not None else {}), Space(path, max_bytes), history=history)
        self.path = path
        self._batches = itertools.count(1)
        self._epoch = 0
        self._beginning: tuple[str, int, int | None] = ("", 0, None)

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
        why = pack_mend.what_is_wrong(self.path)
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

    def mend(self, why: str) -> tuple[Mended | None, Waiting]:
        """Mend the file that turned out to be damaged while it was open, and return what was found and what waits."""
        self._sql.close()
        pack_mend.set_aside(self.path)
        self.begin(connect(self.path), self._beginning[0])
        self.learn([Epoch(self._epoch, *self._beginning)])
        mended = self._take_over(why, NOTHING)
        pack_counts.count(self._sql, self._room)
        return mended, self.waiting()

    def take_over(self, copy: Path) -> Contents:
        """Insert what a copy has that is not here. Raises OSError."""
        salvaged = pack_raw.Salvage(copy)
        self._insert_missing(salvaged)
        self.learn(salvaged.epochs)
        return self._contents(*pack_counts.count(self._sql, self._room), None)

    def _open(self, why: str, tail: pack_raw.Tail, epoch: int) -> Contents:
        self._sql = connect(self.path)
        try:
            self.begin(self._sql, self._beginning[0])
            self._epoch = self._begin(epoch)
            pack_mend.note_epoch(self.path, max(self._epoch, pack_mend.highest_epoch(self.path)))
            mended = self._take_over(why, tail)
            if tail.packs:
                self._sql.execute("PRAGMA wal_checkpoint(RESTART)")  # else they lie there still at the next start
            counted = pack_counts.count if mended or tail.packs else pack_counts.recall
            packs, readings = counted(self._sql, self._room)
        except BaseException:
            self._sql.close()
            raise
        return self._contents(packs, readings, mended)

    def _begin(self, epoch: int) -> int:
        boot, started, utc = self._beginning
        pack_counts.recall(self._sql, self._room)
        highest = max(self._one("SELECT coalesce(max(id), 0) FROM epoch"), pack_mend.highest_epoch(self.path))
        epoch = epoch or highest + 1
        with transaction(self._sql):
            pack_epochs.put_right(self._sql)
            pack_epochs.forget(self._sql, epoch)
            if utc is not None:
                pack_epochs.know_utc(self._sql, boot, utc)
            pack_epochs.add(self._sql, [Epoch(epoch, boot, started, utc)])
        return epoch

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
            if old.is_file() or Path(f"{old}-wal").is_file():
                salvaged = pack_raw.Salvage(old)
                packs += self._insert_missing(salvaged)
                self.learn(salvaged.epochs)
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
            self.write([Row(each.number, each.pack, each.level) for each in new], ())
            inserted += len(new)
        return inserted

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

    def close(self) -> None:
        """Close it. The log goes with that, and is grown again by the next who opens it."""
        self._sql.close()

    def _one(self, query: str, *parameters: object) -> int:
        return one(self._sql, query, *parameters)

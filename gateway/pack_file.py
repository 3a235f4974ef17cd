"""A door: SQLite. The only file that speaks SQL; all of it runs on the buffer's one thread, over one connection.

One row is one sealed pack. WAL with synchronous=FULL: what was committed survives a power cut. Pages of 1 KiB,
because a commit is small. The exclusive lock keeps a second gateway, or a curious shell, out.

``epoch`` has a row for each run of the gateway. ``mark`` keeps, per dataset, the last pack that was ever
committed, also when its row has left.
"""

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.reading import Pack

APPLICATION_ID = 0x504F4C47  # "POLG"
VERSION = 1
PAGE_BYTES = 1024
WAL_PAGES = 1024
WAL_BYTES = WAL_PAGES * (PAGE_BYTES + 24)  # 24: the head of a frame
GIVE_WAY = 16  # rows that leave at once when room is wanted
ROW_BYTES = 64  # what a row takes beside its blob, roughly
TREE_PAGES = 16  # what a commit touches beside the rows: the tree, the free list, marks
PRAGMAS = f"""
PRAGMA page_size={PAGE_BYTES};
PRAGMA locking_mode=EXCLUSIVE;
PRAGMA synchronous=FULL;
PRAGMA wal_autocheckpoint={WAL_PAGES};
PRAGMA secure_delete=OFF;
PRAGMA cache_size=-512;
PRAGMA temp_store=MEMORY;
"""
SCHEMA = f"""
BEGIN;
CREATE TABLE epoch(id INTEGER PRIMARY KEY, boot TEXT NOT NULL) STRICT;
CREATE TABLE mark(dataset TEXT PRIMARY KEY, epoch INTEGER NOT NULL, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pack(
    id INTEGER PRIMARY KEY,     -- rows come back in the order they were sealed
    dataset TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    n INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    taken INTEGER NOT NULL,     -- nanoseconds of CLOCK_BOOTTIME, in the boot of its epoch
    blob BLOB NOT NULL
) STRICT;
PRAGMA application_id={APPLICATION_ID};
PRAGMA user_version={VERSION};
COMMIT;
"""


SqlError = sqlite3.Error
"""What every method of the file may raise: disk full, read-only, damaged, locked."""


class Row(NamedTuple):
    """A pack and its number in the file."""

    id: int
    pack: Pack


class Contents(NamedTuple):
    """What the file holds when it is opened.

    Attributes:
        epoch: the number of this run.
        marks: dataset to the (epoch, n) of its last pack that was ever committed.
        packs: rows.
        readings: in them.
    """

    epoch: int
    marks: dict[str, tuple[int, int]]
    packs: int
    readings: int


class Dropped(NamedTuple):
    """A row that had to give way."""

    id: int
    readings: int


class PackFile:
    """The file. Every method may raise SqlError."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Set it; ``open`` opens it.

        Args:
            path: the database; its folder is made where it is not there.
            max_bytes: how large the file and its WAL may become.
        """
        self._path = path
        self._max_pages = (max_bytes - WAL_BYTES) // PAGE_BYTES
        self._sql: sqlite3.Connection

    def open(self, boot: str) -> Contents:
        """Open or make it and begin an epoch. Raises OSError as well."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._sql = sqlite3.connect(self._path, isolation_level=None, timeout=1.0)
        try:
            return self._begin(boot)
        except BaseException:
            self._sql.close()
            raise

    def _begin(self, boot: str) -> Contents:
        self._sql.executescript(PRAGMAS)
        new = not self._one("SELECT count(*) FROM sqlite_schema")  # also where the power went while it was made
        if not new and self._one("PRAGMA application_id") != APPLICATION_ID:
            raise sqlite3.DatabaseError("this is a database of another program")
        self._sql.execute("PRAGMA journal_mode=WAL")  # the first that writes
        if new:
            self._sql.executescript(SCHEMA)
            sync_folder(self._path.parent)
        cursor = self._sql.execute("INSERT INTO epoch(boot) VALUES (?)", (boot,))
        marks = self._sql.execute("SELECT dataset, epoch, n FROM mark")
        packs, readings = self._sql.execute("SELECT count(*), coalesce(sum(readings), 0) FROM pack").fetchone()
        return Contents(
            epoch=cursor.lastrowid or 0,
            marks={dataset: (epoch, n) for dataset, epoch, n in marks},
            packs=packs,
            readings=readings,
        )

    def write(self, rows: Sequence[Row], leaving: Iterable[int]) -> list[Dropped]:
        """Delete what leaves, make room, insert: one transaction, one fsync."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            self._sql.executemany("DELETE FROM pack WHERE id = ?", ((number,) for number in leaving))
            new = sum(len(row.pack.blob) + ROW_BYTES for row in rows) // PAGE_BYTES + 1
            dropped = self._make_room(2 * new + TREE_PAGES)  # in the file, and in the WAL beyond its end
            self._sql.executemany(
                "INSERT INTO pack VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (number, pack.dataset, pack.epoch, pack.n, pack.readings, pack.taken, pack.blob)
                    for number, pack in rows
                ),
            )
            last = {row.pack.dataset: row.pack for row in rows}
            self._sql.executemany(
                "INSERT OR REPLACE INTO mark VALUES (?, ?, ?)",
                ((dataset, pack.epoch, pack.n) for dataset, pack in last.items()),
            )
            self._sql.execute("COMMIT")
        except BaseException:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            raise
        return dropped

    def read(self, after: int, limit: int) -> list[Row]:
        """Return up to ``limit`` rows whose number is greater than ``after``, in order."""
        rows = self._sql.execute(
            "SELECT id, dataset, epoch, n, readings, taken, blob FROM pack WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [Row(number, Pack(*fields)) for number, *fields in rows]

    def used_bytes(self) -> int:
        """Return the bytes of the pages in use."""
        return self._used_pages() * PAGE_BYTES

    def close(self) -> None:
        """Close it."""
        self._sql.close()

    def _make_room(self, pages: int) -> list[Dropped]:
        dropped: list[Dropped] = []
        while self._used_pages() + pages > self._max_pages:
            oldest = self._sql.execute("SELECT id, readings FROM pack ORDER BY id LIMIT ?", (GIVE_WAY,)).fetchall()
            if not oldest:
                break
            self._sql.execute("DELETE FROM pack WHERE id <= ?", (oldest[-1][0],))
            dropped += (Dropped(*row) for row in oldest)
        return dropped

    def _used_pages(self) -> int:
        return self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")

    def _one(self, query: str) -> int:
        value: int = self._sql.execute(query).fetchone()[0]
        return value


def sync_folder(folder: Path) -> None:
    """Make a new file's name durable. Without it a power cut may take the whole file with it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

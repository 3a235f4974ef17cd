"""What the buffer's file is made of: tables, settings, and the values that come out of it.

WAL with synchronous=FULL: what was committed survives a power cut. Pages of 512 bytes, because a commit is small;
a file that an older gateway made keeps its pages of 1 KiB. The exclusive lock keeps a second gateway, or a curious
shell, out. The log is grown once, when the file is made: one that grows costs a second flush each time.

=========  ===============================================================================================
``pack``   a row for each sealed pack
``epoch``  a row for each run of the gateway: boot, and what to add to its stamps, once that was certain; the same under
           a checksum in ``sealed_epoch`` (:mod:`gateway.store.pack_epochs`)
``mark``   per dataset the last pack that was ever committed, also when its row has left; and how many rows it has, so
           that nobody needs to count them (:mod:`gateway.store.pack_counts`); what only came behind is not in it yet
``lost``   what gave way, was refused or was damaged, until the receiver was told
=========  ===============================================================================================

A release that is no good goes back to the one before, which then has the newer one's file. So what a later release
adds is a table, an index, or a column behind the others with a default, and ``VERSION`` stays: every statement here
names its columns and so passes over what it does not know. What cannot be added like that takes two releases: the
first reads both and writes the old form, the next writes the new one with a new ``VERSION``. A file of a version that
is not known is set aside, and its packs are taken over by their frames (:mod:`gateway.store.frame`), whose form stays.
"""

import contextlib
import errno
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from gateway.host import durable
from gateway.store import frame, pack_epochs
from gateway.store.level import FRESH
from gateway.store.pack_room import Ends, Victim
from gateway.words.reading import Pack
from gateway.words.timeline import Epoch

APPLICATION_ID = 0x504F4C47  # "POLG"
VERSION = 2
PAGE_BYTES = 512  # a sixth less for the flash than 1024, measured at the device, for the same CPU
WAL_BYTES = 1024 * 1024  # so large the log is made
CHECKPOINT_BYTES = (
    832 * 1024
)  # of the log; the commit that reaches it, with what gives way for it, still fits into the log
FRAME_HEAD_BYTES = 24
ROW_BYTES = 96  # what a row takes beside its payload, roughly
COMMIT_BYTES = 80 * 1024  # of packs in one commit, so that the log stays as large as it was made
TREE_BYTES = 16 * 1024  # what a commit touches beside the rows: the tree, the free list, marks
PRAGMAS = f"""
PRAGMA page_size={PAGE_BYTES};
PRAGMA locking_mode=EXCLUSIVE;
PRAGMA synchronous=FULL;
PRAGMA secure_delete=OFF;
PRAGMA cell_size_check=ON;
PRAGMA cache_size=-512;
PRAGMA temp_store=MEMORY;
"""
SCHEMA = f"""
BEGIN;
CREATE TABLE pack(
    id INTEGER PRIMARY KEY,     -- epoch and count: rows come back in the order they were sealed
    dataset TEXT NOT NULL,
    n INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    taken INTEGER NOT NULL,     -- nanoseconds of CLOCK_BOOTTIME, in the boot of its epoch
    level INTEGER NOT NULL,     -- how it stands, and no bit of that can flip unnoticed: gateway.store.level
    frame BLOB NOT NULL
) STRICT;
CREATE TABLE epoch(id INTEGER PRIMARY KEY, boot TEXT NOT NULL, started INTEGER NOT NULL, utc INTEGER) STRICT;
CREATE TABLE mark(
    dataset TEXT PRIMARY KEY, epoch INTEGER NOT NULL, n INTEGER NOT NULL,   -- of the last of its packs that is in it
    levels TEXT NOT NULL DEFAULT '{{}}', readings INTEGER NOT NULL DEFAULT 0    -- rows by level; readings that wait
) STRICT, WITHOUT ROWID;
CREATE TABLE lost(
    dataset TEXT NOT NULL, epoch INTEGER NOT NULL, reason TEXT NOT NULL,
    batch INTEGER NOT NULL,     -- what is told together; 0: not closed yet
    packs INTEGER NOT NULL, readings INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL,      -- numbers of packs
    since INTEGER NOT NULL, until INTEGER NOT NULL,     -- taken
    PRIMARY KEY(dataset, epoch, reason, batch)
) STRICT, WITHOUT ROWID;
{pack_epochs.SEALED};
PRAGMA application_id={APPLICATION_ID};
PRAGMA user_version={VERSION};
COMMIT;
"""
GROW = f"""
CREATE TABLE growth(room BLOB);
INSERT INTO growth VALUES (zeroblob({WAL_BYTES * PAGE_BYTES // (PAGE_BYTES + FRAME_HEAD_BYTES) - 2 * TREE_BYTES}));
DROP TABLE growth;
PRAGMA wal_checkpoint(RESTART);
"""  # noqa: S608  # our own numbers
LOST = "dataset, epoch, reason, batch, packs, readings, first, last, since, until"
ADD_LOST = f"""
INSERT INTO lost({LOST})
VALUES (:dataset, :epoch, :reason, 0, :packs, :readings, :first, :last, :since, :until)
ON CONFLICT DO UPDATE SET packs = packs + excluded.packs, readings = readings + excluded.readings,
    first = min(first, excluded.first), last = max(last, excluded.last),
    since = min(since, excluded.since), until = max(until, excluded.until)
"""  # noqa: S608  # our own words
CLOSE_LOST = "UPDATE lost SET batch = :batch WHERE batch = 0"
DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,  # our statements fit our tables: the text of the schema is another now
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
}
UNREADABLE = (UnicodeDecodeError, TypeError, ValueError, OverflowError, struct.error)  # damaged columns, in Python
FULL = {errno.ENOSPC, errno.EDQUOT}

SqlError = sqlite3.Error
"""What every method of the file may raise: disk full, read-only, damaged, locked."""


class Row(NamedTuple):
    """A pack and its number in the file; ``level``: see :mod:`gateway.store.level`."""

    id: int
    pack: Pack
    level: int = FRESH


@dataclass(frozen=True, slots=True)
class Loss:
    """Packs of one dataset and epoch that no receiver will get.

    Attributes:
        dataset: theirs.
        epoch: theirs.
        reason: "evicted", "refused" or "damaged".
        packs: how many; below zero: so many were told as lost and are not.
        readings: in them.
        first: the lowest of their numbers n.
        last: the highest.
        since: when the first reading in the first of them was taken, nanoseconds of CLOCK_BOOTTIME of their boot.
        until: the same of the last of them.
    """

    dataset: str
    epoch: int
    reason: str
    packs: int
    readings: int
    first: int
    last: int
    since: int
    until: int

    def taken_back(self) -> "Loss":
        """Return what makes it undone."""
        return replace(self, packs=-self.packs, readings=-self.readings)


class Which(NamedTuple):
    """Which of the rows that wait are to be read.

    Attributes:
        up_to: the highest number; None: none is too high.
        only: of these datasets; None: of all.
        without: not of these.
    """

    up_to: int | None = None
    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()

    def condition(self) -> tuple[str, list[int | str]]:
        """Return it as the end of a condition in SQL, and the values for its question marks."""
        text, values = "", list[int | str]()
        if self.up_to is not None:
            text, values = " AND id <= ?", [self.up_to]
        for word, names in (("IN", self.only), ("NOT IN", self.without or None)):
            if names is not None:
                text += f" AND dataset {word} ({', '.join('?' * len(names))})"
                values += sorted(names)
        return text, values


ALL = Which()


class Dropped(NamedTuple):
    """A pack that left without having been acknowledged, and what is remembered of that."""

    id: int
    loss: Loss


@dataclass(frozen=True, slots=True)
class Mended:
    """What was found damaged, and what came of it.

    Attributes:
        why: what was wrong.
        packs: taken over.
        damaged: rows that were no packs any more.
        aside: where the damaged file lies; "" where only its log was damaged.
    """

    why: str
    packs: int
    damaged: int
    aside: str


@dataclass(slots=True)
class Contents:
    """What the file holds when it is opened.

    Attributes:
        epoch: the number of this run.
        marks: where the packs that were ever committed end.
        epochs: all runs that still matter, oldest first.
        packs: rows that were not acknowledged.
        readings: in them.
        set_aside: rows that no broker takes.
        waiting: the datasets of which there are rows that wait.
        mended: what had to be mended; None: nothing.
    """

    epoch: int
    marks: Ends = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    packs: int = 0
    readings: int = 0
    set_aside: int = 0
    waiting: frozenset[str] = frozenset()
    mended: Mended | None = None


class Written(NamedTuple):
    """What a commit came to: packs that were dropped, those of them that had no row yet, and how many are set aside."""

    dropped: list[Dropped]
    refused: set[int]
    set_aside: int = 0


class OtherFile(sqlite3.DatabaseError):
    """It is a database, and not one of ours, or of another version."""


def connect(path: Path) -> sqlite3.Connection:
    """Open a file, or make it. Raises SqlError; OtherFile where it is not one of ours."""
    sql = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    try:
        _make_sound(sql, path)
    except BaseException:
        sql.close()
        raise
    return sql


def _make_sound(sql: sqlite3.Connection, path: Path) -> None:
    sql.executescript(PRAGMAS)
    new = not one(sql, "SELECT count(*) FROM sqlite_schema")  # also where the power went while it was made
    ours = one(sql, "PRAGMA application_id") == APPLICATION_ID and one(sql, "PRAGMA user_version") == VERSION
    if not new and not ours:
        raise OtherFile("it is a database of another program, or of another version of this one")
    sql.execute("PRAGMA journal_mode=WAL")  # the first that writes
    frame_bytes = one(sql, "PRAGMA page_size") + FRAME_HEAD_BYTES
    sql.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_BYTES // frame_bytes}")
    if new:
        sql.executescript(SCHEMA + GROW)
        durable.sync_folder(path.parent)
    sql.execute(pack_epochs.SEALED)  # a file that an older gateway made has no such table


def one(sql: sqlite3.Connection, query: str, *parameters: object) -> int:
    """Return the one number that a query gives."""
    value: int = sql.execute(query, parameters).fetchone()[0]
    return value


@contextlib.contextmanager
def transaction(sql: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    sql.execute("BEGIN IMMEDIATE")
    try:
        yield
        sql.execute("COMMIT")
    except BaseException:
        if sql.in_transaction:
            sql.execute("ROLLBACK")
        raise


def add_losses(sql: sqlite3.Connection, losses: Iterable[Loss]) -> None:
    """Remember what was lost; between which numbers and times is not narrowed where some of it is taken back."""
    sql.executemany(ADD_LOST, map(asdict, losses))
    sql.execute("DELETE FROM lost WHERE packs <= 0")


def is_damage(error: BaseException) -> bool:
    """Tell whether the file itself is at fault, and not the disk, its permissions or another who has it open."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # raised by Python: for a text that is none, for instance
            return isinstance(error, OtherFile | sqlite3.OperationalError)
        return code & 0xFF in DAMAGE
    return isinstance(error, UNREADABLE)


def is_full(error: BaseException) -> bool:
    """Tell whether there is no room on the disk."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def is_locked(error: BaseException) -> bool:
    """Tell whether another gateway has the file open."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def loss_of(rows: Sequence[Victim], reason: str) -> Loss:
    """Sum up packs of one dataset and epoch."""
    return Loss(
        dataset=rows[0].dataset,
        epoch=rows[0].id >> frame.EPOCH_SHIFT,
        reason=reason,
        packs=len(rows),
        readings=sum(row.readings for row in rows),
        first=min(row.n for row in rows),
        last=max(row.n for row in rows),
        since=min(row.taken for row in rows),
        until=max(row.taken for row in rows),
    )


def victim_of(row: Row) -> Victim:
    """Return a pack that has no row as one that gives way."""
    pack = row.pack
    return Victim(row.id, pack.dataset, pack.n, pack.readings, pack.taken, row.level)


def room_for(rows: Sequence[Row]) -> int:
    """Return how many bytes a commit of these rows takes, roughly, in the file and in the log beyond its end."""
    return 2 * sum(len(row.pack.blob) + ROW_BYTES for row in rows) + TREE_BYTES

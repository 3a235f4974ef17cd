"""Reading a buffer's file without SQLite: what is in it, whatever happened to it. It never writes.

A database is pages of 512 bytes, of 1 KiB where an older gateway made it; its head tells, and its log. The packs lie in
*leaf* pages of tables: a head, an array of pointers to cells, and the cells; what does not fit into a cell goes on in a
chain of *overflow* pages. None of that needs the tree above it: every page that looks like a leaf is read, and a
frame's checksum says whether what was read is a pack. Pages of the free list are left out where page 1 still tells
which they are, else packs that have left would come back.

The write-ahead log holds newer versions of pages. The log counts up to the last commit whose chain of checksums holds,
as SQLite has it; behind a damaged place there may be more, so for a damaged file the rest is looked through as well.

Source: "Database File Format", sqlite.org/fileformat2.html, sections 1.3, 1.5, 1.6, 2.1 and 4.
"""

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from gateway.store import frame
from gateway.store.level import level_in
from gateway.words.reading import Pack
from gateway.words.timeline import Epoch

SQLITE = b"SQLite format 3\0"
SIZES = (512, 1024)  # of pages; so large are those of a file whose head is lost
WAL_HEAD, FRAME_HEAD = 32, 24
WAL_MAGIC = 0x377F0682  # and 1 more where the checksums are big-endian
LEAF = 0x0D
INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)  # by serial type, section 2.1
LEVEL, FRAME = 5, 6  # columns of the table ``pack``; behind them may be those of a later release
FIRST_BLOB = 12

MOST_LOG = 64 * 1024 * 1024


class Found(NamedTuple):
    """A pack that lies in the file; ``level``: see :mod:`gateway.store.level`."""

    number: int
    level: int
    pack: Pack


class Raw:
    """A file as it lies there; ``with`` gives it back.

    Attributes:
        page_bytes: how large a page is.
        damaged: rows that were there and are no packs any more.
        epochs: what is known of the runs, by their number, once all packs were given.
        commits_beyond: how many commits the log tells of behind its last sound one.
    """

    def __init__(self, path: Path, *, beyond: bool = False) -> None:
        """Look at it. Raises OSError.

        Args:
            path: the database; its log lies beside it.
            beyond: look at what the log holds behind its last sound commit, in place of what it holds before.
        """
        self.damaged = 0
        self.epochs: dict[int, Epoch] = {}
        self._base = _opened(path)
        self._log = _log_of(path)
        page = self.page_bytes = _page_bytes(self._base, self._log)
        self._most_local = page - 35  # bytes of a row that lie in its cell, section 1.6
        self._least_local = (page - 12) * 32 // 255 - 23
        self._base_pages = os.fstat(self._base.fileno()).st_size // page if self._base else 0
        committed, rest, self.commits_beyond = _newer(self._log, page)
        self._newer = committed | rest if beyond else committed
        self._leaves: Iterable[int] = sorted(rest) if beyond else range(1, self.pages() + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._base:
            self._base.close()

    def packs(self) -> Iterator[Found]:
        """Give the packs, in no order."""
        free = self._free()
        for number in self._leaves:
            if number not in free:
                yield from self._in_leaf(self._page(number))

    def pages(self) -> int:
        """Return how many pages there are."""
        return max(self._base_pages, max(self._newer, default=0))

    def _page(self, number: int) -> bytes:
        at = self._newer.get(number)
        if at is not None:
            return self._log[at : at + self.page_bytes]
        return _read(self._base, self.page_bytes, (number - 1) * self.page_bytes)

    def _in_leaf(self, page: bytes) -> Iterator[Found]:
        if len(page) < self.page_bytes or page[0] != LEAF:
            return
        count = int.from_bytes(page[3:5], "big")
        for index in range(min(count, (self.page_bytes - 8) // 2)):
            at = int.from_bytes(page[8 + 2 * index : 10 + 2 * index], "big")
            try:
                found = self._in_cell(page, at)
            except (frame.Damaged, IndexError, struct.error, UnicodeDecodeError):
                self.damaged += 1
            else:
                if found is not None:
                    yield found

    def _in_cell(self, page: bytes, at: int) -> Found | None:
        """Return the pack in a cell; None: it is a row of another table."""
        size, at = _varint(page, at)
        number, at = _varint(page, at)
        if size > frame.LARGEST:
            raise frame.Damaged("no row is that large")
        record = self._record(page, at, size)
        kinds, data_at = _kinds(record)
        if record.startswith(frame.EPOCH_MAGIC, data_at):
            self._note(record[data_at:])
            return None
        if len(kinds) <= FRAME or kinds[FRAME] < FIRST_BLOB or kinds[FRAME] % 2:
            if frame.MAGIC in record:
                raise frame.Damaged("its head is not that of a pack's row")
            return None
        sizes = [_bytes_of(kind) for kind in kinds]
        level_at = data_at + sum(sizes[:LEVEL])
        level = level_in(_integer(record, level_at, kinds[LEVEL]))
        frame_at = data_at + sum(sizes[:FRAME])
        sealed, pack = frame.unseal(record[frame_at : frame_at + sizes[FRAME]])
        if sealed != number:
            raise frame.Damaged("it lies under another number")
        return Found(number, level, pack)

    def _note(self, framed: bytes) -> None:
        """Note a run; an older copy of its row may lie in another page."""
        with contextlib.suppress(frame.Damaged):  # it is no pack that is lost
            epoch = frame.unseal_epoch(framed)
            before = self.epochs.get(epoch.id)
            if before is None or before.utc is None:
                self.epochs[epoch.id] = epoch

    def _record(self, page: bytes, at: int, size: int) -> bytes:
        """Put a row together from its cell and its overflow pages."""
        if size <= self._most_local:
            return page[at : at + size]
        room = self.page_bytes - 4
        local = self._least_local + (size - self._least_local) % room
        local = local if local <= self._most_local else self._least_local
        parts = [page[at : at + local]]
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        missing = size - local
        while missing > 0:
            overflow = self._page(following) if following else b""
            if len(overflow) < self.page_bytes:
                raise frame.Damaged("its rest is not there")
            parts.append(overflow[4 : 4 + missing])
            missing -= room
            following = int.from_bytes(overflow[:4], "big")
        return b"".join(parts)

    def _free(self) -> set[int]:
        """Return the pages of the free list, where page 1 tells."""
        head = self._page(1)
        free: set[int] = set()
        if not head.startswith(SQLITE):
            return free
        trunk = int.from_bytes(head[32:36], "big")
        while trunk and trunk not in free and trunk <= self.pages():
            free.add(trunk)
            page = self._page(trunk)
            if len(page) < self.page_bytes:
                break
            count = min(int.from_bytes(page[4:8], "big"), self.page_bytes // 4 - 2)
            free.update(struct.unpack_from(f">{count}I", page, 8))
            trunk = int.from_bytes(page[:4], "big")
        return free


class Salvage:
    """All packs that are sound in a damaged file, each once.

    What SQLite would read counts more than what it drops from a log whose middle is damaged.

    Attributes:
        damaged: rows that are no packs any more, once all was read.
        epochs: what is known of the runs, once all was read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damaged = 0
        self.epochs: list[Epoch] = []

    def __iter__(self) -> Iterator[Found]:
        """Read it. Raises OSError."""
        seen: set[int] = set()
        self.epochs.clear()
        for beyond in (False, True):
            with Raw(self._path, beyond=beyond) as raw:
                for found in raw.packs():
                    if found.number not in seen:
                        seen.add(found.number)
                        yield found
                self.damaged += raw.damaged if not beyond else 0
                self.epochs += raw.epochs.values()


class Tail(NamedTuple):
    """What lies in a log behind the place where SQLite stops reading it.

    Attributes:
        packs: each once.
        epochs: what is known of the runs.
        is_damage: a commit that was complete lies there. One that a power cut interrupted may: it was not complete.
    """

    packs: list[Found]
    epochs: list[Epoch]
    is_damage: bool


def dropped_by_sqlite(path: Path) -> Tail:
    """Return the packs that SQLite will say nothing of when it opens the file. Raises OSError."""
    if not path.exists():
        return Tail([], [], is_damage=False)
    with Raw(path, beyond=True) as raw:
        packs = list({found.number: found for found in raw.packs()}.values())
        return Tail(packs, list(raw.epochs.values()), raw.commits_beyond > 1)


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _read(file: BinaryIO | None, size: int, at: int) -> bytes:
    """Return what lies there; b"" where there is nothing, or a block that the flash does not give any more."""
    try:
        return os.pread(file.fileno(), size, at) if file else b""
    except OSError:
        return b""


def _page_bytes(base: BinaryIO | None, log: bytes) -> int:
    """Return how large the pages are, as a head tells; where both are lost, as most leaves would have it."""
    head = _read(base, WAL_HEAD, 0)
    if head.startswith(SQLITE) and (told := int.from_bytes(head[16:18], "big")) in SIZES:
        return told
    if int.from_bytes(log[:4], "big") & ~1 == WAL_MAGIC and (told := int.from_bytes(log[8:12], "big")) in SIZES:
        return told
    return max(SIZES, key=lambda size: _leaves(base, size))


def _leaves(base: BinaryIO | None, page_bytes: int) -> int:
    """Count the leaves there are if pages are so large: their cells lie behind the pointers and within the page."""
    found = number = 0
    while page := _read(base, page_bytes, number * page_bytes):
        number += 1
        count, begin = struct.unpack_from(">3xHH", page.ljust(8, b"\0"))
        found += page[0] == LEAF and count > 0 and 8 + 2 * count <= begin < page_bytes
    return found


def _log_of(path: Path) -> bytes:
    """Return the log beside a file: a megabyte or so."""
    log = _opened(Path(f"{path}-wal"))
    if log is None:
        return b""
    with log:
        return log.read(MOST_LOG) or b""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(9):
        byte = data[at + place]
        if place == 8:  # noqa: PLR2004  # the ninth byte counts whole
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004  # the last
            return value, at + place + 1
    raise AssertionError("a varint has nine bytes at the most")


def _kinds(record: bytes) -> tuple[list[int], int]:
    """Return the serial types of a record's columns, and where its data begin."""
    end, at = _varint(record, 0)
    kinds = []
    while at < end:
        kind, at = _varint(record, at)
        kinds.append(kind)
    return kinds, end


def _bytes_of(kind: int) -> int:
    return INTEGER_BYTES[kind] if kind < len(INTEGER_BYTES) else max(0, (kind - FIRST_BLOB) // 2)


def _integer(record: bytes, at: int, kind: int) -> int:
    if kind in (8, 9):
        return kind - 8
    return int.from_bytes(record[at : at + _bytes_of(kind)], "big", signed=True)


def _frames(log: bytes, page_bytes: int) -> Iterator[tuple[int, int, int, bool]]:
    """Give the frames of this log, not those of an older one it overwrites: page, place, size after commit, sound."""
    if len(log) < WAL_HEAD:
        return
    magic, _, _, _, *salts = struct.unpack_from(">IIIIII", log)
    order = ">" if magic & 1 else "<"
    sums = _checksum(order, log[:24], (0, 0))
    known = magic & ~1 == WAL_MAGIC and sums == struct.unpack_from(">II", log, 24)
    if not known and len(log) >= WAL_HEAD + FRAME_HEAD:
        salts = list(struct.unpack_from(">II", log, WAL_HEAD + 8))  # the first frame is of this log at least
    sound = known
    for at in range(WAL_HEAD, len(log) - FRAME_HEAD - page_bytes + 1, FRAME_HEAD + page_bytes):
        page, size, *rest = struct.unpack_from(">IIIIII", log, at)
        if sound:
            sums = _checksum(order, log[at : at + 8], sums)
            sums = _checksum(order, log[at + FRAME_HEAD : at + FRAME_HEAD + page_bytes], sums)
            sound = rest[:2] == salts and tuple(rest[2:]) == sums
        if sound or rest[:2] == salts:
            yield page, at + FRAME_HEAD, size, sound


def _newer(log: bytes, page_bytes: int) -> tuple[dict[int, int], dict[int, int], int]:
    """Return page to place in the log: up to its last sound commit, and behind that; and the commits behind it."""
    committed: dict[int, int] = {}
    pending: dict[int, int] = {}
    broken, commits = False, 0
    for page, at, size, sound in _frames(log, page_bytes):
        broken = broken or not sound
        pending[page] = at
        if size and not broken:
            committed |= pending
            committed = {number: place for number, place in committed.items() if number <= size}
            pending.clear()
        elif size:
            commits += 1
    return committed, pending, commits


def _checksum(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """Continue the checksum of a log, section 4.2."""
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for index in range(0, len(words), 2):
        first = (first + words[index] + second) & 0xFFFFFFFF
        second = (second + words[index + 1] + first) & 0xFFFFFFFF
    return first, second

"""The only queue: packs that were not acknowledged yet, in RAM first and in the file when they must be.

* **A pack is written only if it is not acknowledged in time**: it waits in RAM for ``commit_within`` seconds of its
  dataset, counted from its first reading. A healthy uplink writes nothing to the flash. When the first pack is due,
  all that wait are committed in one transaction, with one fsync.
* **A row leaves only after a successful PUBACK.** Its deletion rides on the next commit; a deletion that is lost
  in a power cut only sends the pack again, under the same (epoch, n).
* **Live before old**: what waits in RAM is taken first, then rows, oldest first.
* **Bounded**: the file by ``max_bytes``, RAM by ``RAM_BYTES`` while the disk refuses; the oldest give way, counted.

The event loop never waits for the disk: the file has a thread of its own. Numbers of packs only grow, and all that
wait are committed together, so every row is older than every pack in RAM.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from gateway.pack_file import Dropped, PackFile, Row, SqlError
from gateway.reading import Pack

DELETE_WITHIN_S = 60.0  # acknowledged rows leave by then even if nothing else is written
RETRY_S = 5.0
RAM_BYTES = 32 * 1024 * 1024
EPOCH_SHIFT = 32  # a number is epoch and count: it never comes twice

T = TypeVar("T")
log = structlog.get_logger()


class BufferUnusable(Exception):
    """The file cannot be used as a buffer; the message says why and what to do."""


@dataclass(slots=True)
class Depth:
    """How full the buffer is.

    Attributes:
        packs: not acknowledged, in RAM and on disk.
        readings: in them.
        stored: packs of them on disk.
        dropped: packs that had to give way since the start.
        dropped_readings: in them.
        commits: transactions since the start, each with one fsync.
    """

    packs: int = 0
    readings: int = 0
    stored: int = 0
    dropped: int = 0
    dropped_readings: int = 0
    commits: int = 0


@dataclass(slots=True, eq=False)
class Held:
    """A pack and where it stands; whoever took it gives it back to ``acknowledge`` or ``release``."""

    number: int
    pack: Pack
    due: float = math.inf
    stored: bool = False
    taken: bool = False
    left: bool = False


class Buffer:
    """The packs that were not acknowledged yet."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Set it; ``open`` opens the file. Arguments as :class:`gateway.pack_file.PackFile`."""
        self._path = path
        self._file = PackFile(path, max_bytes)
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "buffer")
        self._work = asyncio.Event()
        self._changed = asyncio.Event()
        self._fewer = asyncio.Event()
        self._writing = asyncio.Lock()
        self._ram: dict[int, Held] = {}
        self._out: dict[int, Held] = {}
        self._leaving: set[int] = set()
        self._leave_by = math.inf
        self._cursor = 0
        self._more_on_disk = False
        self._count = 0
        self._marks: dict[str, tuple[int, int]] = {}
        self.epoch = 0
        self.depth = Depth()

    async def open(self, boot: str) -> None:
        """Open or make the file and begin an epoch. Raises BufferUnusable.

        Args:
            boot: id of this boot of the machine; stamps of CLOCK_BOOTTIME mean nothing without it.
        """
        try:
            contents = await self._on_thread(lambda: self._file.open(boot))
        except (SqlError, OSError) as error:
            self._thread.shutdown()
            raise BufferUnusable(
                f"{self._path} cannot be used as buffer: {error}. Look at `path` in [buffer]: the gateway's user must "
                "be able to write that folder, and no other gateway may have the file open."
            ) from error
        self.epoch, self._marks = contents.epoch, contents.marks
        self.depth.packs = self.depth.stored = contents.packs
        self.depth.readings = contents.readings
        self._more_on_disk = contents.packs > 0

    def put(self, pack: Pack, within: float) -> None:
        """Take a sealed pack. It is on disk ``within`` seconds from now unless it is acknowledged before."""
        self._count += 1
        held = Held(self.epoch << EPOCH_SHIFT | self._count, pack, due=self._loop.time() + within)
        self._ram[held.number] = held
        self.depth.packs += 1
        self.depth.readings += pack.readings
        self._work.set()
        self._changed.set()

    async def take(self, limit: int) -> list[Held]:
        """Wait for packs that are not taken, and take up to ``limit``."""
        while True:
            self._work.clear()  # before looking: what comes while the file is read is not missed
            held = [each for each in self._ram.values() if not each.taken][:limit]
            self._take(held)
            if len(held) < limit and self._more_on_disk:
                held += await self._rows(limit - len(held))
            if held:
                return held
            if not self._more_on_disk:
                await self._work.wait()

    def acknowledge(self, held: Held) -> None:
        """The pack is safe with the broker: it leaves."""
        if held.left:  # it gave way meanwhile
            return
        del self._out[held.number]
        held.left = True
        self.depth.packs -= 1
        self.depth.readings -= held.pack.readings
        if held.stored:
            self.depth.stored -= 1
            self._leave(held.number)
        else:
            self._ram.pop(held.number, None)
        self._fewer.set()

    async def empty(self) -> None:
        """Wait until all is acknowledged, or gave way."""
        while self.depth.packs:
            self._fewer.clear()
            await self._fewer.wait()

    def release(self, held: Held) -> None:
        """The pack was not acknowledged: it is to be taken again."""
        if held.left:
            return
        del self._out[held.number]
        held.taken = False
        if held.stored:
            self._cursor = min(self._cursor, held.number - 1)
            self._more_on_disk = True
        self._work.set()

    def after(self, dataset: str) -> str:
        """Tell the last pack of a dataset that reached the disk before this epoch, as "epoch:n"; "" for none."""
        epoch, n = self._marks.get(dataset, (0, 0))
        return f"{epoch}:{n}" if epoch else ""

    async def run(self) -> None:
        """Commit what is due, for ever."""
        while True:
            self._changed.clear()
            due = min((held.due for held in self._ram.values()), default=math.inf)
            wait = min(due, self._leave_by) - self._loop.time()
            if wait > 0:
                # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if wait == math.inf else wait):
                        await self._changed.wait()
                continue
            try:
                await self.commit()
            except SqlError as error:
                log.warning(
                    "the buffer cannot be written; packs stay in memory", path=str(self._path), error=str(error)
                )
                self._bound_ram()
                await asyncio.sleep(RETRY_S)

    async def commit(self) -> None:
        """Write all that wait in RAM and delete the acknowledged rows. Raises SqlError; nothing is lost then.

        Once begun it comes to its end, also when whoever called it is cancelled: the thread writes on, and what it
        wrote must not be written again.
        """
        await asyncio.shield(self._loop.create_task(self._commit()))

    async def close(self) -> None:
        """Write all that is not acknowledged and close the file. Raises SqlError where that fails."""
        try:
            await self.commit()
        finally:
            await self._on_thread(self._file.close)
            self._thread.shutdown()

    async def _commit(self) -> None:
        async with self._writing:
            batch = list(self._ram.values())
            leaving = list(self._leaving)
            if not batch and not leaving:
                return
            rows = [Row(held.number, held.pack) for held in batch]
            dropped = await self._on_thread(lambda: self._file.write(rows, leaving))
            self.depth.commits += 1
            self._leaving.difference_update(leaving)
            lost = [row for row in dropped if row.id not in self._leaving]
            self._leaving.difference_update(row.id for row in dropped)
            self._leave_by = self._loop.time() + DELETE_WITHIN_S if self._leaving else math.inf
            self.depth.stored -= len(lost)
            self._gave_way(lost)
            self._stored(batch)

    def _stored(self, batch: Iterable[Held]) -> None:
        for held in batch:
            held.stored = True
            self._ram.pop(held.number, None)
            if held.left:  # acknowledged while it was being written
                self._leave(held.number)
                continue
            self.depth.stored += 1
            if not held.taken:
                self._more_on_disk = True
        self._work.set()

    async def _rows(self, limit: int) -> list[Held]:
        """Take rows from the file that are neither taken nor leaving."""
        start = self._cursor
        rows = await self._on_thread(lambda: self._file.read(start, limit))
        if self._cursor == start:  # else a row was released meanwhile that lies further back
            self._cursor = rows[-1].id if rows else start
            self._more_on_disk = len(rows) == limit
        held = [
            Held(row.id, row.pack, stored=True)
            for row in rows
            if row.id not in self._out and row.id not in self._leaving
        ]
        self._take(held)
        return held

    def _take(self, batch: Iterable[Held]) -> None:
        for held in batch:
            held.taken = True
            self._out[held.number] = held

    def _leave(self, number: int) -> None:
        self._leaving.add(number)
        if self._leave_by == math.inf:
            self._leave_by = self._loop.time() + DELETE_WITHIN_S
            self._changed.set()

    def _bound_ram(self) -> None:
        excess = sum(len(held.pack.blob) for held in self._ram.values()) - RAM_BYTES
        dropped: list[Dropped] = []
        for held in list(self._ram.values()):
            if excess <= 0:
                break
            excess -= len(held.pack.blob)
            del self._ram[held.number]
            held.left = True  # it may be written at this moment
            dropped.append(Dropped(held.number, held.pack.readings))
        self._gave_way(dropped)

    def _gave_way(self, lost: Sequence[Dropped]) -> None:
        if not lost:
            return
        for row in lost:
            if (held := self._out.pop(row.id, None)) is not None:
                held.left = True
        readings = sum(row.readings for row in lost)
        self.depth.packs -= len(lost)
        self.depth.readings -= readings
        self.depth.dropped += len(lost)
        self.depth.dropped_readings += readings
        self._fewer.set()
        log.warning("the buffer is full: the oldest packs gave way", packs=len(lost), readings=readings)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._thread, work)

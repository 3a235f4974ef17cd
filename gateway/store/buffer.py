"""The only queue: packs that were not acknowledged yet, in RAM first and in the file when they must be.

* **A pack is written only if it is not acknowledged in time**: it waits in RAM for ``commit_within`` seconds of its
  dataset, counted from its first reading. A healthy uplink writes nothing to the flash. When the first pack is due,
  all that wait are committed, the oldest first: in one transaction with one fsync, or in several where they are more
  than the log of the file is made for. Meanwhile the journal on the RAM file system keeps it. ``disk_first`` is for
  those who want every pack committed before it is sent, while the disk takes it.
* **A row leaves only after a successful PUBACK.** Its deletion rides on the next commit; a deletion that is lost
  in a power cut only sends the pack again, under the same (epoch, n). With history it stays until room is wanted,
  or until it is certainly too old (:func:`gateway.store.pack_epochs.taken_before`).
* **Urgent, live, old**: datasets of the highest priority are taken first, then what was sealed since the link came up,
  then the backlog, oldest first and no more of it than is asked for.
* **What no broker takes is set aside**: it stays in the file, for a person to look at.
* **Bounded**: the file by ``max_bytes``, RAM by ``RAM_BYTES`` while the disk refuses; who gives way is counted, and
  told upstream (:meth:`Buffer.losses`). What was acknowledged before that is seen is no loss, and is taken back.
* **It works whatever the disk does**: a file that cannot be opened is tried again, and packs stay in RAM until then.

The event loop never waits for the disk: the file has a thread of its own. Numbers of packs only grow, and all that
wait are committed together, so every row is older than every pack in RAM.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import structlog

from gateway.store.frame import number_of
from gateway.store.held import Depth, Held
from gateway.store.journal import Journal, Left
from gateway.store.level import SET_ASIDE
from gateway.store.pack_ahead import AHEAD
from gateway.store.pack_disk import Disk
from gateway.store.pack_file import PackFile
from gateway.store.pack_outgoing import RETRY_S, Outgoing
from gateway.store.pack_room import URGENT, Ends, Terms
from gateway.store.pack_rows import Waiting
from gateway.store.pack_sql import Contents, Dropped, Loss, Mended, Row, SqlError
from gateway.store.unwritten import Unwritten
from gateway.words.reading import Pack
from gateway.words.timeline import Epoch

VERIFY_PAUSE_S = 0.1
ANSWER_PAUSE_S, LONGEST_ANSWER_S = 10.0, 1800.0  # a large file that is mended on a slow card takes minutes
LOG_PAUSE_S = 60.0

log = structlog.get_logger()


class Buffer:
    """The packs that were not acknowledged yet.

    Attributes:
        epoch: number of this run.
        depth: how full it is.
        answers: how often its thread answered to :meth:`answer`.
        before_commit: called before packs are committed: what else waits may come along.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        *,
        terms: Mapping[str, Terms] | None = None,
        journal: Journal | None = None,
        disk_first: bool = False,
        forget_before: Callable[[], int] | None = None,
    ) -> None:
        """Set it; ``open`` opens the file.

        Args:
            path: as :class:`gateway.store.pack_file.PackFile`, as ``max_bytes`` and ``terms``.
            max_bytes: the same.
            terms: the same.
            journal: keeps what is in RAM across a crash.
            disk_first: a pack is committed before it is sent, while the disk takes it.
            forget_before: tells when a pack of the history was taken that may go now, nanoseconds of CLOCK_BOOTTIME in
                this boot, below zero for one before it; None: there is no history.
        """
        self._terms = dict(terms or {})  # the file looks into it too
        self._journal = journal or Journal(None, "")
        self._disk_first = disk_first
        self._forget_before = forget_before
        self._disk = Disk(
            path,
            lambda at, most: PackFile(at, min(max_bytes, most), self._terms, history=forget_before is not None),
            on_open=self._opened,
            on_mend=self._mended,
            in_ram=self._journal.folder,
        )
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._fewer = asyncio.Event()
        self._writing = asyncio.Lock()
        self._unwritten = Unwritten(self._changed)
        self._ram = self._unwritten.ram
        self._outgoing = Outgoing(
            self._disk,
            self._ram,
            urgent=_urgent(self._terms),
            disk_first=disk_first,
            leaves=self._unwritten.gives,
            damaged=self._damaged,
        )
        self._count = 0
        self._untold, self._tell_after = 0, 0.0
        self._marks: Ends = {}
        self._last: Ends = {}
        self._epochs = Contents(0).epochs
        self.epoch = 0
        self.depth = Depth()
        self.answers = 0
        self.before_commit: Callable[[], None] = lambda: None

    @property
    def epochs(self) -> list[Epoch]:
        """The runs before this one that still matter, and this one."""
        return self._epochs

    @property
    def trouble(self) -> str:
        """What is wrong with the disk, in words; "" for nothing."""
        return self._disk.trouble

    @property
    def mended(self) -> Mended | None:
        """What was found damaged last; None: nothing was."""
        return self._disk.mended

    async def open(self, boot: str, started: int = 0, utc: int | None = None) -> None:
        """Open or make the file and begin an epoch. Raises BufferUnusable where another gateway has it open.

        Args:
            boot: id of this boot of the machine; stamps of CLOCK_BOOTTIME mean nothing without it.
            started: now, nanoseconds of CLOCK_BOOTTIME.
            utc: what to add to that for nanoseconds since 1970, where that is certain.
        """
        await self._disk.open(boot, started, utc)

    def change(self, terms: Mapping[str, Terms]) -> None:
        """Let datasets fare by these terms from now on; what is not named fares as before."""
        self._terms.update(terms)
        self._outgoing.hurry(_urgent(self._terms))

    async def restore(self, left: Left, within: Callable[[Pack], float]) -> None:
        """Take what the run before had accepted and not settled.

        Args:
            left: what the journal kept; it still does.
            within: the seconds a pack may stay in RAM.
        """
        self._last = left.last
        try:
            on_disk = await self._disk.which_are_there(left.packs)
        except (SqlError, OSError):  # one that has a row is passed over when they are written
            on_disk = set()
        self._journal.settled(on_disk)
        for number, pack in left.packs.items():
            if number not in on_disk:
                self._add(Held(number, pack, due=self._loop.time() + within(pack)))

    def put(self, pack: Pack, within: float) -> None:
        """Take a sealed pack. It is on disk ``within`` seconds from now unless it is acknowledged before."""
        self._count += 1
        held = Held(number_of(self.epoch, self._count), pack, due=self._loop.time() + within)
        self._journal.sealed(held.number, pack)
        self._add(held)

    async def take(self, limit: int) -> list[Held]:
        """Wait for packs that are not taken, and take up to ``limit``: the urgent, then the live, then the old."""
        return await self._outgoing.take(limit)

    def begin_backlog(self) -> None:
        """A link came up: what is on the disk now is the backlog."""
        self._outgoing.begin_backlog(number_of(self.epoch, self._count))

    def allow_backlog(self, packs: int) -> None:
        """Say how many packs of the backlog may be taken from now on; without a word there is no limit."""
        self._outgoing.allow_backlog(packs)

    def rest(self, dataset: str) -> None:
        """Give no packs of a dataset until it is resumed."""
        self._outgoing.rest(dataset)

    def resume(self, dataset: str) -> None:
        """Give them again."""
        self._outgoing.resume(dataset)

    def acknowledge(self, held: Held) -> None:
        """The pack is safe with the broker: it leaves."""
        if held.left:  # it gave way meanwhile
            return
        del self._outgoing.out[held.number]
        held.left = True
        self.depth.packs -= 1
        self.depth.readings -= held.pack.readings
        if held.stored:
            self.depth.stored -= 1
            self._unwritten.leave(held.number)
        elif self._ram.pop(held.number, None) is not None and self._forget_before is not None:
            self._unwritten.keep(held)
        self._journal.settled([held.number])
        self._fewer.set()

    def set_aside(self, held: Held, level: int) -> None:
        """No broker takes the pack: it waits no more, and is on the disk as soon as it would have been.

        Args:
            held: the pack.
            level: tells why; see :mod:`gateway.store.level`.
        """
        if held.left:
            return
        del self._outgoing.out[held.number]
        held.left = True
        self.depth.packs -= 1
        self.depth.readings -= held.pack.readings
        self.depth.stored -= held.stored
        self._unwritten.set_aside(held, level)
        self._fewer.set()

    async def empty(self) -> None:
        """Wait until all is acknowledged, or gave way."""
        while self.depth.packs:
            self._fewer.clear()
            await self._fewer.wait()

    def release(self, held: Held) -> None:
        """The pack was not acknowledged: it is to be taken again."""
        if not held.left:
            self._outgoing.release(held)

    def after(self, dataset: str) -> str:
        """Tell the last pack of a dataset that is known from before this epoch, as "epoch:n"; "" for none."""
        epoch, n = max(self._marks.get(dataset, (0, 0)), self._last.get(dataset, (0, 0)))
        return f"{epoch}:{n}" if epoch else ""

    async def run(self) -> None:
        """Commit what is due, for ever."""
        while True:
            self._changed.clear()
            wait = self._unwritten.due() - self._loop.time()
            if wait > 0:
                # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if wait == math.inf else wait):
                        await self._changed.wait()
                continue
            try:
                await self.barrier()
            except (SqlError, OSError) as error:
                self._disk.tell(str(error))
                self._outgoing.came()  # what was to be on the disk first goes out from RAM now
                self._bound_ram()
                await asyncio.sleep(RETRY_S)

    async def verify(self) -> None:
        """Look at all that lay in the file when it was opened, slowly, so that damage is found in time."""
        after, end, last = -1, 0, number_of(self.epoch, 0)
        while after < end < last:
            after = end
            try:
                end, damaged, waiting = await self._disk.verify(after, AHEAD)
            except (SqlError, OSError):
                return  # it is told where packs are written
            self._damaged(damaged)
            if waiting is not None:
                log.warning("the buffer's file does not tell how some packs stand: they are sent, maybe once more")
                self._mended(waiting)
            await asyncio.sleep(VERIFY_PAUSE_S)

    async def answer(self) -> None:
        """Ask the thread whether it still works, for ever."""
        while True:
            await self._disk.answer()
            self.answers += 1
            await asyncio.sleep(ANSWER_PAUSE_S)

    async def barrier(self) -> None:
        """Return when all that was put is on the disk. Raises SqlError, OSError; nothing is lost then.

        Once it writes it comes to its end, also when whoever called it is cancelled: what was written must not be
        written again.
        """
        await self._commit()
        if (task := asyncio.current_task()) and task.cancelling():
            await asyncio.sleep(0)  # a place to be cancelled at; the disk is none

    async def end(self) -> None:
        """Write all that is not acknowledged; the process ends. Raises SqlError, OSError where that fails."""
        try:
            await self.barrier()
        finally:
            self._disk.leave()

    async def close(self) -> None:
        """Write all that is not acknowledged and close the file. Raises SqlError, OSError where that fails."""
        try:
            await self.barrier()
        finally:
            await self._disk.close()

    async def losses(self) -> tuple[int, list[Loss]]:
        """Return what was lost and untold: see :class:`gateway.store.pack_file.PackFile`. Raises SqlError, OSError."""
        async with self._writing:  # a commit may have as lost what is acknowledged meanwhile
            while self._unwritten.takes_back:
                await self._write_some()
            return await self._disk.losses()

    async def told(self, batch: int) -> None:
        """The receiver knows of it. Raises SqlError."""
        await self._disk.told(batch)

    async def held(self, dataset: str, epoch: int, first: int, last: int, limit: int) -> list[Row]:
        """Return packs by number, acknowledged, set aside or not, up to ``limit``, as far as they are still there."""
        rows = await self._disk.held(dataset, epoch, first, last, limit)
        packs = {
            row.pack.n: row
            for row in (*rows, *self._unwritten.packs(), *self._unwritten.aside.values())
            if (row.pack.dataset, row.pack.epoch) == (dataset, epoch) and first <= row.pack.n <= last
        }
        return [packs[n] for n in sorted(packs)][:limit]

    def arrived(self, row: Row) -> None:
        """The broker took a pack that :meth:`held` gave: if it was set aside, it need not be kept for that any more."""
        if row.level <= SET_ASIDE:
            self._unwritten.aside.pop(row.id, None)
            self._journal.settled([row.id])
            self._unwritten.leave(row.id)

    async def know_utc(self, boot: str, utc: int) -> None:
        """Store what to add to the stamps of a boot. Raises SqlError."""
        self._epochs = [e._replace(utc=utc) if e.boot == boot and e.utc is None else e for e in self._epochs]
        await self._disk.know_utc(boot, utc)

    def _opened(self, contents: Contents) -> None:
        self.epoch, self._epochs = contents.epoch, contents.epochs
        self._marks = contents.marks
        self.depth.packs += contents.packs
        self.depth.stored += contents.packs
        self.depth.readings += contents.readings
        self.depth.set_aside = contents.set_aside
        self._outgoing.opened(contents.waiting)

    def _add(self, held: Held) -> None:
        if self._disk_first:
            held.due = self._loop.time()
        self._ram[held.number] = held
        self.depth.packs += 1
        self.depth.readings += held.pack.readings
        self._outgoing.came()
        self._changed.set()

    async def _commit(self) -> None:
        async with self._writing:
            self.before_commit()
            last = max(self._ram, default=0)
            await self._write_some()
            while min(self._ram, default=math.inf) <= last or self._unwritten.takes_back:
                await self._write_some()

    async def _write_some(self) -> None:
        """Commit what waits, the oldest first, up to the size that the log of the file is made for."""
        batch = self._unwritten.batch()
        if batch is None:
            return
        forget_before = self._forget_before() if self._forget_before is not None else None
        written = await self._disk.write(batch.rows(), batch.leaving, batch.losses, forget_before)
        self.depth.commits += 1
        self.depth.set_aside = written.set_aside
        self._journal.settled(row.id for row in batch.aside)
        lost = self._unwritten.wrote(batch, written)
        self.depth.stored -= sum(row.id not in written.refused for row in lost)
        self._stored(held for held in batch.packs if held.number not in written.refused)
        for held in batch.packs:
            if held.number in written.refused and self._ram.pop(held.number, None) is not None:
                held.left = True
        self._gave_way(lost)

    def _stored(self, batch: Iterable[Held]) -> None:
        stored = [held for held in batch if not held.stored]
        for held in stored:
            held.stored = True
            self._ram.pop(held.number, None)
            if held.left:
                self._unwritten.wrote_in_vain(held.number)
        waiting = [held for held in stored if not held.left]
        self.depth.stored += len(waiting)
        self._journal.settled(held.number for held in stored)
        self._outgoing.came(waiting)

    def _damaged(self, rows: Sequence[Dropped]) -> None:
        lost = self._unwritten.lost(rows)
        self.depth.stored -= len(lost)
        self._gave_way(lost)

    def _mended(self, there: Waiting) -> None:
        """Make up for what a mended file lacks: what is under way is still in RAM, the rest is lost."""
        for held in list(self._outgoing.out.values()):
            if held.stored and held.number not in there:
                held.stored, held.due = False, self._loop.time()
                self._ram[held.number] = held
        for number in self._ram.keys() & there.keys():  # of the journal, while the file could not be read
            self._ram.pop(number).stored = True
            self._journal.settled([number])
        self._changed.set()
        readings = [of_it for number, of_it in there.items() if not self._unwritten.gives(number)]
        self.depth.stored = len(readings)
        readings += [held.pack.readings for held in self._ram.values()]
        self.depth.packs, self.depth.readings = len(readings), sum(readings)
        self._outgoing.again_all()

    def _bound_ram(self) -> None:
        """Let packs go that the disk does not take and RAM cannot hold."""
        dropped, aside = self._unwritten.bound(self._rank)
        self._journal.settled(aside)
        self._gave_way(dropped)

    def _rank(self, held: Held) -> tuple[int, int]:
        return self._terms.get(held.pack.dataset, Terms()).rank, held.number

    def _gave_way(self, lost: Sequence[Dropped]) -> None:
        if not lost:
            return
        ids = {row.id for row in lost}
        self._outgoing.drop(ids)
        readings = sum(row.loss.readings for row in lost)
        self.depth.packs -= len(lost)
        self.depth.readings -= readings
        self.depth.dropped += len(lost)
        self.depth.dropped_readings += readings
        self._journal.settled(row.id for row in lost)
        self._fewer.set()
        self._untold += len(lost)
        if self._loop.time() >= self._tell_after:  # while the file is full that goes on with each commit
            log.warning("packs had to give way", packs=self._untold, since_start=self.depth.dropped)
            self._untold, self._tell_after = 0, self._loop.time() + LOG_PAUSE_S


def _urgent(terms: Mapping[str, Terms]) -> frozenset[str]:
    return frozenset(name for name, of_it in terms.items() if of_it.priority == URGENT)

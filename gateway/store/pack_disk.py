"""The buffer's file on its own thread, whatever happens to it.

The event loop never waits for the disk. A file that cannot be opened is tried again at each write. One that turns out
to be damaged is mended, as it is opened anew, and the work done again. Where the file may only be read, a copy in RAM
is used until that is over.
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from gateway.host.one_thread import OneThread
from gateway.store import pack_mend
from gateway.store.frame import LAST_EPOCH
from gateway.store.pack_file import PackFile
from gateway.store.pack_rows import Waiting
from gateway.store.pack_sql import (
    ALL,
    UNREADABLE,
    Contents,
    Dropped,
    Loss,
    Mended,
    Row,
    SqlError,
    Which,
    Written,
    is_damage,
    is_full,
    is_locked,
)
from gateway.words.timeline import Epoch

UNNUMBERED = 1 << 30  # epochs of runs that could not read the file lie above, at random: they must not come twice
UNKNOWN_SPAN, KNOWN_SPAN = 1 << 29, 1 << 10  # how far, where no such run is known of, and behind one that is
COPY_BYTES = 32 * 1024 * 1024  # that a copy in RAM may grow by
LOOK_EVERY_S = 60.0  # whether the file is still there, or is again
PATIENCE = 10  # what could not be opened is let be for so many times as long as that took

T = TypeVar("T")
log = structlog.get_logger()


class BufferUnusable(Exception):
    """Another gateway has the file; the message says so."""


class Disk:
    """The file. Every method may raise SqlError, OSError. While it cannot be opened it is as good as empty.

    Attributes:
        trouble: what is wrong with it, in words; "" for nothing.
        mended: what was found damaged last; None: nothing was.
        is_open: it can be read and written.
    """

    def __init__(
        self,
        path: Path,
        file_at: Callable[[Path, int], PackFile],
        *,
        on_open: Callable[[Contents], None],
        on_mend: Callable[[Waiting], None],
        in_ram: Path | None,
    ) -> None:
        """Set it; ``open`` opens it.

        Args:
            path: the database.
            file_at: makes the file; as large as this it may become.
            on_open: takes what is in the file, once it could be opened.
            on_mend: takes what is there and waits, when it was opened once more, or late.
            in_ram: a folder in RAM, for a copy; None: there is none.
        """
        self._path = path
        self._file_at = file_at
        self._file = file_at(path, sys.maxsize)
        self._on_open = on_open
        self._on_mend = on_mend
        self._copy = in_ram / path.name if in_ram is not None else None
        self._beginning: tuple[str, int, int | None] = ("", 0, None)
        self._epoch = 0
        self._thread = OneThread("buffer")
        self._loop = asyncio.get_running_loop()
        self._damage = ""
        self._opening = asyncio.Lock()
        self._times_opened = 0
        self._is_late = False  # what is in the file was told before, or taken for nothing
        self._again_at = self._look_at = 0.0
        self.is_open = False
        self.trouble = ""
        self.mended: Mended | None = None

    async def open(self, boot: str, started: int, utc: int | None) -> None:
        """Open the file, or do without for now. Raises BufferUnusable."""
        self._beginning = boot, started, utc
        try:
            await self._open(self._file)
        except (SqlError, OSError) as error:
            if is_locked(error):
                self._thread.shutdown()
                raise BufferUnusable(
                    f"{self._path} is in use by another gateway; stop that, or give this one another `path` in [buffer]"
                ) from error
            self._epoch = await self._thread.do(self._number_it)
            if is_full(error) or not await self._drain_a_copy():
                self._on_open(Contents(self._epoch, epochs=[Epoch(self._epoch, boot, started, utc)]))
            self._is_late = True
            self.tell(f"cannot be opened: {error}")

    async def write(
        self, rows: Sequence[Row], leaving: Iterable[int], losses: Iterable[Loss], forget_before: int | None
    ) -> Written:
        """Commit; see :meth:`gateway.store.pack_rows.Rows.write`."""
        if self._loop.time() >= self._look_at:
            async with self._opening:
                await self._look()
            self._look_at = self._loop.time() + LOOK_EVERY_S  # where that failed, the next write looks again
        if not self.is_open:
            async with self._opening:
                await self._open_again()
        written = await self._sound(lambda: self._file.write(rows, leaving, losses, forget_before=forget_before))
        if self.trouble and not self._is_copy():
            self.tell("")
        return written

    async def read(self, after: int, limit: int, which: Which = ALL) -> tuple[list[Row], int, list[Dropped]]:
        """Read; see :meth:`gateway.store.pack_rows.Rows.read`."""
        if not self.is_open:
            return [], after, []
        return await self._sound(lambda: self._file.read(after, limit, which))

    async def verify(self, after: int, limit: int) -> tuple[int, list[Dropped], Waiting | None]:
        """Look at rows; see :meth:`gateway.store.pack_rows.Rows.verify`."""
        if not self.is_open:
            return after, [], None
        return await self._sound(lambda: self._file.verify(after, limit))

    async def held(self, dataset: str, epoch: int, first: int, last: int, limit: int) -> list[Row]:
        """Read; see :meth:`gateway.store.pack_rows.Rows.held`."""
        return await self._sound(lambda: self._file.held(dataset, epoch, first, last, limit)) if self.is_open else []

    async def which_are_there(self, numbers: Iterable[int]) -> set[int]:
        """Read; see :meth:`gateway.store.pack_rows.Rows.which_are_there`."""
        wanted = list(numbers)
        return await self._sound(lambda: self._file.which_are_there(wanted)) if self.is_open else set()

    async def losses(self) -> tuple[int, list[Loss]]:
        """Read; see :meth:`gateway.store.pack_file.PackFile.losses`."""
        return await self._sound(self._file.losses) if self.is_open else (0, [])

    async def told(self, batch: int) -> None:
        """Forget; see :meth:`gateway.store.pack_file.PackFile.told`."""
        if self.is_open:
            await self._sound(lambda: self._file.told(batch))

    async def know_utc(self, boot: str, utc: int) -> None:
        """Store; see :meth:`gateway.store.pack_file.PackFile.know_utc`."""
        self._beginning = *self._beginning[:2], utc
        if self.is_open:
            await self._sound(lambda: self._file.know_utc(boot, utc))

    async def answer(self) -> None:
        """Return when the thread has nothing to do that was asked of it before."""
        await self._thread.do(lambda: None)

    async def close(self) -> None:
        """Close it."""
        if self.is_open:
            await self._thread.do(self._file.close)
        self.leave()

    def leave(self) -> None:
        """Leave it open; the process ends. To close it takes the log away, which the next run would have to grow."""
        self._thread.shutdown()

    def tell(self, trouble: str) -> None:
        """Say what is wrong, or that it is over."""
        if trouble and trouble != self.trouble:
            log.warning(
                "the buffer's file does not work; new packs stay in memory", path=str(self._path), error=trouble
            )
        elif self.trouble and not trouble:
            log.info("the buffer's file works again", path=str(self._path))
        self.trouble = trouble

    async def _open(self, file: PackFile, *, was_taken: bool = False) -> None:
        """Open a file, and go on with it; ``was_taken``: it is to be put back into its place first."""
        try:
            contents, waiting = await self._thread.do(lambda: self._open_file(file, was_taken=was_taken))
        except BaseException:
            self.is_open = self._file.is_open
            raise
        self.is_open, self._damage = True, ""
        self._times_opened += 1
        self._epoch = contents.epoch
        self._note(contents.mended)
        self._on_open(contents)
        if self._is_late:
            self._on_mend(waiting)
        self._is_late = True

    def _open_file(self, file: PackFile, *, was_taken: bool) -> tuple[Contents, Waiting]:
        if was_taken:
            file.put_back()
        damage = self._damage if file is self._file else ""
        copy = self._copy if self._copy and file.path == self._path else None
        found = None
        try:
            found = self._whole(file, copy, damage)
        except (SqlError, *UNREADABLE) as error:
            if not is_damage(error):
                raise
            damage = _worded(error)  # it shows only where all rows are read
        contents, waiting = found or self._whole(file, copy, damage)
        if self.is_open and file is not self._file:
            self._file.close()
        self._file = file
        if copy:
            self._drop(copy)
        return contents, waiting

    def _whole(self, file: PackFile, copy: Path | None, damage: str) -> tuple[Contents, Waiting]:
        """Open a file and take over a copy, of this run or of one before that could only read it."""
        above = pack_mend.highest_epoch(copy) if copy else 0
        contents = file.open(*self._beginning, self._epoch, above=above, damage=damage)
        try:
            if copy and copy.exists():
                mended, contents = contents.mended, file.take_over(copy)
                contents.mended = mended
            return contents, file.waiting() if self._is_late else {}
        except BaseException:
            file.close()
            raise

    def _drop(self, copy: Path) -> None:
        try:
            pack_mend.drop_copy(copy)
        except OSError as error:  # what is in it is taken over once more at the next start: a receiver knows it
            log.warning("a copy of the buffer's file stays in RAM", path=str(copy), why=str(error))

    def _number_it(self) -> int:
        """Number a run that cannot read its file: greater than all that is known of, and noted where that can be."""
        places = [path for path in (self._path, self._copy) if path]
        highest = max(map(pack_mend.highest_epoch, places))
        above, span = (highest, KNOWN_SPAN) if highest > UNNUMBERED else (UNNUMBERED, UNKNOWN_SPAN)
        epoch = min(above + 1 + random.randrange(span), LAST_EPOCH)  # noqa: S311  # no secret
        for path in places:
            with contextlib.suppress(OSError):  # it is told that the disk does not work
                pack_mend.note_epoch(path, epoch)
        return epoch

    async def _open_again(self) -> None:
        """Open what could not be opened before."""
        if self.is_open:  # meanwhile
            return
        begun = self._loop.time()
        if begun < self._again_at:
            raise OSError(self.trouble)
        try:
            await self._open(self._file)
        except (SqlError, OSError):
            now = self._loop.time()
            self._again_at = now + PATIENCE * (now - begun)
            raise

    async def _drain_a_copy(self) -> bool:
        """Where the file may only be read, go on with a copy of it in RAM; tell whether."""
        if (copy := self._copy) is None:
            return False
        try:
            if not await self._thread.do(lambda: pack_mend.copy(self._path, copy)):
                return False
            await self._open(self._file_at(copy, copy.stat().st_size + COPY_BYTES))
        except (SqlError, OSError) as error:
            log.warning("the packs in the file cannot be read either", path=str(self._path), why=str(error))
            return False
        return True

    def _is_copy(self) -> bool:
        return self._file.path != self._path

    async def _look(self) -> None:
        """See whether the file is in its place, or can be used where a copy is."""
        if self._is_copy():
            with contextlib.suppress(SqlError, OSError):  # what is wrong with it is told since the start
                await self._open(self._file_at(self._path, sys.maxsize))
        elif self.is_open and await self._thread.do(self._file.was_taken):
            await self._open(self._file, was_taken=True)
            log.warning("the buffer's file was taken from its place; it is there again", path=str(self._path))

    async def _sound(self, work: Callable[[], T]) -> T:
        """Do something with the file; where it turns out to be damaged, mend it and do it again."""
        times_opened = self._times_opened
        try:
            return await self._thread.do(work)
        except (SqlError, *UNREADABLE) as error:
            if not is_damage(error):
                raise
            damage = _worded(error)
        async with self._opening:
            if times_opened == self._times_opened:  # else another found it, and it is mended
                self._damage = damage
                await self._open(self._file)
        return await self._thread.do(work)

    def _note(self, mended: Mended | None) -> None:
        if mended is not None:
            self.mended = mended
            log.warning(
                "the buffer's file was damaged; what was sound is kept",
                why=mended.why,
                packs=mended.packs,
                damaged=mended.damaged,
                set_aside=mended.aside,
            )


def _worded(damage: BaseException) -> str:
    return str(damage) if isinstance(damage, SqlError) else f"a row has what was never written: {damage}"

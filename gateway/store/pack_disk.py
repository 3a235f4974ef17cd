"""The buffer's file on its own thread, whatever happens to it.

The event loop never waits for the disk. A file that cannot be opened is tried again at each write. One that turns out
to be damaged is mended and the work done again. On a file system that may only be read, a copy in RAM is used.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from gateway.host.one_thread import OneThread
from gateway.store import pack_mend
from gateway.store.pack_file import PackFile
from gateway.store.pack_rows import Waiting
from gateway.store.pack_sql import (
    ALL,
    Contents,
    Dropped,
    Loss,
    Mended,
    Row,
    SqlError,
    Which,
    Written,
    is_damage,
    is_locked,
)
from gateway.words.timeline import Epoch

UNNUMBERED = 1 << 30  # epochs of runs that could not read the file begin here, at random: they must not come twice

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
        file_at: Callable[[Path], PackFile],
        *,
        on_open: Callable[[Contents], None],
        on_mend: Callable[[Waiting], None],
        in_ram: Path | None,
    ) -> None:
        """Set it; ``open`` opens it.

        Args:
            path: the database.
            file_at: makes the file.
            on_open: takes what is in the file, once it could be opened.
            on_mend: takes what is still there and waits, when it was mended while it was in use.
            in_ram: a folder in RAM, for a copy; None: there is none.
        """
        self._path = path
        self._file_at = file_at
        self._file = file_at(path)
        self._on_open = on_open
        self._on_mend = on_mend
        self._in_ram = in_ram
        self._beginning: tuple[str, int, int | None] = ("", 0, None)
        self._epoch = 0
        self._thread = OneThread("buffer")
        self.is_open = False
        self.trouble = ""
        self.mended: Mended | None = None

    async def open(self, boot: str, started: int, utc: int | None) -> None:
        """Open the file, or do without for now. Raises BufferUnusable."""
        self._beginning = boot, started, utc
        try:
            await self._open()
        except (SqlError, OSError) as error:
            if is_locked(error):
                self._thread.shutdown()
                raise BufferUnusable(
                    f"{self._path} is in use by another gateway; stop that, or give this one another `path` in [buffer]"
                ) from error
            self._epoch = UNNUMBERED + random.randrange(UNNUMBERED)  # noqa: S311  # a number, not a secret
            if not await self._drain_a_copy():
                self._on_open(Contents(self._epoch, epochs=[Epoch(self._epoch, boot, started, utc)]))
            self.tell(f"cannot be opened: {error}")

    async def write(
        self, rows: Sequence[Row], leaving: Iterable[int], losses: Iterable[Loss], forget_before: int | None
    ) -> Written:
        """Commit; see :meth:`gateway.store.pack_rows.Rows.write`."""
        if not self.is_open:
            await self._open()
        written = await self._sound(lambda: self._file.write(rows, leaving, losses, forget_before=forget_before))
        if self.trouble and self._file_is_there():
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

    async def _open(self) -> None:
        contents = await self._thread.do(self._open_file)
        self.is_open = True
        self._epoch = contents.epoch
        self._note(contents.mended)
        self._on_open(contents)

    def _open_file(self) -> Contents:
        contents = self._file.open(*self._beginning, self._epoch)
        if self._in_ram is not None and self._file_is_there():
            copy = self._in_ram / self._path.name
            if copy.exists():  # of a run that could only read the file
                mended, contents = contents.mended, self._file.take_over(copy)
                contents.mended = mended
                pack_mend.drop_copy(copy)
        return contents

    async def _drain_a_copy(self) -> bool:
        """Where the file may only be read, go on with a copy of it in RAM; tell whether."""
        if self._in_ram is None:
            return False
        folder = self._in_ram
        try:
            copy = await self._thread.do(lambda: pack_mend.copy(self._path, folder))
            if copy is None:
                return False
            self._file = self._file_at(copy)
            await self._open()
        except (SqlError, OSError) as error:
            log.warning("the packs in the file cannot be read either", path=str(self._path), why=str(error))
            self._file = self._file_at(self._path)
            return False
        return True

    def _file_is_there(self) -> bool:
        return self._file.path == self._path

    async def _sound(self, work: Callable[[], T]) -> T:
        """Do something with the file; where it turns out to be damaged, mend it and do it again."""
        try:
            return await self._thread.do(work)
        except SqlError as error:
            if not is_damage(error):
                raise
            why = str(error)
        mended, there = await self._thread.do(lambda: self._file.mend(why))
        self._note(mended)
        self._on_mend(there)
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

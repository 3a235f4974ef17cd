"""How much of the disk the buffer's file may take.

A little of the disk is kept back, as a file beside it, for the day the disk is full: then even a deletion needs room.
"""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from gateway.store.pack_sql import WAL_BYTES, is_full, one

BALLAST_BYTES = 1_500_000


class Space:
    """The bytes of the file's pages, and the ballast.

    Attributes:
        is_bound: the file does not grow, because the disk is full.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Set it; ``begin`` begins it.

        Args:
            path: the database.
            max_bytes: how large it and its WAL may become.
        """
        self._folder = path.parent
        self._ballast = path.with_name(f"{path.name}.ballast")
        self._most_bytes = self._max_bytes = max_bytes - WAL_BYTES
        self._spare = 0  # bytes that are free at least
        self._laid = self.is_bound = False
        self._page_bytes = 0
        self._sql: sqlite3.Connection

    def begin(self, sql: sqlite3.Connection) -> None:
        """Look at a file that was opened."""
        self._sql = sql
        self._page_bytes = one(sql, "PRAGMA page_size")
        self.forget()
        self._laid = self._ballast.exists()
        self.lay_ballast()

    def used_bytes(self) -> int:
        """Return the bytes of the pages in use."""
        return (one(self._sql, "PRAGMA page_count") - one(self._sql, "PRAGMA freelist_count")) * self._page_bytes

    def take(self, size: int) -> bool:
        """Take so many bytes; tell whether they fit. Pages are counted when those known to be free do not suffice."""
        if size > self._spare:
            self._spare = self._max_bytes - self.used_bytes()
        fits = size <= self._spare
        self._spare -= size if fits else 0
        return fits

    def forget(self) -> None:
        """Forget what is free: what gave way may be there again."""
        self._spare = 0

    def grow_again(self) -> None:
        """Let it grow: what is taken over has to find room, or stays where it is."""
        self.is_bound = False
        self._max_bytes = self._most_bytes
        self.forget()

    def lay_ballast(self) -> None:
        """Keep a little of the disk back, while there is much."""
        if self._laid or shutil.disk_usage(self._folder).free < 4 * BALLAST_BYTES:
            return
        with contextlib.suppress(OSError), self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)  # allocates, writes nothing
            self._laid = True
            self.grow_again()

    def gave_up_ballast(self, error: Exception) -> bool:
        """Where the disk is full, free the ballast, and tell whether there was one."""
        if not is_full(error) or not self._ballast.exists():
            return False
        self._laid = False
        self._ballast.unlink()
        return True

    def stop_growing(self) -> None:
        """Let the file not grow beyond what it is, until there is room for a ballast again."""
        self.is_bound = True
        self._max_bytes = min(self._max_bytes, one(self._sql, "PRAGMA page_count") * self._page_bytes)
        self.forget()
        self._sql.execute("PRAGMA wal_checkpoint(RESTART)")  # the log stays as large as it is: others want room as well

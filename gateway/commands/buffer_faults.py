"""What can be wrong with a buffer's file as a whole, in the words of a technician; its packs are read elsewhere.

SQLite would say nothing of a log that is damaged, and of a file that is cut short only when it comes to that place.
"""

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import click

from gateway.commands.buffer_export import Changed
from gateway.store.pack_mend import PARTS
from gateway.store.pack_raw import WAL_MAGIC, Raw, dropped_by_sqlite
from gateway.store.pack_sql import APPLICATION_ID, VERSION

EX_DATAERR, EX_NOINPUT, EX_CANTCREAT = 65, 66, 73  # sysexits.h
HEAD = struct.Struct(">16s 12x I 28x I 4x I")  # of a database, section 1.3: magic, pages, version, application
ROOT = 2  # page of the table that is made first, sections 1.5 and 1.6
INTERIOR, LEAF = b"\x05", b"\x0d"
SQLITE = b"SQLite format 3\0"
NAME_IT = "name the file that stands as `path` in [buffer] of the configuration"


class _Tree(Raw):
    """The file as SQLite goes through it: from the root of the table of packs down to its rows."""

    def rows(self) -> tuple[int, int]:
        """Return how many rows it leads to, and how many pages it leads to that are not of a table."""
        rows = lost = 0
        ahead, seen = [ROOT], set()
        while ahead:
            number = ahead.pop()
            page = b"" if number in seen else self._page(number)
            seen.add(number)
            cells = int.from_bytes(page[3:5], "big")
            if page[:1] == INTERIOR:
                places = struct.unpack_from(f">{min(cells, (self.page_bytes - 12) // 2)}H", page, 12)
                ahead += [int.from_bytes(page[at : at + 4], "big") for at in (8, *places)]
            elif page[:1] == LEAF:
                rows += cells
            else:
                lost += 1
        return rows, lost

    def missing(self, pages: int) -> int:
        """Return the bytes of those of its first pages that lie neither in the file nor in the log."""
        size = self.page_bytes
        return size * sum(len(self._page(number)) < size for number in range(1, pages + 1))


class NoBuffer(click.ClickException):
    """The file is something else."""

    exit_code = EX_DATAERR


class NotReadable(click.ClickException):
    """The file is not there, or the system does not let it be read."""

    exit_code = EX_NOINPUT


class NotMade(click.ClickException):
    """What the command is to write cannot be written."""

    exit_code = EX_CANTCREAT


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell what keeps the file from being read."""
    try:
        _must_be_there(path)
        yield
    except BrokenPipeError:  # of the output
        raise
    except OSError as error:
        step = "see ls -l, or try it with sudo"
        raise NotReadable(f"{error.filename or path} cannot be read: {error.strerror}; {step}") from error
    except Changed:
        step = f"stop the gateway, or copy {path} and {log_of(path)} and read the copy"
        raise NotReadable(f"{path} changes while it is read; {step}") from None


def _must_be_there(path: Path) -> None:
    """Raise where there is neither the file nor its log. Raises OSError too."""
    parts = [part for part in (path, log_of(path)) if part.exists()]
    if not parts:
        raise NotReadable(f"{path} is not there; {NAME_IT}")
    for part in parts:
        if not stat.S_ISREG(part.stat().st_mode):
            raise NotReadable(f"{part} is {'a folder' if part.is_dir() else 'no file'}; {NAME_IT}")


def must_be_buffer(path: Path, packs: int) -> None:
    """Raise where there is no pack and no sign of a buffer."""
    if not packs and (fault := _head_fault(path)):
        raise NoBuffer(f"{path} is no buffer: {fault}, and there is no pack in it; {NAME_IT}")


def must_be_free(new: Path, path: Path) -> None:
    """Raise where a new buffer would overwrite something, or something that is there would be taken for its log."""
    must_be_another(new, path)
    for part in PARTS:
        if os.path.lexists(f"{new}{part}"):
            raise NotMade(f"{new}{part} is there already; give another name")


def must_be_another(output: Path, path: Path) -> None:
    """Raise where it is the file or a part of it."""
    if output.resolve() in {Path(f"{path.resolve()}{part}") for part in PARTS}:
        raise NotMade(f"{output} is the name of the buffer or of a part of it; give another name")


def file_fault(path: Path) -> str:
    """Tell what is wrong with the file itself, "" for nothing. Raises OSError."""
    if fault := _head_fault(path):
        return fault
    _, pages, _, _ = _head(path)
    with _Tree(path) as tree:
        missing = tree.missing(pages)
    return f"{count(missing, 'byte')} of it missing" if missing else ""


def tree_fault(path: Path, found: int) -> str:
    """Tell whether there are more rows than were found, "" where there are not. Raises OSError."""
    with _Tree(path) as tree:
        rows, pages = tree.rows()
    if pages:
        return f"{count(pages, 'page')} of the table of packs cannot be read; packs may be missing"
    return f"{count(rows - found, 'row')} cannot be found" if rows > found else ""


def log_fault(path: Path) -> tuple[str, int]:
    """Tell what is wrong with its log, "" for nothing, and how many packs SQLite does not see. Raises OSError."""
    tail = dropped_by_sqlite(path)
    dropped = {found.number for found in tail.packs}
    if dropped:
        with Raw(path) as raw:
            dropped.difference_update(found.number for found in raw.packs())
    if tail.is_damage or not _log_begins_well(path):
        return f"its log is damaged, and {len(dropped)} of the sound packs lie only behind that place", len(dropped)
    return "", len(dropped)  # a commit that was cut off, if any: what was in it nobody was promised


def _log_begins_well(path: Path) -> bool:
    if not size_of(log_of(path)):
        return True
    with log_of(path).open("rb") as log:
        return int.from_bytes(log.read(4), "big") & ~1 == WAL_MAGIC


def _head_fault(path: Path) -> str:
    """Tell what is wrong with the first page, "" for nothing."""
    if not size_of(path):
        return "it is empty"
    magic, _, version, application = _head(path)
    if magic != SQLITE:
        return "its first page is not that of a database"
    if application != APPLICATION_ID:
        return "its first page is that of another program's database"
    return "" if version == VERSION else f"it is of version {version} of the buffer, and this reads version {VERSION}"


def _head(path: Path) -> tuple[bytes, int, int, int]:
    with path.open("rb") as file:
        magic, pages, version, application = HEAD.unpack(file.read(HEAD.size).ljust(HEAD.size, b"\0"))
    return magic, pages, version, application


def count(number: int, thing: str) -> str:
    """Write how many there are of a thing."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def log_of(path: Path) -> Path:
    """Return where its log lies."""
    return Path(f"{path}-wal")


def size_of(path: Path) -> int:
    """Return its bytes; 0: it is not there."""
    return path.stat().st_size if path.exists() else 0

"""What is done with a file that cannot be used: set aside, never deleted at once, and its sound packs taken over.

The steps can be cut off anywhere and go on at the next start: the files are moved into ``NAME.mending``; a new
database is made; the packs are read out of the old one; then the folder becomes ``NAME.damaged-1`` (-2, ...). Two of
those are kept. While the folder is there, the new database has nothing that is not in it as well.

``NAME.epoch`` holds the highest epoch there ever was. If the database is lost, the next one must not begin at 1: a
receiver would take its packs for copies of old ones.
"""

import shutil
from pathlib import Path

from gateway.host import durable
from gateway.store.frame import LAST_EPOCH

KEPT = 2
PARTS = ("", "-wal", "-shm", "-journal")
CUT_OFF = "it was being mended when the gateway ended, or had no room"
HEAD = b"SQLite format 3\0"
KINDS_AT, KINDS = 18, {1, 2}  # two bytes: for who writes and who reads; 2 with a log, sqlite.org/fileformat2.html 1.3.3

Place = tuple[int, int] | None


def mending(path: Path) -> Path:
    """Return where the files of a database lie while their packs are taken over."""
    return path.with_name(f"{path.name}.mending") / path.name


def is_under_way(path: Path) -> bool:
    """Tell whether there is a file whose packs are not taken over yet."""
    return mending(path).exists() or log_of(mending(path)).exists()


def what_is_wrong(path: Path) -> str:
    """Return what SQLite would not notice, or could not even look at; "" for nothing."""
    if is_under_way(path) and not (path.exists() and path.stat().st_size):
        return CUT_OFF
    if path.is_dir():
        return "there is a folder in its place"
    if path.exists() and _is_of_no_kind(path):
        return "its head tells of a kind of file that is none"
    if path.exists() and not path.stat().st_size and highest_epoch(path):
        return "the file is empty"
    if not path.exists() and highest_epoch(path):
        return "the file is gone"
    return ""


def set_aside(path: Path) -> None:
    """Move what lies at the path into the folder for mending, or go on with that. Raises OSError."""
    folder = mending(path).parent
    parts = [old for part in PARTS if (old := Path(f"{path}{part}")).exists()]
    if not parts:
        return
    if path.exists() and is_under_way(path):
        for new in reversed(parts):  # the log first: beside no database it would be taken for that of the old one
            new.unlink()
        return
    folder.mkdir(exist_ok=True)
    for old in parts:  # the database first: while its log still lies here, this was cut off
        old.rename(folder / old.name)
    durable.sync_folder(path.parent)


def keep_aside(path: Path) -> str:
    """Name the folder for good, once its packs are taken over, and let the oldest of its kind go. Raises OSError.

    Returns:
        The folder; "" for none: there is nothing in it.
    """
    if not is_under_way(path) and not any(mending(path).parent.iterdir()):
        mending(path).parent.rmdir()
        return ""
    numbers = sorted(
        int(old.name.rpartition("-")[2])
        for old in path.parent.glob(f"{path.name}.damaged-*")
        if old.name.rpartition("-")[2].isdecimal()
    )
    aside = path.with_name(f"{path.name}.damaged-{(numbers or [0])[-1] + 1}")
    mending(path).parent.rename(aside)
    for number in numbers[: max(0, len(numbers) + 1 - KEPT)]:
        shutil.rmtree(path.with_name(f"{path.name}.damaged-{number}"), ignore_errors=True)
    durable.sync_folder(path.parent)
    return str(aside)


def copy(path: Path, to: Path) -> bool:
    """Copy a database that may only be read into RAM, and tell whether that is done. Raises OSError.

    A copy that is there already has more in it than the file, and is kept. Nothing is done where there is nothing to
    copy, or it would take more than half of what is free there.
    """
    if to.exists():
        return True
    parts = [old for part in PARTS if (old := Path(f"{path}{part}")).is_file()]
    size = sum(old.stat().st_size for old in parts)
    if not size or size > shutil.disk_usage(to.parent).free // 2:
        return False
    for old in reversed(parts):  # the database last: it is what tells that all of it is there
        new = to.with_name(f"{old.name}.new")
        shutil.copyfile(old, new)
        new.rename(to.with_name(old.name))
    return True


def drop_copy(copy: Path) -> None:
    """Remove a copy and what lies beside it, once its packs are taken over. Raises OSError."""
    for old in copy.parent.glob(f"{copy.name}.*"):
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()
    for part in reversed(PARTS):  # the database last: while it is there, this is to be done again
        Path(f"{copy}{part}").unlink(missing_ok=True)


def _is_of_no_kind(path: Path) -> bool:
    """Tell whether SQLite would take a database for one that may only be read, or that is none."""
    with path.open("rb") as file:
        head = file.read(KINDS_AT + 2)
    return head.startswith(HEAD) and not KINDS.issuperset(head[KINDS_AT:])


def highest_epoch(path: Path) -> int:
    """Return the highest epoch that was ever noted; 0: none was."""
    try:
        epoch = int(path.with_name(f"{path.name}.epoch").read_text())
    except (OSError, ValueError):
        return 0
    return epoch if epoch <= LAST_EPOCH else 0


def note_epoch(path: Path, epoch: int) -> None:
    """Note the highest epoch, beside the database and durable. Raises OSError."""
    durable.replace(path.with_name(f"{path.name}.epoch"), b"%d\n" % epoch)


def log_of(path: Path) -> Path:
    """Return where the log of a database lies."""
    return Path(f"{path}-wal")


def places_of(path: Path) -> list[Place]:
    """Return the device and the inode of a database, and of its log; None where there is none. Raises OSError."""
    places: list[Place] = []
    for part in (path, log_of(path)):
        try:
            found = part.stat()
        except FileNotFoundError:
            places.append(None)
        else:
            places.append((found.st_dev, found.st_ino))
    return places


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing, and make their names durable. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        durable.sync_folder(each.parent)

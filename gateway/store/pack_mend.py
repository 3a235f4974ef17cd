"""What is done with a file that cannot be used: set aside, never deleted at once, and its sound packs taken over.

The steps can be cut off anywhere and go on at the next start: the files are moved into ``NAME.mending``; a new
database is made; the packs are read out of the old one; then the folder becomes ``NAME.damaged-1`` (-2, ...). Two of
those are kept.

``NAME.epoch`` holds the highest epoch there ever was. If the database is lost, the next one must not begin at 1: a
receiver would take its packs for copies of old ones.
"""

import shutil
from pathlib import Path

from gateway.host import durable

KEPT = 2
PARTS = ("", "-wal", "-shm", "-journal")


def mending(path: Path) -> Path:
    """Return where the files of a database lie while their packs are taken over."""
    return path.with_name(f"{path.name}.mending") / path.name


def what_is_wrong(path: Path) -> str:
    """Return what SQLite would not notice, or could not even look at; "" for nothing."""
    if mending(path).parent.exists() and not path.exists():
        return "the file was being mended when the gateway ended"
    if path.is_dir():
        return "there is a folder in its place"
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
    if mending(path).exists() and path.exists():  # damaged once more before the first was mended
        keep_aside(path)
    folder.mkdir(exist_ok=True)
    for old in parts:  # the database first: while its log still lies here, this was cut off
        old.rename(folder / old.name)
    durable.sync_folder(path.parent)


def keep_aside(path: Path) -> Path:
    """Name the folder for good, once its packs are taken over, and let the oldest of its kind go. Raises OSError."""
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
    return aside


def copy(path: Path, folder: Path) -> Path | None:
    """Copy a database that may only be read into a folder in RAM, and return the copy. Raises OSError.

    A copy that is there already has more in it than the file, and is kept. None where there is nothing to copy, or it
    would take more than half of what is free there.
    """
    if (folder / path.name).exists():
        return folder / path.name
    parts = [old for part in PARTS if (old := Path(f"{path}{part}")).is_file()]
    size = sum(old.stat().st_size for old in parts)
    if not size or size > shutil.disk_usage(folder).free // 2:
        return None
    for old in parts:
        shutil.copyfile(old, folder / old.name)
    return folder / path.name


def drop_copy(copy: Path) -> None:
    """Remove a copy, once its packs are taken over. Raises OSError."""
    for old in copy.parent.glob(f"{copy.name}*"):
        old.unlink()


def highest_epoch(path: Path) -> int:
    """Return the highest epoch that was ever noted; 0: none was."""
    try:
        return int(path.with_name(f"{path.name}.epoch").read_text())
    except (OSError, ValueError):
        return 0


def note_epoch(path: Path, epoch: int) -> None:
    """Note the highest epoch, beside the database and durable. Raises OSError."""
    durable.replace(path.with_name(f"{path.name}.epoch"), b"%d\n" % epoch)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing, and make their names durable. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        durable.sync_folder(each.parent)

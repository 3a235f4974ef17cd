"""Files that a power cut leaves whole: as they were, or as they are to be."""

import os
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Write a file beside its place, bring it to the disk, and put it there. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        new.unlink(missing_ok=True)  # on a full disk it would stand in the way of others
        raise
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder durable. Without it a power cut may take a whole file with it. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

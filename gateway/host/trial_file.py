"""A door: a small file that outlives the gateway and says which configuration is on trial, or did not pass it.

At the start the file of the technician is what counts. This one is why a configuration that was rolled back does not
come true by a restart without a word.
"""

import asyncio
import json
from pathlib import Path
from typing import NamedTuple

import structlog

from gateway.host import durable

log = structlog.get_logger()


class Tried(NamedTuple):
    """A configuration that was tried.

    Attributes:
        digest: stands for its content.
        why: why it was rolled back; "" while it is on trial.
    """

    digest: str
    why: str = ""


class TrialFile:
    """The file. It is missing while there is nothing to say; one that cannot be read says nothing."""

    def __init__(self, path: Path) -> None:
        """Set it; nothing is read yet."""
        self._path = path

    def read(self) -> Tried | None:
        """Return what it says."""
        try:
            said = json.loads(self._path.read_bytes())
            return Tried(str(said["digest"]), str(said["why"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("what was tried before cannot be read", file=str(self._path), why=str(error))
            return None

    async def write(self, tried: Tried | None) -> None:
        """Say that from now on; it is on the disk then. A disk that refuses is told, and keeps nothing back."""
        try:
            await asyncio.to_thread(self._write, tried)
        except OSError as error:
            log.warning("what is tried cannot be stored", file=str(self._path), why=str(error))

    def _write(self, tried: Tried | None) -> None:
        if tried is None:
            self._path.unlink(missing_ok=True)
            durable.sync_folder(self._path.parent)
        else:
            durable.replace(self._path, json.dumps(tried._asdict()).encode())

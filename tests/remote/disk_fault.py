"""A disk that refuses to write, and one that takes its time."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator

import pytest


class Disk:
    """Refuses to write, from when on it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        write = os.write

        def refusing(file: int, data: bytes) -> int:
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
            return write(file, data)

        monkeypatch.setattr("gateway.remote.config_folder.os.write", refusing)


class Held:
    """A write that waits for the disk, or one that did not come to that."""

    def __init__(self, after: int) -> None:
        self.free = threading.Event()
        self.is_reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._left = after

    def sync(self) -> None:
        """Wait, but for the first ones."""
        assert threading.current_thread() is not threading.main_thread(), "the whole pole waits for the disk"
        self._left -= 1
        if self._left < 0:
            self._loop.call_soon_threadsafe(self.is_reached.set)
            self.free.wait()

    async def reached(self, job: asyncio.Task[object]) -> bool:
        """Wait until a job waits for the disk, and let the others come as far as they can; False: it ended before."""
        waits = asyncio.create_task(self.is_reached.wait())
        await asyncio.wait([job, waits], return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
        return self.is_reached.is_set()


class BusyDisk:
    """Brings nothing to the disk while it is held."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._held: Held | None = None
        monkeypatch.setattr("gateway.remote.config_folder.os.fsync", self._sync)

    @contextlib.asynccontextmanager
    async def held(self, after: int = 0) -> AsyncIterator[Held]:
        """Hold what is to be brought to the disk but for the first ones, and let it go at the end."""
        self._held = held = Held(after)
        try:
            yield held
        finally:
            held.free.set()
            self._held = None

    def _sync(self, _: int) -> None:
        """Wait; there is no need to do it, for the power stays."""
        if self._held:
            self._held.sync()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """One that works until it is told otherwise."""
    return Disk(monkeypatch)


@pytest.fixture
def busy_disk(monkeypatch: pytest.MonkeyPatch) -> BusyDisk:
    """One that is quick until it is held."""
    return BusyDisk(monkeypatch)

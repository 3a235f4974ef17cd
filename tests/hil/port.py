"""The gateway's end of a wire, for tests of the bench alone: pyserial, and a record of what came when."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

import serial


class Port:
    """An open port. ``trace`` is what came: (time, bytes) of each read; ``error`` is what ended it."""

    def __init__(self, path: Path, baud: int = 9600, *, stopbits: int = 1) -> None:
        self.serial = serial.Serial(str(path), baud, stopbits=stopbits, timeout=0, exclusive=True)
        self.trace: list[tuple[float, bytes]] = []
        self.error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.serial.fileno(), self._readable)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.remove_reader(self.serial.fileno())
        self.serial.close()

    @property
    def received(self) -> bytes:
        """All that came."""
        return b"".join(data for _, data in self.trace)

    async def ask(self, request: bytes, wait: float = 0.5) -> bytes:
        """Send, and return all that comes within ``wait`` seconds."""
        self.trace.clear()
        self.serial.write(request)
        await asyncio.sleep(wait)
        return self.received

    def _readable(self) -> None:
        try:
            self.trace.append((self._loop.time(), self.serial.read(4096)))
        except serial.SerialException as error:
            self.error = error
            self._loop.remove_reader(self.serial.fileno())

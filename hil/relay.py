"""A TCP relay between gateway and broker: the uplink that can be cut, stalled, and measured."""

import asyncio
import contextlib

CHUNK = 65_536


class Relay:
    """Relays one listening port of loopback to another.

    Attributes:
        port: where it listens; 0 until it is started.
        up: bytes that went towards the broker.
        down: bytes that came back.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.up = 0
        self.down = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._open = True

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        self.cut()
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        return not self._open

    def cut(self) -> None:
        """Drop all connections; new ones are dropped as they come."""
        self._open = False
        for pair in self._pairs:
            pair.cancel()

    def restore(self) -> None:
        """Let connections through again, and bytes."""
        self._open = True
        self._flows.set()

    def stall(self) -> None:
        """Keep connections, pass on nothing: the far end is gone and nobody says so."""
        self._flows.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine always runs in one
        self._pairs.add(task)
        task.add_done_callback(self._pairs.discard)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self._relay(reader, writer)
        writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ways = [
            asyncio.ensure_future(self._copy(reader, far_writer, up=True)),
            asyncio.ensure_future(self._copy(far_reader, writer, up=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        while data := await reader.read(CHUNK):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
            if up:
                self.up += len(data)
            else:
                self.down += len(data)

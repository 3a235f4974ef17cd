"""A TCP relay between gateway and broker: the uplink that can be cut, stalled, and measured."""

import asyncio
import contextlib

CHUNK = 65_536
SLOW_CHUNK = 1024


class Relay:
    """Relays one listening port of loopback to another.

    Attributes:
        port: where it listens; 0 until it is started.
        target: the port it relays to.
        up: bytes that went towards the broker.
        down: bytes that came back.
        speed: bytes a second towards the broker, as on a mobile network; None: as fast as it goes.
        reached: loop time when the last connection got through; 0 before the first.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.target = target
        self.up = 0
        self.down = 0
        self.speed: int | None = None
        self.reached = 0.0
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        self._flows_up, self._flows_down = asyncio.Event(), asyncio.Event()
        self._flow(up=True, down=True)
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
        self._flow(up=True, down=True)

    def stall(self) -> None:
        """Keep connections, pass on nothing: the far end is gone and nobody says so."""
        self._flow(up=False, down=False)

    def hold_answers(self) -> None:
        """Pass on only what goes towards the broker: it gets messages, and its acknowledgements do not come."""
        self._flow(up=True, down=False)

    def _flow(self, *, up: bool, down: bool) -> None:
        for event, flows in ((self._flows_up, up), (self._flows_down, down)):
            if flows:
                event.set()
            else:
                event.clear()

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
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self.reached = asyncio.get_running_loop().time()
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
        while data := await reader.read(SLOW_CHUNK if self.speed else CHUNK):
            await (self._flows_up if up else self._flows_down).wait()
            writer.write(data)
            await writer.drain()
            if not up:
                self.down += len(data)
                continue
            self.up += len(data)
            if self.speed:
                await asyncio.sleep(len(data) / self.speed)

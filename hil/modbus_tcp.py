"""Modbus slaves behind a TCP socket, as a serial gateway or a meter with Ethernet shows them.

The header (MBAP) is transaction id, protocol 0, length, unit (MODBUS Messaging on TCP/IP V1.0b, 3.1.3). Requests of
one connection are answered in their order, however many are under way. A unit that does not exist is exception 11
("gateway target device failed to respond"), as bridges say it; a dead one is silence.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Iterable

from hil.faults import Kind
from hil.twins.modbus import ModbusSlave

KINDS: frozenset[Kind] = frozenset({"silent", "late", "wrong_transaction", "close", "wrong_fc", "exception"})
"""The faults that have a meaning here."""

_TARGET_FAILED = 11
_HEADER = struct.Struct(">HHHB")
_LONGEST = 254  # unit and PDU


class ModbusTcp:
    """The server. ``port`` is 0 until it is started.

    Args:
        slaves: who is behind it; each unit id once.

    Attributes:
        connects: connections that were made to it.
    """

    def __init__(self, slaves: Iterable[ModbusSlave]) -> None:
        self.slaves = {slave.unit: slave for slave in slaves}
        self.port = 0
        self.connects = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> None:
        """Listen on the loopback interface, on a free port or a given one (to come back where it was)."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop the connections."""
        if self._server:
            self._server.close()
            await self._server.wait_closed()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101  # a coroutine always runs in one
        self.connects += 1
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or we do; both are the end of it
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            transaction, protocol, length, unit = _HEADER.unpack(await reader.readexactly(_HEADER.size))
            if protocol != 0 or not 2 <= length <= _LONGEST:  # noqa: PLR2004  # unit and function at the least
                return  # the stream is out of step, and nothing in it says where it goes on
            request = await reader.readexactly(length - 1)
            slave = self.slaves.get(unit)
            if slave is None:
                answer, struck = bytes((request[0] | 0x80, _TARGET_FAILED)), dict[Kind, float]()
            else:
                answer, struck = await _ask(slave, request)
            if "close" in struck:
                return
            if "wrong_transaction" in struck:
                transaction ^= 0x5555
            if answer:
                writer.write(_HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer)
                await writer.drain()


async def _ask(slave: ModbusSlave, request: bytes) -> tuple[bytes, dict[Kind, float]]:
    """Return the slave's answer, empty if there is none, and the faults that struck."""
    if not slave.alive:
        return b"", {}
    slave.counts["seen"] += 1
    struck = slave.faults.strike(KINDS)
    if "silent" in struck:
        return b"", struck
    await asyncio.sleep(slave.turnaround_s + struck.get("late", 0.0))
    slave.counts["answered"] += "close" not in struck
    return slave.reply(request, struck), struck


class TcpCanary:
    """Pushes one byte over the loopback interface: when it is through, so is all that was sent before it."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._near = socket.create_connection(server.getsockname())
            self._far, _ = server.accept()

    def sing(self) -> None:
        """Send a byte and block until it is there."""
        os.write(self._near.fileno(), b"\0")
        os.read(self._far.fileno(), 1)

    def close(self) -> None:
        """Close both ends."""
        self._near.close()
        self._far.close()

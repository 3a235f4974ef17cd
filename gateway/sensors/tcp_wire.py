"""A door: TCP connections to devices (Modbus TCP, serial device servers)."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Literal

from drivers.contract import PortGone

CONNECT_S = 5.0
UNACKNOWLEDGED_MS = 10_000  # the other end is gone without a word: find out before the next hour
HINT = "Check the address in the [port] section, the network, and that nothing else holds the device's only connection."


class TcpWire:
    """One TCP connection: a :class:`gateway.sensors.line.Wire`."""

    transport: Literal["serial", "tcp"] = "tcp"
    character_s = 0.0
    silence_s = 0.0

    def __init__(self, host: str, port: int) -> None:
        """Set it; ``open`` connects."""
        self._host = host
        self._port = port
        self._transport: asyncio.Transport | None = None

    async def open(self, on_data: Callable[[bytes], None], on_lost: Callable[[PortGone], None]) -> None:
        """Connect. Raises PortGone."""
        where = f"{self._host}:{self._port}"

        def lost(error: Exception | None) -> None:
            if self._transport is not None:  # else we closed it ourselves
                self._transport = None
                on_lost(PortGone(f"{where} closed the connection{f': {error}' if error else ''}", hint=HINT))

        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: _Ends(self._connected, on_data, lost), self._host, self._port
                )
        except TimeoutError as error:
            raise PortGone(f"{where} does not answer within {CONNECT_S:.0f} s", hint=HINT) from error
        except UnicodeError as error:  # from the resolver, which raises this for an empty or a long part of a name
            raise PortGone(f"{where} cannot be reached: no host can have that name", hint=HINT) from error
        except OSError as error:
            # asyncio's own text is "Connect call failed"; numbers below 0 are of name resolution, which has good ones.
            number = error.errno or 0
            why = os.strerror(number) if number > 0 else error.strerror or error
            raise PortGone(f"{where} cannot be reached: {why}", hint=HINT) from error

    def write(self, data: bytes) -> None:
        """Send."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.abort()

    def _connected(self, transport: asyncio.Transport) -> None:
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        self._transport = transport


class _Ends(asyncio.Protocol):
    """Passes on what asyncio reports."""

    def __init__(
        self,
        on_made: Callable[[asyncio.Transport], None],
        on_data: Callable[[bytes], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._on_made, self._on_data, self._on_lost = on_made, on_data, on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass on the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a TCP connection is one
        self._on_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what came."""
        self._on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on why it ended."""
        self._on_lost(exc)

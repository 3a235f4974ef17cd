"""A D-Bus connection for those who send much: it keeps order and never fills its socket.

dbus-fast 5.2 drops its connection when a write meets a full socket, which a burst of some 200 signals is enough for.
So all messages go through one queue here; each waits until the one before it is written, and every 64 a round trip
shows that the bus daemon has read them.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from dbus_fast import Message
from dbus_fast.aio import MessageBus

_BURST = 64

_DAEMON = "org.freedesktop.DBus"


def to_daemon(member: str, signature: str = "", *body: Any) -> Message:  # noqa: ANN401  # as the signature says
    """Make a call of a method of the bus daemon itself."""
    return Message(_DAEMON, "/org/freedesktop/DBus", _DAEMON, member, signature=signature, body=list(body))


class BusClient:
    """One connection, from ``connect`` to ``close``.

    Args:
        address: of the bus.
        on_message: gets every message that arrives; returns whether it takes care of it.
    """

    def __init__(self, address: str, on_message: Callable[[Message], bool]) -> None:
        self._address = address
        self._on_message = on_message
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._bus: MessageBus | None = None
        self._pump: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Join the bus.

        Raises:
            OSError: nobody listens at the address.
        """
        bus = MessageBus(self._address)
        bus.add_message_handler(self._on_message)
        self._bus = await bus.connect()
        self._pump = asyncio.create_task(self._send_all(self._bus))

    def send(self, message: Message) -> None:
        """Queue a message; it is dropped if the bus is gone by then."""
        self._queue.put_nowait(message)

    async def call(self, message: Message) -> Message:
        """Call a method, after all that was queued before, and return the reply, which may be an error.

        Raises:
            ConnectionError: the bus is gone, or goes before the reply.
        """
        await self._queue.join()
        if self._bus is None or not self._bus.connected:
            raise ConnectionError("the bus is gone")
        try:
            return await self._bus.call(message)
        except EOFError as error:
            raise ConnectionError("the bus is gone") from error

    async def sync(self) -> None:
        """Wait until the bus daemon has read all that was queued. Returns at once if the bus is gone."""
        with contextlib.suppress(ConnectionError):
            await self.call(to_daemon("GetId"))

    async def close(self) -> None:
        """Leave the bus now; what is still queued is lost."""
        if self._pump is not None:
            self._pump.cancel()
        if self._bus is not None:
            self._bus.disconnect()
            with contextlib.suppress(ConnectionError, EOFError):
                await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # has no annotations

    async def _send_all(self, bus: MessageBus) -> None:
        while True:
            for _ in range(_BURST):
                message = await self._queue.get()
                with contextlib.suppress(ConnectionError):
                    if bus.connected:
                        await bus.send(message)
                self._queue.task_done()
            with contextlib.suppress(ConnectionError, EOFError):
                if bus.connected:
                    await bus.call(to_daemon("GetId"))

"""A job: prove the way to the broker and back, whenever somebody wants to know.

The proof is the pole's own ``state``: it publishes it, and reads it back. That topic is what every pole may publish and
read by the rules in ``config/broker``, with and without ``[remote]``; what comes back is compared byte for byte, so
nothing that was retained before counts; and the same proof is asked of another broker, beside the link there is, before
it gets a reading. An acknowledgement alone is told apart from that.

Nothing is sent while nobody asks: some brokers end the link of who subscribes to what he may not.
"""

import asyncio
from collections.abc import Awaitable, Callable

from gateway.link.mqtt_link import Link
from gateway.link.uplink import Uplink
from gateway.remote.plant import Way
from gateway.words.standing import NOTHING, Echo

PAUSE_S = 0.5  # between two attempts


class ProveWay:
    """Proves it, and keeps what came of it for as long as the link holds."""

    def __init__(self, uplink: Uplink, echo: Callable[[Link], Awaitable[Echo]], now: Callable[[], float]) -> None:
        """Make it; ``run`` proves.

        Args:
            uplink: the way.
            echo: publishes something on a link and reads it back.
            now: counts seconds.
        """
        self._uplink = uplink
        self._echo = echo
        self._now = now
        self._asked = asyncio.Event()
        self._turn = asyncio.Lock()
        self._changes = 0
        self._link: Link | None = None
        self._taken: float | None = None
        self._back: float | None = None
        self._why = ""

    async def run(self) -> None:
        """Prove it whenever it is asked for, for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.find()
            await asyncio.sleep(PAUSE_S)

    def way(self) -> Way:
        """Tell what is known; where that is not all, have it proven."""
        if self._link is None or self._link.ended.done() or self._uplink.astray:
            self._forget()
        if self._back is None:
            self._asked.set()
        return Way(self._taken, self._back, self._why)

    def renew(self) -> None:
        """Forget what is known: something was applied."""
        self._changes += 1
        self._forget()
        self._why = ""

    async def find(self) -> None:
        """Try once where it is not proven, and wait for what comes of it."""
        async with self._turn:
            if self.way().back is not None:
                return
            changes = self._changes
            link, echo = await self._tried()
            if changes == self._changes:
                self._link, self._why = link, echo.why
                self._taken = (self._taken or self._now()) if echo.taken else None
                self._back = self._now() if echo.came_back else None

    async def _tried(self) -> tuple[Link | None, Echo]:
        if not self._uplink.up:
            return None, NOTHING._replace(why=self._uplink.trouble)
        link = await self._uplink.link()
        if self._uplink.astray:
            return None, NOTHING._replace(why=self._uplink.astray)
        return link, await self._echo(link)

    def _forget(self) -> None:
        self._link = self._taken = self._back = None

"""A job: tell the broker how this pole is: its state and its catalogue, both retained.

State goes out when the link comes up, when something changes that a person should know, and at a slow beat. The
catalogue goes out when the link comes up and when it grows.
"""

import asyncio
import json
from collections.abc import Callable, Hashable
from typing import Any

import structlog

from gateway.catalogue import Catalogue
from gateway.mqtt_link import Link, Message, Refused, UplinkDown
from gateway.uplink import Uplink

LOOK_S = 1.0
BEAT_S = 60.0

log = structlog.get_logger()


class Report:
    """What is told of the pole itself."""

    def __init__(
        self,
        uplink: Uplink,
        catalogue: Catalogue,
        *,
        topic: str,
        snapshot: Callable[[], dict[str, Any]],
        matters: Callable[[], Hashable],
    ) -> None:
        """Make it.

        Args:
            uplink: the way to the broker.
            catalogue: told along.
            topic: what this pole's topics begin with.
            snapshot: how the pole is now.
            matters: the part of that whose change is told at once.
        """
        self._uplink = uplink
        self._catalogue = catalogue
        self._topic = topic
        self._snapshot = snapshot
        self._matters = matters

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            link = await self._uplink.link()
            try:
                await self._tell_on(link)
            except UplinkDown:
                continue
            except Refused as error:
                log.warning("the broker does not take the pole's state", why=str(error))
                await asyncio.sleep(BEAT_S)

    async def tell_state(self, link: Link, status: str) -> None:
        """Publish the state once. Raises UplinkDown, Refused."""
        state = {"status": status} | self._snapshot()
        await link.send(Message(f"{self._topic}/state", json.dumps(state).encode(), retain=True))

    async def _tell_on(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        told: Hashable = None
        told_hash = ""
        told_at = 0.0
        while True:
            if told_hash != self._catalogue.hash:
                told_hash = self._catalogue.hash
                await link.send(Message(f"{self._topic}/catalogue", self._catalogue.document(), retain=True))
            if told != (matters := self._matters()) or loop.time() - told_at >= BEAT_S:
                told, told_at = matters, loop.time()
                await self.tell_state(link, "online")
            await asyncio.sleep(LOOK_S)


def last_will(topic: str) -> Message:
    """Return what the broker says when the pole goes without a word."""
    return Message(f"{topic}/state", json.dumps({"status": "gone"}).encode(), retain=True)

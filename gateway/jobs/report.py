"""A job: tell the broker how this pole is: its state and its catalogue, both retained.

State goes out when the link comes up, when something changes that a person should know, and at a slow beat. The
catalogue of a dataset goes out when the link comes up and when it grows.

The state is also what the pole reads back to prove a link: it may publish it in any case, and a retained message more
tells nobody anything new.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Literal

import structlog

from gateway.link.broker import Message, Refused, UplinkDown
from gateway.link.mqtt_link import Link
from gateway.link.uplink import Uplink
from gateway.words.catalogue import Catalogue
from gateway.words.messages import Gone, State
from gateway.words.payload import packed_once
from gateway.words.standing import Echo

LOOK_S = 1.0
BEAT_S = 60.0
ECHO_S = 10.0
THING = "application/td+json"

Status = Literal["online", "stopped"]
log = structlog.get_logger()


class Report:
    """What is told of the pole itself."""

    def __init__(
        self,
        uplink: Uplink,
        catalogue: Catalogue,
        *,
        topic: str,
        state: Callable[[Status], State],
        matters: Callable[[], Hashable],
    ) -> None:
        """Make it.

        Args:
            uplink: the way to the broker.
            catalogue: told along.
            topic: what this pole's topics begin with.
            state: tells how the pole is now.
            matters: the part of that whose change is told at once.
        """
        self._uplink = uplink
        self._catalogue = catalogue
        self._topic = topic
        self._state = state
        self._matters = matters

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            link = await self._uplink.link()
            try:
                await self._tell_on(link)
            except UplinkDown:
                await link.broken()  # until the uplink has seen it too, it hands out this link again

    async def tell_state(self, link: Link, status: Status) -> None:
        """Publish the state once. Raises UplinkDown, Refused."""
        await link.send(Message(f"{self._topic}/state", self._state(status).encoded(), retain=True))

    async def echo(self, link: Link) -> Echo:
        """Publish the state and read it back."""
        return await echo(link, f"{self._topic}/state", self._state("online").encoded())

    async def _tell_on(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        told: Hashable = None
        told_at = -BEAT_S
        hashes: dict[str, str] = {}
        tried: dict[str, str] = {}
        while await self._uplink.link() is link:  # the broker must hear of a pole that is back: it said "gone"
            beat = loop.time() - told_at >= BEAT_S
            if beat or told != self._matters():
                told, told_at = self._matters(), loop.time()
                await self._try(self.tell_state(link, "online"))
            for dataset in self._catalogue.datasets:
                now = self._catalogue.hash(dataset)
                if hashes.get(dataset) != now and (beat or tried.get(dataset) != now):
                    tried[dataset] = now
                    if await self._try(self._tell_catalogue(link, dataset)):
                        hashes[dataset] = now
            await asyncio.sleep(LOOK_S)

    async def _tell_catalogue(self, link: Link, dataset: str) -> None:
        payload = packed_once(self._catalogue.document(dataset))
        topic = f"{self._topic}/catalogue/{dataset}"
        await link.send(Message(topic, payload, retain=True, content_type=THING, encoding="zstd"))

    async def _try(self, telling: Coroutine[Any, Any, None]) -> bool:
        """Tell whether the broker took it. What it refuses keeps back no other, and is tried again at the beat."""
        try:
            await telling
        except Refused as error:
            log.warning("the broker does not take the pole's state or catalogue", why=str(error))
            return False
        return True


async def echo(link: Link, topic: str, payload: bytes) -> Echo:
    """Publish something, retained, and read it back."""
    hearing = asyncio.ensure_future(_miss(link, topic, payload))
    taken, why = False, ""
    try:
        async with asyncio.timeout(ECHO_S):
            await link.send(Message(topic, payload, retain=True))
            taken = True
            why = await hearing
    except TimeoutError:
        why = "it did not come back" if taken else "the broker did not acknowledge it"
        why = f"the pole published its state, and {why} within {ECHO_S:.0f} s"
    except (UplinkDown, Refused) as error:
        why = str(error)
    finally:
        hearing.cancel()
        await asyncio.wait([hearing])
    return Echo(taken, came_back=not why, why=why)


async def _miss(link: Link, topic: str, payload: bytes) -> str:
    """Return when a message has come, or why it does not."""
    try:
        async with contextlib.aclosing(link.hear(topic)) as heard:
            async for each in heard:
                if each.payload == payload:
                    break
    except (UplinkDown, Refused) as error:
        return str(error)
    return ""


def last_will(topic: str) -> Message:
    """Return what the broker says when the pole goes without a word."""
    return Message(f"{topic}/state", Gone().encoded(), retain=True)

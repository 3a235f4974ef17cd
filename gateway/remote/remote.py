"""A job: hear what operators send to configure this pole, and report what is in force.

It hears the documents of the pole's streams, roots of trust and commands. After each change it subscribes anew on the
link there is: the pole may be of other groups since, or believe other keys.
"""

import asyncio
import contextlib
import time
from typing import Generic

import structlog

from gateway.link.broker import Message, Received, Refused, UplinkDown
from gateway.link.mqtt_link import MOST_UNHEARD, Link
from gateway.link.uplink import Uplink
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import FLEET, GROUP, POLE
from gateway.remote.incoming import Incoming
from gateway.remote.plant import Wanted
from gateway.remote.reported import reported
from gateway.words import messages

TICK_S = 1.0
REST = 9.0  # times what it took to look at a message: who floods gets a tenth of the processor
FLEET_TOPIC = "fleet/1/config"

log = structlog.get_logger()


class Remote(Generic[Wanted]):
    """Hears and reports.

    Attributes:
        refused: why the broker does not let the pole hear documents, in words; "" while it may.
    """

    def __init__(
        self, uplink: Uplink, commit: ConfirmedCommit[Wanted], incoming: Incoming[Wanted], *, topic: str
    ) -> None:
        """Make it.

        Args:
            uplink: the way to the broker.
            commit: tries what comes; it was started.
            incoming: takes it.
            topic: what this pole's topics begin with.
        """
        self._uplink = uplink
        self._commit = commit
        self._incoming = incoming
        self._topic = topic
        self._prefix = topic.rpartition("/")[0]
        self._renewed = asyncio.Event()
        self._told: tuple[Link, messages.Reported] | None = None
        self.refused = ""

    def renew(self) -> None:
        """Hear all that is retained anew: something was applied."""
        self._renewed.set()

    async def run(self) -> None:
        """Go on for ever."""
        while True:
            link = await self._uplink.link()
            self.refused = ""
            self._renewed.clear()
            jobs = [asyncio.create_task(job) for job in (self._hear(link), self._tell(link), self._until_renewed())]
            try:
                done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for job in jobs:
                    job.cancel()
                await asyncio.wait(jobs)
            await self._go_on(link, done)

    async def _go_on(self, link: Link, done: set[asyncio.Task[None]]) -> None:
        """Wait for what makes it worth to begin anew: another link, or a change."""
        try:
            for job in done:
                job.result()
        except UplinkDown:
            await link.broken()  # until the uplink has seen it too, it hands out this link again
        except Refused as error:
            self.refused = f"the broker lets nobody configure this pole: {error}"
            log.warning("the broker lets nobody configure this pole", why=str(error))
            renewed = asyncio.create_task(self._until_renewed())
            await asyncio.wait({link.ended, renewed}, return_when=asyncio.FIRST_COMPLETED)
            renewed.cancel()

    async def _until_renewed(self) -> None:
        await self._renewed.wait()

    async def _hear(self, link: Link) -> None:
        """Hear until the link breaks; where some was dropped, until all that waited is heard: then it comes again."""
        dropped, waiting = link.dropped, 0
        async with contextlib.aclosing(link.hear(*self._topics())) as heard:
            async for received in heard:
                began = time.thread_time()
                await self._take(received)
                await asyncio.sleep(REST * (time.thread_time() - began))
                if link.dropped > dropped:
                    dropped, waiting = link.dropped, MOST_UNHEARD
                elif waiting:
                    waiting -= 1
                    if not waiting:
                        return

    async def _tell(self, link: Link) -> None:
        while True:
            report = reported(self._commit)
            # What is left of a trial grows less without being news
            news = link, report.model_copy(update={"trial": report.trial and _but_left(report.trial)})
            if news != self._told:
                await link.send(Message(f"{self._topic}/config/reported", report.encoded(), retain=True))
                self._told = news
            await asyncio.sleep(TICK_S)

    async def _take(self, received: Received) -> None:
        kind = received.topic.removeprefix(f"{self._topic}/").removeprefix(f"{FLEET_TOPIC}/")
        if kind == "command/config":
            await self._commit.command(received.payload, retained=received.retain)
            return
        if kind.startswith("root/"):
            before = self._commit.state.root
            await self._incoming.hear_root(received.payload)
            if self._commit.state.root != before:
                self.renew()  # what is retained is to be heard with the new keys, and the next root after this one
        elif received.payload and (stream := self._streams().get(received.topic)):  # empty: it was cleared, and stays
            await self._incoming.hear(stream, received.payload)

    def _topics(self) -> list[str]:
        return [f"{self._topic}/command/config", f"{FLEET_TOPIC}/root/+", *self._streams()]

    def _streams(self) -> dict[str, str]:
        """Return the streams by topic."""
        return {topic_of(stream, self._prefix): stream for stream in self._commit.running.streams}


def topic_of(stream: str, prefix: str) -> str:
    """Return where the documents of a stream lie; ``prefix`` is what topics of poles begin with."""
    if stream == FLEET:
        return f"{FLEET_TOPIC}/all"
    if stream.startswith(GROUP):
        return f"{FLEET_TOPIC}/{stream}"
    return f"{prefix}/{stream.removeprefix(POLE)}/config/desired"


def _but_left(trial: messages.ConfigTrial) -> messages.ConfigTrial:
    return trial.model_copy(update={"left_s": 0})

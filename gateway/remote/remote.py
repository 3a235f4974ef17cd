"""A job: hear what operators send to configure this pole, drive the change, and report what is in force.

It hears the documents of the pole's streams, roots of trust and commands, and its own report. That report is how the
way is proven, both ways and whatever version of MQTT is spoken: the broker took it, and what is retained came back on a
subscription made since. After each change it subscribes anew on the link there is, so an unchanged link is not broken
to prove it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Generic

import structlog

from gateway.link.mqtt_link import Link, Message, Received, Refused, UplinkDown
from gateway.link.uplink import Uplink
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import FLEET, GROUP
from gateway.remote.plant import Wanted
from gateway.words import messages

TICK_S = 1.0
FLEET_TOPIC = "fleet/1/config"

log = structlog.get_logger()


class Way:
    """The way to the broker and back.

    Attributes:
        since: since when it is proven, by the clock that counts; None: it is not.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """Begin unproven; ``now`` counts seconds."""
        self._now = now
        self._renewed = asyncio.Event()
        self._is_taken = self._is_back = False
        self.since: float | None = None

    def renew(self) -> None:
        """Have it proven anew: something was applied."""
        self.since = None
        self._is_taken = self._is_back = False
        self._renewed.set()

    async def renewed(self) -> None:
        """Wait until it is to be proven anew."""
        await self._renewed.wait()

    def begin(self) -> None:
        """Begin to prove it on a link."""
        self.renew()
        self._renewed.clear()

    def end(self) -> None:
        """It is broken."""
        self.since = None

    def note(self, *, taken: bool = False, back: bool = False) -> None:
        """Note that the broker took something, or gave something back."""
        self._is_taken |= taken
        self._is_back |= back
        if self._is_taken and self._is_back and self.since is None:
            self.since = self._now()


class Remote(Generic[Wanted]):
    """Hears, drives and reports."""

    def __init__(
        self,
        uplink: Uplink,
        commit: ConfirmedCommit[Wanted],
        way: Way,
        *,
        topic: str,
        overrides: Callable[[], object],
    ) -> None:
        """Make it.

        Args:
            uplink: the way to the broker.
            commit: is driven; it was started.
            way: is proven.
            topic: what this pole's topics begin with.
            overrides: tells what technicians have set for some hours.
        """
        self._uplink = uplink
        self._commit = commit
        self._way = way
        self._topic = topic
        self._overrides = overrides
        self._set = overrides()

    async def run(self) -> None:
        """Go on for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._drive())
            group.create_task(self._speak())

    async def _drive(self) -> None:
        while True:
            if (now_set := self._overrides()) != self._set:
                self._set = now_set
                await self._commit.refresh()
            await self._commit.tick()
            await asyncio.sleep(TICK_S)

    async def _speak(self) -> None:
        while True:
            link = await self._uplink.link()
            self._way.begin()
            jobs = [asyncio.create_task(job) for job in (self._hear(link), self._tell(link), self._way.renewed())]
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
            self._way.end()
            await link.broken()  # until the uplink has seen it too, it hands out this link again
        except Refused as error:
            log.warning("the broker lets nobody configure this pole", why=str(error))
            renewed = asyncio.create_task(self._way.renewed())
            await asyncio.wait({link.ended, renewed}, return_when=asyncio.FIRST_COMPLETED)
            renewed.cancel()

    async def _hear(self, link: Link) -> None:
        async with contextlib.aclosing(link.hear(*self._topics())) as heard:
            async for received in heard:
                await self._take(received)

    async def _tell(self, link: Link) -> None:
        told = None
        while True:
            report = self.reported().encoded()
            if report != told:
                await link.send(Message(f"{self._topic}/config/reported", report, retain=True))
                told = report
                self._way.note(taken=True)
            await asyncio.sleep(TICK_S)

    async def _take(self, received: Received) -> None:
        kind = received.topic.removeprefix(f"{self._topic}/").removeprefix(f"{FLEET_TOPIC}/")
        if kind == "command/config":
            await self._commit.command(received.payload, retained=received.retain)
            return
        self._way.note(back=True)
        if kind.startswith("root/"):
            before = self._commit.state.root
            self._commit.hear_root(received.payload)
            if self._commit.state.root != before:
                self._way.renew()  # what is retained is to be heard with the new keys, and the next root after this one
        elif received.payload and (stream := self._streams().get(received.topic)):  # empty: it was cleared, and stays
            self._commit.hear(stream, received.payload)

    def _topics(self) -> list[str]:
        own = [f"{self._topic}/{kind}" for kind in ("config/reported", "command/config")]
        return [*own, f"{FLEET_TOPIC}/root/+", *self._streams()]

    def _streams(self) -> dict[str, str]:
        """Return the streams by topic."""
        return {self._topic_of(stream): stream for stream in self._commit.running.streams}

    def _topic_of(self, stream: str) -> str:
        if stream == FLEET:
            return f"{FLEET_TOPIC}/all"
        return f"{FLEET_TOPIC}/{stream}" if stream.startswith(GROUP) else f"{self._topic}/config/desired"

    def reported(self) -> messages.Reported:
        """Tell which configuration is in force, and why."""
        state, last = self._commit.state, self._commit.last
        trial = state.trial
        return messages.Reported(
            root=state.root,
            streams={
                name: messages.ConfigStream(
                    seq=each.seq,
                    sha=each.sha,
                    active_seq=each.active_seq,
                    active=each.active,
                    waits=each.waits,
                    fate=each.fate.name if each.fate else "",
                    why=each.why,
                )
                for name, each in state.streams.items()
            },
            trial=trial
            and messages.ConfigTrial(
                stream=trial.stream, seq=trial.seq, sha=trial.sha, attempt=trial.attempts, confirmed=trial.confirmed
            ),
            last=last
            and messages.ConfigVerdict(
                stream=last.stream, seq=last.seq, sha=last.sha, code=last.code, name=last.code.name, text=last.text
            ),
            drift=dict(self._commit.running.drift),
            effective=self._commit.running.fingerprint,
            trouble=self._commit.running.trouble,
        )

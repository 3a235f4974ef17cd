"""A door: the uplink. It keeps one link to a broker up, for ever.

**Versions.** MQTT 5 is tried first. A broker that refuses that version, or ends the connection without an answer, is
tried with 3.1.1; where that works it is remembered for that broker for a day, or until a restart. On 3.1.1 a broker
cannot say that it refused a message.

**Brokers.** There may be several, the best first. Each round tries them in that order, but last one whose link broke
within a minute, and not at all one that did not let the pole in some minutes ago.

**What is better than the link there is** is tried beside it every few minutes: a better broker, the certificate that
lies in the files now, MQTT 5 after a day. It is tried with the pole's own client id, because that is the one id that
every broker lets in (many bind it to the user or the certificate). That is safe by the standard: a broker that
refuses a connection leaves the session alone, and one that accepts it ends the old one in that moment. So the trial is
the take-over: packs that were under way on the old link are sent again on the new one, and nothing waits.

A certificate that does not work is not taken: the one that did stays in memory, for reconnects too, and the trouble is
told. So is one that is made out to another name: to the broker it would be another pole.

Reconnecting waits longer from time to time, at random, up to a minute: a thousand poles must not come back to a
broker in the same second. A broker that does not let the pole in is asked every few minutes.
"""

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from gateway.mqtt_link import Broker, Link, Message, NotAuthorised, NotTrusted, OtherVersion, UplinkDown, Version
from gateway.tls import Tls

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
FEW_MINUTES_S = 300.0  # at most, and half of it at least
STABLE_S = 60.0  # a link that breaks sooner counts as one more failure
OLDER_VERSION_S = 86_400.0
LOOK_S = 20.0
LONGEST_ROUND_S = 1800.0  # many brokers that say nothing, each asked more than once; a pause of minutes
MANY_FAILURES = 4
VERSION_NAMES = {Version.V5: "5", Version.V311: "3.1.1"}
INVISIBLE = "the broker speaks only MQTT 3.1.1: messages it refuses look as if it took them"

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Endpoint:
    """A broker, and what is known of it. Times are loop times.

    Attributes:
        broker: where it is.
        older_until: it is spoken to in MQTT 3.1.1.
        locked_until: it did not let the pole in, and is not asked before.
        shaky_until: a link to it broke soon; others come first.
        trouble: why the last connection to it did not come about.
    """

    broker: Broker
    older_until: float = -math.inf
    locked_until: float = -math.inf
    shaky_until: float = -math.inf
    trouble: str = ""

    @property
    def place(self) -> str:
        return f"{self.broker.host}:{self.broker.port}"


class Uplink:
    """The way to the broker.

    Attributes:
        trouble: why there is no link, in words; "" while there is one.
        certificate_trouble: why what lies in the files of TLS was not taken, while what lay in them before still works.
        since: loop time of the last change between up and down.
        rounds: how often it tried to connect, or looked after the link there is.
    """

    def __init__(self, broker: Broker, will: Message, others: Sequence[Broker] = ()) -> None:
        """Set it; ``run`` connects.

        Args:
            broker: where it is.
            will: what the broker publishes when the link breaks.
            others: brokers for when that one is away, the best first.
        """
        self._endpoints = [_Endpoint(each) for each in (broker, *others)]
        self._at = self._endpoints[0]
        self._will = will
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._linked_at = -math.inf
        self._up = asyncio.Event()
        self._pauses = random.Random()  # noqa: S311  # spreads reconnects, keeps no secret
        self._failures = 0
        self._tls: Tls | None = None  # what worked last
        self._seen = b""  # mark of the files at the last look
        self._renew_at = -math.inf
        self._return_at = -math.inf
        self.certificate_trouble = ""
        self.trouble = "not connected yet"
        self.since = self._loop.time()
        self.rounds = 0

    async def link(self) -> Link:
        """Wait until there is a link, and return it."""
        while self._link is None:
            await self._up.wait()
        return self._link

    @property
    def up(self) -> bool:
        """Tell whether there is a link."""
        return self._link is not None

    @property
    def state(self) -> dict[str, Any]:
        """Tell how it is, for the state message."""
        link = self._link
        return {
            "up": self.up,
            "trouble": self.trouble,
            "broker": self._at.place if link else None,
            "mqtt": VERSION_NAMES[link.version] if link else None,
            "note": INVISIBLE if link and link.version != Version.V5 else "",
            "certificate_expires": self._tls.expires if self._tls else None,
            "certificate_trouble": self.certificate_trouble,
        }

    async def run(self) -> None:
        """Keep one link up, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                link: Link | None = await self._connect()
                while link is not None:
                    old = self._link
                    self._take(link)
                    if old is not None:
                        group.create_task(old.close())
                    link = await self._better_than(link)
                await asyncio.sleep(self._pause())

    async def close(self) -> None:
        """Disconnect in order."""
        if self._link is not None:
            link = self._link
            self._change(None, "the gateway stops")
            await link.close()

    async def _connect(self) -> Link:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(UplinkDown),
            wait=lambda _: self._pause(),
            before_sleep=self._tell,
        ):
            with attempt:
                return await self._try_all()
        raise AssertionError("retries never end")

    async def _try_all(self) -> Link:
        self.rounds += 1
        now = self._loop.time()
        open_to_us = [endpoint for endpoint in self._endpoints if endpoint.locked_until <= now]
        for endpoint in sorted(open_to_us, key=lambda endpoint: endpoint.shaky_until > now):
            try:
                return await self._enter(endpoint)
            except UplinkDown as error:
                endpoint.trouble = str(error)
                if isinstance(error, NotAuthorised):
                    endpoint.locked_until = self._loop.time() + self._few_minutes()
        if len(self._endpoints) == 1:
            raise UplinkDown(self._endpoints[0].trouble)
        raise UplinkDown("; ".join(f"{endpoint.place}: {endpoint.trouble}" for endpoint in self._endpoints))

    async def _enter(self, endpoint: _Endpoint) -> Link:
        """Connect with what lies in the files now; where that does not work, with what last did."""
        try:
            tls = self._own(endpoint.broker.read_tls())
            link = await self._speak(endpoint, tls)
        except (NotTrusted, NotAuthorised, OtherVersion) as error:  # some brokers refuse without a word
            if self._tls is None or endpoint.broker.tls is None or endpoint.broker.tls.mark() == self._tls.mark:
                raise
            link = await self._speak(endpoint, self._tls)
            self._keep_certificate(str(error))
        else:
            self._take_certificate(tls)
        return link

    async def _speak(self, endpoint: _Endpoint, tls: Tls | None) -> Link:
        """Connect in the version of MQTT that the broker speaks."""
        if self._loop.time() < endpoint.older_until:
            try:
                return await self._try(endpoint, tls, Version.V311)
            except OtherVersion:
                endpoint.older_until = -math.inf
        try:
            return await self._try(endpoint, tls, Version.V5)
        except OtherVersion as error:
            try:
                link = await self._try(endpoint, tls, Version.V311)
            except OtherVersion:
                raise error from None
        endpoint.older_until = self._loop.time() + OLDER_VERSION_S
        return link

    async def _try(self, endpoint: _Endpoint, tls: Tls | None, version: Version) -> Link:
        link = Link(endpoint.broker, will=self._will, version=version, tls=tls)
        await link.connect()
        self._at = endpoint
        return link

    async def _better_than(self, link: Link) -> Link | None:
        """Wait for a link that is to take the place of this one; None: it broke, and there is none."""
        while not link.ended.done():
            self.rounds += 1
            await asyncio.wait({link.ended}, timeout=LOOK_S)
            if not link.ended.done() and (better := await self._watched(link)):
                return better
        self._lose(link.why())
        return None

    async def _watched(self, link: Link) -> Link | None:
        """Try what is better, and let nobody go on with the link there is once that is broken."""
        trial = asyncio.ensure_future(self._try_better(link))
        try:
            ends: tuple[asyncio.Future[Any], ...] = (link.ended, trial)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if link.ended.done():
                self._change(None, link.why())
            return await trial  # to its end: a connection is not cancelled to save time
        finally:
            trial.cancel()

    async def _try_better(self, link: Link) -> Link | None:
        now = self._loop.time()
        try:
            if self._certificate_is_new() and now >= self._renew_at:
                self._renew_at = now + self._few_minutes()
                return await self._renew()
            better = [each for each in self._endpoints[: self._endpoints.index(self._at)] if each.shaky_until <= now]
            if better and now >= self._return_at:
                self._return_at = now + self._few_minutes()
                return await self._first_of(better)
            if link.version != Version.V5 and now >= self._at.older_until:
                return await self._try_newest()
        except UplinkDown:
            pass  # what there is goes on
        return None

    async def _try_newest(self) -> Link:
        self._at.older_until = self._loop.time() + OLDER_VERSION_S
        link = await self._try(self._at, self._tls, Version.V5)
        self._at.older_until = -math.inf
        return link

    async def _first_of(self, endpoints: Sequence[_Endpoint]) -> Link | None:
        for endpoint in endpoints:
            try:
                return await self._enter(endpoint)
            except UplinkDown as error:
                endpoint.trouble = str(error)
        return None

    def _certificate_is_new(self) -> bool:
        """Tell whether something else lies in the files than what is used, and whether it lay there a while ago too."""
        files = self._at.broker.tls
        if files is None or self._tls is None:
            return False
        mark, seen = files.mark(), self._seen
        self._seen = mark
        if mark != seen:  # it may still be being written
            self._renew_at = -math.inf
            return False
        if mark == self._tls.mark:
            self.certificate_trouble = ""
        return mark != self._tls.mark

    async def _renew(self) -> Link:
        try:
            tls = self._own(self._at.broker.read_tls())
            link = await self._speak(self._at, tls)
        except UplinkDown as error:
            self._keep_certificate(str(error))
            raise
        self._take_certificate(tls)
        return link

    def _own(self, tls: Tls | None) -> Tls | None:
        """Return what was read of the files. Raises NotTrusted where it is another pole's."""
        if tls and self._tls and tls.subject != self._tls.subject:
            step = "put this pole's there, or restart the gateway if it is right"
            raise NotTrusted(f"cert_file: the new certificate is made out to another name than the one in use; {step}")
        return tls

    def _take_certificate(self, tls: Tls | None) -> None:
        if tls and self._tls and tls.mark != self._tls.mark:
            log.info("the files of TLS have changed, and work", certificate_expires=tls.expires)
        self._tls = tls
        self.certificate_trouble = ""

    def _keep_certificate(self, why: str) -> None:
        if why != self.certificate_trouble:
            log.warning("what lies in the files of TLS is not taken; what lay there before still works", why=why)
        self.certificate_trouble = why

    def _take(self, link: Link) -> None:
        self._linked_at = self._loop.time()
        self._return_at = self._linked_at + self._few_minutes()
        self._change(link, "")
        log.info("uplink is up", broker=self._at.place, mqtt=VERSION_NAMES[link.version])
        if link.version != Version.V5:
            log.warning(INVISIBLE)

    def _lose(self, why: str) -> None:
        now = self._loop.time()
        if now - self._linked_at >= STABLE_S:
            self._failures = 0
        else:
            self._failures += 1
            self._at.shaky_until = now + self._few_minutes()
            if self._failures >= MANY_FAILURES:  # many brokers, mosquitto 2.0.11 too, do not say that it is so
                why += f'; it does so again and again: is there a second client with the id "{self._at.broker.client}"?'
        self._change(None, why)
        log.warning("uplink is down", broker=self._at.place, why=why)

    def _few_minutes(self) -> float:
        return self._pauses.uniform(FEW_MINUTES_S / 2, FEW_MINUTES_S)

    def _pause(self) -> float:
        now = self._loop.time()
        unlocked = min(endpoint.locked_until for endpoint in self._endpoints)
        if unlocked > now:
            return unlocked - now
        return self._pauses.uniform(0, min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 10), LONGEST_PAUSE_S))

    def _tell(self, state: RetryCallState) -> None:
        self._failures += 1
        why = str(state.outcome.exception()) if state.outcome else ""
        if why != self.trouble:  # the same again and again is told once
            log.warning("no uplink", broker=", ".join(endpoint.place for endpoint in self._endpoints), why=why)
        self.trouble = why

    def _change(self, link: Link | None, trouble: str) -> None:
        if (link is None) != (self._link is None):
            self.since = self._loop.time()
        self._link = link
        self.trouble = trouble
        if link is None:
            self._up.clear()
        else:
            self._up.set()

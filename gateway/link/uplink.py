"""A door: the uplink. It keeps one link to a broker up, for ever.

**Versions.** MQTT 5 is tried first. A broker that refuses that version, or ends the connection without an answer, is
tried with 3.1.1; where that works it is remembered for that broker for a day, or until a restart, but the first end
without an answer for minutes: a balancer restarts like that, and on 3.1.1 no broker can say that it refused a message.

**Brokers.** There may be several, the best first. Each round tries them in that order, but last one whose link broke
within a minute, and not at all one that did not let the pole in some minutes ago.

**What is better than the link there is** is tried beside it every few minutes: a better broker, the certificate that
lies in the files now, MQTT 5 after a day. It is tried with the pole's own client id, because that is the one id that
every broker lets in (many bind it to the user or the certificate). That is safe by the standard: a broker that
refuses a connection leaves the session alone, and one that accepts it ends the old one in that moment. So the trial is
the take-over: packs that were under way on the old link are sent again on the new one, and nothing waits.

A certificate that does not work is not taken: the one that did stays in memory, for reconnects too, and the trouble is
told. So is one that is made out to another name: to the broker it would be another pole.

**Other brokers**, or other files, may be named while it runs. A link to one of them is tried beside the link there is,
again and again, and that one goes on until then; if its broker is named again meanwhile, nothing has happened to it.
Where a proof is asked for, nothing is sent on the new link before it has given that: what the wrong broker
acknowledges is lost.

Reconnecting waits longer from time to time, at random, up to a minute: a thousand poles must not come back to a
broker in the same second. A broker that does not let the pole in is asked every few minutes.
"""

import asyncio
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from gateway.link.broker import Broker, Message, NotAuthorised, NotTrusted, OtherVersion, UplinkDown
from gateway.link.endpoint import Endpoint, Proof, own_of
from gateway.link.mqtt_link import Link, Version
from gateway.link.tls import Tls, TlsFiles

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
FEW_MINUTES_S = 300.0  # at most, and half of it at least
STABLE_S = 60.0  # a link that breaks sooner counts as one more failure
LOOK_S = 20.0
LONGEST_ROUND_S = 1800.0  # many brokers that say nothing, each asked more than once; a pause of minutes
MANY_FAILURES = 4
ASTRAY_S = 10.0  # between two tries, at most, and half of it at least
VERSION_NAMES = {Version.V5: "5", Version.V311: "3.1.1"}
INVISIBLE = "the broker speaks only MQTT 3.1.1: messages it refuses look as if it took them"

log = structlog.get_logger()


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
        self._endpoints = [Endpoint(each) for each in (broker, *others)]
        self._at = self._endpoints[0]
        self._will = will
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._linked_at = -math.inf
        self._up = asyncio.Event()
        self._pauses = random.Random()  # noqa: S311  # spreads reconnects, keeps no secret
        self._failures = 0
        self._worked: dict[TlsFiles, Tls] = {}  # what worked last of what lay in some files
        self._renamed = asyncio.Event()
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
    def astray(self) -> str:
        """Why there is no link to a broker that is named, while the one to one that was goes on; "" where that is so.

        It is to be asked while there is a link.
        """
        if self._at in self._endpoints:
            return ""
        return self._troubles() or "not tried yet"

    def change(self, brokers: Sequence[Broker], proof: Proof | None = None) -> None:
        """Go to these brokers from now on, the best first. The link there is goes on until another one works.

        Args:
            brokers: where they are.
            proof: what the first link to another one must pass; None: nothing. Where the broker of now is still named
                and the link to it breaks, any other may take its place as it is.
        """
        known = {endpoint.broker: endpoint for endpoint in (*self._endpoints, self._at)}
        files = {broker.tls for broker in (*known, *brokers)}
        self._worked = {each: tls for each, tls in self._worked.items() if each in files}
        self._endpoints = [known.get(broker) or Endpoint(broker) for broker in brokers]
        for endpoint in self._endpoints:
            endpoint.proof = proof
        self._failures = 0
        self._return_at = -math.inf
        self._renamed.set()

    @property
    def state(self) -> dict[str, Any]:
        """Tell how it is, for the state message."""
        link, worked = self._link, self._worked_at(self._at)
        return {
            "up": self.up,
            "trouble": self.trouble,
            "broker": self._at.place if link else None,
            "mqtt": VERSION_NAMES[link.version] if link else None,
            "note": "; ".join(self._notes(link)) if link else "",
            "certificate_expires": worked.expires if worked else None,
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
                await self._rest(self._pause())

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
            sleep=self._rest,
            before_sleep=self._tell,
        ):
            with attempt:
                return await self._try_all()
        raise AssertionError("retries never end")

    async def _try_all(self) -> Link:
        self.rounds += 1
        now = self._loop.time()
        if self._at in self._endpoints:
            self._need_no_proof()
        open_to_us = [endpoint for endpoint in self._endpoints if endpoint.locked_until <= now]
        for endpoint in sorted(open_to_us, key=lambda endpoint: endpoint.shaky_until > now):
            try:
                return await self._enter(endpoint)
            except UplinkDown as error:
                endpoint.trouble = str(error)
                if isinstance(error, NotAuthorised):
                    endpoint.locked_until = self._loop.time() + self._few_minutes()
        raise UplinkDown(self._troubles())

    def _troubles(self) -> str:
        if len(self._endpoints) == 1:
            return self._endpoints[0].trouble
        return "; ".join(f"{each.place}: {each.trouble}" for each in self._endpoints if each.trouble)

    async def _enter(self, endpoint: Endpoint) -> Link:
        """Connect, and have it proved that the link is of use where that is asked for."""
        link = await self._let_in(endpoint)
        if endpoint.proof is not None:
            try:
                why = await endpoint.proof(link)
            except asyncio.CancelledError:
                link.abort()
                raise
            if why:
                await link.close()
                if why != endpoint.trouble:
                    log.warning("a broker lets the pole in and is of no use", broker=endpoint.place, why=why)
                raise UplinkDown(why)
        if endpoint not in self._endpoints:
            await link.close()
            raise UplinkDown(f"{endpoint.place} is not one of the brokers any more")
        self._need_no_proof()  # of the others either: who named them knew what he did
        self._at = endpoint
        return link

    def _need_no_proof(self) -> None:
        for endpoint in self._endpoints:
            endpoint.proof = None

    async def _let_in(self, endpoint: Endpoint) -> Link:
        """Connect with what lies in the files now; where that does not work, with what of theirs last did."""
        worked = self._worked_at(endpoint)
        try:
            tls = own_of(endpoint.broker.read_tls(), worked)
            link = await self._speak(endpoint, tls)
        except (NotTrusted, NotAuthorised, OtherVersion) as error:  # some brokers refuse without a word
            if worked is None or endpoint.broker.tls is None or endpoint.broker.tls.mark() == worked.mark:
                raise
            link = await self._speak(endpoint, worked)
            self._keep_certificate(str(error))
        else:
            self._take_certificate(endpoint, tls)
        return link

    async def _speak(self, endpoint: Endpoint, tls: Tls | None) -> Link:
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
            endpoint.speak_older(error, self._loop.time(), self._few_minutes())
            return link

    async def _try(self, endpoint: Endpoint, tls: Tls | None, version: Version) -> Link:
        link = Link(endpoint.broker, will=self._will, version=version, tls=tls)
        await link.connect()
        return link

    async def _better_than(self, link: Link) -> Link | None:
        """Wait for a link that is to take the place of this one; None: it broke, and there is none."""
        while not link.ended.done():
            self.rounds += 1
            is_astray = self._at not in self._endpoints
            await self._rest(self._pauses.uniform(ASTRAY_S / 2, ASTRAY_S) if is_astray else LOOK_S, link.ended)
            if not link.ended.done() and (better := await self._watched(link)):
                return better
        self._lose(link)
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
            if self._at not in self._endpoints:
                return await self._first_of(self._endpoints)
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
        try:
            return await self._try(self._at, self._worked_at(self._at), Version.V5)
        except UplinkDown as error:
            self._at.speak_older(error, self._loop.time(), self._few_minutes())
            raise

    async def _first_of(self, endpoints: Sequence[Endpoint]) -> Link | None:
        for endpoint in endpoints:
            try:
                return await self._enter(endpoint)
            except UplinkDown as error:
                endpoint.trouble = str(error)
        return None

    def _certificate_is_new(self) -> bool:
        """Tell whether something else lies in the files than what is used, and whether it lay there a while ago too."""
        files, worked = self._at.broker.tls, self._worked_at(self._at)
        if files is None or worked is None:
            return False
        mark, seen = files.mark(), self._seen
        self._seen = mark
        if mark != seen:  # it may still be being written
            self._renew_at = -math.inf
            return False
        if mark == worked.mark:
            self.certificate_trouble = ""
        return mark != worked.mark

    async def _renew(self) -> Link:
        at = self._at
        try:
            tls = own_of(at.broker.read_tls(), self._worked_at(at))
            link = await self._speak(at, tls)
        except UplinkDown as error:
            self._keep_certificate(str(error))
            raise
        self._take_certificate(at, tls)
        return link

    def _worked_at(self, endpoint: Endpoint) -> Tls | None:
        return self._worked.get(endpoint.broker.tls) if endpoint.broker.tls else None

    def _take_certificate(self, endpoint: Endpoint, tls: Tls | None) -> None:
        worked = self._worked_at(endpoint)
        if tls and worked and tls.mark != worked.mark:
            log.info("the files of TLS have changed, and work", certificate_expires=tls.expires)
        if tls and endpoint.broker.tls:
            self._worked[endpoint.broker.tls] = tls
        self.certificate_trouble = ""

    def _keep_certificate(self, why: str) -> None:
        if why != self.certificate_trouble:
            log.warning("what lies in the files of TLS is not taken; what lay there before still works", why=why)
        self.certificate_trouble = why

    def _take(self, link: Link) -> None:
        self._linked_at = self._loop.time()
        self._return_at = self._linked_at + self._few_minutes()
        self._at.works(link.version)
        self._change(link, "")
        log.info("uplink is up", broker=self._at.place, mqtt=VERSION_NAMES[link.version])
        for note in self._notes(link):
            log.warning(note)

    def _notes(self, link: Link) -> Iterator[str]:
        """Tell what one should know of a link that is up."""
        for better in itertools.takewhile(lambda each: each is not self._at, self._endpoints):
            yield f"{better.place} comes first in `url`, and is not taken: {better.trouble or 'its links broke soon'}"
        if link.version != Version.V5:
            yield INVISIBLE

    def _lose(self, link: Link) -> None:
        now, why = self._loop.time(), link.why()
        if now - self._linked_at >= STABLE_S:
            self._failures = 0
        else:
            self._failures += 1
            self._at.shaky_until = now + self._few_minutes()
            # Many brokers, mosquitto 2.0.11 too, do not say that it is so; an end with another reason is no sign of it
            if self._failures >= MANY_FAILURES and link.cut:
                why += f'; it does so again and again: is there a second client with the id "{self._at.broker.client}"?'
        self._change(None, why)
        log.warning("uplink is down", broker=self._at.place, why=why)

    async def _rest(self, seconds: float, *ends: asyncio.Future[None]) -> None:
        """Wait, but not past one of these ends, nor past a change of the brokers."""
        renamed: asyncio.Future[Any] = asyncio.ensure_future(self._renamed.wait())
        try:
            await asyncio.wait((renamed, *ends), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            renamed.cancel()
        self._renamed.clear()

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

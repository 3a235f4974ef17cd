"""A door: the uplink. It keeps one link to the broker up, for ever.

MQTT 5 is tried first. A broker that refuses that version, or ends the connection without an answer, is tried with
3.1.1; only where that works is it remembered, until the link breaks. On 3.1.1 a broker cannot say that it refused
a message.

Reconnecting waits longer from time to time, at random, up to a minute: a thousand poles must not come back to a
broker in the same second. A broker that does not let the pole in is asked every few minutes.
"""

import asyncio
import random

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from gateway.mqtt_link import Broker, Link, Message, NotAuthorised, OtherVersion, UplinkDown, Version

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
LOCKED_OUT_PAUSE_S = 300.0
STABLE_S = 60.0  # a link that breaks sooner counts as one more failure
VERSION_NAMES = {Version.V5: "5", Version.V311: "3.1.1"}

log = structlog.get_logger()


class Uplink:
    """The way to the broker.

    Attributes:
        trouble: why there is no link, in words; "" while there is one.
        since: loop time of the last change between up and down.
    """

    def __init__(self, broker: Broker, will: Message) -> None:
        """Set it; ``run`` connects.

        Args:
            broker: where it is.
            will: what the broker publishes when the link breaks.
        """
        self._broker = broker
        self._will = will
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._pauses = random.Random()  # noqa: S311  # spreads reconnects, keeps no secret
        self._failures = 0
        self.trouble = "not connected yet"
        self.since = self._loop.time()

    async def link(self) -> Link:
        """Wait until there is a link, and return it."""
        while self._link is None:
            await self._up.wait()
        return self._link

    @property
    def up(self) -> bool:
        """Tell whether there is a link."""
        return self._link is not None

    async def run(self) -> None:
        """Keep one link up, for ever."""
        while True:
            link = await self._connect()
            self._change(link, "")
            log.info("uplink is up", broker=self._broker.host, mqtt=VERSION_NAMES[link.version])
            if link.version != Version.V5:
                log.warning("the broker speaks only MQTT 3.1.1: messages it refuses look as if it took them")
            why = await link.broken()
            self._failures = 0 if self._loop.time() - self.since >= STABLE_S else self._failures + 1
            self._change(None, why)
            log.warning("uplink is down", why=why)
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
            wait=lambda state: self._pause(locked_out=isinstance(_error_of(state), NotAuthorised)),
            before_sleep=self._tell,
        ):
            with attempt:
                return await self._try_versions()
        raise AssertionError("retries never end")

    async def _try_versions(self) -> Link:
        try:
            return await self._try(Version.V5)
        except OtherVersion as error:
            try:
                return await self._try(Version.V311)
            except OtherVersion:
                raise error from None

    async def _try(self, version: Version) -> Link:
        link = Link(self._broker, will=self._will, version=version)
        await link.connect()
        return link

    def _pause(self, *, locked_out: bool = False) -> float:
        if locked_out:
            return self._pauses.uniform(LOCKED_OUT_PAUSE_S / 2, LOCKED_OUT_PAUSE_S)
        return self._pauses.uniform(0, min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 10), LONGEST_PAUSE_S))

    def _tell(self, state: RetryCallState) -> None:
        self._failures += 1
        why = str(_error_of(state))
        if why != self.trouble:  # the same again and again is told once
            log.warning("no uplink", broker=f"{self._broker.host}:{self._broker.port}", why=why)
        self.trouble = why

    def _change(self, link: Link | None, trouble: str) -> None:
        self._link = link
        self.trouble = trouble
        self.since = self._loop.time()
        if link is None:
            self._up.clear()
        else:
            self._up.set()


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None

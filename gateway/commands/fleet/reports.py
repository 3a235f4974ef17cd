"""What poles report of their configuration, as it lies at a broker and as it comes.

A report is what anybody wrote who may: it is read with bounds, and one that cannot be read is told and ends nothing.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
from pydantic import ValidationError

from drivers.contract import NAME_PATTERN
from gateway.commands.fleet import shelf
from gateway.config.toml_text import visible
from gateway.link.broker import Received, UplinkDown
from gateway.link.mqtt_link import Link
from gateway.words.messages import Reported

LARGEST_BYTES = 65_536
AGAIN_S = 60.0
SHOWN = 200  # characters of what a pole says
TOPIC = "config/reported"


class Heard(NamedTuple):
    """A report that came.

    Attributes:
        pole: whose.
        report: what it says; None: it cannot be read, or was cleared.
        why: it cannot be read, in words; "": it was cleared, or can be read.
        is_live: it came just now, and did not lie there before.
    """

    pole: str
    report: Reported | None
    why: str
    is_live: bool


class Names(click.ParamType[tuple[str, ...]]):
    """A file that names poles, one on a line."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Read it."""
        try:
            names = Path(str(value)).read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{value} cannot be read: {error}", param, ctx)
        if wrong := [name for name in names if not re.fullmatch(NAME_PATTERN, name)]:
            self.fail(f"{value}: {visible(wrong[0], SHOWN)!r} is no name of a pole", param, ctx)
        return tuple(dict.fromkeys(names))


poles = click.option(
    "--poles",
    "named",
    metavar="FILE",
    type=Names(),
    help="The poles there should be, one name a line; for brokers that do not give all that is retained to wildcards.",
)


class Reports:
    """Hears reports; ``settled`` waits until those that lie there have come."""

    def __init__(self, link: Link, prefix: str, named: Sequence[str], take: Callable[[Heard], None]) -> None:
        self._link = link
        self._prefix = prefix
        self._topics = [f"{prefix}/{pole}/{TOPIC}" for pole in named]
        self._missing = set(named)
        self._take = take
        self._last = 0.0
        self.is_asked = asyncio.Event()

    async def follow(self) -> None:
        """Hear what comes, and ask anew from time to time: with QoS 0 some may be lost on the way. Raises Refused."""
        with contextlib.suppress(UplinkDown):  # who waits for something is told it
            while True:
                all_of_them = f"{self._prefix}/+/{TOPIC}"
                async with self._link.subscribed(all_of_them, qos=0, named=self._topics) as heard:
                    self._last = asyncio.get_running_loop().time()
                    self.is_asked.set()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(AGAIN_S):
                            await self._hear(heard)

    async def _hear(self, heard: AsyncIterator[Received]) -> None:
        async for received in heard:
            if received.retain:  # what comes live never ends
                self._last = asyncio.get_running_loop().time()
            found = read(received, self._prefix)
            self._missing.discard(found.pole)
            self._take(found)

    async def settled(self) -> None:
        """Wait until nothing came for a while, or all that were named have reported."""
        while self._missing or not self._topics:
            left = self._last + shelf.QUIET_S - asyncio.get_running_loop().time()
            if left <= 0:
                return
            await asyncio.sleep(min(left, 0.05))


@contextlib.asynccontextmanager
async def reports(link: Link, prefix: str, named: Sequence[str], take: Callable[[Heard], None]) -> AsyncIterator[None]:
    """Hear all poles, or those that are named. Raises UplinkDown, Refused."""
    found = Reports(link, prefix, named, take)
    jobs = [asyncio.create_task(job) for job in (found.follow(), found.is_asked.wait())]
    following = jobs[0]
    try:
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
            raise UplinkDown(link.why())
        await found.settled()
        yield
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)


def read(received: Received, prefix: str) -> Heard:
    """Read a report."""
    pole = received.topic.removeprefix(f"{prefix}/").removesuffix(f"/{TOPIC}")
    is_live = not received.retain
    if not re.fullmatch(NAME_PATTERN, pole):
        return Heard(visible(pole, SHOWN), None, "no pole can have that name", is_live)
    if not received.payload:
        return Heard(pole, None, "", is_live)
    if len(received.payload) > LARGEST_BYTES:
        return Heard(pole, None, f"it has {len(received.payload):,} bytes; {LARGEST_BYTES:,} are the most", is_live)
    try:
        return Heard(pole, Reported.model_validate_json(received.payload), "", is_live)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        return Heard(pole, None, visible(f"{where + ': ' if where else ''}{first['msg']}", SHOWN), is_live)

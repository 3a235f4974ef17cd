"""A job: give packs again to a receiver that missed some.

A receiver that sees a hole in (epoch, seq) asks on ``.../command/replay``, in JSON::

    {"id": "any text", "dataset": "air", "epoch": 3, "from": 17, "to": 42}

The packs that are still held go out again on their topic, as they went the first time; then an answer on
``.../event/replay`` says which were sent and which are no longer held. Acknowledged packs are held only with
``history``; packs that were set aside are tried again, and leave if the broker takes them now. Who may ask is the
broker's to decide; a retained request is not obeyed, it would be again at each connect.

One request at a time, and packs at a slow rate: nobody can use a pole up by asking.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import pairwise

import structlog
from pydantic import ValidationError

from gateway.link.broker import Message, Received, Refused, UplinkDown
from gateway.link.mqtt_link import Link
from gateway.link.uplink import Uplink
from gateway.store.buffer import Buffer
from gateway.store.pack_sql import Row, SqlError
from gateway.words import messages
from gateway.words.reading import Pack

MOST_PACKS = 1000
PAUSE_S = 0.05

log = structlog.get_logger()


class Replay:
    """Hears requests and answers them."""

    def __init__(
        self, buffer: Buffer, uplink: Uplink, *, topic: str, send: Callable[[Link, Pack], Awaitable[None]]
    ) -> None:
        """Make it.

        Args:
            buffer: holds the packs.
            uplink: the way to the broker.
            topic: what this pole's topics begin with.
            send: sends a pack as it is sent the first time.
        """
        self._buffer = buffer
        self._uplink = uplink
        self._topic = topic
        self._send = send

    async def run(self) -> None:
        """Answer for ever."""
        while True:
            link = await self._uplink.link()
            try:
                async with contextlib.aclosing(link.hear(f"{self._topic}/command/replay")) as requests:
                    async for asked in requests:
                        await self._obey(link, asked)
            except UplinkDown:
                pass
            except Refused as error:
                log.warning("the broker lets nobody ask for packs that were missed", why=str(error))
            await link.broken()  # until the uplink has seen it too, it hands out this link again

    async def _obey(self, link: Link, asked: Received) -> None:
        if asked.retain:
            log.warning("a retained request is not obeyed; publish it without retain", topic=asked.topic)
            return
        answer = await self._answer(link, asked.payload)
        try:
            await link.send(Message(f"{self._topic}/event/replay", answer.encoded()))
        except Refused as error:
            log.warning("the broker does not take an answer", why=str(error))

    async def _answer(self, link: Link, payload: bytes) -> messages.Replayed | messages.NotReplayed:
        try:
            wanted = messages.Replay.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return messages.NotReplayed(error=f"not a request: {'.'.join(map(str, first['loc']))}: {first['msg']}")
        last = min(wanted.last, wanted.first + MOST_PACKS - 1)
        try:
            rows = await self._buffer.held(wanted.dataset, wanted.epoch, wanted.first, last, MOST_PACKS)
        except (SqlError, OSError) as error:
            return messages.NotReplayed(id=wanted.id, error=f"the buffer cannot be read now: {error}")
        sent = [row.pack.n async for row in self._send_again(link, rows)]
        return messages.Replayed(
            id=wanted.id,
            dataset=wanted.dataset,
            epoch=wanted.epoch,
            sent=ranges(sent),
            gone=gaps(sent, wanted.first, last),
            ask_again_from=last + 1 if last < wanted.last else None,
        )

    async def _send_again(self, link: Link, rows: Iterable[Row]) -> AsyncIterator[Row]:
        for row in rows:
            pack = row.pack
            try:
                await self._send(link, pack)
            except Refused as error:
                log.warning(str(error), dataset=pack.dataset, epoch=pack.epoch, seq=pack.n)
            else:
                self._buffer.arrived(row)
                yield row
            await asyncio.sleep(PAUSE_S)


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Return ascending numbers as ranges, first and last: 1, 2, 3, 7 as [1, 3], [7, 7]."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def gaps(numbers: Iterable[int], first: int, last: int) -> list[list[int]]:
    """Return what is missing of a range among ascending numbers, as ranges."""
    edges = pairwise([first - 1, *numbers, last + 1])
    return [[before + 1, after - 1] for before, after in edges if after - before > 1]

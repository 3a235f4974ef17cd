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
import json
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.buffer import Buffer
from gateway.mqtt_link import Link, Message, Received, Refused, UplinkDown
from gateway.pack_sql import SqlError
from gateway.reading import Pack
from gateway.uplink import Uplink

MOST_PACKS = 1000
PAUSE_S = 0.05

log = structlog.get_logger()


class Request(BaseModel):
    """What a receiver asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field("", max_length=64)
    dataset: str = Field(max_length=63)
    epoch: int = Field(ge=1, lt=1 << 31)
    first: int = Field(alias="from", ge=1, lt=1 << 53)
    last: int = Field(alias="to", ge=1, lt=1 << 53)


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
        try:
            answer = await self._answer(link, asked.payload)
        except (SqlError, OSError) as error:
            answer = {"error": f"the buffer cannot be read now: {error}"}
        try:
            await link.send(Message(f"{self._topic}/event/replay", json.dumps({"event": "replay"} | answer).encode()))
        except Refused as error:
            log.warning("the broker does not take an answer", why=str(error))

    async def _answer(self, link: Link, payload: bytes) -> dict[str, Any]:
        try:
            wanted = Request.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return {"error": f"not a request: {'.'.join(map(str, first['loc']))}: {first['msg']}"}
        last = min(wanted.last, wanted.first + MOST_PACKS - 1)
        rows = await self._buffer.held(wanted.dataset, wanted.epoch, wanted.first, last, MOST_PACKS)
        sent = []
        for row in rows:
            pack = row.pack
            try:
                await self._send(link, pack)
                self._buffer.arrived(row)
                sent.append(pack.n)
            except Refused as error:
                log.warning(str(error), dataset=pack.dataset, epoch=pack.epoch, seq=pack.n)
            await asyncio.sleep(PAUSE_S)
        answer = {
            "id": wanted.id,
            "dataset": wanted.dataset,
            "epoch": wanted.epoch,
            "sent": ranges(sent),
            "gone": gaps(sent, wanted.first, last),
        }
        return answer | ({"ask_again_from": last + 1} if last < wanted.last else {})


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

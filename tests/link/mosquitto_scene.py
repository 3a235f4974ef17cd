"""A scene with Debian's mosquitto, in real time: an uplink to it, and what is forwarded over that."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from gateway.jobs.forward import Forward
from gateway.jobs.report import last_will
from gateway.link.backfill import Backfill, Pace
from gateway.link.broker import Broker
from gateway.link.uplink import Uplink
from gateway.store.buffer import Buffer
from gateway.words.reading import Pack, Reading
from gateway.words.senml import encode
from hil.broker import Broker as Mosquitto
from tests.store.buffer_bench import ROOMY

TOPIC = "pole/1/pole-7"
LIMIT_S = 30.0
NS = 1_000_000_000

Lab = Callable[..., Mosquitto]
"""Starts a broker."""


@contextlib.asynccontextmanager
async def uplink_to(broker: Broker, others: Sequence[Broker] = ()) -> AsyncIterator[Uplink]:
    """Run an uplink."""
    uplink = Uplink(broker, last_will(TOPIC), others)
    job = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        job.cancel()
        await asyncio.wait([job])
        await uplink.close()


@contextlib.asynccontextmanager
async def forwarding(folder: Path, uplink: Uplink) -> AsyncIterator[Buffer]:
    """Forward what is put into the buffer."""
    buffer = Buffer(folder / "buffer.db", ROOMY)
    await buffer.open("boot")
    forward = Forward(
        buffer,
        uplink,
        topic=lambda dataset: f"{TOPIC}/data/{dataset}",
        payload=lambda pack: pack.blob,
        backfill=Backfill(Pace()),
    )
    jobs = [asyncio.create_task(job) for job in (buffer.run(), forward.run())]
    try:
        yield buffer
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        await buffer.close()


def pack(n: int, dataset: str = "air") -> Pack:
    """Make a pack that says its number."""
    blob = encode(
        [Reading("dust", dataset, n * NS, {"pm10": n / 10})],
        pole="pole-7",
        unit_of=lambda _, __: "ug/m3",
        utc_offset=1_767_225_600 * NS,
        labels={"epoch": 1, "seq": n, "cat": "0123abcd"},
    )
    return Pack(dataset, 1, n, 1, n * NS, blob)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    """Run a scene."""

    async def main() -> None:
        async with asyncio.timeout(LIMIT_S):
            await scene()

    asyncio.run(main())


async def until(true: Callable[[], bool]) -> None:
    """Wait for something."""
    while not true():  # noqa: ASYNC110  # the scene has the limit
        await asyncio.sleep(0.01)

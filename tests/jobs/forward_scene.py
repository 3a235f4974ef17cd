"""The delivering half of a gateway against a scripted broker: what the tests of forwarding share."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from gateway.jobs.forward import Forward
from gateway.link.backfill import Backfill, Pace
from gateway.link.broker import Message, UplinkDown
from gateway.link.uplink import Uplink
from gateway.store.buffer import Buffer
from gateway.store.pack_room import Terms
from gateway.words import senml
from gateway.words.payload import packed
from gateway.words.reading import Pack, Reading
from hil.scripted_broker import ScriptedBroker
from tests.link.broker_scene import WILL, where
from tests.store.buffer_bench import ROOMY, pack

TOPIC = "pole/1/pole-7/data"
FREE = Pace()


@dataclass
class Delivery:
    """The delivering half of a gateway, running."""

    buffer: Buffer
    uplink: Uplink
    forward: Forward
    put_so_far: Counter[str]

    def put(self, count: int = 1, dataset: str = "air", *, size: int = 300, within: float = 10.0) -> None:
        """Hand the buffer packs."""
        for _ in range(count):
            self.put_so_far[dataset] += 1
            new = pack(self.put_so_far[dataset], dataset, epoch=self.buffer.epoch, size=size)
            self.buffer.put(new, within)


async def tell_state(uplink: Uplink) -> None:
    """Send what the pole tells of itself: when the link comes up, and now and then."""
    while True:
        link = await uplink.link()
        try:
            await link.send(Message("pole/1/pole-7/state", b"{}"))
        except UplinkDown:
            await link.broken()
        else:
            await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def delivering(
    folder: Path, port: int, pace: Pace = FREE, *, disk_first: bool = False
) -> AsyncIterator[Delivery]:
    """Run buffer, uplink and forwarding; end them in the order in which the gateway does."""
    buffer = Buffer(folder / "buffer.db", ROOMY, terms={"alarm": Terms(9, "keep")}, disk_first=disk_first)
    await buffer.open("boot")
    uplink = Uplink(where(port), WILL)
    forward = Forward(
        buffer,
        uplink,
        topic=lambda dataset: f"{TOPIC}/{dataset}",
        payload=lambda pack: pack.blob,
        backfill=Backfill(pace),
    )
    jobs = [asyncio.create_task(job) for job in (buffer.run(), uplink.run(), forward.run())]
    try:
        yield Delivery(buffer, uplink, forward, Counter())
        assert not any(job.done() for job in jobs)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        await uplink.close()
        await buffer.close()


def arrived(broker: ScriptedBroker, dataset: str = "air") -> list[bytes]:
    """Return what the broker acknowledged of a dataset, in the order of its first arrival."""
    return list(dict.fromkeys(p.payload for p in broker.acknowledged if p.topic == f"{TOPIC}/{dataset}"))


def blobs(count: int, dataset: str = "air", *, first: int = 1, epoch: int = 1) -> list[bytes]:
    return [pack(n, dataset, epoch=epoch).blob for n in range(first, first + count)]


def now() -> float:
    return asyncio.get_running_loop().time()


def sealed(readings: int, dataset: str = "air") -> Pack:
    """Seal a pack as the gateway does; its values do not compress."""
    dice = random.Random(readings)  # noqa: S311  # the same each time
    values = [(f"pm{n % 3}", dice.random()) for n in range(readings)]
    looks = [dict(values[n : n + 3]) for n in range(0, readings, 3)]
    some = [Reading(f"d{n % 3}", dataset, n * 10**9, look) for n, look in enumerate(looks)]
    labels: dict[str, int | str] = {"epoch": 1, "seq": 1, "cat": "c0ffee"}
    blob = senml.encode(some, pole="pole-7", unit_of=lambda *_: "ug/m3", utc_offset=0, labels=labels)
    return Pack(dataset, 1, 1, readings, 0, packed(blob))

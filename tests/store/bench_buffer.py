"""One store at work, measured in a process of its own: the buffer, or a control of :mod:`tests.store.bench_rows`.

``python -m tests.store.bench_buffer TASK LAYOUT DATASETS COUNT FILE COUNTER`` prints one JSON object, of which
:mod:`hil.bench.buffer` makes ratios. A *reading* is one value. All layouts import the same modules, so that one can
compare their memory.

===========  =======================================================================================================
``life``     COUNT windows are filled after a warm-up, then all is drained: device bytes and CPU a reading
``fill``     the same without warm-up and draining
``backlog``  COUNT windows are piled up: bytes of the file a reading
``start``    a backlog lies there: seconds from opening the file to the first batch; then memory
``drain``    COUNT windows are drained: CPU a reading
``commits``  COUNT windows are stored, a commit each, and acknowledged: how many commits there were
``online``   COUNT windows of packs are acknowledged before they are due: device bytes
===========  =======================================================================================================

Readings are made before the clock starts. The buffer is driven as the gateway drives it: readings go to the packer, one
pack a dataset and window; packs go to the buffer; the link takes as many at a time as may be without a PUBACK.

Each process stays on one CPU. Else it is chance whether the disk's thread has another one, and to wake that costs a
tenth of the CPU more, on a virtual machine at least.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from gateway.jobs.pack import Packer
from gateway.link.mqtt_link import WINDOW
from gateway.store.buffer import Buffer
from gateway.words.catalogue import Catalogue
from gateway.words.reading import Pack, Reading
from hil.bench.proc import rss_mb, written_bytes
from tests.store.bench_rows import BATCH, POLE, UTC_OFFSET, Rows, devices, values_in, windows

MAX_BYTES = 256 * 1024 * 1024  # as it is by default
WARM = 200  # windows after which the WAL of each layout has its final size
DISTINCT = 1000  # windows; a backlog repeats them
DRAIN = 5000  # readings that leave with one commit
SETTLE = 20  # windows that come and go before memory is read
WITHIN_S, ACKNOWLEDGE_S = 0.5, 0.1
NEVER_S = 3600.0
SECTOR_BYTES = 512
SECTORS_WRITTEN = 6  # which of the numbers in a block device's stat
DROP_CACHES = Path("/proc/sys/vm/drop_caches")

Figures = dict[str, float]
Window = Sequence[Reading]


class Store(Protocol):
    """What is measured."""

    async def open(self) -> None:
        """Open the file, and know how much is in it."""

    async def fill(self, readings: Window) -> None:
        """Store the readings of a window; they are safe when it returns."""

    async def pile(self, filled: Sequence[Window], times: int) -> None:
        """Store some windows again and again."""

    async def first(self) -> None:
        """Take what is to be sent first."""

    async def drain(self, limit: int) -> int:
        """Take the oldest readings, ready to be sent, let them leave, and tell how many they were."""


class Still:
    """A clock that stands, and is right."""

    def now(self) -> int:
        """Return nanoseconds since boot."""
        return 0

    def utc_offset(self) -> int:
        """Return what to add for nanoseconds since 1970."""
        return UTC_OFFSET

    def synchronised(self) -> bool:
        """Tell that it is right."""
        return True


class ByHand:
    """The rhythm of packs that are sealed by hand, at the end of a window."""

    send_every = commit_within = NEVER_S


class Packs:
    """The gateway's own: packer and buffer.

    Attributes:
        buffer: once it is open.
    """

    def __init__(self, path: Path, datasets: int) -> None:
        self._path = path
        self._catalogue = Catalogue(POLE, devices(datasets), {})
        self._within_s = NEVER_S
        self._packer: Packer
        self.buffer: Buffer

    async def open(self) -> None:
        """Open the file."""
        self.buffer = Buffer(self._path, MAX_BYTES)
        await self.buffer.open("boot")
        self._packer = self._packer_for(lambda pack, _: self.buffer.put(pack, self._within_s))

    async def fill(self, readings: Window) -> None:
        """Seal a pack of each dataset and commit them."""
        _seal(self._packer, readings)
        await self.buffer.barrier()

    async def pile(self, filled: Sequence[Window], times: int) -> None:
        """Seal them once, and store the packs under new numbers."""
        packs: list[Pack] = []
        packer = self._packer_for(lambda pack, _: packs.append(pack))
        for window in filled:
            _seal(packer, window)
        numbers = itertools.count(1)
        for _ in range(times):
            for pack in packs:
                self.buffer.put(pack._replace(n=next(numbers)), NEVER_S)
            await self.buffer.barrier()

    async def first(self) -> None:
        """Take what the link would send first, and give it back."""
        for held in await self.buffer.take(WINDOW):
            self.buffer.release(held)

    async def drain(self, limit: int) -> int:
        """Take packs, acknowledge them, and commit that they left."""
        taken = await self.acknowledge(limit)
        await self.buffer.barrier()
        return taken

    async def acknowledge(self, limit: int) -> int:
        """Take packs and acknowledge them; that they left rides on the next commit."""
        taken = 0
        while taken < limit and self.buffer.depth.packs:
            for held in await self.buffer.take(WINDOW):
                taken += held.pack.readings
                self.buffer.acknowledge(held)
        return taken

    async def online(self, filled: Iterable[Window]) -> None:
        """Seal packs, and acknowledge all of them before they are due."""
        self._within_s = WITHIN_S
        running = asyncio.create_task(self.buffer.run())
        for window in filled:
            _seal(self._packer, window)
            held = await self.buffer.take(WINDOW)
            await asyncio.sleep(ACKNOWLEDGE_S)
            for each in held:
                self.buffer.acknowledge(each)
        running.cancel()
        await asyncio.wait([running])

    def _packer_for(self, put: Callable[[Pack, float], None]) -> Packer:
        return Packer(
            POLE,
            epoch=self.buffer.epoch,
            after=self.buffer.after,
            rhythm=lambda _: ByHand(),
            catalogue=self._catalogue,
            clock=Still(),
            put=put,
        )


class Device:
    """What is written to."""

    def __init__(self, counter: Path) -> None:
        """Set it; ``counter`` is ``stat`` of a block device, else ``io`` of this process."""
        self._counter = counter

    def written(self) -> int:
        """Return the bytes written so far, with what was still to be written."""
        os.sync()
        if self._counter.name != "stat":
            return written_bytes(os.getpid())
        return int(self._counter.read_text().split()[SECTORS_WRITTEN]) * SECTOR_BYTES


async def life(store: Store, filled: Sequence[Window], device: Device) -> Figures:
    """Fill and drain."""
    await store.open()
    for window in filled[:WARM]:
        await store.fill(window)
    figures = await _fill(store, filled[WARM:], device)
    return figures | {"drain_us": await _drain_us(store, sum(map(values_in, filled)))}


async def fill(store: Store, filled: Sequence[Window], device: Device) -> Figures:
    """Fill."""
    await store.open()
    return await _fill(store, filled, device)


async def backlog(store: Store, filled: Sequence[Window], times: int, path: Path) -> Figures:
    """Pile up."""
    await store.open()
    await store.pile(filled, times)
    size = path.stat().st_size  # noqa: ASYNC240  # nothing else runs
    return {"file_bytes": size / (times * sum(map(values_in, filled)))}


async def start(store: Store, filled: Sequence[Window]) -> Figures:
    """Open."""
    cold = _drop_caches()
    begin = time.perf_counter()
    await store.open()
    await store.first()
    seconds = time.perf_counter() - begin
    for window in filled:
        await store.fill(window)
        await store.drain(BATCH)
    return {"cold": cold, "start_s": seconds, "rss_mb": rss_mb(os.getpid())}


async def drain(store: Store, count: int) -> Figures:
    """Drain."""
    await store.open()
    return {"drain_us": await _drain_us(store, count * BATCH)}


async def commits(packs: Packs, filled: Sequence[Window]) -> Figures:
    """Store and acknowledge."""
    await packs.open()
    for window in filled:
        await packs.fill(window)
        await packs.acknowledge(BATCH)
    return {"commits": packs.buffer.depth.commits}


async def online(packs: Packs, filled: Sequence[Window], device: Device) -> Figures:
    """Acknowledge in time."""
    await packs.open()
    before = device.written()
    await packs.online(filled)
    return {"bytes": device.written() - before, "commits": packs.buffer.depth.commits}


async def _fill(store: Store, filled: Sequence[Window], device: Device) -> Figures:
    readings = sum(map(values_in, filled))
    before, begin = device.written(), time.process_time()
    for window in filled:
        await store.fill(window)
    spent_s = time.process_time() - begin
    return {"bytes": (device.written() - before) / readings, "fill_us": spent_s / readings * 1e6}


async def _drain_us(store: Store, readings: int) -> float:
    begin, drained = time.process_time(), 0
    while drained < readings and (some := await store.drain(DRAIN)):
        drained += some
    return (time.process_time() - begin) / drained * 1e6


def _seal(packer: Packer, readings: Window) -> None:
    for reading in readings:
        packer.keep(reading)
    packer.seal_all()


def _drop_caches() -> bool:
    """Let the next read come from the device; tell whether it will."""
    os.sync()
    with contextlib.suppress(OSError):
        DROP_CACHES.write_text("3")
        return True
    return False


async def _measured(task: str, layout: str, datasets: int, count: int, path: Path, device: Device) -> Figures:
    packs = Packs(path, datasets)
    store: Store = packs if layout == "packs" else Rows(path, datasets, singly=layout == "row-commit")

    def made(number: int) -> list[list[Reading]]:
        return windows(number, datasets)

    tasks: dict[str, Callable[[], Awaitable[Figures]]] = {
        "life": lambda: life(store, made(WARM + count), device),
        "fill": lambda: fill(store, made(count), device),
        "backlog": lambda: backlog(store, made(DISTINCT), count // DISTINCT, path),
        "start": lambda: start(store, made(SETTLE)),
        "drain": lambda: drain(store, count),
        "commits": lambda: commits(packs, made(count)),
        "online": lambda: online(packs, made(count), device),
    }
    return await tasks[task]()


def main() -> None:
    """Do one task."""
    parser = argparse.ArgumentParser(description="Measure one store.")
    parser.add_argument("task")
    parser.add_argument("layout", choices=("packs", "rows", "row-commit"))
    parser.add_argument("datasets", type=int, choices=(1, 4))
    parser.add_argument("count", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("counter", type=Path)
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    device = Device(chosen.counter)
    measured = _measured(chosen.task, chosen.layout, chosen.datasets, chosen.count, chosen.file, device)
    figures = asyncio.run(measured)
    sys.stdout.write(json.dumps(figures))
    sys.stdout.flush()
    os._exit(0)  # as the gateway ends: a connection that is closed takes its log away


if __name__ == "__main__":
    main()

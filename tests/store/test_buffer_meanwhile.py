"""What happens to a pack while the disk is at work: one that was acknowledged is never counted or told as lost."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.store import unwritten
from gateway.store.buffer import Buffer
from gateway.store.held import Held
from gateway.store.pack_room import Terms
from tests.store.buffer_bench import WAL_BYTES, live, on_the_thread, pack

CAP = WAL_BYTES + 400 * 1024
SLOW_S = 0.01
TERMS = {"alarm": Terms(9, "keep"), "low": Terms(1)}
DEAD = -0x99


def acknowledge(buffer: Buffer, held: Held) -> None:
    buffer.acknowledge(held)


def set_aside(buffer: Buffer, held: Held) -> None:
    buffer.set_aside(held, DEAD)


settle = pytest.mark.parametrize("settle", [acknowledge, set_aside])
Settle = Callable[[Buffer, Held], None]


async def fill(buffer: Buffer, dataset: str = "alarm") -> None:
    """Put packs until some had to give way, and tell of those."""
    numbers = itertools.count(1)
    while not buffer.depth.dropped:
        for n in itertools.islice(numbers, 10):
            buffer.put(pack(n, dataset, size=2000), 10.0)
        await buffer.barrier()
    await told(buffer)


async def told(buffer: Buffer) -> Counter[tuple[str, str]]:
    """Tell upstream what was lost: packs by dataset and reason."""
    batch, losses = await buffer.losses()
    await buffer.told(batch)
    return Counter({(loss.dataset, loss.reason): loss.packs for loss in losses})


async def during(commit: asyncio.Task[None], what: Callable[[], None]) -> None:
    """Do something when the thread has done its part of a commit, and that is not seen yet; and wait for it."""
    await asyncio.sleep(0.75 * SLOW_S)
    assert not commit.done()
    what()
    await commit


async def all_leaves(buffer: Buffer) -> None:
    """Take and acknowledge all there is; it must come to an end, and then there is none."""
    while buffer.depth.packs:
        for held in await asyncio.wait_for(buffer.take(50), 1):
            buffer.acknowledge(held)
    await buffer.empty()
    assert (buffer.depth.packs, buffer.depth.readings, buffer.depth.stored) == (0, 0, 0)


@settle
def test_a_new_pack_that_is_refused(tmp_path: Path, settle: Settle) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer)
        before, dropped = buffer.depth.packs, buffer.depth.dropped
        buffer.rest("alarm")
        buffer.put(pack(1, size=20_000), 10.0)
        (held,) = await buffer.take(1)
        await during(asyncio.create_task(buffer.barrier()), lambda: settle(buffer, held))
        assert (buffer.depth.packs, buffer.depth.stored, buffer.depth.dropped) == (before, before, dropped)
        told_of = await told(buffer)
        assert told_of == ({("air", "refused"): 1} if settle is set_aside else {}), "no room for a dead one, told once"
        buffer.resume("alarm")
        await all_leaves(buffer)

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, job_s=SLOW_S, terms=TERMS)


@settle
def test_a_stored_pack_that_gives_way(tmp_path: Path, settle: Settle) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "low")
        taken = await buffer.take(50)
        before, dropped = buffer.depth.packs, buffer.depth.dropped
        for n in range(1, 21):
            buffer.put(pack(n, size=2000), 10.0)

        def settle_the_oldest() -> None:
            for held in taken:
                settle(buffer, held)

        await during(asyncio.create_task(buffer.barrier()), settle_the_oldest)
        assert buffer.depth.dropped == dropped
        assert buffer.depth.packs == buffer.depth.stored == before + 20 - 50
        await buffer.barrier()
        lost = (await told(buffer)).total()
        assert lost + buffer.depth.set_aside == (50 if settle is set_aside else 0), "some dead ones found no room again"
        await all_leaves(buffer)

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, job_s=SLOW_S, terms=TERMS)


def test_only_what_was_acknowledged_is_taken_back(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "low")
        oldest, *_ = await buffer.take(1)
        dropped = buffer.depth.dropped
        for n in range(1, 21):
            buffer.put(pack(n, size=2000), 10.0)
        await during(asyncio.create_task(buffer.barrier()), lambda: buffer.acknowledge(oldest))
        lost = buffer.depth.dropped - dropped
        assert lost > 1
        assert await told(buffer) == {("low", "evicted"): lost}

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, job_s=SLOW_S, terms=TERMS)


def test_losses_that_are_asked_for_during_the_commit_wait_for_it(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer)
        buffer.rest("alarm")
        buffer.put(pack(1, size=20_000), 10.0)
        (held,) = await buffer.take(1)
        commit = asyncio.create_task(buffer.barrier())
        await asyncio.sleep(0)
        asked = asyncio.create_task(told(buffer))
        await during(commit, lambda: buffer.acknowledge(held))
        assert await asked == {}

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, job_s=SLOW_S, terms=TERMS)


def test_a_pack_that_ram_lets_go_while_the_file_refuses_it_is_lost_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer)
        before, dropped = buffer.depth.packs, buffer.depth.dropped
        buffer.put(pack(1, size=20_000), 10.0)
        monkeypatch.setattr(unwritten, "RAM_BYTES", 0)
        await during(asyncio.create_task(buffer.barrier()), buffer._bound_ram)  # noqa: SLF001  # another commit failed
        assert (buffer.depth.packs, buffer.depth.dropped) == (before, dropped + 1)
        await buffer.barrier()
        assert await told(buffer) == {("air", "refused"): 1}
        await all_leaves(buffer)

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, job_s=SLOW_S, terms=TERMS)


async def first_of_two(buffer: Buffer, settle: Settle) -> None:
    """Have two rows under way, of which the first is settled."""
    for n in (1, 2):
        buffer.put(pack(n), 0.0)
    await buffer.barrier()
    first, _ = await buffer.take(2)
    settle(buffer, first)


@settle
def test_a_row_that_is_found_damaged(tmp_path: Path, settle: Settle) -> None:
    async def scene(buffer: Buffer) -> None:
        await first_of_two(buffer, settle)
        await on_the_thread(buffer, "UPDATE pack SET frame = x'00' WHERE n = 1")
        buffer.epoch += 1  # as if it had lain there when the gateway was started
        await buffer.verify()
        assert (buffer.depth.packs, buffer.depth.stored, buffer.depth.dropped) == (1, 1, 0)
        assert await told(buffer) == {}
        await buffer.barrier()
        assert [row.pack.n for row in await buffer.held("air", 1, 1, 1, 9)] == ([1] if settle is set_aside else [])

    live(tmp_path / "buffer.db", scene)


@settle
def test_a_row_that_is_still_there_when_all_are_counted_anew(tmp_path: Path, settle: Settle) -> None:
    async def scene(buffer: Buffer) -> None:
        await first_of_two(buffer, settle)
        await on_the_thread(buffer, "UPDATE pack SET level = 1234567 WHERE n = 2")
        buffer.epoch += 1  # as if it had lain there when the gateway was started
        await buffer.verify()
        assert (buffer.depth.packs, buffer.depth.stored) == (1, 1)

    live(tmp_path / "buffer.db", scene)


def test_a_pack_that_arrives_while_it_is_set_aside_is_dead_no_more(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        buffer.put(pack(1), 10.0)
        (held,) = await buffer.take(1)
        await during(asyncio.create_task(buffer.barrier()), lambda: buffer.set_aside(held, DEAD))
        (row,) = await buffer.held("air", 1, 1, 1, 9)
        await during(asyncio.create_task(buffer.barrier()), lambda: buffer.arrived(row))
        await buffer.barrier()
        assert buffer.depth.set_aside == 0
        assert await buffer.held("air", 1, 1, 1, 9) == []

    live(tmp_path / "buffer.db", scene, job_s=SLOW_S)

"""Every pack that waits is given: whatever rests, whichever link comes and goes, and whatever a mended file lacks."""

import asyncio
from pathlib import Path

from gateway.store.buffer import Buffer
from gateway.store.pack_room import Terms
from hil.vclock import run
from tests.store.buffer_bench import ROOMY, Key, key, live, on_the_thread, pack

SLOW_S = 0.01
TERMS = {"alarm": Terms(9)}


async def stored(buffer: Buffer, *numbers: int, dataset: str = "air") -> None:
    """Put packs and commit them."""
    for n in numbers:
        buffer.put(pack(n, dataset), 10.0)
    await buffer.barrier()


async def given(buffer: Buffer) -> list[Key]:
    """Take all that is given now, and name it."""
    found: list[Key] = []
    while True:
        taking = asyncio.create_task(buffer.take(50))
        await asyncio.wait([taking], timeout=1)
        if not taking.done():
            taking.cancel()
            return found
        found += [key(held.pack) for held in taking.result()]


async def lacks(buffer: Buffer, n: int) -> None:
    """Have the file lose a row, and let that be seen."""
    await on_the_thread(buffer, f"DELETE FROM pack WHERE n = {n}")  # noqa: S608  # a number
    await on_the_thread(buffer, "UPDATE pack SET level = 1234567")
    buffer.epoch += 1  # as if all had lain there when the gateway was started
    await buffer.verify()


def test_what_was_live_is_backlog_on_a_link_that_comes_while_the_backlog_is_read(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await stored(buffer, 1, 2, 3)
        buffer.begin_backlog()
        buffer.put(pack(4), 10.0)
        (under_way,) = await buffer.take(1)
        await buffer.barrier()
        taking = asyncio.create_task(buffer.take(5))
        await asyncio.sleep(1.25 * SLOW_S)  # no live ones were found, and the backlog is being read
        buffer.release(under_way)
        buffer.begin_backlog()
        assert [held.pack.n for held in await taking] == [1, 2, 3]
        assert await given(buffer) == [("air", 1, 4)]

    live(tmp_path / "buffer.db", scene, job_s=SLOW_S)


def test_a_pack_that_comes_back_while_its_dataset_rests_is_given_when_that_goes_on(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await stored(buffer, 1, 2, 3)
        await stored(buffer, 1, dataset="noise")
        await stored(buffer, 1, dataset="alarm")
        buffer.begin_backlog()
        _, first, second, _ = await buffer.take(4)
        buffer.release(second)
        buffer.rest("air")
        buffer.release(first)
        assert await given(buffer) == [("noise", 1, 1)]
        buffer.resume("air")
        assert await given(buffer) == [("air", 1, 1), ("air", 1, 2)]

    live(tmp_path / "buffer.db", scene, terms=TERMS)


def test_a_pack_under_way_that_a_mended_file_lacks_is_written_again_at_once(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await stored(buffer, 1, 2, 3)
        await buffer.take(3)
        await lacks(buffer, 1)
        await asyncio.sleep(1)
        assert (buffer.depth.packs, buffer.depth.stored) == (3, 3)

    live(tmp_path / "buffer.db", scene)


def test_a_pack_that_a_mended_file_lacks_is_given_though_its_like_were_read_already(tmp_path: Path) -> None:
    async def main() -> None:
        buffer = Buffer(tmp_path / "buffer.db", ROOMY)
        await buffer.open("boot")
        await stored(buffer, 1, 2, 3)
        buffer.begin_backlog()
        first, *_ = await buffer.take(3)
        await lacks(buffer, 1)
        assert await given(buffer) == []
        buffer.release(first)
        await buffer.barrier()
        assert await given(buffer) == [("air", 1, 1)]
        await buffer.close()

    run(main())


def test_what_waits_again_after_a_mending_is_given_to_who_waits(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await stored(buffer, 1)
        await on_the_thread(buffer, "UPDATE pack SET level = -1234567")
        taking = asyncio.create_task(buffer.take(1))
        await asyncio.sleep(1)
        assert not taking.done()
        buffer.epoch += 1  # as if it had lain there when the gateway was started
        await buffer.verify()
        assert [held.pack.n for held in await asyncio.wait_for(taking, 1)] == [1]

    live(tmp_path / "buffer.db", scene)

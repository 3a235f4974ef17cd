"""The buffer: what is written and when, in which order packs come out, and what gives way."""

import asyncio
import itertools
from pathlib import Path

import pytest

from gateway.store.buffer import Buffer
from gateway.store.held import Held
from gateway.store.pack_file import PackFile
from gateway.store.pack_room import Terms
from gateway.store.unwritten import DELETE_WITHIN_S
from tests.store.buffer_bench import (
    OLD_PAGE_BYTES,
    PAGE_BYTES,
    ROOMY,
    WAL_BYTES,
    SlowDisk,
    contents,
    live,
    pack,
    pages_of,
)

HOUR_S = 3600
SLOW_S = 0.01


def size_of(path: Path) -> int:
    """Return what the cap bounds: the file and its log."""
    return sum(Path(f"{path}{part}").stat().st_size for part in ("", "-wal"))


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of the last change of each file."""
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir()}


def numbers(held: list[Held]) -> list[int]:
    return [each.pack.n for each in held]


async def take_all(buffer: Buffer) -> list[Held]:
    held: list[Held] = []
    while len(held) < buffer.depth.packs:
        held += await asyncio.wait_for(buffer.take(20), 1)
    return held


def test_a_healthy_uplink_writes_nothing(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        before = state_of(tmp_path)
        for n in range(1, HOUR_S // 5):
            buffer.put(pack(n), 10.0)
            (held,) = await buffer.take(20)
            await asyncio.sleep(5)
            buffer.acknowledge(held)
        assert buffer.depth.commits == 0
        assert state_of(tmp_path) == before
        assert buffer.depth.packs == 0

    live(tmp_path / "buffer.db", scene)


def test_what_is_not_acknowledged_is_on_the_disk_by_its_deadline_and_not_before(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        buffer.put(pack(1), 10.0)
        await buffer.take(1)  # under way is not acknowledged
        await asyncio.sleep(9.9)
        assert (buffer.depth.commits, buffer.depth.stored) == (0, 0)
        await asyncio.sleep(0.2)
        assert (buffer.depth.commits, buffer.depth.stored) == (1, 1)
        assert contents(tmp_path / "buffer.db") == [("air", 1, 1)]

    live(tmp_path / "buffer.db", scene)


def test_the_shortest_deadline_holds_and_takes_all_that_wait_along_in_one_commit(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 20):
            buffer.put(pack(n), 10.0)
        await asyncio.sleep(1)
        buffer.put(pack(1, "alarm"), 0.2)
        await asyncio.sleep(0.3)
        assert (buffer.depth.commits, buffer.depth.stored) == (1, 20)
        await asyncio.sleep(HOUR_S)
        assert buffer.depth.commits == 1

    live(tmp_path / "buffer.db", scene)


def test_acknowledged_rows_leave_within_a_minute_though_nothing_else_is_written(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 31):
            buffer.put(pack(n), 10.0)
        await buffer.barrier()
        for held in await take_all(buffer):
            buffer.acknowledge(held)
        assert (buffer.depth.packs, buffer.depth.stored) == (0, 0)
        assert len(contents(tmp_path / "buffer.db")) == 30
        await asyncio.sleep(DELETE_WITHIN_S + 1)
        assert contents(tmp_path / "buffer.db") == []
        assert buffer.depth.commits == 2

    live(tmp_path / "buffer.db", scene)


def test_deletions_ride_on_the_next_commit(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        buffer.put(pack(1), 10.0)
        await buffer.barrier()
        (held,) = await buffer.take(1)
        buffer.acknowledge(held)
        buffer.put(pack(2), 1.0)
        await asyncio.sleep(1.1)
        assert contents(tmp_path / "buffer.db") == [("air", 1, 2)]
        await asyncio.sleep(HOUR_S)
        assert buffer.depth.commits == 2

    live(tmp_path / "buffer.db", scene)


def test_a_broker_that_was_never_seen_is_a_normal_start(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 361):
            buffer.put(pack(n), 10.0)
            await asyncio.sleep(10)
        assert buffer.depth.packs == 360
        assert buffer.depth.dropped == 0
        assert sorted(numbers(await take_all(buffer))) == list(range(1, 361))

    live(tmp_path / "buffer.db", scene)


def test_what_was_not_acknowledged_is_there_after_a_restart_in_its_order(tmp_path: Path) -> None:
    async def first(buffer: Buffer) -> None:
        assert buffer.epoch == 1
        for n in range(1, 101):
            buffer.put(pack(n), 10.0)
        for held in await buffer.take(30):
            buffer.acknowledge(held)
        await buffer.take(30)

    async def second(buffer: Buffer) -> None:
        assert buffer.epoch == 2
        assert (buffer.depth.packs, buffer.depth.stored, buffer.depth.readings) == (70, 70, 700)
        held = await take_all(buffer)
        assert numbers(held) == list(range(31, 101))
        assert held[0].pack.blob == pack(31).blob
        assert (held[0].pack.epoch, held[0].pack.readings, held[0].pack.taken) == (1, 10, 31_000_000_000)

    live(tmp_path / "buffer.db", first)
    live(tmp_path / "buffer.db", second)


def test_live_comes_before_old_and_old_comes_oldest_first(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 6):
            buffer.put(pack(n), 10.0)
        await buffer.barrier()
        for n in range(6, 8):
            buffer.put(pack(n), 10.0)
        assert numbers(await buffer.take(4)) == [6, 7, 1, 2]
        buffer.put(pack(8), 10.0)
        assert numbers(await buffer.take(1)) == [8]
        assert numbers(await buffer.take(9)) == [3, 4, 5]

    live(tmp_path / "buffer.db", scene)


def test_what_is_released_comes_again_before_what_is_younger(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 10):
            buffer.put(pack(n), 10.0)
        await buffer.barrier()
        held = await buffer.take(5)
        buffer.acknowledge(held[0])
        for each in held[1:3]:
            buffer.release(each)
        assert numbers(await buffer.take(9)) == [2, 3, 6, 7, 8, 9]

    live(tmp_path / "buffer.db", scene)


def test_marks_tell_where_the_last_runs_ended_on_the_disk(tmp_path: Path) -> None:
    async def first(buffer: Buffer) -> None:
        assert buffer.after("air") == ""
        buffer.put(pack(1), 10.0)
        buffer.put(pack(2), 10.0)
        buffer.put(pack(1, "noise"), 10.0)
        await buffer.barrier()
        for held in await take_all(buffer):
            buffer.acknowledge(held)
        buffer.put(pack(3), 10.0)
        buffer.acknowledge((await buffer.take(1))[0])  # never reached the disk
        assert buffer.after("air") == ""

    async def second(buffer: Buffer) -> None:
        assert (buffer.after("air"), buffer.after("noise"), buffer.after("weather")) == ("1:2", "1:1", "")
        buffer.put(pack(1, epoch=2), 10.0)

    async def third(buffer: Buffer) -> None:
        assert (buffer.after("air"), buffer.after("noise")) == ("2:1", "1:1")

    for scene in (first, second, third):
        live(tmp_path / "buffer.db", scene)


@pytest.mark.parametrize("page", [PAGE_BYTES, OLD_PAGE_BYTES])
def test_the_file_and_its_log_stay_below_the_cap_and_the_oldest_give_way(tmp_path: Path, page: int) -> None:
    cap = WAL_BYTES + 1024 * 1024
    with pages_of(page):
        file = PackFile(tmp_path / "buffer.db", cap)
        file.open("boot")
        file.close()
    assert int.from_bytes((tmp_path / "buffer.db").read_bytes()[16:18], "big") == page

    async def scene(buffer: Buffer) -> None:
        for n in range(1, 1001):
            buffer.put(pack(n, size=4000, readings=7), 10.0)
            if n % 5 == 0:
                await buffer.barrier()
                assert size_of(tmp_path / "buffer.db") <= cap
        dropped = buffer.depth.dropped
        assert buffer.depth.packs == buffer.depth.stored == 1000 - dropped
        assert buffer.depth.readings == 7 * (1000 - dropped)
        assert buffer.depth.dropped_readings == 7 * dropped
        assert 750 < dropped < 800  # a megabyte holds some 240 of these
        assert numbers(await take_all(buffer)) == list(range(dropped + 1, 1001))

    live(tmp_path / "buffer.db", scene, max_bytes=cap)


def test_what_gave_way_while_it_was_under_way_may_be_acknowledged_or_released(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 11):
            buffer.put(pack(n, size=2000), 10.0)
        await buffer.barrier()
        held = await buffer.take(10)
        for n in range(11, 31):
            buffer.put(pack(n, size=2000), 10.0)
        await buffer.barrier()
        assert buffer.depth.dropped == 10
        buffer.acknowledge(held[0])
        buffer.release(held[1])
        assert (buffer.depth.packs, buffer.depth.stored) == (20, 20)
        assert numbers(await take_all(buffer)) == list(range(11, 31))

    live(tmp_path / "buffer.db", scene, max_bytes=WAL_BYTES + 110 * 1024)


def test_to_wait_for_an_empty_buffer_ends_with_the_last_acknowledgement(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await buffer.empty()
        for n in range(1, 4):
            buffer.put(pack(n), 10.0)
        waiting = asyncio.create_task(buffer.empty())
        for held in await buffer.take(3):
            await asyncio.sleep(1)
            assert not waiting.done()
            buffer.acknowledge(held)
        await asyncio.wait_for(waiting, 0.1)

    live(tmp_path / "buffer.db", scene)


# What happens while the disk is at work


def test_a_pack_that_comes_while_the_file_is_read_in_vain_is_not_overlooked(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        buffer.put(pack(1), 10.0)
        await buffer.barrier()
        await buffer.take(1)  # there could be more, so the next one looks
        taking = asyncio.create_task(buffer.take(1))
        await asyncio.sleep(SLOW_S / 4)
        buffer.put(pack(2), 10.0)
        assert numbers(await asyncio.wait_for(taking, 1)) == [2]

    live(tmp_path / "buffer.db", scene, job_s=SLOW_S)


def test_a_pack_that_is_released_while_the_file_is_read_is_not_overlooked(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 4):
            buffer.put(pack(n), 10.0)
        await buffer.barrier()
        first, _ = await buffer.take(2)
        taking = asyncio.create_task(buffer.take(5))
        await asyncio.sleep(SLOW_S / 4)
        buffer.release(first)
        assert numbers(await taking) == [3]
        assert numbers(await asyncio.wait_for(buffer.take(5), 1)) == [1]

    live(tmp_path / "buffer.db", scene, job_s=SLOW_S)


def test_a_pack_that_is_acknowledged_while_it_is_written_leaves_the_disk_again(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        buffer.put(pack(1), 10.0)
        (held,) = await buffer.take(1)
        writing = asyncio.create_task(buffer.barrier())
        await asyncio.sleep(SLOW_S / 4)
        buffer.acknowledge(held)
        await writing
        assert (buffer.depth.packs, buffer.depth.stored) == (0, 0)
        await asyncio.sleep(DELETE_WITHIN_S + 1)
        assert contents(tmp_path / "buffer.db") == []

    live(tmp_path / "buffer.db", scene, job_s=SLOW_S)


def test_a_pack_that_is_acknowledged_while_it_gives_way_is_not_counted_as_lost(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 17):
            buffer.put(pack(n, size=2000), 10.0)
            await buffer.barrier()
        held = await buffer.take(16)
        buffer.put(pack(17, size=2000), 10.0)
        writing = asyncio.create_task(buffer.barrier())
        await asyncio.sleep(SLOW_S * 3 / 4)
        buffer.acknowledge(held[0])
        await writing
        assert (buffer.depth.dropped, buffer.depth.dropped_readings) == (15, 150)
        assert (buffer.depth.packs, buffer.depth.stored, buffer.depth.readings) == (1, 1, 10)

    live(tmp_path / "buffer.db", scene, max_bytes=WAL_BYTES + 56 * 1024, job_s=SLOW_S)


def test_two_who_commit_at_the_same_time_write_each_pack_once(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        buffer.put(pack(1), 10.0)
        first = asyncio.create_task(buffer.barrier())
        await asyncio.sleep(SLOW_S / 4)
        buffer.put(pack(2), 10.0)
        await asyncio.gather(first, buffer.barrier())
        assert (buffer.depth.packs, buffer.depth.stored) == (2, 2)

    live(tmp_path / "buffer.db", scene, job_s=SLOW_S)


@pytest.mark.parametrize("moment", [0.0, 0.25, 0.75, 1.0])
def test_nothing_is_lost_when_the_gateway_ends_in_the_middle_of_a_commit(tmp_path: Path, moment: float) -> None:
    async def main() -> None:
        buffer = Buffer(tmp_path / "buffer.db", ROOMY)
        await buffer.open("boot")
        running = asyncio.create_task(buffer.run())
        buffer.put(pack(1), 1.0)
        await asyncio.sleep(1.0 + moment * SLOW_S)
        buffer.put(pack(2), 1.0)
        running.cancel()
        await asyncio.wait([running])
        buffer.put(pack(3), 1.0)
        await buffer.close()

    with asyncio.Runner(loop_factory=lambda: SlowDisk(SLOW_S)) as runner:
        runner.run(main())
    assert contents(tmp_path / "buffer.db") == [("air", 1, 1), ("air", 1, 2), ("air", 1, 3)]


def test_who_always_has_something_to_commit_can_be_ended(tmp_path: Path) -> None:
    async def main() -> None:
        buffer = Buffer(tmp_path / "buffer.db", ROOMY, disk_first=True)
        await buffer.open("boot")

        async def accept() -> None:
            for n in itertools.count(1):
                buffer.put(pack(n), 10.0)
                await asyncio.sleep(SLOW_S / 4)

        accepting, running = asyncio.create_task(accept()), asyncio.create_task(buffer.run())
        await asyncio.sleep(SLOW_S * 10.25)
        running.cancel()
        await asyncio.wait([running], timeout=SLOW_S * 2)
        assert running.cancelled()
        accepting.cancel()
        await buffer.close()

    with asyncio.Runner(loop_factory=lambda: SlowDisk(SLOW_S)) as runner:
        runner.run(main())


def test_other_terms_hold_from_then_on_for_what_waits_in_ram_and_on_the_disk(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 4):
            buffer.put(pack(n, "air"), 10.0)
            buffer.put(pack(n, "energy"), 10.0)
        await buffer.barrier()
        buffer.put(pack(4, "energy"), 10.0)
        held = await buffer.take(2)
        assert [(each.pack.dataset, each.pack.n) for each in held] == [("energy", 4), ("air", 1)]
        buffer.change({"energy": Terms(9)})
        held = await buffer.take(3)
        assert [(each.pack.dataset, each.pack.n) for each in held] == [("energy", n) for n in (1, 2, 3)]
        for each in held:
            buffer.release(each)
        buffer.change({"energy": Terms(5), "air": Terms(9)})
        held = await buffer.take(2)
        assert [(each.pack.dataset, each.pack.n) for each in held] == [("air", 2), ("air", 3)]

    live(tmp_path / "buffer.db", scene)

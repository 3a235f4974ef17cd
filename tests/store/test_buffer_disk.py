"""The buffer's file: opened, refused, and a disk that takes nothing more."""

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.store.buffer import Buffer
from gateway.store.pack_disk import BufferUnusable
from gateway.store.pack_outgoing import RETRY_S
from gateway.store.pack_room import Terms
from gateway.store.pack_sql import SqlError
from gateway.store.unwritten import DELETE_WITHIN_S
from hil.vclock import run
from tests.store.buffer_bench import ROOMY, contents, key, live, no_file_grows_beyond, pack

NOBODY = 65_534


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def opens(path: Path) -> None:
    """Open a buffer, and see that it keeps a pack."""

    async def scene(buffer: Buffer) -> None:
        buffer.put(pack(1), 0.0)
        await buffer.barrier()
        assert buffer.depth.stored == buffer.depth.packs

    live(path, scene)


def largest_part(path: Path) -> int:
    return max(Path(f"{path}{part}").stat().st_size for part in ("", "-wal"))


def test_the_folder_is_made_where_it_is_missing(tmp_path: Path) -> None:
    opens(tmp_path / "var" / "lib" / "polegate" / "buffer.db")


def test_a_second_gateway_on_the_same_file_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"

    async def scene(first: Buffer) -> None:
        first.put(pack(1), 0.0)
        await first.barrier()
        second = Buffer(path, ROOMY)
        with pytest.raises(BufferUnusable) as refused:
            await second.open("boot")
        assert str(path) in str(refused.value)
        assert "in use by another gateway" in str(refused.value)
        first.put(pack(2), 0.0)
        await first.barrier()
        assert contents(path) == [("air", 1, 1), ("air", 1, 2)]

    live(path, scene)


@pytest.mark.parametrize("how", ["empty", "header only"])
def test_a_file_that_a_power_cut_left_half_made_is_made_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "buffer.db"
    if how == "empty":
        path.touch()
    else:
        with contextlib.closing(sqlite3.connect(path)) as half:
            half.executescript("PRAGMA page_size=1024; PRAGMA journal_mode=WAL;")
    opens(path)
    assert contents(path) == [("air", 1, 1)]


def test_a_file_that_was_killed_open_is_opened_with_all_that_was_committed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"

    async def scene(buffer: Buffer) -> None:
        for n in range(1, 200):
            buffer.put(pack(n, size=3000), 10.0)
            await buffer.barrier()
        shutil.copytree(tmp_path / "live", copy)

    live(tmp_path / "live" / "buffer.db", scene)

    async def again(buffer: Buffer) -> None:
        assert buffer.depth.packs == 199

    live(copy / "buffer.db", again)


def test_a_file_that_cannot_be_there_is_as_good_as_empty_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.write_text("in its place")

    async def scene(buffer: Buffer) -> None:
        assert buffer.trouble
        await buffer.verify()
        await buffer.told(1)
        buffer.begin_backlog()
        buffer.rest("air")
        buffer.resume("air")
        buffer.change({"alarm": Terms(9)})
        taking = asyncio.create_task(buffer.take(5))
        await asyncio.sleep(1)
        buffer.put(pack(1), 1.0)
        (held,) = await taking
        buffer.release(held)
        await asyncio.sleep(RETRY_S)
        assert (buffer.depth.packs, buffer.depth.stored) == (1, 0)
        folder.unlink()
        await asyncio.sleep(RETRY_S + 1)
        assert (buffer.depth.packs, buffer.depth.stored, buffer.trouble) == (1, 1, "")

    live(folder / "buffer.db", scene)
    ((dataset, _, n),) = contents(folder / "buffer.db")
    assert (dataset, n) == ("air", 1)


def test_a_full_disk_keeps_packs_in_memory_and_they_are_written_when_there_is_room_again(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"

    async def scene(buffer: Buffer) -> None:
        buffer.put(pack(1), 1.0)
        await asyncio.sleep(2)
        assert buffer.depth.stored == 1
        with no_file_grows_beyond(largest_part(path)), capture_logs() as logs:
            for n in range(2, 102):
                buffer.put(pack(n, size=20_000), 1.0)
                await asyncio.sleep(1)
            assert (buffer.depth.packs, buffer.depth.dropped) == (101, 0)
            assert buffer.depth.stored < 101
            assert any("does not work" in line["event"] and line["path"] == str(path) for line in logs)
            held = await buffer.take(50)  # what the broker takes meanwhile, it takes
            for each in held[:25]:
                buffer.acknowledge(each)
            assert buffer.depth.packs == 76
        await asyncio.sleep(RETRY_S + 1)
        assert buffer.depth.stored == buffer.depth.packs == 76
        gone = {key(each.pack) for each in held[:25]}
        assert {("air", 1, n) for n in range(1, 102)} - gone <= set(contents(path))

    live(path, scene)


def test_while_the_disk_refuses_memory_is_bounded_and_the_oldest_give_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.unwritten.RAM_BYTES", 20_000)

    async def scene(buffer: Buffer) -> None:
        with no_file_grows_beyond(0), capture_logs() as logs:
            buffer.put(pack(1), 1.0)
            (oldest,) = await buffer.take(1)
            for n in range(2, 101):
                buffer.put(pack(n, size=1000, readings=3), 1.0)
                await asyncio.sleep(1)
            # Twenty fit; between two tries of the disk five more come.
            assert 20 <= buffer.depth.packs <= 25
            assert buffer.depth.packs + buffer.depth.dropped == 100
            assert buffer.depth.readings == 3 * buffer.depth.packs
            assert buffer.depth.dropped_readings == 3 * buffer.depth.dropped + 7  # the first had ten
            assert any("give way" in line["event"] for line in logs)
            buffer.acknowledge(oldest)
            assert buffer.depth.packs + buffer.depth.dropped == 100
            left = [held.pack.n for held in await buffer.take(100)]
            assert left == list(range(101 - len(left), 101))
        await asyncio.sleep(RETRY_S + 1)
        assert buffer.depth.stored == buffer.depth.packs

    live(tmp_path / "buffer.db", scene)


def test_what_is_to_be_on_the_disk_first_goes_out_from_memory_while_the_disk_refuses(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n, room in ((1, 1 << 30), (2, 0), (3, 0), (4, 1 << 30)):
            with no_file_grows_beyond(room), capture_logs():
                taking = asyncio.create_task(buffer.take(5))
                await asyncio.sleep(RETRY_S + 1)
                buffer.put(pack(n), 10.0)
                (held,) = await asyncio.wait_for(taking, 1)
                assert (held.pack.n, held.stored) == (n, room > 0)
                buffer.acknowledge(held)

    live(tmp_path / "buffer.db", scene, disk_first=True)


def test_a_row_that_was_set_aside_and_let_go_does_not_wait_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.unwritten.RAM_BYTES", 0)

    async def scene(buffer: Buffer) -> None:
        for n in (1, 2):
            buffer.put(pack(n), 0.0)
        await buffer.barrier()
        first, second = await buffer.take(2)
        with no_file_grows_beyond(0), capture_logs():
            buffer.set_aside(second, -0x99)
            await asyncio.sleep(DELETE_WITHIN_S + RETRY_S / 2)
        buffer.release(first)
        assert [held.pack.n for held in await buffer.take(2)] == [1]
        assert buffer.depth.packs == 1
        await buffer.barrier()
        _, losses = await buffer.losses()
        assert [(loss.reason, loss.packs, loss.first) for loss in losses] == [("refused", 1, 2)]
        assert contents(tmp_path / "buffer.db") == [("air", 1, 1)]

    live(tmp_path / "buffer.db", scene)


def test_a_disk_that_cannot_be_read_is_tried_again_and_live_packs_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def scene(buffer: Buffer) -> None:
        for n in range(1, 6):
            buffer.put(pack(n), 1.0)
        await asyncio.sleep(2)
        assert buffer.depth.stored == 5
        with monkeypatch.context() as patch:
            patch.setattr("gateway.store.pack_file.PackFile.read", broken)
            taking = asyncio.create_task(buffer.take(5))
            await asyncio.sleep(3 * RETRY_S)
            assert buffer.trouble == "disk I/O error"
            buffer.put(pack(6), 60.0)
            assert [held.pack.n for held in await asyncio.wait_for(taking, 1)] == [6]
        held = await asyncio.wait_for(buffer.take(9), 2 * RETRY_S)
        assert [each.pack.n for each in held] == [1, 2, 3, 4, 5]
        assert buffer.trouble == ""

    live(tmp_path / "buffer.db", scene)


def test_what_cannot_be_written_at_the_end_is_told_to_the_caller(tmp_path: Path) -> None:
    async def main() -> None:
        buffer = Buffer(tmp_path / "buffer.db", ROOMY)
        await buffer.open("boot")
        before = open_files()
        buffer.put(pack(1), 10.0)
        with no_file_grows_beyond(0), pytest.raises(SqlError):
            await buffer.close()
        assert open_files() < before

    run(main())

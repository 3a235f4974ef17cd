"""A mending that is cut off, or cannot be done at once: nothing is given up, and it goes on."""

import asyncio
import contextlib
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.store.buffer import Buffer
from gateway.store.frame import LAST_EPOCH, number_of
from gateway.store.journal import Left
from gateway.store.level import FRESH, SET_ASIDE
from gateway.store.pack_disk import LOOK_EVERY_S
from gateway.store.pack_file import PackFile
from gateway.store.pack_outgoing import RETRY_S
from gateway.store.pack_raw import Salvage
from gateway.store.pack_sql import Loss, Row, SqlError
from tests.store.buffer_bench import (
    PAGE_BYTES,
    ROOMY,
    WAL_BYTES,
    Key,
    contents,
    key,
    live,
    no_file_grows_beyond,
    pack,
)
from tests.store.test_buffer_mend import all_packs, fill, garbage, leaves, overwrite, reopened, zero_a_leaf, zero_page_1

PACKS = 100


def moved(path: Path, *parts: str) -> Path:
    """Move parts of a file into the folder for mending, which is returned."""
    folder = path.parent / "buffer.db.mending"
    folder.mkdir()
    for part in parts:
        Path(f"{path}{part}").rename(folder / f"buffer.db{part}")
    return folder


@pytest.mark.parametrize("parts", [(), ("",), ("", "-wal")], ids=["nothing", "the database", "all"])
def test_it_goes_on_whatever_was_moved_already(tmp_path: Path, parts: tuple[str, ...]) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=PACKS)
    folder = moved(path, *parts)
    found, buffer = reopened(path)
    assert set(found) == all_packs(PACKS)
    assert buffer.epoch == 2
    assert not folder.exists()
    assert bool(list(path.parent.glob("buffer.db.damaged-*"))) == bool(parts)


@pytest.mark.parametrize("new", ["empty", "with some", "with all", "damaged"])
def test_it_goes_on_whatever_was_made_anew_already(tmp_path: Path, new: str) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=PACKS)
    folder = moved(path, "", "-wal")
    if new == "empty":
        path.touch()
    else:
        file = PackFile(path.with_name("new.db"), ROOMY)
        file.open("boot")
        some = [each for each in Salvage(folder / path.name) if each.pack.n % 2 or new != "with some"]
        file.write([Row(each.number, each.pack, each.level) for each in some], ())
        shutil.copy(path.with_name("new.db"), path)
        shutil.copy(path.with_name("new.db-wal"), Path(f"{path}-wal"))
        file.close()
        for part in path.parent.glob("new.db*"):
            part.unlink()
    if new == "damaged":
        garbage(path)
    found, buffer = reopened(path)
    assert found == sorted(all_packs(PACKS))
    assert buffer.mended is not None
    assert not folder.exists()
    assert [part.name for part in path.parent.glob("buffer.db.damaged-*")] == ["buffer.db.damaged-1"]
    assert len(list(Salvage(path.parent / "buffer.db.damaged-1" / path.name))) == PACKS, "of the old one"


def test_one_that_fails_while_it_runs_is_done_later(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=2000, closed=True)

    async def scene(buffer: Buffer) -> None:
        found: list[Key] = []

        async def all_there_is() -> None:
            with contextlib.suppress(TimeoutError):
                while True:
                    found.extend(key(held.pack) for held in await asyncio.wait_for(buffer.take(50), 3 * RETRY_S))

        buffer.put(pack(1, "gone", epoch=buffer.epoch), 0.0)
        await buffer.barrier()
        buffer.rest("air")
        buffer.acknowledge((await buffer.take(1))[0])
        await buffer.barrier()
        buffer.resume("air")
        zero_a_leaf(path)
        with no_file_grows_beyond(20_000), capture_logs():
            await all_there_is()
            assert 100 < len(found) < 1900
            buffer.put(pack(1, "later", epoch=buffer.epoch), 1.0)
            await asyncio.sleep(2 * RETRY_S)
            assert buffer.trouble
            assert not list(path.parent.glob("buffer.db.damaged-*"))
        await all_there_is()
        assert buffer.trouble == ""
        assert len(found) == len(set(found)) >= 2000 - 10
        assert buffer.depth.packs == buffer.depth.stored == len(found)

    live(path, scene)
    assert reopened(path)[1].after("gone") == "2:1"


def test_a_file_that_is_taken_from_its_place_is_written_there_again(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=PACKS)

    async def scene(buffer: Buffer) -> None:
        held = await buffer.take(10)
        for part in path.parent.glob("buffer.db*"):
            part.unlink()
        await asyncio.sleep(LOOK_EVERY_S)
        with capture_logs() as logs:
            buffer.put(pack(1, "later", epoch=buffer.epoch), 0.0)
            await buffer.barrier()
        assert any("taken from its place" in line["event"] for line in logs)
        assert contents(path) == [*sorted(all_packs(PACKS)), ("later", 2, 1)]
        for each in held:
            buffer.acknowledge(each)
        await buffer.barrier()
        assert buffer.depth.packs == buffer.depth.stored == PACKS - 9
        assert buffer.epoch == 2

    live(path, scene)
    assert len(contents(path)) == PACKS - 9
    assert reopened(path)[1].epoch == 3


def test_a_file_that_was_put_in_its_place_is_kept_beside_it(tmp_path: Path) -> None:
    path, other = tmp_path / "live" / "buffer.db", tmp_path / "other" / "buffer.db"
    fill(path, packs=PACKS)
    fill(other, packs=2 * PACKS, closed=True)

    async def scene(buffer: Buffer) -> None:
        other.replace(path)
        await asyncio.sleep(LOOK_EVERY_S)
        with capture_logs():
            buffer.put(pack(1, "later", epoch=buffer.epoch), 0.0)
            await buffer.barrier()
        assert buffer.depth.packs == buffer.depth.stored == PACKS + 1
        assert buffer.mended is None

    live(path, scene)
    assert set(contents(path)) == all_packs(PACKS) | {("later", 2, 1)}
    assert len(list(Salvage(path.parent / "buffer.db.damaged-1" / path.name))) == 2 * PACKS


def test_what_was_lost_before_is_told_after_a_mending_too(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    cap = WAL_BYTES + 512 * 1024

    async def before(buffer: Buffer) -> None:
        for n in range(1, 301):
            buffer.put(pack(n, size=3000), 0.0)
            if n % 10 == 0:
                await buffer.barrier()
        assert buffer.depth.dropped > 100

    async def after(buffer: Buffer) -> None:
        batch, losses = await buffer.losses()
        ((packs, first, last),) = ((loss.packs, loss.first, loss.last) for loss in losses)
        assert (first, last) == (1, packs)
        zero_a_leaf(path)
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.wait_for(buffer.take(50), 10)
        assert buffer.mended is not None
        assert await buffer.losses() == (batch, losses)
        await buffer.told(batch)
        assert (await buffer.losses())[1] == []

    live(path, before, max_bytes=cap)
    live(path, after, max_bytes=cap)


def test_a_full_file_of_large_packs_has_room_for_them_when_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    cap = WAL_BYTES + 4 * 1024 * 1024
    there: set[Key] = set()

    async def before(buffer: Buffer) -> None:
        n = 0
        while not buffer.depth.dropped:
            n += 1
            buffer.put(pack(n, size=60_000), 0.0)
            await buffer.barrier()

    async def after(buffer: Buffer) -> None:
        assert buffer.mended is not None
        assert buffer.depth.packs == buffer.mended.packs >= len(there) - 1
        assert (await buffer.losses())[1] == []

    live(path, before, max_bytes=cap)
    there.update(contents(path))
    zero_page_1(path)
    live(path, after, max_bytes=cap)


@pytest.mark.parametrize("level", [FRESH, SET_ASIDE])
@pytest.mark.parametrize("stands", ["waits", "is out", "is refused"])
def test_a_pack_of_the_journal_counts_once_where_its_row_is_seen_late(tmp_path: Path, level: int, stands: str) -> None:
    path, kept = tmp_path / "live" / "buffer.db", tmp_path / "kept"
    file = PackFile(path, ROOMY)
    file.open("boot")
    file.write([Row(number_of(1, 1), pack(1), level), Row(number_of(1, 2), pack(2))], ())
    file.close()
    path.parent.rename(kept)
    path.parent.write_text("in its place")

    async def scene(buffer: Buffer) -> None:
        await buffer.restore(Left(packs={number_of(1, 1): pack(1)}), lambda _: 1.0)
        out = await buffer.take(1) if stands != "waits" else []
        if stands == "is refused":
            buffer.set_aside(out[0], SET_ASIDE)
        assert buffer.depth.stored == 0
        path.parent.unlink()
        kept.rename(path.parent)
        buffer.put(pack(1, "later", epoch=buffer.epoch), 1.0)
        await asyncio.sleep(2 * RETRY_S)
        waiting = 2 if stands == "is refused" else 3
        assert (buffer.depth.packs, buffer.depth.stored, buffer.depth.readings) == (waiting, waiting, 10 * waiting)
        assert buffer.depth.set_aside == (stands == "is refused")
        out = out if stands == "is out" else []
        while len(out) < waiting:
            out += await asyncio.wait_for(buffer.take(9), 10)
        for each in out:
            buffer.acknowledge(each)
        await buffer.barrier()
        assert (buffer.depth.packs, buffer.depth.stored, buffer.depth.readings) == (0, 0, 0)

    with capture_logs():
        live(path, scene)
    assert contents(path) == []


def test_damage_that_two_find_at_once_is_mended_once(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=2000, closed=True)

    async def scene(buffer: Buffer) -> None:
        for page in leaves(path)[300:600:20]:
            overwrite(path, page, bytes(PAGE_BYTES))
        found: list[Key] = []

        async def take() -> None:
            with contextlib.suppress(TimeoutError):
                while True:
                    found.extend(key(held.pack) for held in await asyncio.wait_for(buffer.take(50), 60))

        with capture_logs():
            await asyncio.gather(take(), buffer.verify(), buffer.verify())
        assert 1800 < len(found) == len(set(found))
        assert [part.name for part in path.parent.glob("buffer.db.damaged-*")] == ["buffer.db.damaged-1"]

    live(path, scene, job_s=0.2)


def with_a_loss(path: Path) -> tuple[PackFile, Loss]:
    """Open a file that has a pack, and tells that three before it were lost."""
    loss = Loss("air", 1, "evicted", 3, 30, 1, 3, 0, 0)
    file = PackFile(path, ROOMY)
    file.open("boot")
    file.write([Row(number_of(1, 4), pack(4))], (), [loss])
    return file, loss


def test_what_was_told_before_is_not_told_again_after_a_mending(tmp_path: Path) -> None:
    file, loss = with_a_loss(tmp_path / "live" / "buffer.db")
    file.close()
    with no_file_grows_beyond(0), pytest.raises((SqlError, OSError)):
        file.open("boot")  # it has read what was lost when it fails
    file.open("boot")
    file.open("boot", damage="it is")
    batch, losses = file.losses()
    assert losses == [loss]
    file.told(batch)
    file.open("boot", damage="it is")
    assert file.losses()[1] == []
    file.close()


def test_what_was_lost_before_is_told_though_the_mending_cannot_begin_at_once(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    file, loss = with_a_loss(path)
    in_the_way = path.with_name("buffer.db.mending")
    in_the_way.touch()
    with pytest.raises(OSError, match="mending"):
        file.open("boot", damage="it is")
    in_the_way.unlink()
    assert file.open("boot", damage="it is").packs == 1
    assert file.losses()[1] == [loss]
    file.close()


def test_a_note_in_the_folder_for_mending_is_no_file_that_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=PACKS, closed=True)
    (moved(path) / "note").write_text("somebody's")
    zero_page_1(path)
    found, _ = reopened(path)
    assert found == sorted(all_packs(PACKS))
    assert (path.parent / "buffer.db.damaged-1" / "note").exists()


def test_a_file_stays_in_trouble_until_it_is_in_its_place_again(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=PACKS)

    async def scene(buffer: Buffer) -> None:
        path.unlink()
        await asyncio.sleep(LOOK_EVERY_S)
        with no_file_grows_beyond(20_000), capture_logs():
            for n in range(1, 31):
                buffer.put(pack(n, "later", epoch=buffer.epoch), 0.0)
                await asyncio.sleep(RETRY_S)
                assert buffer.trouble
        await asyncio.sleep(2 * RETRY_S)
        assert buffer.trouble == ""
        assert buffer.depth.packs == buffer.depth.stored == PACKS + 30
        assert sorted(part.suffix for part in path.parent.iterdir()) == [".ballast", ".db", ".db-wal", ".epoch"]

    live(path, scene)
    assert len(contents(path)) == PACKS + 30


@pytest.mark.parametrize("highest", [LAST_EPOCH - 1, LAST_EPOCH, LAST_EPOCH + 1, 10**30])
def test_no_number_of_a_run_is_too_large_to_start_with(tmp_path: Path, highest: int) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=PACKS, closed=True)
    path.with_name("buffer.db.epoch").write_text(str(highest))
    for _ in range(2):
        found, buffer = reopened(path)
        assert all_packs(PACKS) <= set(found)
        assert buffer.mended is None
        assert buffer.epoch == (LAST_EPOCH if highest <= LAST_EPOCH else buffer.epoch)

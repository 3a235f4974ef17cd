"""Whatever is in the file, the buffer starts, and every pack that is sound is there."""

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.store.buffer import Buffer
from gateway.store.frame import number_of
from gateway.store.journal import Journal, Left
from gateway.store.level import HISTORY
from gateway.store.pack_file import PackFile
from gateway.store.pack_mend import KEPT
from gateway.store.pack_raw import Raw, Salvage
from gateway.store.pack_sql import Row
from hil.vclock import run
from tests.store.buffer_bench import PAGE_BYTES, ROOMY, Key, key, live, pack

PACKS = 300


def fill(path: Path, *, packs: int = PACKS, closed: bool = False) -> None:
    """Make a file with packs in it as a killed gateway leaves it: with its log; or as a closed one, without."""

    async def scene(buffer: Buffer) -> None:
        for n in range(1, packs + 1):
            buffer.put(pack(n, size=200 + 37 * n % 3000), 10.0)
            if n % 5 == 0:
                await buffer.barrier()
        if not closed:
            shutil.copytree(path.parent, path.parent.with_name("as-killed"))

    live(path, scene)
    if not closed:
        shutil.rmtree(path.parent)
        path.parent.with_name("as-killed").rename(path.parent)


def reopened(path: Path) -> tuple[list[Key], Buffer]:
    """Open the file as the next gateway does; return the packs in it, with right bytes, in order."""
    found: list[Key] = []
    buffers: list[Buffer] = []

    async def scene(buffer: Buffer) -> None:
        buffers.append(buffer)
        while len(found) < buffer.depth.packs:
            for held in await asyncio.wait_for(buffer.take(50), 1):
                dataset, epoch, n = key(held.pack)
                assert held.pack.blob == pack(n, dataset, epoch=epoch, size=len(held.pack.blob)).blob
                found.append((dataset, epoch, n))
        buffer.put(pack(1, "after", epoch=buffer.epoch), 10.0)
        await buffer.barrier()  # it works as any other
        assert buffer.trouble == ""

    live(path, scene)
    return sorted(found), buffers[0]


def all_packs(packs: int = PACKS) -> set[Key]:
    return {("air", 1, n) for n in range(1, packs + 1)}


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def leaves(path: Path) -> list[int]:
    """Name the leaf pages that hold packs."""
    pages = path.read_bytes()
    return [
        at for at in range(0, len(pages), PAGE_BYTES) if pages[at] == 0x0D and b"PLG1" in pages[at : at + PAGE_BYTES]
    ]


def last_place(path: Path, data: bytes) -> int:
    return path.read_bytes().rindex(data)


def zero_page_1(path: Path) -> None:
    overwrite(path, 0, bytes(PAGE_BYTES))


def zero_a_leaf(path: Path) -> None:
    overwrite(path, leaves(path)[len(leaves(path)) // 2], bytes(PAGE_BYTES))


def zero_the_root(path: Path) -> None:
    with sqlite3.connect(path) as sql:
        (root,) = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'pack'").fetchone()
    sql.close()
    overwrite(path, (root - 1) * PAGE_BYTES, bytes(PAGE_BYTES))


def flip_a_byte(path: Path) -> None:
    at = path.read_bytes().index(b"....................")  # inside a payload
    overwrite(path, at + 10, b"!")


def garbage(path: Path) -> None:
    overwrite(path, 0, b"this is no database, whatever it says of itself " * 100)


def other_version(path: Path) -> None:
    overwrite(path, 60, (99).to_bytes(4, "big"))  # PRAGMA user_version


def another_program(path: Path) -> None:
    overwrite(path, 68, (7).to_bytes(4, "big"))  # PRAGMA application_id


@pytest.mark.parametrize(
    ("damage", "most_lost"),
    [
        (zero_page_1, 0),
        (zero_the_root, 0),
        (zero_a_leaf, 5),
        (flip_a_byte, 1),
        (other_version, 0),
        (another_program, 0),
        (garbage, 40),
    ],
)
def test_every_pack_that_is_sound_comes_out_of_a_damaged_file(
    tmp_path: Path, damage: Callable[[Path], None], most_lost: int
) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, closed=True)
    damage(path)
    found, buffer = reopened(path)
    assert len(found) == len(set(found))
    assert set(found) <= all_packs()
    assert PACKS - most_lost <= len(found) <= PACKS - (most_lost == 1)
    assert buffer.epoch == 2
    if damage is not flip_a_byte:
        assert buffer.mended is not None
        assert buffer.mended.packs == len(found)


def test_a_file_that_was_cut_short_gives_what_is_left_of_it(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=2000, closed=True)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size * 6 // 10)
    found, buffer = reopened(path)
    assert 0.5 * 2000 < len(found) < 0.7 * 2000
    assert buffer.epoch == 2


def test_a_file_whose_free_pages_were_cut_off_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"

    async def scene(buffer: Buffer) -> None:
        for n in range(1, 1001):
            buffer.put(pack(n, size=2000), 10.0)
        await buffer.barrier()
        for held in await buffer.take(950):
            buffer.acknowledge(held)
        await buffer.barrier()

    live(path, scene)
    for tenth in range(1, 10):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size * tenth // 10 or 1)
        found, _ = reopened(path)
        assert set(found) <= {("air", 1, n) for n in range(1, 1001)} | {("after", e, 1) for e in range(20)}


@pytest.mark.parametrize("what", ["empty", "gone", "a folder"])
def test_a_lost_file_is_made_anew_and_its_epochs_go_on(tmp_path: Path, what: str) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, closed=True)
    path.unlink()
    if what == "empty":
        path.touch()
    elif what == "a folder":
        path.mkdir()
        (path / "precious").write_text("somebody's")
    found, buffer = reopened(path)
    assert found == []
    assert buffer.epoch == 2  # not 1: a receiver would take what comes for copies of what it has
    assert buffer.mended is not None
    if what == "a folder":
        assert (Path(buffer.mended.aside) / "buffer.db" / "precious").read_text() == "somebody's"


@pytest.mark.parametrize("how", ["flipped byte", "garbage frame", "head zeroed"])
def test_what_sqlite_drops_from_a_damaged_log_without_a_word_is_taken_over(tmp_path: Path, how: str) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=100)  # all of it is in the log, nothing in the database yet
    log = Path(f"{path}-wal")
    before = {found.number for found in Salvage(path)}
    assert len(before) == 100
    at = log.read_bytes().index(b"air/1/50 ")
    if how == "flipped byte":
        overwrite(log, at + 10, b"!")
    elif how == "garbage frame":
        overwrite(log, (at - 32) // (24 + PAGE_BYTES) * (24 + PAGE_BYTES) + 32, bytes(range(256)) * 2 + bytes(24))
    else:
        overwrite(log, 0, bytes(32))
    found, buffer = reopened(path)
    assert len(found) >= 97
    assert buffer.mended is not None
    assert buffer.mended.packs >= 40


def test_what_was_taken_over_from_a_log_is_not_taken_over_again(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=100)
    overwrite(Path(f"{path}-wal"), 32 + 20 * (24 + PAGE_BYTES) + 100, b"not this")

    def as_killed(scene: Callable[[Buffer], Awaitable[None]]) -> None:
        """Play a scene and leave the files as a killed gateway does."""
        copy = tmp_path / "copy"

        async def and_copy(buffer: Buffer) -> None:
            await scene(buffer)
            shutil.copytree(path.parent, copy)

        live(path, and_copy)
        shutil.rmtree(path.parent)
        copy.rename(path.parent)

    async def drained(buffer: Buffer) -> None:
        assert buffer.mended is not None
        while buffer.depth.packs:
            for held in await asyncio.wait_for(buffer.take(50), 1):
                buffer.acknowledge(held)
        await buffer.barrier()

    async def nothing_left(buffer: Buffer) -> None:
        assert buffer.mended is None
        assert buffer.depth.packs == 0

    as_killed(drained)
    as_killed(nothing_left)
    as_killed(nothing_left)


def test_a_page_that_cannot_be_read_is_one_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=1000, closed=True)
    with Raw(path) as raw:
        packs = raw.packs()
        next(packs)
        os.truncate(path, 100 * PAGE_BYTES)
        assert 10 < len(list(packs)) < 900


def test_a_sound_file_is_not_mended(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path)
    found, buffer = reopened(path)
    assert set(found) == all_packs()
    assert buffer.mended is None


def test_packs_that_have_left_do_not_come_back_from_free_pages(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"

    async def scene(buffer: Buffer) -> None:
        for n in range(1, 201):
            buffer.put(pack(n, size=2000), 10.0)
        await buffer.barrier()
        for held in await buffer.take(150):
            buffer.acknowledge(held)
        buffer.put(pack(201), 10.0)
        await buffer.barrier()

    live(path, scene)
    assert sorted(found.pack.n for found in Salvage(path)) == list(range(151, 202))


def test_damage_that_shows_while_it_runs_is_mended_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=2000, closed=True)  # more than SQLite keeps in its cache

    async def scene(buffer: Buffer) -> None:
        first = await buffer.take(10)
        zero_a_leaf(path)  # the flash forgets, and the page is not in SQLite's cache
        found = [key(held.pack) for held in first]
        while len(found) < buffer.depth.packs:
            found += [key(held.pack) for held in await asyncio.wait_for(buffer.take(50), 1)]
        assert len(found) == len(set(found)) >= 2000 - 5
        assert buffer.mended is not None
        for held in first:
            buffer.acknowledge(held)
        buffer.put(pack(1, "after", epoch=buffer.epoch), 10.0)
        await buffer.barrier()
        assert buffer.depth.stored == buffer.depth.packs

    live(path, scene)


def test_what_waits_no_more_is_not_taken_for_waiting_after_a_mending(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=2000, closed=True)
    file = PackFile(path, ROOMY, history=True)
    file.open("boot")
    file.write([Row(number_of(2, n), pack(n, "old", epoch=2), level) for n, level in ((1, HISTORY), (2, -0x99))], ())
    file.close()

    async def scene(buffer: Buffer) -> None:
        zero_a_leaf(path)
        found: list[Key] = []
        while len(found) < buffer.depth.packs:
            found += [key(held.pack) for held in await asyncio.wait_for(buffer.take(50), 1)]
        assert buffer.mended is not None
        assert {dataset for dataset, _, _ in found} == {"air"}
        await buffer.barrier()
        assert (buffer.depth.stored, buffer.depth.set_aside) == (len(found), 1)

    live(path, scene, forget_before=lambda: 0)


def test_damaged_files_are_kept_but_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=10, closed=True)
    for _ in range(KEPT + 2):
        zero_page_1(path)
        found, _ = reopened(path)
        assert all_packs(10) <= set(found)
    assert len(list(path.parent.glob("buffer.db.damaged-*"))) == KEPT


def test_a_file_that_cannot_be_opened_is_tried_again_and_packs_stay_in_memory_until_then(tmp_path: Path) -> None:
    (tmp_path / "polegate").write_text("a file where the folder should be")
    path = tmp_path / "polegate" / "buffer.db"

    async def scene(buffer: Buffer) -> None:
        assert "cannot be opened" in buffer.trouble
        for n in range(1, 11):
            buffer.put(pack(n, epoch=buffer.epoch), 1.0)
            await asyncio.sleep(1)
        assert (buffer.depth.packs, buffer.depth.stored) == (10, 0)
        (tmp_path / "polegate").unlink()
        await asyncio.sleep(10)
        assert buffer.trouble == ""
        assert (buffer.depth.packs, buffer.depth.stored) == (10, 10)

    live(path, scene)


def test_a_gateway_that_could_not_read_its_file_has_an_epoch_that_never_comes_twice(tmp_path: Path) -> None:
    (tmp_path / "polegate").write_text("a file where the folder should be")
    epochs = set()

    async def scene(buffer: Buffer) -> None:
        epochs.add(buffer.epoch)

    for _ in range(3):
        live(tmp_path / "polegate" / "buffer.db", scene)
    assert len(epochs) == 3
    assert min(epochs) > 1_000_000


def test_the_cap_holds_for_what_is_salvaged(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    fill(path, packs=2000, closed=True)
    zero_page_1(path)

    async def scene(buffer: Buffer) -> None:
        assert path.stat().st_size <= 3 * 1024 * 1024
        assert buffer.depth.packs < 2000

    assert ROOMY > 4 * 1024 * 1024
    live(path, scene, max_bytes=4 * 1024 * 1024)


def test_what_a_torn_commit_had_of_some_packs_does_not_hide_the_others_from_the_journal(tmp_path: Path) -> None:
    path, copy = tmp_path / "live" / "buffer.db", tmp_path / "copy" / "buffer.db"

    async def opened(at: Path, ram: str) -> tuple[Buffer, Left]:
        journal = Journal(Path(ram), "boot")
        buffer = Buffer(at, ROOMY, journal=journal)
        await buffer.open("boot", 0, 0)
        left = journal.open()
        await buffer.restore(left, lambda _: 10.0)
        return buffer, left

    async def main(ram: str) -> None:
        buffer, _ = await opened(path, ram)
        for n in range(1, 7):
            buffer.put(pack(n, size=2000), 10.0)
        unsettled = (Path(ram) / "journal").read_bytes()
        await buffer.barrier()
        shutil.copytree(path.parent, copy.parent)
        await buffer.close()
        log = Path(f"{copy}-wal")
        overwrite(log, last_place(log, b"air/1/3 "), bytes(8))
        (Path(ram) / "journal").write_bytes(unsettled)
        again, left = await opened(copy, ram)
        assert len(left.packs) == 6
        assert again.depth.packs == 6
        found: list[int] = []
        while len(found) < 6:
            found += [held.pack.n for held in await asyncio.wait_for(again.take(6), 1)]
        assert sorted(found) == list(range(1, 7))
        await again.close()

    with tempfile.TemporaryDirectory(dir="/dev/shm") as ram:  # a RAM file system
        run(main(ram))

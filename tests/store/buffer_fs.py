"""Scenes on a file system of their own: ``unshare --mount python -m tests.store.buffer_fs SCENE FOLDER RAM``.

They run in a process of their own, because what is mounted there is mounted for it alone.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.store.buffer import Buffer
from gateway.store.journal import Journal
from gateway.store.pack_disk import LOOK_EVERY_S
from gateway.store.pack_outgoing import RETRY_S
from gateway.store.pack_space import BALLAST_BYTES
from hil.vclock import run
from tests.store.buffer_bench import ROOMY, pack
from tests.store.test_buffer_mend import zero_a_leaf, zero_page_1

SIZE = 12 * 1024 * 1024
HOG = "hog"


def mount(folder: Path, *options: str) -> None:
    """Mount a file system in RAM, or change how it is mounted."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join((f"size={SIZE}", *options)), "tmpfs", folder], check=True)  # noqa: S603, S607


def parts(folder: Path) -> list[Path]:
    """Name the files in a folder."""
    return list(folder.iterdir())


async def opened(folder: Path, ram: Path) -> tuple[Buffer, asyncio.Task[None]]:
    """Open a buffer as the gateway does."""
    journal = Journal(ram, "boot")
    buffer = Buffer(folder / "buffer.db", ROOMY, journal=journal)
    await buffer.open("boot", 0, 0)
    await buffer.restore(journal.open(), lambda _: 1.0)
    return buffer, asyncio.create_task(buffer.run())


async def drained(buffer: Buffer, *, acknowledge: bool = True) -> list[int]:
    """Take all there is."""
    found: list[int] = []
    while buffer.depth.packs > (0 if acknowledge else len(found)):
        for held in await asyncio.wait_for(buffer.take(20), 10):
            found.append(held.pack.n)
            if acknowledge:
                buffer.acknowledge(held)
    return sorted(found)


def fill_up(folder: Path) -> None:
    """Have another program take all that is free."""
    with (folder / HOG).open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


async def filled(folder: Path, ram: Path, packs: int, *, killed: bool = True) -> None:
    """Have a gateway store packs, and be killed or end in order."""
    buffer, running = await opened(folder, ram)
    for n in range(1, packs + 1):
        buffer.put(pack(n, size=1000), 1.0)
    await buffer.barrier()
    running.cancel()
    as_killed = {part: part.read_bytes() for part in parts(folder) if killed}
    await buffer.close()
    for part, content in as_killed.items():
        part.write_bytes(content)


async def comes(buffer: Buffer, numbers: range) -> AsyncIterator[int]:
    """Have a pack come every ten seconds; give the number of each when it is due."""
    for n in numbers:
        buffer.put(pack(n, "later", epoch=buffer.epoch), 1.0)
        await asyncio.sleep(10)
        yield n


def set_aside(folder: Path) -> list[str]:
    """Name what was damaged."""
    return [part.name for part in folder.glob("buffer.db.damaged-*")]


async def full(folder: Path, ram: Path) -> None:
    """Another program fills the disk: the ballast goes, the oldest give way, nothing stops; then there is room."""
    mount(folder)
    buffer, running = await opened(folder, ram)
    ballast = folder / "buffer.db.ballast"
    assert ballast.stat().st_size == BALLAST_BYTES
    fill_up(folder)
    count = 600
    for n in range(1, count + 1):
        buffer.put(pack(n, size=6000), 1.0)
        await asyncio.sleep(1)
    await asyncio.sleep(2 * RETRY_S)
    assert not ballast.exists()
    assert buffer.trouble == ""
    assert buffer.depth.dropped > 0
    assert buffer.depth.stored == buffer.depth.packs == count - buffer.depth.dropped
    _, losses = await buffer.losses()
    assert sum(loss.packs for loss in losses) == buffer.depth.dropped
    (folder / HOG).unlink()
    dropped = buffer.depth.dropped
    for n in range(count + 1, count + 101):
        buffer.put(pack(n, size=6000), 1.0)
        await asyncio.sleep(1)
    await asyncio.sleep(2)
    assert ballast.exists()
    assert buffer.depth.dropped - dropped < 20  # until the ballast was back
    running.cancel()
    found = await drained(buffer)
    assert found == list(range(buffer.depth.dropped + 1, count + 101))
    await buffer.close()


async def read_only(folder: Path, ram: Path) -> None:
    """The file may only be read: it is drained, new packs stay in RAM, and a later start takes them over."""
    mount(folder)
    await filled(folder, ram, 100)
    mount(folder, "remount", "ro")

    buffer, running = await opened(folder, ram)
    assert "cannot be opened" in buffer.trouble
    assert buffer.epoch > 1_000_000
    assert buffer.depth.packs == 100
    for n in range(1, 11):
        buffer.put(pack(n, "later", epoch=buffer.epoch), 1.0)
        await asyncio.sleep(1)
    held = await buffer.take(60)
    for each in held:
        buffer.acknowledge(each)
    await asyncio.sleep(120)
    assert "cannot be opened" in buffer.trouble
    assert buffer.depth.packs == 50
    running.cancel()
    await buffer.close()

    mount(folder, "remount", "rw")
    buffer, running = await opened(folder, ram)
    assert buffer.trouble == ""
    later = [n for n in await drained(buffer) if n <= 10]
    assert len(later) >= 10, "what came while the file could only be read"
    assert [part.name for part in parts(ram)] == ["journal"]
    running.cancel()
    await buffer.close()


async def read_only_for_a_while(folder: Path, ram: Path) -> None:
    """The file may only be read at several starts, then it can be written again while the gateway runs."""
    mount(folder)
    await filled(folder, ram, 100)
    mount(folder, "remount", "ro")
    epochs = []
    for _ in range(8):
        buffer, running = await opened(folder, ram)
        running.cancel()
        epochs.append(buffer.epoch)
        buffer.put(pack(1, "first", epoch=buffer.epoch), 1.0)
        await buffer.close()

    buffer, running = await opened(folder, ram)
    assert sorted(epochs) == epochs
    assert epochs[-1] < buffer.epoch
    assert buffer.after("first") == f"{epochs[-1]}:1"
    held = await buffer.take(60)
    for each in held[:50]:
        buffer.acknowledge(each)
    buffer.put(pack(1, "second", epoch=buffer.epoch), 1.0)
    await asyncio.sleep(2)
    assert "cannot be opened" in buffer.trouble
    mount(folder, "remount", "rw")
    assert [n async for n in comes(buffer, range(2, 16))]
    assert buffer.trouble == ""
    assert [part.name for part in parts(ram)] == ["journal"]
    for each in held[50:]:
        buffer.acknowledge(each)
    running.cancel()
    found = await drained(buffer)
    assert set(range(61, 101)) <= set(found), "what the file has"
    assert len([n for n in found if n == 1]) >= 2, "what came while it could only be read"
    assert set(range(2, 16)) <= set(found), "what came later"
    await buffer.close()
    third, running = await opened(folder, ram)
    running.cancel()
    assert third.epoch > buffer.epoch
    await third.close()


async def damaged_and_read_only(folder: Path, ram: Path) -> None:
    """The file is damaged and may only be read: a copy is mended, later the file itself, with what came meanwhile."""
    mount(folder)
    await filled(folder, ram, 2000, killed=False)
    zero_a_leaf(folder / "buffer.db")
    mount(folder, "remount", "ro")
    buffer, running = await opened(folder, ram)
    found = 0
    with contextlib.suppress(TimeoutError):
        while True:
            found += len(await asyncio.wait_for(buffer.take(50), RETRY_S))
    assert found == buffer.depth.packs >= 1990
    assert any(part.is_dir() for part in parts(ram)), "the damaged copy"
    mount(folder, "remount", "rw")
    assert [n async for n in comes(buffer, range(1, 16))]
    assert buffer.trouble == ""
    assert [part.name for part in parts(ram)] == ["journal"]
    assert set_aside(folder) == ["buffer.db.damaged-1"]
    assert buffer.depth.packs == buffer.depth.stored == found + 15
    running.cancel()
    await buffer.close()


async def read_only_then_full(folder: Path, ram: Path) -> None:
    """Where the file can be written again it has no room for what the copy has: that is kept until it has."""
    mount(folder)
    await filled(folder, ram, 100)
    mount(folder, "remount", "ro")
    buffer, running = await opened(folder, ram)
    for n in range(1, 6001):
        buffer.put(pack(n, "later", size=1000, epoch=buffer.epoch), 1.0)
    await buffer.barrier()
    mount(folder, "remount", "rw")
    fill_up(folder)
    async for n in comes(buffer, range(6001, 6031)):
        assert buffer.trouble
        assert buffer.depth.packs == n + 100
    (folder / HOG).unlink()
    await asyncio.sleep(2 * LOOK_EVERY_S)
    buffer.put(pack(6031, "later", epoch=buffer.epoch), 1.0)
    await asyncio.sleep(2)
    assert buffer.trouble == ""
    assert buffer.depth.packs == buffer.depth.stored == 6131
    assert [part.name for part in parts(ram)] == ["journal"]
    running.cancel()
    await buffer.close()


async def full_at_start(folder: Path, ram: Path) -> None:
    """The disk is full when the gateway starts: the ballast makes room, and the file is used as it is."""
    mount(folder)
    await filled(folder, ram, 300)
    fill_up(folder)
    buffer, running = await opened(folder, ram)
    assert buffer.trouble == ""
    assert buffer.epoch < 10
    assert not (folder / "buffer.db.ballast").exists()
    assert buffer.depth.packs == 300
    fill_up(folder)
    for n in range(301, 1001):
        buffer.put(pack(n, size=1000), 1.0)
        await asyncio.sleep(1)
    await asyncio.sleep(2 * RETRY_S)
    assert buffer.trouble == ""
    assert buffer.depth.dropped > 0
    assert buffer.depth.stored == buffer.depth.packs == 1000 - buffer.depth.dropped
    running.cancel()
    assert await drained(buffer) == list(range(buffer.depth.dropped + 1, 1001))
    await buffer.close()


async def full_and_damaged(folder: Path, ram: Path) -> None:
    """The file is damaged and the disk is full: nothing is given up, and it is mended when there is room."""
    mount(folder)
    await filled(folder, ram, 4000, killed=False)
    zero_page_1(folder / "buffer.db")
    fill_up(folder)
    with (folder / HOG).open("r+b") as file:
        file.truncate((folder / HOG).stat().st_size - 2_600_000)  # so that a new one can be begun
    buffer, running = await opened(folder, ram)
    assert buffer.depth.packs == 0
    for n in range(1, 21):
        buffer.put(pack(n, "later", epoch=buffer.epoch), 1.0)
        await asyncio.sleep(RETRY_S)
        assert buffer.trouble
        assert set_aside(folder) == []
    fill_up(folder)
    (folder / HOG).unlink()
    await asyncio.sleep(2 * RETRY_S)
    assert buffer.trouble == ""
    assert set_aside(folder) == ["buffer.db.damaged-1"]
    assert buffer.depth.packs == buffer.depth.stored == 4020
    running.cancel()
    assert await drained(buffer) == sorted([*range(1, 4001), *range(1, 21)])
    await buffer.close()


async def damaged_while_full(folder: Path, ram: Path) -> None:
    """Damage shows while the disk is full: the file is mended when there is room, while the gateway runs."""
    mount(folder)
    buffer, running = await opened(folder, ram)
    for n in range(1, 2001):
        buffer.put(pack(n, size=1000), 1.0)
    await buffer.barrier()
    first = await buffer.take(10)
    (folder / "buffer.db.ballast").unlink()
    fill_up(folder)
    zero_a_leaf(folder / "buffer.db")
    found = [held.pack.n for held in first]
    with contextlib.suppress(TimeoutError):
        while True:
            found += [held.pack.n for held in await asyncio.wait_for(buffer.take(50), 3 * RETRY_S)]
    assert 100 < len(found) < 1990
    buffer.put(pack(1, "later", epoch=buffer.epoch), 1.0)
    await asyncio.sleep(2 * RETRY_S)
    assert buffer.trouble
    (folder / HOG).unlink()
    await asyncio.sleep(2 * RETRY_S)
    assert buffer.trouble == ""
    assert buffer.mended is not None
    while len(found) < buffer.depth.packs:
        found += [held.pack.n for held in await asyncio.wait_for(buffer.take(50), 10)]
    assert len(set(range(1, 2001)) - set(found)) <= 10, "what lay in the page"
    assert len(found) == len(set(found)) + 1, "each once; the first of the other dataset"
    assert buffer.depth.stored == buffer.depth.packs
    running.cancel()
    await buffer.close()


SCENES = {
    "full": full,
    "full-at-start": full_at_start,
    "full-and-damaged": full_and_damaged,
    "damaged-while-full": damaged_while_full,
    "read-only": read_only,
    "read-only-for-a-while": read_only_for_a_while,
    "read-only-then-full": read_only_then_full,
    "damaged-and-read-only": damaged_and_read_only,
}

if __name__ == "__main__":
    run(SCENES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3])))

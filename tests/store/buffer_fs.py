"""Scenes on a file system of their own: ``unshare --mount python -m tests.store.buffer_fs SCENE FOLDER RAM``.

They run in a process of their own, because what is mounted there is mounted for it alone.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from gateway.store.buffer import Buffer
from gateway.store.journal import Journal
from gateway.store.pack_outgoing import RETRY_S
from gateway.store.pack_space import BALLAST_BYTES
from hil.vclock import run
from tests.store.buffer_bench import ROOMY, pack

SIZE = 12 * 1024 * 1024


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


async def full(folder: Path, ram: Path) -> None:
    """Another program fills the disk: the ballast goes, the oldest give way, nothing stops; then there is room."""
    mount(folder)
    buffer, running = await opened(folder, ram)
    ballast = folder / "buffer.db.ballast"
    assert ballast.stat().st_size == BALLAST_BYTES
    hog = folder / "hog"
    with hog.open("wb") as file:
        try:
            while file.write(bytes(65_536)):
                file.flush()
        except OSError:
            pass
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
    hog.unlink()
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
    buffer, running = await opened(folder, ram)
    for n in range(1, 101):
        buffer.put(pack(n), 1.0)
    await buffer.barrier()
    running.cancel()
    as_killed = {part: part.read_bytes() for part in parts(folder)}
    await buffer.close()
    for part, content in as_killed.items():
        part.write_bytes(content)
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


if __name__ == "__main__":
    run({"full": full, "read-only": read_only}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3])))

"""One bit that the flash has changed, wherever it is in the file: the gateway starts, and goes on."""

import asyncio
import random
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.store.buffer import Buffer
from tests.store.buffer_bench import PAGE_BYTES, Key, key, live, pack

PACKS = 12
HIT = 5  # the pack whose row has the bit
HEAD_BYTES = 9  # of a row's record: how long it is, and the kinds of its columns


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a file with some packs, and its like in a folder of its own."""
    path = tmp_path_factory.mktemp("made") / "buffer.db"

    async def scene(buffer: Buffer) -> None:
        for n in range(1, PACKS + 1):
            buffer.put(pack(n, size=60 if n % 3 else 900), 10.0)
        await buffer.barrier()

    live(path, scene)
    return path


def flipped(made: Path, folder: Path, at: int, bit: int) -> Path:
    """Copy the files and flip a bit in the database."""
    path = shutil.copytree(made.parent, folder / f"{at}-{bit}") / made.name
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return path


def lived(path: Path) -> set[Key]:
    """Start twice, look at all, send all, commit; return what came the first time."""
    found: list[Key] = []

    async def scene(buffer: Buffer) -> None:
        buffer.put(pack(1, "new", epoch=buffer.epoch), 1.0)
        await buffer.barrier()
        await buffer.verify()
        for _ in range(3):  # what is found while it is read is mended, and read again
            while True:
                try:
                    held = await asyncio.wait_for(buffer.take(20), 10)
                except TimeoutError:
                    break
                for each in held:
                    found.append(key(each.pack))
                    buffer.acknowledge(each)
            await buffer.barrier()
        buffer.put(pack(2, "new", epoch=buffer.epoch), 1.0)
        await asyncio.sleep(10)
        assert buffer.trouble == ""
        assert (buffer.depth.packs, buffer.depth.stored) == (1, 1)

    with capture_logs():
        live(path, scene)
        first = set(found)
        live(path, scene)
    return first


def all_but_one() -> set[Key]:
    return {("air", 1, n) for n in range(1, PACKS + 1) if n != HIT}


@pytest.mark.parametrize("place", range(HEAD_BYTES))
def test_a_bit_in_the_head_of_a_row_costs_that_pack_at_the_most(made: Path, tmp_path: Path, place: int) -> None:
    data = made.read_bytes()
    at = data.rindex(b"air", 0, data.index(b"air/1/%d " % HIT) - 12 - 45) - 1 - place
    for bit in (place % 7, 7):
        assert all_but_one() <= lived(flipped(made, tmp_path, at, bit))


@pytest.mark.parametrize("seed", range(4))
def test_a_bit_in_the_small_tables_and_their_names_costs_nothing(made: Path, tmp_path: Path, seed: int) -> None:
    data = made.read_bytes()
    leaf = next(at for at in range(0, len(data), PAGE_BYTES) if data[at] == 0x0D and b"PLG1" in data[at:][:PAGE_BYTES])
    used = [at for at in range(leaf) if data[at]]
    assert any(b"CREATE TABLE" in data[at : at + 20] for at in used)
    dice = random.Random(seed)  # noqa: S311  # it must repeat itself
    for at in dice.sample(used, 6):
        found = lived(flipped(made, tmp_path, at, dice.randrange(8)))
        assert found == all_but_one() | {("air", 1, HIT)} | {each for each in found if each[0] == "new"}

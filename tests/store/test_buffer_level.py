"""How a pack stands is not changed by a flipped bit without anybody noticing."""

import asyncio
import itertools
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store.buffer import Buffer
from gateway.store.frame import number_of
from gateway.store.level import (
    FRESH,
    HISTORY,
    LOWEST,
    PLAIN,
    REFUSAL,
    SET_ASIDE,
    THINNEST,
    is_sound,
    level_in,
    level_of,
    stored,
)
from gateway.store.pack_file import PackFile
from gateway.store.pack_raw import Salvage
from gateway.store.pack_sql import Row
from tests.store.buffer_bench import ROOMY, WAL_BYTES, live, pack

LEVELS = (*range(FRESH, THINNEST + 1), HISTORY, SET_ASIDE, *range(LOWEST, -REFUSAL + 1))
CODED = [level for level in LEVELS if level not in PLAIN]
DEAD = -0x99
THINNED = FRESH + 3
PACKS = 12


def bits(level: int) -> int:
    return stored(level) & 0xFFFFFF


def test_levels_are_stored_six_bits_apart_and_read_as_they_were() -> None:
    assert [level_of(stored(level)) for level in LEVELS] == list(LEVELS)
    assert all(127 < abs(stored(level)) < 1 << 23 for level in CODED)  # in three bytes, where nothing else is
    assert min((bits(one) ^ bits(other)).bit_count() for one, other in itertools.combinations(CODED, 2)) == 6
    assert all((stored(level) >= 0) == (level >= 0) for level in LEVELS)  # by which older gateways read them


@pytest.mark.parametrize("found", [2, -2, -77, 127, stored(3) + 1, stored(LOWEST - 1), None, "", b"", 0.5])
def test_what_no_level_is_stored_as_waits(found: object) -> None:
    assert not is_sound(found)
    assert level_of(found) == FRESH


def test_levels_of_an_older_gateway_are_read_from_its_file() -> None:
    assert [level_in(level) for level in LEVELS] == list(LEVELS)
    assert [level_in(stored(level)) for level in LEVELS] == list(LEVELS)


def made(path: Path, *levels: int) -> None:
    """Make a file with packs of such levels, numbered from 1."""
    file = PackFile(path, ROOMY, history=True)
    file.open("boot", 0, 0)
    file.write([Row(number_of(1, n), pack(n), level) for n, level in enumerate(levels, 1)], ())
    file.close()


def flip(path: Path, n: int, bit: int) -> None:
    """Flip a bit in the level of a pack, which lies before its frame."""
    data = bytearray(path.read_bytes())
    at = data.index(b"air/1/%d " % n)
    at = data.rindex(b"PLG1", 0, at) - 1 - bit // 8
    data[at] ^= 1 << bit % 8
    path.write_bytes(data)


def sent(path: Path) -> list[int]:
    """Return what a gateway with this file sends, once it has looked at all that lies there."""
    found: list[int] = []

    async def scene(buffer: Buffer) -> None:
        await buffer.verify()
        while len(found) < buffer.depth.packs:
            found.extend(held.pack.n for held in await asyncio.wait_for(buffer.take(50), 1))
        assert buffer.depth.stored == len(found)
        assert buffer.depth.readings == 10 * len(found)
        await buffer.barrier()

    live(path, scene, forget_before=lambda: 0)
    return sorted(found)


@pytest.mark.parametrize("bit", range(24))
@pytest.mark.parametrize("level", [THINNED, DEAD])
def test_a_pack_whose_level_lost_a_bit_is_sent(tmp_path: Path, level: int, bit: int) -> None:
    path = tmp_path / "buffer.db"
    made(path, FRESH, level, DEAD, HISTORY)
    flip(path, 2, bit)
    assert sent(path) == [1, 2]
    assert {found.pack.n: found.level for found in Salvage(path)} == {1: FRESH, 2: FRESH, 3: DEAD, 4: HISTORY}


@pytest.mark.parametrize("bit", range(8))
def test_history_that_lost_a_bit_is_sent_once_more(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "buffer.db"
    made(path, FRESH, HISTORY, DEAD, HISTORY)
    flip(path, 2, bit)
    assert sent(path) == [1, 2]


def nothing(path: Path) -> None:
    del path


def sql(words: str) -> Callable[[Path], None]:
    """Return what changes rows behind the gateway's back."""

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(words)

    return change


@pytest.mark.parametrize(
    "damage",
    [nothing, sql("UPDATE pack SET level = -2 WHERE level = -1"), sql("UPDATE pack SET level = -1 WHERE level < -1")],
    ids=["none", "history becomes another", "dead becomes history"],
)
def test_room_is_made_though_other_levels_are_there_than_were_counted(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "buffer.db"
    made(path, *(level for level in (HISTORY, DEAD) for _ in range(PACKS)))
    damage(path)
    room = 128 * 1024
    file = PackFile(path, room + WAL_BYTES, history=True)
    file.open("boot", 0, 0)
    for n in range(1, 101):
        assert not file.write([Row(number_of(2, n), pack(n, epoch=2, size=3000))], ()).refused
    assert file.used_bytes() <= room
    file.close()


def test_a_file_of_a_gateway_that_stored_levels_as_they_are_is_adopted(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    levels = [FRESH, FRESH + 1, THINNED, HISTORY, SET_ASIDE, DEAD]
    made(path, *levels)
    with closing(sqlite3.connect(path)) as older, older:
        counts = []
        for n, level in enumerate(levels, 1):
            older.execute("UPDATE pack SET level = ? WHERE n = ?", (level, n))
            counts.append(f'"{level}":1')
        older.execute("UPDATE mark SET levels = ?", (f"{{{','.join(counts)}}}",))
    assert [found.level for found in sorted(Salvage(path), key=lambda found: found.number)] == levels
    file = PackFile(path, ROOMY, history=True)
    contents = file.open("boot", 0, 0)
    assert (contents.packs, contents.readings, contents.set_aside) == (3, 30, 2)
    assert [row.level for row in file.held("air", 1, 1, 9, 9)] == levels
    assert file.verify(0, 9)[2] is None
    file.close()

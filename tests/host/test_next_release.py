"""What a later release of polegate leaves behind, if it keeps to the rule of each format: this one goes on with it.

That is the way back from a release that is no good: its files are read by the one before.
"""

import contextlib
import json
import marshal
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.remote import override
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import LOCAL, Standing, State, Trial
from gateway.remote.override import Override
from gateway.remote.verdict import Code
from gateway.store.buffer import Buffer
from gateway.store.frame import number_of, seal
from gateway.store.journal import NAME, Journal
from gateway.words.reading import Reading
from tests.store.buffer_bench import live, pack
from tests.store.test_buffer_mend import PACKS, fill, overwrite, reopened

ADDED = """
ALTER TABLE pack ADD COLUMN later TEXT NOT NULL DEFAULT 'x';
ALTER TABLE epoch ADD COLUMN later INTEGER;
ALTER TABLE mark ADD COLUMN later REAL NOT NULL DEFAULT 0.5;
ALTER TABLE lost ADD COLUMN later BLOB;
CREATE TABLE later(id INTEGER PRIMARY KEY, what TEXT) STRICT;
CREATE INDEX by_time ON pack(taken);
"""
KNOWN = [("air", 1, n) for n in range(1, PACKS + 1)]
LATER = pack(1, "air", epoch=2)


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A buffer that the next release had: it added to the tables, and wrote a pack."""
    path = tmp_path / "live" / "buffer.db"
    fill(path)
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.executescript(ADDED)
        row = (number_of(2, 1), "air", 1, LATER.readings, LATER.taken, 0, seal(number_of(2, 1), LATER), "y")
        sql.execute("INSERT INTO epoch VALUES (2, 'boot', 0, NULL, 7)")
        sql.execute("INSERT INTO pack VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        levels = json.dumps({"0": PACKS + 1})
        readings = 10 * (PACKS + 1)
        sql.execute("UPDATE mark SET epoch = 2, n = 1, levels = ?, readings = ?", (levels, readings))
        sql.commit()
    return path


def test_the_buffer_of_the_next_release_is_drained_and_written_as_any_other(left: Path) -> None:
    found, buffer = reopened(left)
    assert found == [*KNOWN, ("air", 2, 1)]
    assert buffer.mended is None
    assert buffer.epoch == 3


def test_packs_give_way_and_losses_are_told_in_it(left: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 1001):
            buffer.put(pack(n, epoch=buffer.epoch, size=3000), 10.0)
            if n % 50 == 0:
                await buffer.barrier()
        assert buffer.trouble == ""
        assert buffer.mended is None
        _, losses = await buffer.losses()
        assert {(loss.dataset, loss.reason) for loss in losses} == {("air", "evicted")}

    live(left, scene, max_bytes=3 * 1024 * 1024)


def test_its_packs_are_taken_over_where_the_file_is_damaged(left: Path) -> None:
    overwrite(left, 0, b"no database at all")
    found, buffer = reopened(left)
    assert sorted(found) == [*KNOWN, ("air", 2, 1)]
    assert buffer.mended is not None
    assert buffer.mended.damaged == 0


@pytest.fixture
def ram() -> Iterator[Path]:
    """Give a folder in RAM."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # a RAM file system is what it is about
        yield Path(folder)


def test_its_journal_gives_what_is_known_here(ram: Path) -> None:
    first = Journal(ram, "boot")
    first.open()
    one = Reading("dust", "air", 1, {"pm10": 1.0})
    first.accept(one)
    body = marshal.dumps(("air", "dust", 2, {"pm10": 2.0}, "more", {"yet": 1}))
    with (ram / NAME).open("ab") as file:
        for kind, content in ((b"X", b"not known here"), (b"R", body), (b"Y", b"")):
            file.write(struct.pack(">cII", kind, len(content), zlib.crc32(kind + content)) + content)
    left = Journal(ram, "boot").open()
    assert left.readings == [one, Reading("dust", "air", 2, {"pm10": 2.0})]


def test_the_state_of_its_configuration_holds(tmp_path: Path) -> None:
    folder = ConfigFolder(tmp_path)
    trial = Trial(
        stream="fleet", epoch=1, seq=4, sha="d", boot="b", started=1, window_s=1, hold_s=1, upstream=True, sensors=[]
    )
    ended = Standing(seq=3, epoch=1, sha="a", fate=Code.RB_SENSORS, active="b", active_seq=2)
    state = State(floor=1, streams={LOCAL: Standing(sha="c"), "fleet": ended}, trial=trial)
    told = state.model_dump()
    for each in (told, told["trial"], *told["streams"].values()):
        each["later"] = {"what": 1}
    told["streams"]["fleet"]["fate"] = 399

    class Later(State):
        """Is written as the next release writes it."""

        def model_dump(self, **_: object) -> dict[str, object]:
            return told

    folder.save(Later())
    unknown = ended.but(fate=Code.RB_INCONCLUSIVE)
    assert ConfigFolder(tmp_path).load() == state.with_stream("fleet", unknown)


def test_its_overrides_hold() -> None:
    known = Override(key="a", value="1", why="w", boot="b", until_boottime=1.0, until=2.0)
    assert override.read(json.dumps([{**known.model_dump(), "later": 1}]).encode()) == [known]

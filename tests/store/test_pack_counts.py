"""What is noted of the rows, and what is counted at a start, make together what is there."""

import json
import random
import shutil
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.store.frame import number_of
from gateway.store.level import FRESH, HISTORY, SET_ASIDE
from gateway.store.pack_counts import NOTED_EVERY
from gateway.store.pack_file import PackFile
from gateway.store.pack_room import Terms
from gateway.store.pack_sql import Row, SqlError
from tests.store.buffer_bench import ROOMY, WAL_BYTES, no_file_grows_beyond, pack

DEAD = -0x99
SMALL = WAL_BYTES + 48 * 1024
TERMS = {"air": Terms(), "noise": Terms(5, "thin"), "light": Terms(7, "keep")}


class Noted(NamedTuple):
    """What the file says of a dataset: the (epoch, n) of its last pack, and how many rows wait."""

    epoch: int
    n: int
    waiting: int


def copied(path: Path) -> Path:
    """Copy a file that is in use, as a power cut would leave it."""
    copy = path.with_name("copy") / path.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    copy.parent.mkdir()
    for part in path.parent.glob(f"{path.name}*"):
        shutil.copy(part, copy.parent)
    return copy


def noted(path: Path) -> dict[str, Noted]:
    with closing(sqlite3.connect(copied(path))) as sql:
        rows = sql.execute("SELECT dataset, epoch, n, levels FROM mark").fetchall()
    found = {}
    for dataset, epoch, n, levels in rows:
        waiting = sum(number for level, number in json.loads(levels).items() if int(level) >= FRESH)
        found[dataset] = Noted(epoch, n, waiting)
    return found


def row(epoch: int, n: int, dataset: str = "air", level: int = FRESH) -> Row:
    return Row(number_of(epoch, n), pack(n, dataset, size=900, epoch=epoch, readings=n), level)


def test_commits_that_only_add_rows_are_noted_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    file = PackFile(path, ROOMY)
    file.open("boot")
    seen = []
    for n in range(1, 3 * NOTED_EVERY):
        file.write([row(1, n)], ())
        seen.append(noted(path)["air"])
    assert [n for n, at in enumerate(seen, 1) if at.n == at.waiting == n] == [1, NOTED_EVERY + 2, 2 * NOTED_EVERY + 3]
    file.write([row(1, n + 1)], [number_of(1, 1)])
    assert noted(path)["air"] == (1, n + 1, n)
    file.close()


def test_an_older_gateway_finds_some_noted_of_each_dataset_that_has_rows(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    file = PackFile(path, ROOMY)
    file.open("boot")
    for n, dataset in enumerate(("air", "air", "noise", "air", "light"), 1):
        file.write([row(1, n, dataset)], ())
        assert all(at.waiting for at in noted(path).values())
    assert set(noted(path)) == {"air", "noise", "light"}
    file.write([], [number_of(1, 3)])
    file.write([row(1, 6)], ())
    file.write([row(1, 7, "noise")], ())
    assert noted(path)["noise"] == (1, 7, 1)
    file.close()


def check(path: Path, last: dict[str, tuple[int, int]]) -> None:
    """A start with this file finds what is there, and where the packs end."""
    copy = copied(path)
    with closing(sqlite3.connect(copy)) as sql:
        rows = sql.execute("SELECT dataset, level, readings FROM pack").fetchall()
    there = Counter((dataset, level >= 0) for dataset, level, _ in rows)
    file = PackFile(copy, ROOMY, TERMS, history=True)
    contents = file.open("boot")
    file.close()
    assert contents.mended is None
    assert contents.marks == last
    assert contents.packs == sum(number for (_, waits), number in there.items() if waits)
    assert contents.readings == sum(readings for _, level, readings in rows if level >= 0)
    assert contents.set_aside == sum(level < HISTORY for _, level, _ in rows)
    assert contents.waiting == {dataset for dataset, waits in there if waits}


@pytest.mark.parametrize("seed", range(4))
def test_after_any_commit_a_start_finds_what_is_there(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311  # it must repeat itself
    path = tmp_path / "buffer.db"
    file = PackFile(path, SMALL, TERMS, history=True)
    epoch = file.open("boot").epoch
    counts: defaultdict[str, int] = defaultdict(int)
    last: dict[str, tuple[int, int]] = {}
    late: list[Row] = []
    n = 0
    for step in range(120):
        rows = []
        for dataset in dice.choices(list(TERMS), k=dice.choice((0, 1, 1, 1, 3))):
            n += 1
            rows.append(row(epoch, n, dataset, dice.choice((FRESH,) * 8 + (HISTORY, DEAD, SET_ASIDE))))
        if rows and dice.random() < 0.1:
            late.append(rows.pop(0))
        elif late and dice.random() < 0.2:
            rows.insert(0, late.pop())
        waiting = sorted(file.waiting())
        leaving = dice.sample(waiting, min(len(waiting), 2)) if dice.random() < 0.2 else []
        written = file.write(rows, leaving)
        for number, sealed, _ in rows:
            if number not in written.refused:
                last[sealed.dataset] = max(last.get(sealed.dataset, (0, 0)), (sealed.epoch, sealed.n))
                counts["dropped"] += len(written.dropped)
        check(path, last)
        if step % 40 == 39:
            counts["retried"] += file.retry()
            file.close()
            file = PackFile(path, SMALL, TERMS, history=True)
            epoch, n = file.open("boot").epoch, 0
            late.clear()
    file.close()
    assert counts["dropped"]
    assert counts["retried"]


def test_what_a_failed_commit_changed_is_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    file = PackFile(path, ROOMY)
    file.open("boot")
    file.write([row(1, n) for n in range(1, 4)], ())
    with no_file_grows_beyond(0), pytest.raises(SqlError):
        file.write([row(1, 4), row(1, 5, "noise")], [number_of(1, 1)])
    assert noted(path) == {"air": (1, 3, 3)}
    file.write([row(1, 4)], [number_of(1, 2)])
    assert noted(path) == {"air": (1, 4, 3)}
    check(path, {"air": (1, 4)})
    file.close()


def changed(path: Path, statement: str) -> None:
    """Change a closed file as nobody should, or an older gateway does."""
    with closing(sqlite3.connect(path)) as sql, sql:
        sql.execute(statement)


def test_what_an_older_gateway_noted_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    file = PackFile(path, ROOMY)
    file.open("boot")
    for n in range(1, 12):
        file.write([row(1, n), row(1, 20 + n, "noise")], ())
    file.close()
    changed(path, """UPDATE mark SET levels = '{"0":-43}', readings = -430 WHERE dataset = 'air'""")
    check(path, {"air": (1, 11), "noise": (1, 31)})


@pytest.mark.parametrize("flip", ["n = 74", "dataset = 'ahr'", "readings = 3"])
@pytest.mark.parametrize("n", [5, 6])
def test_columns_that_nothing_seals_are_not_believed_at_a_start(tmp_path: Path, flip: str, n: int) -> None:
    path = tmp_path / "buffer.db"
    file = PackFile(path, ROOMY)
    file.open("boot")
    file.write([row(1, n) for n in range(1, 6)], ())  # up to here it is noted
    file.write([row(1, 6)], ())
    file.close()
    changed(path, f"UPDATE pack SET {flip} WHERE n = {n}")  # noqa: S608  # our own words
    file = PackFile(path, ROOMY)
    contents = file.open("boot")
    assert (contents.packs, contents.readings, contents.marks) == (6, 21, {"air": (1, 6)})
    file.close()

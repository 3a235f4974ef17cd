"""``polegate buffer`` on a damaged file: what is sound comes out, and what is damaged is told.

The files are those of an older gateway, whose pages are so large that a row of the scene lies in one.
"""

import contextlib
import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from gateway.store.frame import number_of
from gateway.store.level import FRESH
from gateway.store.pack_file import PackFile
from gateway.store.pack_sql import Row
from gateway.words.reading import Pack
from tests.commands.buffer_scene import (
    EX_DATAERR,
    NOISE,
    PAGE,
    ROWS,
    VALUES,
    flip,
    flip_in_a_pack,
    made,
    named,
    numbers,
    sealed,
    untouched,
    wal,
)
from tests.commands.cli_scene import call
from tests.store.buffer_bench import PAGE_BYTES, ROOMY


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """Give the file of a gateway that closed it."""
    return made("closed", tmp_path / "polegate", page=PAGE)


@pytest.fixture
def left_open(tmp_path: Path) -> Path:
    """Give the file with its log, as a gateway leaves it."""
    return made("open", tmp_path / "polegate", page=PAGE)


def test_a_flipped_byte_costs_its_pack_and_no_other(closed: Path, tmp_path: Path) -> None:
    flip_in_a_pack(closed)
    sound = [row for row in ROWS if row is not ROWS[7]]
    values = VALUES - ROWS[7].pack.readings
    with untouched(closed.parent):
        told = call("buffer", "stats", str(closed))
        verdict = call("buffer", "verify", str(closed))
        exported = call("buffer", "export", str(closed))
        salvaged = call("buffer", "salvage", str(closed), "--to", str(tmp_path / "new.db"))

    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines()[1] == "1 damaged row; see polegate buffer verify"
    assert (verdict.code, verdict.err) == (EX_DATAERR, "")
    assert verdict.out.splitlines() == [
        f"{closed}: 52 packs with {values} readings sound",
        f"{closed}: 1 damaged row: the checksum of the pack is wrong",
        f"Next step: polegate buffer salvage {closed} --to NEW, which keeps what is sound;",
        "a gateway that starts with this file does so by itself.",
    ]
    assert (exported.code, exported.err) == (EX_DATAERR, "1 damaged pack left out; see polegate buffer verify\n")
    assert numbers(exported.out) == named(sound)
    assert salvaged.code == 0
    assert salvaged.out.splitlines()[:2] == [
        f"{tmp_path}/new.db: 52 packs with {values} readings",
        f"{closed}: 1 damaged row left out",
    ]
    assert call("buffer", "export", str(tmp_path / "new.db")) == (0, exported.out, "")


def test_a_verdict_for_a_script_says_what_is_damaged(closed: Path) -> None:
    flip_in_a_pack(closed)

    code, out, err = call("buffer", "verify", "--json", str(closed))

    assert (code, err) == (EX_DATAERR, "")
    assert json.loads(out) == {
        "sound": False,
        "file": str(closed),
        "packs": 52,
        "readings": VALUES - ROWS[7].pack.readings,
        "damaged_rows": 1,
        "unreadable_packs": 0,
        "packs_sqlite_drops": 0,
        "faults": ["1 damaged row: the checksum of the pack is wrong"],
    }


@pytest.mark.parametrize("page", [PAGE_BYTES, PAGE])
def test_without_its_first_page_a_file_keeps_its_packs(tmp_path: Path, page: int) -> None:
    closed = made("closed", tmp_path / "polegate", page=page)
    whole = call("buffer", "export", str(closed)).out
    closed.write_bytes(bytes(page) + closed.read_bytes()[page:])
    with untouched(closed.parent):
        assert call("buffer", "stats", str(closed)).out.splitlines()[1] == "2 epochs: 2 to 5"
        code, out, _ = call("buffer", "verify", str(closed))
        assert call("buffer", "export", str(closed)) == (0, whole, "")
        assert call("buffer", "salvage", str(closed), "--to", str(tmp_path / "new.db")).code == 0

    assert (code, out.splitlines()[1]) == (EX_DATAERR, f"{closed}: its first page is not that of a database")
    assert call("buffer", "export", str(tmp_path / "new.db")) == (0, whole, "")


def test_a_file_that_is_cut_short_keeps_what_lies_before(closed: Path, tmp_path: Path) -> None:
    size = closed.stat().st_size
    os.truncate(closed, size * 6 // 10)
    left = [row for row in ROWS if row.pack.blob in closed.read_bytes()]
    missing = size - closed.stat().st_size // PAGE * PAGE
    with untouched(closed.parent):
        stats = json.loads(call("buffer", "stats", "--json", str(closed)).out)
        code, out, _ = call("buffer", "verify", str(closed))
        exported = call("buffer", "export", str(closed))
        salvaged = call("buffer", "salvage", str(closed), "--to", str(tmp_path / "new.db"))

    assert 0 < len(left) < len(ROWS)
    assert numbers(exported.out) == named(left)
    assert sum(each["acknowledged"]["packs"] for each in stats["datasets"].values()) == min(30, len(left))
    assert (code, out.splitlines()[1]) == (EX_DATAERR, f"{closed}: {missing} bytes of it missing")
    assert "pages of the table of packs cannot be read; packs may be missing" in out.splitlines()[2]
    assert salvaged.out.startswith(f"{tmp_path}/new.db: {len(left)} packs ")
    assert call("buffer", "export", str(tmp_path / "new.db")).out == exported.out


def test_a_file_that_is_cut_short_and_whose_packs_are_all_in_its_log_is_told(left_open: Path) -> None:
    whole = call("buffer", "export", str(left_open)).out
    size = left_open.stat().st_size
    os.truncate(left_open, 4 * PAGE)

    code, out, _ = call("buffer", "verify", str(left_open))

    assert code == EX_DATAERR
    assert out.splitlines()[0] == f"{left_open}: 53 packs with {VALUES} readings sound"
    missing = int(out.splitlines()[1].removeprefix(f"{left_open}: ").removesuffix(" bytes of it missing"))
    assert 0 < missing < size - 4 * PAGE  # some of those pages lie in the log
    assert call("buffer", "export", str(left_open)) == (0, whole, "")


def test_a_page_that_the_flash_lost_is_told(closed: Path) -> None:
    data = bytearray(closed.read_bytes())
    page = data.index(ROWS[20].pack.blob) // PAGE * PAGE
    lost = [row for row in ROWS if row.pack.blob in data[page : page + PAGE]]
    data[page : page + PAGE] = bytes(PAGE)
    closed.write_bytes(data)

    code, out, _ = call("buffer", "verify", str(closed))

    assert code == EX_DATAERR
    assert out.splitlines()[:2] == [
        f"{closed}: {53 - len(lost)} packs with {VALUES - 37 * len(lost)} readings sound",
        f"{closed}: 1 page of the table of packs cannot be read; packs may be missing",
    ]


def test_a_page_that_leads_to_itself_is_told(closed: Path) -> None:
    data = bytearray(closed.read_bytes())
    data[PAGE + 8 : PAGE + 12] = (2).to_bytes(4, "big")  # the right-most child of the root of the table of packs
    closed.write_bytes(data)

    code, out, _ = call("buffer", "verify", str(closed))

    assert code == EX_DATAERR
    assert out.splitlines()[1] == f"{closed}: 1 page of the table of packs cannot be read; packs may be missing"


def hide_a_row(path: Path) -> None:
    """Have a row look like one of another table."""
    damage_the_head_of_a_row(path)
    data = path.read_bytes()
    flip(path, data.rindex(b"PLG1", 0, data.index(ROWS[20].pack.blob)))


def damage_the_head_of_a_row(path: Path) -> None:
    """Have a row say that its last column is something else."""
    data = path.read_bytes()
    flip(path, data.rindex(b"air", 0, data.index(ROWS[20].pack.blob) - 20) - 1)


def test_a_row_whose_head_is_damaged_is_told(closed: Path) -> None:
    damage_the_head_of_a_row(closed)
    code, out, _ = call("buffer", "verify", str(closed))
    assert code == EX_DATAERR
    assert out.splitlines()[1] == f"{closed}: 1 damaged row: the checksum of the pack is wrong"


def test_a_row_that_looks_like_one_of_another_table_is_told(closed: Path) -> None:
    hide_a_row(closed)

    code, out, _ = call("buffer", "verify", str(closed))

    assert code == EX_DATAERR
    assert out.splitlines()[:2] == [
        f"{closed}: 52 packs with {VALUES - 37} readings sound",
        f"{closed}: 1 row cannot be found",
    ]


def test_a_log_of_garbage_is_told(left_open: Path, tmp_path: Path) -> None:
    wal(left_open).write_bytes(NOISE[:100_000])
    with untouched(left_open.parent):
        code, out, _ = call("buffer", "verify", str(left_open))
        assert call("buffer", "stats", str(left_open)).out.splitlines()[1:] == ["no packs"]
        assert call("buffer", "export", str(left_open)) == (0, "", "")
        assert call("buffer", "salvage", str(left_open), "--to", str(tmp_path / "new.db")).code == 0

    assert (code, out.splitlines()[1]) == (
        EX_DATAERR,
        f"{left_open}: its log is damaged, and 0 of the sound packs lie only behind that place",
    )


@pytest.mark.parametrize("at", [4, 32 + 24 + 500])
def test_packs_behind_a_damaged_place_of_the_log_are_kept(left_open: Path, tmp_path: Path, at: int) -> None:
    whole = call("buffer", "export", str(left_open)).out
    flip(wal(left_open), at)
    with untouched(left_open.parent):
        code, out, _ = call("buffer", "verify", str(left_open))
        assert call("buffer", "export", str(left_open)) == (0, whole, "")
        assert call("buffer", "salvage", str(left_open), "--to", str(tmp_path / "new.db")).code == 0

    assert code == EX_DATAERR
    assert out.splitlines()[:2] == [
        f"{left_open}: 53 packs with {VALUES} readings sound",
        f"{left_open}: its log is damaged, and 53 of the sound packs lie only behind that place",
    ]
    assert call("buffer", "export", str(tmp_path / "new.db")).out == whole


def test_packs_that_sqlite_reads_too_are_not_counted_as_behind_the_damage(left_open: Path, tmp_path: Path) -> None:
    flip(wal(left_open), 32 + 40 * (24 + PAGE) + 500)
    copy = shutil.copytree(left_open.parent, tmp_path / "copy") / "buffer.db"
    with contextlib.closing(sqlite3.connect(copy)) as other:
        (seen,) = other.execute("SELECT count(*) FROM pack").fetchone()

    told = json.loads(call("buffer", "verify", "--json", str(left_open)).out)

    assert 0 < seen < told["packs"] <= 53
    assert told["packs_sqlite_drops"] == told["packs"] - seen
    assert told["faults"][0].startswith("its log is damaged, and ")


def cut_off_last_commit(log: Path) -> None:
    """Take its last frame away, as if the power had gone before it was written."""
    data = bytearray(log.read_bytes())
    frames = range(32, len(data), 24 + PAGE)
    last = max(at for at in frames if data[at + 8 : at + 16] == data[16:24])  # of this log, not of an older one
    data[last : last + 24 + PAGE] = bytes(24 + PAGE)
    log.write_bytes(data)


def test_a_commit_that_was_cut_off_is_no_damage_and_its_packs_are_kept(left_open: Path) -> None:
    cut_off_last_commit(wal(left_open))

    code, out, _ = call("buffer", "verify", "--json", str(left_open))

    told = json.loads(out)
    assert (code, told["sound"]) == (0, True)
    assert told["packs"] == 50 + told["packs_sqlite_drops"] > 50
    assert numbers(call("buffer", "export", str(left_open)).out)[:50] == named(ROWS[:50])


def test_a_row_that_cannot_be_found_is_told_beside_a_commit_that_was_cut_off(closed: Path, tmp_path: Path) -> None:
    file = PackFile(closed, ROOMY)
    file.open("boot")
    file.write([Row(number_of(9, n), sealed(9, n, "air")) for n in range(1, 6)], ())
    path = shutil.copytree(closed.parent, tmp_path / "copy") / "buffer.db"
    file.close()
    cut_off_last_commit(wal(path))
    hide_a_row(path)

    told = json.loads(call("buffer", "verify", "--json", str(path)).out)

    assert told["packs"] == 52 + told["packs_sqlite_drops"] > 52
    assert told["faults"] == ["1 row cannot be found"]


def test_a_log_alone_still_gives_its_packs(left_open: Path, tmp_path: Path) -> None:
    whole = call("buffer", "export", str(left_open)).out
    left_open.unlink()

    assert call("buffer", "export", str(left_open)) == (0, whole, "")
    assert call("buffer", "verify", str(left_open)).out.splitlines()[1] == f"{left_open}: it is empty"
    assert call("buffer", "salvage", str(left_open), "--to", str(tmp_path / "new.db")).code == 0
    assert call("buffer", "export", str(tmp_path / "new.db")).out == whole


def test_a_pack_of_a_level_that_cannot_be_waits_in_a_new_buffer(closed: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(closed)) as damaged, damaged:
        damaged.execute("UPDATE pack SET level = -77 WHERE id = ?", (ROWS[-1].id,))
    new = tmp_path / "new.db"

    assert call("buffer", "salvage", str(closed), "--to", str(new)).code == 0
    with contextlib.closing(sqlite3.connect(new)) as made:
        assert made.execute("SELECT level FROM pack WHERE id = ?", (ROWS[-1].id,)).fetchone() == (FRESH,)


NOT_SENML = (
    b"",
    b"[]",
    b"{}",
    b"[1]",
    b'[{"bt":"x","v":1}]',
    b'[{"bt":1e300,"v":1}]',
    b"\xff",
    b"(\xb5/\xfd",
    b"[" * 5000,
)


def test_a_pack_whose_payload_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    bad = [Pack("air", 5, n, 1, n, blob) for n, blob in enumerate(NOT_SENML, 1)]
    more = [sealed(5, n, "air", label=7) for n in range(len(bad) + 1, len(bad) + 4)]
    file = PackFile(path, ROOMY)
    file.open("boot")
    file.write([Row(number_of(5, pack.n), pack) for pack in [*bad, *more, sealed(5, 20, "air")]], ())
    file.close()

    code, out, _ = call("buffer", "verify", str(path))
    exported = call("buffer", "export", str(path))

    sound, fault = out.splitlines()[:2]
    each = {f"air 5:{n}, its payload is no SenML" for n in range(1, 10)}
    each |= {f"air 5:{n}, its payload says 5:7" for n in range(10, 13)}
    listed = fault.removeprefix(f"{path}: 12 unreadable packs: ").split("; ")
    assert (code, sound, listed.pop()) == (EX_DATAERR, f"{path}: 1 pack with 37 readings sound", "...")
    assert len(set(listed)) == len(listed) == 10
    assert set(listed) < each
    assert (exported.code, exported.err) == (EX_DATAERR, "9 damaged packs left out; see polegate buffer verify\n")
    assert [json.loads(line)[0]["seq"] for line in exported.out.splitlines()] == [7, 7, 7, 20]

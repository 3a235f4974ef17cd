"""``polegate buffer``: what it is given that is no buffer, what may not be read, and where it writes to."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.commands import buffer_export
from gateway.store.buffer import Buffer
from gateway.store.frame import number_of
from gateway.store.level import HISTORY
from gateway.store.pack_file import PackFile
from gateway.store.pack_sql import Dropped, Loss, Written
from tests.commands.buffer_scene import (
    COMMANDS,
    EX_CANTCREAT,
    EX_DATAERR,
    EX_NOINPUT,
    NOISE,
    ROWS,
    flip_in_a_pack,
    named,
    numbers,
    untouched,
    wal,
)
from tests.commands.cli_scene import Ran, call
from tests.config.test_settings_unreadable import WITHOUT_RIGHTS
from tests.store.buffer_bench import key, live, no_file_grows_beyond

NAME_IT = "name the file that stands as `path` in [buffer] of the configuration"


def all_commands(path: Path, tmp_path: Path) -> Iterator[tuple[int, str, str]]:
    for options in (*COMMANDS, ["salvage", "--to", str(tmp_path / "new.db")]):
        yield call("buffer", *options, str(path))
    assert not (tmp_path / "new.db").exists()


def other_database(path: Path, pragmas: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.executescript(pragmas)
        other.executescript("CREATE TABLE pack(id INTEGER PRIMARY KEY); INSERT INTO pack VALUES (1);")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("[pole]\n" * 1000), "its first page is not that of a database"),
        (lambda path: path.write_bytes(NOISE[:50_000]), "its first page is not that of a database"),
        (lambda path: path.touch(), "it is empty"),
        (lambda path: path.write_bytes(b"SQLite"), "its first page is not that of a database"),
        (lambda path: other_database(path, ""), "its first page is that of another program's database"),
        (
            lambda path: other_database(path, "PRAGMA application_id=0x504F4C47; PRAGMA user_version=1"),
            "it is of version 1 of the buffer, and this reads version 2",
        ),
    ],
)
def test_what_is_no_buffer_is_told(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    path = tmp_path / "some" / "file"
    path.parent.mkdir()
    make(path)
    with untouched(path.parent):
        told = set(all_commands(path, tmp_path))

    assert told == {(EX_DATAERR, "", f"Error: {path} is no buffer: {why}, and there is no pack in it; {NAME_IT}\n")}


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "buffer.db"

    told = set(all_commands(path, tmp_path))

    assert told == {(EX_NOINPUT, "", f"Error: {path} is not there; {NAME_IT}\n")}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("make", "what"), [(Path.mkdir, "a folder"), (os.mkfifo, "no file")])
def test_what_is_no_file_is_told(tmp_path: Path, make: Callable[[Path], object], what: str) -> None:
    path = tmp_path / "buffer.db"
    make(path)

    assert set(all_commands(path, tmp_path)) == {(EX_NOINPUT, "", f"Error: {path} is {what}; {NAME_IT}\n")}


def as_any_user(*arguments: object) -> Ran:
    """Run ``polegate buffer`` as somebody who may read only what its mode lets him, root or not."""
    command = [sys.executable, "-m", "gateway", "buffer", *map(str, arguments)]
    if os.geteuid() == 0:
        command = ["setpriv", *WITHOUT_RIGHTS, *command]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)  # noqa: S603  # our own
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_folder_that_may_only_be_read_is_enough(left_open: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    expected = [call("buffer", *options, str(left_open)) for options in COMMANDS]
    for part in left_open.parent.iterdir():
        part.chmod(0o400)
    left_open.parent.chmod(0o500)
    try:
        with untouched(left_open.parent):
            told = [as_any_user(*options, left_open) for options in COMMANDS]
            salvaged = as_any_user("salvage", left_open, "--to", new)
            refused = as_any_user("salvage", left_open, "--to", left_open.parent / "new.db")
    finally:
        left_open.parent.chmod(0o700)

    assert told == expected
    assert (salvaged.code, salvaged.err) == (0, "")
    assert call("buffer", "export", str(new)).out == expected[2].out
    assert (refused.code, refused.out) == (EX_CANTCREAT, "")
    assert refused.err.startswith(f"Error: {left_open.parent}/new.db cannot be made: [Errno 13] Permission denied")


def test_a_file_that_may_not_be_read_is_told(left_open: Path) -> None:
    wal(left_open).chmod(0)

    told = as_any_user("stats", left_open)

    step = "see ls -l, or try it with sudo"
    assert told == (EX_NOINPUT, "", f"Error: {wal(left_open)} cannot be read: Permission denied; {step}\n")


def test_a_file_that_changes_meanwhile_is_told(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = buffer_export.look(closed)
    gone = [*found.numbers, number_of(9, 9)]
    monkeypatch.setattr("gateway.commands.buffer.look", lambda *_, **__: found._replace(numbers=gone))

    code, _, err = call("buffer", "export", str(closed))

    step = f"stop the gateway, or copy {closed} and {wal(closed)} and read the copy"
    assert (code, err) == (EX_NOINPUT, f"Error: {closed} changes while it is read; {step}\n")


@pytest.mark.parametrize("part", ["", "-wal", "-journal", "-shm"])
def test_a_new_buffer_overwrites_nothing(closed: Path, tmp_path: Path, part: str) -> None:
    there = tmp_path / f"new.db{part}"
    there.symlink_to("nowhere")

    told = call("buffer", "salvage", str(closed), "--to", str(tmp_path / "new.db"))

    assert told == (EX_CANTCREAT, "", f"Error: {there} is there already; give another name\n")
    assert sorted(tmp_path.iterdir()) == [there, closed.parent]


@pytest.mark.parametrize("part", ["", "-wal", "-journal", "-shm"])
def test_the_buffer_itself_is_never_written_to(closed: Path, part: str) -> None:
    name = closed.parent / ".." / closed.parent.name / f"{closed.name}{part}"
    with untouched(closed.parent):
        told = {
            call("buffer", "export", str(closed), "--output", str(name)),
            call("buffer", "salvage", str(closed), "--to", str(name)),
        }

    says = f"Error: {name} is the name of the buffer or of a part of it; give another name\n"
    assert told == {(EX_CANTCREAT, "", says)}


def test_a_place_that_cannot_be_written_is_told(closed: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "out"
    step = "give a name in a folder with room"
    exported = call("buffer", "export", str(closed), "--output", str(nowhere))
    full = call("buffer", "export", str(closed), "--output", "/dev/full")
    salvaged = call("buffer", "salvage", str(closed), "--to", str(nowhere))

    assert exported == (EX_CANTCREAT, "", f"Error: {nowhere} cannot be written: No such file or directory; {step}\n")
    assert full == (EX_CANTCREAT, "", f"Error: /dev/full cannot be written: No space left on device; {step}\n")
    assert (salvaged.code, salvaged.out) == (EX_CANTCREAT, "")
    assert salvaged.err.startswith(f"Error: {nowhere} cannot be made: [Errno 2] No such file or directory")
    assert list(tmp_path.iterdir()) == [closed.parent]


@pytest.mark.parametrize("size", [0, 700_000])
def test_a_new_buffer_for_which_there_is_no_room_is_not_made(closed: Path, tmp_path: Path, size: int) -> None:
    with no_file_grows_beyond(size):
        code, out, err = call("buffer", "salvage", str(closed), "--to", str(tmp_path / "new.db"))

    assert (code, out) == (EX_CANTCREAT, "")
    assert err.startswith(f"Error: {tmp_path}/new.db cannot be made: ")
    assert list(tmp_path.iterdir()) == [closed.parent]


def test_a_new_buffer_in_which_packs_would_give_way_is_not_made(
    closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = Dropped(1, Loss("air", 1, "evicted", packs=1, readings=1, first=1, last=1, since=0, until=0))
    monkeypatch.setattr(PackFile, "write", lambda *_: Written([dropped], set()))  # what it does in a full disk

    code, out, err = call("buffer", "salvage", str(closed), "--to", str(tmp_path / "new.db"))

    assert (code, out) == (EX_CANTCREAT, "")
    assert "No space left on device; give a name in a folder with room" in err
    assert list(tmp_path.iterdir()) == [closed.parent]


@pytest.mark.parametrize("noted", [True, False])
def test_a_gateway_goes_on_with_the_new_file_in_the_place_of_the_old(
    left_open: Path, tmp_path: Path, *, noted: bool
) -> None:
    flip_in_a_pack(wal(left_open))
    left_open.chmod(0o600)
    note = left_open.with_name("buffer.db.epoch")
    note.write_text("8\n")  # it started three times since its last pack that is left
    if not noted:
        note.unlink()
    out = call("buffer", "salvage", str(left_open), "--to", str(tmp_path / "a new.db")).out
    commands = [line for line in out.splitlines() if line.startswith("  ")]
    subprocess.run(["sh", "-ec", "\n".join(commands)], check=True, timeout=60)  # noqa: S603, S607  # what it told to do

    async def scene(buffer: Buffer) -> None:
        assert buffer.mended is None
        assert buffer.epoch == 10 if noted else buffer.epoch > 1000
        assert [buffer.after(name) for name in ("air", "power", "door")] == ["5:20", "2:2", "5:1"]
        waiting = [row.pack for row in ROWS if row.level != HISTORY]
        assert [key(held.pack) for held in await buffer.take(100)] == [key(pack) for pack in waiting]
        assert len(await buffer.held("air", 2, 1, 30, 100)) == 29

    assert stat.S_IMODE(left_open.stat().st_mode) == 0o600
    live(left_open, scene)
    old = left_open.with_name("buffer.db.old")
    assert numbers(call("buffer", "export", str(old)).out) == [name for name in named(ROWS) if name != (2, 8, "air")]

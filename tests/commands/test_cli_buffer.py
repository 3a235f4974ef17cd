"""``polegate buffer``: what a technician reads in the file of a gateway that is stopped, or in a copy of it."""

import csv
import datetime as dt
import io
import json
import os
import pty
import subprocess
import tracemalloc
from pathlib import Path
from unittest import mock

import pytest

from gateway.commands import buffer_export
from gateway.store.frame import number_of
from gateway.store.pack_file import PackFile
from gateway.store.pack_raw import Salvage
from gateway.store.pack_sql import Row
from gateway.words.reading import Pack, Quality
from hil.daemon import polegate
from hil.senml import read
from tests.commands.buffer_scene import (
    COMMANDS,
    EX_CANTCREAT,
    EX_USAGE,
    NOISE,
    NS,
    ROWS,
    VALUES,
    YEAR_2026,
    made,
    numbers,
    readings,
    sealed,
    untouched,
    wal,
)
from tests.commands.cli_scene import call
from tests.store.buffer_bench import ROOMY


@pytest.mark.parametrize("how", ["closed", "left_open"])
def test_stats_of_a_sound_file(how: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(how)
    with untouched(path.parent):
        code, out, err = call("buffer", "stats", str(path))

    size, log = path.stat().st_size, wal(path).stat().st_size if wal(path).exists() else 0
    each = {name: [row.pack for row in ROWS if row.pack.dataset == name] for name in ("air", "door", "power")}
    bytes_of = {name: sum(len(pack.blob) for pack in packs) for name, packs in each.items()}
    waiting = sum(len(pack.blob) for pack in each["air"] if pack.epoch == 5)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{path}: {size} bytes, its log {log} bytes",
        "2 epochs: 2 to 5",
        "dataset air",
        f"  waiting       20 packs, 740 readings, {waiting} bytes",
        "  thinned       0 packs, 0 readings, 0 bytes",
        f"  acknowledged  30 packs, 1110 readings, {bytes_of['air'] - waiting} bytes",
        "  dead          0 packs, 0 readings, 0 bytes",
        "  epoch:n       2:1 to 5:20",
        "  begun         2026-01-01T00:01:00.000Z to 2026-01-01T00:30:00.000Z",
        "  begun         2026-01-01T00:01:00.000Z to 2026-01-01T00:10:00.000Z, a guess: the clock was not set yet",
        "dataset door",
        f"  waiting       1 pack, 37 readings, {bytes_of['door']} bytes",
        "  thinned       0 packs, 0 readings, 0 bytes",
        "  acknowledged  0 packs, 0 readings, 0 bytes",
        "  dead          0 packs, 0 readings, 0 bytes",
        "  epoch:n       5:1 to 5:1",
        "  begun         2026-01-01T00:01:00.000Z to 2026-01-01T00:01:00.000Z",
        "dataset power",
        "  waiting       0 packs, 0 readings, 0 bytes",
        f"  thinned       2 packs, 74 readings, {bytes_of['power']} bytes",
        "  acknowledged  0 packs, 0 readings, 0 bytes",
        "  dead          0 packs, 0 readings, 0 bytes",
        "  epoch:n       2:1 to 2:2",
        "  begun         2026-01-01T00:01:00.000Z to 2026-01-01T00:02:00.000Z",
    ]


def test_stats_do_not_depend_on_the_order_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    file = PackFile(path, ROOMY)
    file.open("boot")
    for n in (7, 9, 3):
        for dataset, count in (("b", 0), ("a", 1)):
            file.write([Row(number_of(n, n + count), sealed(n, n, dataset))], ())
    file.close()

    told = json.loads(call("buffer", "stats", "--json", str(path)).out)

    assert told["epochs"] == [3, 7, 9]
    assert list(told["datasets"]) == ["a", "b"]
    for each in told["datasets"].values():
        assert (each["first"], each["last"]) == ([3, 3], [9, 9])
        assert each["begun"] == ["2026-01-01T00:03:00.000Z", "2026-01-01T00:09:00.000Z"]
    backwards(tmp_path / "backwards.db", 100)
    air = json.loads(call("buffer", "stats", "--json", str(tmp_path / "backwards.db")).out)["datasets"]["air"]
    assert (air["first"], air["last"]) == ([1, 1], [1, 100])


def test_stats_for_a_script(left_open: Path) -> None:
    code, out, err = call("buffer", "stats", "--json", str(left_open))

    told = json.loads(out)
    datasets = told.pop("datasets")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert told == {
        "file": str(left_open),
        "bytes": left_open.stat().st_size,
        "log_bytes": wal(left_open).stat().st_size,
        "damaged_rows": 0,
        "epochs": [2, 5],
    }
    assert list(datasets) == ["air", "door", "power"]
    assert datasets["power"] == {
        "waiting": {"packs": 0, "readings": 0, "bytes": 0},
        "thinned": {"packs": 2, "readings": 74, "bytes": sum(len(row.pack.blob) for row in ROWS[30:32])},
        "acknowledged": {"packs": 0, "readings": 0, "bytes": 0},
        "dead": {"packs": 0, "readings": 0, "bytes": 0},
        "first": [2, 1],
        "last": [2, 2],
        "begun": ["2026-01-01T00:01:00.000Z", "2026-01-01T00:02:00.000Z"],
        "begun_guessed": [],
    }
    assert datasets["air"]["begun_guessed"] == ["2026-01-01T00:01:00.000Z", "2026-01-01T00:10:00.000Z"]


@pytest.mark.parametrize("how", ["closed", "left_open"])
def test_verify_of_a_sound_file(how: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(how)
    with untouched(path.parent):
        told = call("buffer", "verify", str(path))

    assert told == (0, f"{path}: 53 packs with {VALUES} readings, all sound\n", "")
    code, out, err = call("buffer", "verify", "--json", str(path))
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "sound": True,
        "file": str(path),
        "packs": 53,
        "readings": VALUES,
        "damaged_rows": 0,
        "unreadable_packs": 0,
        "packs_sqlite_drops": 0,
        "faults": [],
    }


@pytest.mark.parametrize("how", ["closed", "left_open"])
def test_senml_is_what_was_put_in_pack_by_pack_in_order(how: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(how)
    with untouched(path.parent):
        code, out, err = call("buffer", "export", str(path))

    lines = out.split("\n")
    assert (code, err, lines.pop()) == (0, "", "")
    assert [read(line.encode()) for line in lines] == [read(row.pack.blob) for row in ROWS]
    put_in = {
        (f"pole-1/{reading.device}/{name}", round((reading.at + YEAR_2026) / 1e9, 3), value)
        for row in ROWS
        for reading in readings(row.pack.n, row.pack.dataset)
        for name, value in reading.values.items()
        if not isinstance(value, Quality)
    }
    came_out = {
        (record.name, round(record.time, 3), record.value)
        for line in lines
        for record in read(line.encode())
        if "why" not in record.labels
    }
    assert came_out == put_in


@pytest.mark.parametrize("how", ["closed", "left_open"])
def test_csv_holds_every_record_with_its_whole_name_and_time(how: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(how)
    with untouched(path.parent):
        code, out, err = call("buffer", "export", "--format", "csv", str(path))

    records = [record for row in ROWS for record in read(row.pack.blob)]
    header, *rows = csv.reader(io.StringIO(out, newline=""))
    assert (code, err) == (0, "times of 10 packs are a guess: the clock was not set yet\n")
    assert header == ["time", "name", "value", "unit"]
    assert out.startswith("time,name,value,unit\n2026-01-01T00:01:00.000Z,pole-1/air-0/")
    assert ",%RH\n2026-" in out
    assert [row[1::2] for row in rows] == [[record.name, record.unit] for record in records]
    assert all(time.endswith("Z") and len(time) == len("2026-01-01T00:00:00.000Z") for time, *_ in rows)
    times = [dt.datetime.fromisoformat(time).timestamp() for time, *_ in rows]
    assert times == pytest.approx([record.time for record in records], abs=1e-6, rel=0)
    shown = {True: "true", False: "false"}
    assert [row[2] for row in rows] == [
        shown[record.value] if isinstance(record.value, bool) else str(record.value) for record in records
    ]


def test_csv_of_a_pack_in_which_every_record_says_its_own(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [
        {"bn": "pole-1/", "bt": YEAR_2026 // NS, "bu": "Cel", "n": "a", "v": 1, "epoch": 1, "seq": 1},
        {"n": "b", "u": "%RH", "t": 0.5, "v": 2.50},
        {"bn": "pole-2/", "bt": YEAR_2026 // NS + 0.25, "n": "c", "t": -1, "vs": ""},
        {"bu": "V"},
        {"n": "d", "vd": "aGk"},
    ]
    blob = json.dumps(records).encode()
    path = tmp_path / "buffer.db"
    file = PackFile(path, ROOMY)
    file.open("boot")
    file.write([Row(number_of(1, 1), Pack("air", 1, 1, 4, 0, blob))], ())
    file.close()

    code, out, _ = call("buffer", "export", "--format", "csv", str(path))

    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert code == 0
    assert [(row["name"], row["unit"], row["value"]) for row in rows] == [
        (record.name, record.unit, str(record.value)) for record in read(blob)
    ]
    assert [row["time"] for row in rows] == [
        "2026-01-01T00:00:00.000Z",
        "2026-01-01T00:00:00.500Z",
        "2025-12-31T23:59:59.250Z",
        "2026-01-01T00:00:00.250Z",
    ]


def test_only_one_dataset(closed: Path) -> None:
    code, out, err = call("buffer", "export", "--dataset", "power", str(closed))

    assert (code, err) == (0, "")
    assert numbers(out) == [(2, 1, "power"), (2, 2, "power")]


def test_a_dataset_that_is_not_there_is_told_with_what_is_meant(closed: Path) -> None:
    code, out, err = call("buffer", "export", "--format", "csv", "--dataset", "powr", str(closed))

    assert (code, out) == (0, "time,name,value,unit\n")
    assert err == f'{closed} has no pack of dataset "powr"; did you mean "power"?\n'


def test_export_into_a_file_prints_nothing(closed: Path, tmp_path: Path) -> None:
    with untouched(closed.parent):
        told = call("buffer", "export", str(closed), "--output", str(tmp_path / "out"))

    assert told == (0, "", "")
    assert (tmp_path / "out").read_text() == call("buffer", "export", str(closed)).out


@pytest.mark.parametrize("how", ["closed", "left_open"])
def test_salvage_of_a_sound_file_is_a_file_with_the_same_packs(
    how: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer_export, "BATCH_BYTES", 2000)
    path: Path = request.getfixturevalue(how)
    new = tmp_path / "new.db"
    with untouched(path.parent):
        code, out, err = call("buffer", "salvage", str(path), "--to", str(new))

    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == [f"{new}: 53 packs with {VALUES} readings", f"{path}: 0 damaged rows left out"]
    assert sorted(tmp_path.iterdir()) == [new, path.parent]
    for options in COMMANDS[2:]:
        assert call("buffer", *options, str(new)).out == call("buffer", *options, str(path)).out
    told = [json.loads(call("buffer", "stats", "--json", str(each)).out)["datasets"] for each in (path, new)]
    assert told[0] == told[1]


def test_a_file_without_packs_reads_so(tmp_path: Path) -> None:
    path = made("empty", tmp_path / "polegate")
    with untouched(path.parent):
        assert call("buffer", "stats", str(path)).out.splitlines()[1:] == ["no packs"]
        assert call("buffer", "verify", str(path)) == (0, f"{path}: 0 packs with 0 readings, all sound\n", "")
        assert call("buffer", "export", str(path)) == (0, "", "")
        assert call("buffer", "export", "--format", "csv", str(path)) == (0, "time,name,value,unit\n", "")
        code, out, _ = call("buffer", "salvage", str(path), "--to", str(tmp_path / "new.db"))

    assert (code, out.splitlines()[0]) == (0, f"{tmp_path}/new.db: 0 packs with 0 readings")
    assert call("buffer", "verify", str(tmp_path / "new.db")).code == 0


def backwards(path: Path, packs: int) -> None:
    """Make a file that holds its packs from its end to its beginning, in payloads that do not compress."""
    file = PackFile(path, ROOMY)
    file.open("boot")
    for at in range(packs, 0, -50):
        rows = range(at, at - 50, -1)
        file.write([Row(number_of(1, n), Pack("air", 1, n, 1, n, NOISE[(n - 1) * 3000 : n * 3000])) for n in rows], ())
    file.close()


def test_packs_come_in_order_whatever_their_order_in_the_file_and_memory_stays_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "buffer.db"
    backwards(path, 500)
    monkeypatch.setattr(buffer_export, "EARLY_BYTES", 100_000)
    wanted = buffer_export.look(path).numbers
    passes = mock.Mock(side_effect=Salvage)
    monkeypatch.setattr(buffer_export, "Salvage", passes)

    tracemalloc.start()
    got = [found.number for found in buffer_export.in_order(path, wanted)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert got == [number_of(1, n) for n in range(1, 501)]
    assert peak < 400_000  # all payloads together are 1.5 MB
    assert passes.call_count <= 10


def test_a_bar_is_drawn_on_a_terminal_and_only_data_goes_to_the_output(closed: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(  # noqa: S603  # our own
        [polegate(), "buffer", "export", str(closed)], stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=60
    )
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)

    assert done.stdout.decode() == call("buffer", "export", str(closed)).out
    assert "100%" in drawn


@pytest.mark.parametrize("stdout", ["utf-8:strict", "utf-8:surrogateescape", "latin-1"])  # it depends on LANG
def test_an_output_that_is_full_is_told(closed: Path, stdout: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(  # noqa: S603  # our own
            [polegate(), "buffer", "export", str(closed), "--dataset", "door"],  # less than is written at once
            env={**os.environ, "PYTHONIOENCODING": stdout, "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )

    step = b"give a name in a folder with room"
    assert done.returncode == EX_CANTCREAT
    assert done.stderr == b"Error: the standard output cannot be written: No space left on device; " + step + b"\n"


def test_who_has_seen_enough_of_an_export_ends_it_without_a_word(closed: Path) -> None:
    command = f"{polegate()} buffer export --format csv {closed} | head -n 1"
    done = subprocess.run(  # noqa: S603  # our own
        ["sh", "-c", command],  # noqa: S607
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.stdout, done.stderr) == ("time,name,value,unit\n", "")


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("stats", ["FILE", "--json", "0:", "65:", "66:"]),
        ("verify", ["FILE", "--json", "0:", "65:", "66:"]),
        ("salvage", ["FILE", "--to NEW", "0:", "65:", "66:", "73:"]),
        ("export", ["FILE", "--format [senml|csv]", "--dataset NAME", "--dead", "--output OUT", "0:", "65:", "73:"]),
        ("dead", ["FILE", "--json", "0:", "65:", "66:"]),
        ("retry", ["FILE", "gateway must be stopped", "0:", "65:", "66:", "73:", "75:"]),
    ],
)
def test_help_says_what_a_command_needs_and_how_it_ends(command: str, needs: list[str]) -> None:
    code, printed, _ = call("buffer", command, "--help")

    assert code == 0
    assert [text for text in needs if text not in " ".join(printed.split())] == []


def test_a_wrong_call_ends_so(closed: Path) -> None:
    assert call("buffer").code == EX_USAGE
    assert call("buffer", "salvage", str(closed)).code == EX_USAGE
    assert call("buffer", "export", "--format", "xml", str(closed)).code == EX_USAGE

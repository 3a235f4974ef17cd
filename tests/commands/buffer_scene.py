"""What the tests of ``polegate buffer`` share: a buffer's file made by the gateway's own code, and what is in it."""

import contextlib
import functools
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.store.frame import number_of
from gateway.store.level import FRESH, HISTORY
from gateway.store.pack_file import PackFile
from gateway.store.pack_sql import Row
from gateway.words.payload import packed
from gateway.words.reading import Pack, Quality, Reading
from gateway.words.senml import encode
from tests.store.buffer_bench import OLD_PAGE_BYTES, PAGE_BYTES, ROOMY, pages_of

EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_CANTCREAT = 64, 65, 66, 73
NS = 1_000_000_000
YEAR_2026 = 1_767_225_600 * NS
UNITS = {"temperature": "Cel", "text": "", "line": "", "open": "", "humidity": "%RH", "count": "count"}
COMMANDS = (["stats"], ["verify"], ["export"], ["export", "--format", "csv"])
PAGE = OLD_PAGE_BYTES
NOISE = random.Random(1).randbytes(1_500_000)  # noqa: S311  # the same each time, and it does not compress


def readings(n: int, dataset: str) -> list[Reading]:
    """Make readings of every kind of value, some at times with a fraction."""
    at = n * 60 * NS
    return [
        Reading(
            f"{dataset}-{device}",
            dataset,
            at + second * NS + device * 1_000_000,
            {
                "temperature": -20 + n / 10 + second / 1000,
                "humidity": 1e-7 * n,
                "count": n * 10**9,
                "open": n % 2 == 0,
                "line": f"CR only\r{n}",
                "text": f'{n}: "open", or\r\nclosed; 22 °C \r',
            },
        )
        for second in range(3)
        for device in range(2)
    ] + [Reading(f"{dataset}-0", dataset, at + 3 * NS, {"temperature": Quality(1, "no-reply")})]


def sealed(epoch: int, n: int, dataset: str, *, certain: bool = True, label: int | None = None) -> Pack:
    """Seal a pack as the gateway does."""
    some = readings(n, dataset)
    labels: dict[str, int | str] = {"epoch": epoch, "seq": n if label is None else label, "cat": "c0ffee"}
    blob = encode(some, pole="pole-1", unit_of=lambda _, name: UNITS[name], utc_offset=YEAR_2026, labels=labels)
    values = sum(len(reading.values) for reading in some)
    return Pack(dataset, epoch, n, values, some[0].at, packed(blob), YEAR_2026, certain)


def all_rows() -> list[Row]:
    """Make what is in the file: two epochs, three datasets, every state, and times that are a guess."""
    rows = [Row(number_of(2, n), sealed(2, n, "air", certain=n > 10), HISTORY) for n in range(1, 31)]
    rows += [Row(number_of(2, 30 + n), sealed(2, n, "power"), 3) for n in range(1, 3)]
    rows += [Row(number_of(5, n), sealed(5, n, "air"), FRESH) for n in range(1, 21)]
    return [*rows, Row(number_of(5, 21), sealed(5, 1, "door"), FRESH)]


ROWS = all_rows()
VALUES = sum(row.pack.readings for row in ROWS)


def made(how: str, folder: Path, *, page: int = PAGE_BYTES) -> Path:
    """Lay a file into a new folder: "closed"; "open", as it lies there while its log holds all; or "empty"."""
    folder.mkdir()
    for name, data in _parts(how, page).items():
        (folder / name).write_bytes(data)
    return folder / "buffer.db"


@functools.cache
def _parts(how: str, page: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder, pages_of(page):
        file = PackFile(Path(folder) / "buffer.db", ROOMY)
        file.open("boot", epoch=5)
        rows = () if how == "empty" else ROWS
        for at in range(0, len(rows), 5):
            file.write(rows[at : at + 5], ())
        as_open = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        file.close()
        return as_open if how == "open" else {path.name: path.read_bytes() for path in Path(folder).iterdir()}


class Part(NamedTuple):
    """How a file or folder lies there."""

    bytes: bytes
    mtime: int


def _lies(folder: Path) -> dict[Path, Part]:
    return {
        path: Part(path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in (folder, *folder.rglob("*"))
    }


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """See that nothing in it is written, made or removed."""
    before = _lies(folder)
    yield
    assert _lies(folder) == before


def wal(path: Path) -> Path:
    """Return where the log lies."""
    return path.with_name(f"{path.name}-wal")


def flip(path: Path, at: int) -> None:
    """Change a bit of a byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x01
    path.write_bytes(data)


def flip_in_a_pack(path: Path) -> None:
    """Change a bit in the payload of the pack of ROWS[7]."""
    data = path.read_bytes()
    flip(path, data.index(ROWS[7].pack.blob[:60]) + 20)


def numbers(lines: str) -> list[tuple[int, int, str]]:
    """Name the packs in lines of SenML by their own words."""
    heads = [json.loads(line)[0] for line in lines.splitlines()]
    return [(head["epoch"], head["seq"], head["bn"].split("/")[1].rpartition("-")[0]) for head in heads]


def named(rows: Sequence[Row]) -> list[tuple[int, int, str]]:
    """Name packs the same way."""
    return [(row.pack.epoch, row.pack.n, row.pack.dataset) for row in rows]

"""Packs of a buffer's file in the order they were sealed, and written in another form: SenML, CSV, a new buffer.

A file holds its packs in any order. In RAM they are put in order by passes: each reads the whole file, gives what comes
next, and keeps what comes too early, up to a bound. A file that was filled once is in order already and takes one pass;
one that was filled from its end to its beginning takes as many as the bound goes into it.
"""

import csv
import datetime as dt
import errno
import functools
import json
import os
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import zstandard

from gateway.host import durable
from gateway.store.level import SET_ASIDE
from gateway.store.pack_file import PackFile
from gateway.store.pack_raw import Found, Salvage
from gateway.store.pack_sql import Row
from gateway.words.payload import unpacked
from gateway.words.reading import Pack
from gateway.words.timeline import Epoch

EARLY_BYTES = 32 * 1024 * 1024  # payload of packs that came too early
BATCH_BYTES = 512 * 1024  # what the log of a file is made for
NO_BOUND = 1 << 40  # bytes
COLUMNS = ("time", "name", "value", "unit")
VALUES = ("v", "vb", "vs", "vd")
NO_SENML = (  # what reading something else comes to
    *(zstandard.ZstdError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError),
)
START = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Value = float | int | bool | str


class Unreadable(Exception):
    """The frame of a pack is sound, and what is in it is no SenML."""


class Changed(Exception):
    """Another writes the file while it is read."""


class Look(NamedTuple):
    """What a first pass tells.

    Attributes:
        numbers: of the packs that are wanted, in order.
        datasets: of all packs.
        guessed: packs of those wanted whose time is a guess.
        damaged: rows that are no packs any more.
        epochs: what is known of the runs.
    """

    numbers: Sequence[int]
    datasets: set[str]
    guessed: int
    damaged: int
    epochs: Sequence[Epoch]


class Record(NamedTuple):
    """One resolved record of SenML."""

    time: str
    name: str
    value: Value
    unit: str


class Content(NamedTuple):
    """What is in a pack: the JSON, the labels of its first record, and its records."""

    text: str
    labels: dict[str, Any]
    records: list[Record]


def look(path: Path, dataset: str | None = None, *, dead: bool = False) -> Look:
    """See which packs there are: all, those of a dataset, those that were set aside. Raises OSError."""
    salvage = Salvage(path)
    numbers = array("Q")
    datasets: set[str] = set()
    guessed = 0
    for number, level, pack in salvage:
        datasets.add(pack.dataset)
        if dataset in {None, pack.dataset} and (level <= SET_ASIDE or not dead):
            numbers.append(number)
            guessed += not pack.certain
    return Look(array("Q", sorted(numbers)), datasets, guessed, salvage.damaged, salvage.epochs)


def in_order(path: Path, numbers: Sequence[int]) -> Iterator[Found]:
    """Give the packs with these numbers, which are in order. Raises OSError, Changed."""
    done = 0
    while done < len(numbers):
        before = done
        for found in _pass(path, numbers[done:]):
            yield found
            done += 1
        if done == before:
            raise Changed


def _pass(path: Path, numbers: Sequence[int]) -> Iterator[Found]:
    """Give the first of these packs, as many as one pass can."""
    at = 0
    early: dict[int, Found] = {}
    held = 0
    for found in Salvage(path):
        if not _is_in(numbers, found.number, at):
            continue
        early[found.number] = found
        held += len(found.pack.blob)
        while ready := early.pop(numbers[at], None):
            yield ready
            held -= len(ready.pack.blob)
            at += 1
            if at == len(numbers):
                return
        if held > EARLY_BYTES:
            _let_go(early)
            held = sum(len(each.pack.blob) for each in early.values())


def _is_in(numbers: Sequence[int], number: int, begin: int) -> bool:
    at = bisect_left(numbers, number, begin)
    return at < len(numbers) and numbers[at] == number


def _let_go(early: dict[int, Found]) -> None:
    """Leave the last quarter of the packs that came too early to another pass."""
    for number in sorted(early)[len(early) * 3 // 4 :]:
        del early[number]


def content(pack: Pack) -> Content:
    """Return what is in a pack. Raises Unreadable."""
    try:
        text = unpacked(pack.blob).decode()
        parsed = json.loads(text)
        return Content(text, parsed[0], list(_resolved(parsed)))
    except NO_SENML as error:
        raise Unreadable("its payload is no SenML") from error


def _resolved(parsed: Iterable[dict[str, Any]]) -> Iterator[Record]:
    """Resolve a pack, RFC 8428 section 4.6, as far as polegate writes it: no base values, no relative times."""
    name, time, unit = "", 0, ""
    for raw in parsed:
        name, time, unit = raw.get("bn", name), raw.get("bt", time), raw.get("bu", unit)
        for kind in VALUES:
            if kind in raw:
                yield Record(utc(time + raw.get("t", 0)), name + raw.get("n", ""), raw[kind], raw.get("u", unit))


def utc(seconds: float) -> str:
    """Write seconds since 1970 as a time of day, ISO 8601."""
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{_second(whole)}.{ms:03}Z"


@functools.lru_cache(maxsize=4096)  # the channels of a pack share their times
def _second(number: int) -> str:
    return (START + dt.timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S")


class Writer(Protocol):
    """A format."""

    def write(self, pack: Content) -> None:
        """Write a pack."""


class AsSenml:
    """One pack a line."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def write(self, pack: Content) -> None:
        """Write a pack."""
        self._out.write(f"{pack.text}\n")


class AsCsv:
    """One record a line."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lines = _Lines()
        self._rows = csv.writer(self._lines)
        self._out.write(f"{','.join(COLUMNS)}\n")

    def write(self, pack: Content) -> None:
        """Write a pack, at once: a terminal or pipe may be flushed each time."""
        for record in pack.records:
            value = record.value
            shown = str(value).lower() if isinstance(value, bool) else value  # as JSON has it
            self._rows.writerow(record._replace(value=shown))
        self._out.write("".join(self._lines))
        self._lines.clear()


class _Lines(list[str]):
    """Ends lines as Unix does. The writer itself must not: it would leave a CR in a text unquoted."""

    def write(self, line: str) -> None:
        """Take a line of the writer."""
        self.append(line.removesuffix("\r\n") + "\n")


FORMATS: dict[str, Callable[[IO[str]], Writer]] = {"senml": AsSenml, "csv": AsCsv}


def write_buffer(packs: Iterable[Found], epochs: Iterable[Epoch], new: Path, epoch: int) -> int:
    """Make a buffer of packs, whole or not at all, and return the readings in it. Raises OSError, SqlError.

    Args:
        packs: in order, so that the last of each dataset is known for the last.
        epochs: what is known of the runs.
        new: where it is to lie.
        epoch: the last one that is taken.
    """
    with tempfile.TemporaryDirectory(prefix=f".{new.name}-", dir=new.parent) as folder:
        file = PackFile(Path(folder) / new.name, NO_BOUND)
        readings = _fill(file, packs, epochs, epoch)
        file.path.rename(new)
    durable.sync_folder(new.parent)
    return readings


def _fill(file: PackFile, packs: Iterable[Found], epochs: Iterable[Epoch], epoch: int) -> int:
    readings = 0
    file.open("", epoch=epoch)
    try:
        file.learn(epochs)
        for rows in _batches(packs):
            if file.write(rows, ()).dropped:  # it makes room in a full disk, and lets packs go for that
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            readings += sum(row.pack.readings for row in rows)
    finally:
        file.close()
    return readings


def _batches(packs: Iterable[Found]) -> Iterator[list[Row]]:
    rows: list[Row] = []
    size = 0
    for number, level, pack in packs:
        rows.append(Row(number, pack, level))
        size += len(pack.blob)
        if size >= BATCH_BYTES:
            yield rows
            rows, size = [], 0
    yield rows

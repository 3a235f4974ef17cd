"""``polegate buffer``: look into a buffer's file, on the pole or in the office, whatever happened to it.

The file is read without SQLite (:mod:`gateway.store.pack_raw`): SQLite writes where it is only asked, and drops what
lies behind a damaged place of the log. So nothing here changes the file, its log or their folder; only ``retry`` does.
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import click

from gateway.commands.buffer_dead import dead as dead_command
from gateway.commands.buffer_dead import retry
from gateway.commands.buffer_export import FORMATS, Look, Unreadable, Writer, content, in_order, look, utc, write_buffer
from gateway.commands.buffer_faults import (
    EX_DATAERR,
    NotMade,
    count,
    file_fault,
    log_fault,
    log_of,
    must_be_another,
    must_be_buffer,
    must_be_free,
    reading,
    size_of,
    tree_fault,
)
from gateway.commands.check import FILE
from gateway.config.faults import mean
from gateway.config.toml_text import quoted
from gateway.store import frame, pack_mend
from gateway.store.level import FRESH, SET_ASIDE
from gateway.store.pack_raw import Found, Salvage
from gateway.store.pack_sql import SqlError
from gateway.words.reading import Pack

NS = 1_000_000_000
LISTED = 10  # packs that are named one by one
UNSEEN_STARTS = 1 << 20  # more than a gateway starts while no pack of those runs stays in the file
STATES = "waiting", "thinned", "acknowledged", "dead"
GUESS = "a guess: the clock was not set yet"


@dataclass(slots=True)
class Sum:
    """How many packs there are, and what is in them."""

    packs: int = 0
    readings: int = 0
    bytes: int = 0

    def add(self, pack: Pack) -> None:
        """Count one more."""
        self.packs += 1
        self.readings += pack.readings
        self.bytes += len(pack.blob)

    def __str__(self) -> str:
        return f"{count(self.packs, 'pack')}, {count(self.readings, 'reading')}, {count(self.bytes, 'byte')}"


@dataclass(slots=True)
class Dataset:
    """What there is of one dataset.

    Attributes:
        first: the least (epoch, n).
        last: the greatest.
        states: what there is in each state.
        begun: from when to when packs were begun, nanoseconds since 1970; by True where that is certain.
    """

    first: tuple[int, int]
    last: tuple[int, int]
    states: dict[str, Sum] = field(default_factory=lambda: {state: Sum() for state in STATES})
    begun: dict[bool, tuple[int, int]] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        """Count one more."""
        pack = found.pack
        self.states[_state(found.level)].add(pack)
        self.first = min(self.first, (pack.epoch, pack.n))
        self.last = max(self.last, (pack.epoch, pack.n))
        at = pack.taken + pack.offset
        since, until = self.begun.get(pack.certain, (at, at))
        self.begun[pack.certain] = min(since, at), max(until, at)

    def times(self, *, certain: bool) -> list[str]:
        """Return from when to when packs were begun; nothing where there are none."""
        return [utc(at / NS) for at in self.begun.get(certain, ())]


@dataclass(slots=True)
class Verdict:
    """What was found of a file.

    Attributes:
        file: its name.
        packs: that are sound.
        readings: in them.
        damaged_rows: that are no packs any more.
        unreadable_packs: whose payload is not what their head says.
        packs_sqlite_drops: sound ones that lie behind a damaged place of the log, or in a commit that was cut off.
        faults: what is damaged, in words.
    """

    file: str
    packs: int = 0
    readings: int = 0
    damaged_rows: int = 0
    unreadable_packs: int = 0
    packs_sqlite_drops: int = 0
    faults: list[str] = field(default_factory=list)


@click.command("stats")
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stats(path: Path, *, as_json: bool) -> int:
    """Say what is in the buffer FILE, by dataset.

    A pack is waiting until the broker acknowledges it. One that is thinned waits too: it was spared when those around
    it gave way. One that is acknowledged stays as history. One that is dead was set aside, as no broker takes it. A
    pack is begun with its first reading.

    Exit code 0: FILE was read, damaged or not. 65: it is no buffer. 66: it is not there or cannot be read.
    """
    datasets: dict[str, Dataset] = {}
    epochs: set[int] = set()
    packs = Salvage(path)
    with reading(path):
        for found in packs:
            number = found.pack.epoch, found.pack.n
            datasets.setdefault(found.pack.dataset, Dataset(number, number)).add(found)
            epochs.add(found.pack.epoch)
        must_be_buffer(path, len(epochs))
        told = {"file": str(path), "bytes": size_of(path), "log_bytes": size_of(log_of(path))}
    told |= {"damaged_rows": packs.damaged, "epochs": sorted(epochs)}
    ordered = {name: datasets[name] for name in sorted(datasets)}
    if as_json:
        click.echo(json.dumps(told | {"datasets": {name: _as_object(each) for name, each in ordered.items()}}))
    else:
        click.echo("\n".join(_as_text(told, ordered)))
    return 0


def _state(level: int) -> str:
    if level == FRESH:
        return "waiting"
    if level > FRESH:
        return "thinned"
    return "dead" if level <= SET_ASIDE else "acknowledged"


def _as_object(dataset: Dataset) -> dict[str, object]:
    return {
        **{state: asdict(total) for state, total in dataset.states.items()},
        "first": dataset.first,
        "last": dataset.last,
        "begun": dataset.times(certain=True),
        "begun_guessed": dataset.times(certain=False),
    }


def _as_text(told: dict[str, Any], datasets: dict[str, Dataset]) -> Iterator[str]:
    yield f"{told['file']}: {count(told['bytes'], 'byte')}, its log {count(told['log_bytes'], 'byte')}"
    if told["damaged_rows"]:
        yield f"{count(told['damaged_rows'], 'damaged row')}; see polegate buffer verify"
    if not datasets:
        yield "no packs"
        return
    ends = sorted({told["epochs"][0], told["epochs"][-1]})
    yield f"{count(len(told['epochs']), 'epoch')}: {' to '.join(map(str, ends))}"
    for name, dataset in datasets.items():
        yield f"dataset {name}"
        for state, total in dataset.states.items():
            yield f"  {state:<14}{total}"
        yield f"  epoch:n       {_number(*dataset.first)} to {_number(*dataset.last)}"
        for certain, note in ((True, ""), (False, f", {GUESS}")):
            if times := dataset.times(certain=certain):
                yield f"  begun         {' to '.join(times)}{note}"


@click.command("verify")
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(path: Path, *, as_json: bool) -> int:
    """Read every pack of the buffer FILE; say what is damaged.

    Exit code 0: all is sound. 65: something is damaged, or FILE is no buffer. 66: it is not there or cannot be read.
    """
    verdict = Verdict(str(path))
    packs = Salvage(path)
    with reading(path):
        unreadable = _read_all(packs, verdict)
        must_be_buffer(path, verdict.packs + verdict.unreadable_packs)
        in_log, verdict.packs_sqlite_drops = log_fault(path)
        rows = verdict.packs + verdict.unreadable_packs - verdict.packs_sqlite_drops + packs.damaged
        verdict.faults += filter(None, (file_fault(path), tree_fault(path, rows), in_log))
    verdict.damaged_rows = packs.damaged
    if packs.damaged:
        verdict.faults.append(f"{count(packs.damaged, 'damaged row')}: the checksum of the pack is wrong")
    if unreadable:
        more = "; ..." if verdict.unreadable_packs > LISTED else ""
        verdict.faults.append(f"{count(verdict.unreadable_packs, 'unreadable pack')}: {'; '.join(unreadable)}{more}")
    if as_json:
        click.echo(json.dumps({"sound": not verdict.faults} | asdict(verdict)))
    else:
        click.echo("\n".join(_told(verdict)))
    return EX_DATAERR if verdict.faults else 0


def _read_all(packs: Iterable[Found], verdict: Verdict) -> list[str]:
    """Read packs and count them; return the first of those that cannot be read, and why."""
    unreadable: list[str] = []
    for _, _, pack in packs:
        if why := _why_unreadable(pack):
            verdict.unreadable_packs += 1
            if len(unreadable) < LISTED:
                unreadable.append(f"{pack.dataset} {_number(pack.epoch, pack.n)}, {why}")
        else:
            verdict.packs += 1
            verdict.readings += pack.readings
    return unreadable


def _why_unreadable(pack: Pack) -> str:
    try:
        labels = content(pack).labels
    except Unreadable as error:
        return str(error)
    says = labels.get("epoch"), labels.get("seq")
    return "" if says == (pack.epoch, pack.n) else f"its payload says {_number(*says)}"


def _told(verdict: Verdict) -> Iterator[str]:
    sound = f"{verdict.file}: {count(verdict.packs, 'pack')} with {count(verdict.readings, 'reading')}"
    if not verdict.faults:
        yield f"{sound}, all sound"
        return
    yield f"{sound} sound"
    yield from (f"{verdict.file}: {fault}" for fault in verdict.faults)
    yield f"Next step: polegate buffer salvage {shlex.quote(verdict.file)} --to NEW, which keeps what is sound;"
    yield "a gateway that starts with this file does so by itself."


@click.command("salvage")
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--to", "new", metavar="NEW", type=FILE, required=True, help="The new file; it must not be there yet.")
def salvage(path: Path, new: Path) -> int:
    """Write what is sound in the buffer FILE into NEW.

    NEW is a buffer that can be put in the place of FILE. Packs that lie behind a damaged place of the log are in it
    too. FILE stays as it is.

    Exit code 0: NEW holds all that is sound in FILE. 65: FILE is no buffer. 66: it is not there or cannot be read.
    73: NEW is there already or cannot be made.
    """
    with reading(path):
        found = look(path)
        must_be_buffer(path, len(found.numbers))
        must_be_free(new, path)
        with _bar(path, found) as packs:
            readings = _write(packs, found, new, _epoch_for(path, found))
    click.echo(f"{new}: {count(len(found.numbers), 'pack')} with {count(readings, 'reading')}")
    click.echo(f"{path}: {count(found.damaged, 'damaged row')} left out")
    click.echo("Next step, to use it: stop the gateway, then")
    for line in _put_in_place(path, new):
        click.echo(f"  {line}")
    return 0


def _epoch_for(path: Path, found: Look) -> int:
    """Return an epoch that no pack was ever numbered with: a receiver takes a number that comes again for a copy."""
    last = found.numbers[-1] >> frame.EPOCH_SHIFT if found.numbers else 0
    noted = pack_mend.highest_epoch(path)
    return max(last, noted) + 1 if noted else last + UNSEEN_STARTS


def _write(packs: Iterable[Found], found: Look, new: Path, epoch: int) -> int:
    try:
        return write_buffer(packs, found.epochs, new, epoch)
    except (OSError, SqlError) as error:
        raise NotMade(f"{new} cannot be made: {error}; give a name in a folder with room") from error


def _put_in_place(path: Path, new: Path) -> Iterator[str]:
    """Give the commands. A log that stayed behind would be taken for one of the new file."""
    parts = [part for part in pack_mend.PARTS if Path(f"{path}{part}").exists()]
    for tool in ("chown", "chmod"):
        yield shlex.join([tool, f"--reference={path}{parts[0]}", str(new)])
    for part in parts:
        yield shlex.join(["mv", f"{path}{part}", f"{path}.old{part}"])
    yield shlex.join(["mv", str(new), str(path)])


@click.command("export")
@click.argument("path", metavar="FILE", type=FILE)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="senml",
    show_default=True,
    help="How packs are written.",
)
@click.option("--dataset", metavar="NAME", help="Only packs of this dataset.")
@click.option("--dead", is_flag=True, help="Only packs that were set aside because no broker takes them.")
@click.option("--output", metavar="OUT", type=FILE, help="Write to this file, not to the standard output.")
def export(path: Path, *, form: str, dataset: str | None, dead: bool, output: Path | None) -> int:
    """Write out the readings in the buffer FILE.

    Packs come in the order they were sealed. senml: one a line, its JSON. csv: one value a line, below a line
    "time,name,value,unit"; times are UTC.

    Exit code 0: all was written. 65: what is damaged was left out, or FILE is no buffer. 66: it is not there or
    cannot be read. 73: OUT cannot be written.
    """
    with reading(path):
        found = look(path, dataset, dead=dead)
        must_be_buffer(path, len(found.datasets))
        with _writing(output, path) as out, _bar(path, found) as packs:
            unreadable = _export(packs, FORMATS[form](out))
    if dataset is not None and dataset not in found.datasets:
        click.echo(f"{path} has no pack of dataset {quoted(dataset)}{mean(dataset, found.datasets)}", err=True)
    if found.guessed and form == "csv":
        click.echo(f"times of {count(found.guessed, 'pack')} are {GUESS}", err=True)
    if left_out := found.damaged + unreadable:
        click.echo(f"{count(left_out, 'damaged pack')} left out; see polegate buffer verify", err=True)
    return EX_DATAERR if left_out else 0


def _export(packs: Iterable[Found], writer: Writer) -> int:
    """Write packs, and return how many could not be read."""
    unreadable = 0
    for found in packs:
        try:
            opened = content(found.pack)
        except Unreadable:
            unreadable += 1
        else:
            writer.write(opened)
    return unreadable


@contextlib.contextmanager
def _writing(output: Path | None, path: Path) -> Iterator[IO[str]]:
    if output is not None:
        must_be_another(output, path)
    try:
        with click.open_file(output or "-", "w", encoding="utf-8") as out:
            yield out
            out.flush()  # while it can still be told
    except BrokenPipeError:  # who reads it has seen enough
        raise
    except OSError as error:
        step = "give a name in a folder with room"
        raise NotMade(f"{output} cannot be written: {error.strerror}; {step}") from error


@contextlib.contextmanager
def _bar(path: Path, found: Look) -> Iterator[Iterable[Found]]:
    """Give the packs in order, with a bar where a person looks on."""
    with click.progressbar(
        in_order(path, found.numbers),
        length=len(found.numbers),
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        update_min_steps=len(found.numbers) // 100 + 1,
    ) as packs:
        yield packs


def _number(epoch: object, n: object) -> str:
    return f"{epoch}:{n}"


@click.group("buffer", commands=[stats, verify, salvage, export, dead_command, retry])
def command() -> None:
    """Look into the buffer FILE of a gateway that is stopped, or into a copy of it, also where it is damaged.

    The log FILE-wal belongs to it: copy both. FILE is only read, and nothing is written beside it, but by retry.
    """

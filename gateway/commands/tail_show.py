"""What ``polegate tail`` prints: readings and what was found of packs, for a person or as JSON for a script."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import click

from gateway.commands.buffer_faults import count
from gateway.commands.values import said
from gateway.config.toml_text import visible
from gateway.words.completeness import Span, Track, spans
from gateway.words.reading import ACCEPTED, REJECTED
from gateway.words.records import Record

SHOWN = 200  # characters of a name or a text
LISTED = 5  # spans of numbers that are named
QUALITIES = {REJECTED: ("rejected", "red"), ACCEPTED: ("accepted", "green")}
WORDS = {
    "hole": "missing",
    "mended": "came after all",
    "repeat": "came again",
    "restart": "the gateway started anew",
    "asked": "asked for again",
    "gone": "no longer held by the pole",
    "unanswered": "no answer to what was asked; is the pole online, does it listen, and may you publish there?",
    "refused": "cannot be asked for again",
    "error": "the pole answers",
    "unreadable": "not a pack",
    "unnumbered": "a pack without epoch and seq; whether others are missing cannot be told",
}


class Finding(NamedTuple):
    """What was found of the packs of a dataset.

    Attributes:
        kind: one of WORDS.
        pole: whose.
        dataset: of it; "" for none.
        epoch: of the numbers; 0: there are none.
        seq: the numbers.
        why: in words.
    """

    kind: str
    pole: str
    dataset: str = ""
    epoch: int = 0
    seq: Sequence[Span] = ()
    why: str = ""


class Show(Protocol):
    """A form of output."""

    def pack(self, pole: str, dataset: str, records: Sequence[Record]) -> None:
        """Print the readings of a pack."""

    def finding(self, finding: Finding) -> None:
        """Print what was found."""

    def sums(self, tracks: Mapping[tuple[str, str], Track]) -> None:
        """Print what came of each dataset, and what is missing."""


class AsText:
    """For a person: readings on standard output, the rest on standard error."""

    def __init__(self) -> None:
        self._width = 0

    def pack(self, pole: str, dataset: str, records: Sequence[Record]) -> None:
        """Print one line for each reading, in order of time."""
        del pole, dataset  # the name has the one, and who asks for more than one dataset knows the channels
        guess = "?" if "clock" in records[0].labels else ""
        self._width = max(self._width, *(len(visible(record.name, SHOWN)) for record in records))
        for record in sorted(records, key=_time):
            at = click.style(_local(record.time) + guess, dim=True)
            click.echo(f"{at}  {visible(record.name, SHOWN):<{self._width}}  {_value(record)}")

    def finding(self, finding: Finding) -> None:
        """Print a line."""
        where = " ".join(visible(word, SHOWN) for word in (finding.pole, finding.dataset) if word)
        numbers = f": {_numbers(finding.epoch, finding.seq)}" if finding.seq else ""
        why = f": {visible(finding.why, SHOWN)}" if finding.why else ""
        click.secho(f"{where}: {WORDS[finding.kind]}{numbers}{why}", fg="yellow", err=True)

    def sums(self, tracks: Mapping[tuple[str, str], Track]) -> None:
        """Print a line for each dataset."""
        if not tracks:
            click.echo("no pack came", err=True)
        for (pole, dataset), track in sorted(tracks.items()):
            lost = [_numbers(epoch, seq) for epoch, seq in spans(track.holes).items()]
            missing = f"{_missing(track)} missing: {'; '.join(lost)}" if lost else "none missing"
            click.echo(
                f"{pole} {dataset}: {count(track.packs, 'pack')}, {count(track.repeats, 'repeat')}, {missing}", err=True
            )


class AsJson:
    """For a script: one JSON object a line."""

    def pack(self, pole: str, dataset: str, records: Sequence[Record]) -> None:
        """Print one object for each reading, in order of time."""
        labels = {key: value for key, value in records[0].labels.items() if key != "why"}
        for record in sorted(records, key=_time):
            told = {"pole": pole, "dataset": dataset, "name": record.name, "time": record.time, "value": record.value}
            told |= {"unit": record.unit} | {key: record.labels[key] for key in ("why",) if key in record.labels}
            click.echo(json.dumps(told | {"pack": labels}))

    def finding(self, finding: Finding) -> None:
        """Print an object."""
        click.echo(
            json.dumps({"finding": finding.kind} | {k: v for k, v in finding._asdict().items() if v and k != "kind"})
        )

    def sums(self, tracks: Mapping[tuple[str, str], Track]) -> None:
        """Print an object for each dataset."""
        for (pole, dataset), track in sorted(tracks.items()):
            told = {"finding": "sum", "pole": pole, "dataset": dataset, "packs": track.packs, "repeats": track.repeats}
            lost = [{"epoch": epoch, "seq": seq} for epoch, seq in spans(track.holes).items()]
            click.echo(json.dumps(told | {"missing": _missing(track), "holes": lost}))


def _time(record: Record) -> float:
    return record.time


def _missing(track: Track) -> int:
    return sum(hole.last - hole.first + 1 for hole in track.holes)


def _numbers(epoch: int, seq: Sequence[Span]) -> str:
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in seq[:LISTED]]
    more = f" and {len(seq) - LISTED} more gaps" if len(seq) > LISTED else ""
    return f"epoch {epoch}, seq {', '.join(shown)}{more}"


def _value(record: Record) -> str:
    if "why" in record.labels and record.value in QUALITIES:
        word, colour = QUALITIES[int(record.value)]
        return click.style(f"{word}: {visible(str(record.labels['why']), SHOWN)}", fg=colour)
    return visible(said(record.value, record.unit), SHOWN)


def _local(seconds: float) -> str:
    """Write seconds since 1970 as the time of day here, ISO 8601."""
    try:
        return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).astimezone().isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # a year that no calendar has
        return f"{seconds} s"

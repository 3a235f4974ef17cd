"""How a rollout is shown while it goes: a bar and a table in a terminal, else a line where something changed.

The terminal's is drawn by rich, which is installed with ``polegate[operator]``; without it there are lines.
"""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

import click

from gateway.commands.fleet.plan import Step
from gateway.commands.fleet.tally import Kind, Tally, counts, some

LINE_S = 5.0  # between two lines of the same stage
REASONS = 10


class Show(Protocol):
    """A form of output."""

    def stage(self, step: Step, of: int, tally: Tally) -> None:
        """Show how a stage stands; ``of``: how many there are."""

    def say(self, text: str) -> None:
        """Say what happened."""


class Lines:
    """For a log."""

    def __init__(self) -> None:
        self._last = ""
        self._next = 0.0

    def stage(self, step: Step, of: int, tally: Tally) -> None:
        """Print a line, where it is another one than the last, and not too often."""
        line = f"{_name(step, of)}: {counts(tally)}"
        if line != self._last and (time.monotonic() >= self._next or not tally.pending):
            click.echo(line)
            self._last = line
            self._next = time.monotonic() + LINE_S

    def say(self, text: str) -> None:
        """Print it."""
        click.echo(text)


def _name(step: Step, of: int) -> str:
    number = step.path.stem.removeprefix("stage-")
    return f"stage {number} of {of}, {step.share} of the poles, {step.document.name}"


def reasons(tally: Tally, *kinds: Kind) -> Iterator[str]:
    """Write why poles failed, or wait: the most frequent reasons first, with some poles each."""
    for kind in kinds:
        yield from grouped(kind, {pole: why for why, poles in tally.named(kind) for pole in poles})


def grouped(kind: Kind, whys: Mapping[str, str]) -> Iterator[str]:
    """Write the same of poles of one kind, and why they are."""
    by_why: dict[str, list[str]] = {}
    for pole, why in whys.items():
        by_why.setdefault(why, []).append(pole)
    found = sorted(by_why.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    for why, poles in found[:REASONS]:
        yield f"{len(poles):,} {kind.value}{': ' + why if why else ''}: {some(poles)}"
    if left := found[REASONS:]:
        yield f"{sum(len(poles) for _, poles in left):,} more {kind.value}, for {len(left):,} other reasons"


@contextlib.contextmanager
def show() -> Iterator[Show]:
    """Show on a terminal, else in lines."""
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        from gateway.commands.fleet.screen import screen  # noqa: PLC0415  # a pole has no rich

        with screen() as it:
            yield it
    else:
        yield Lines()

"""A rollout in a terminal: a bar for each stage, and under it why poles failed or wait."""

import contextlib
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gateway.commands.fleet.plan import Step
from gateway.commands.fleet.tally import Kind, Tally, counts, some

COLOURS = {
    Kind.GOOD: "green",
    Kind.BAD: "red",
    Kind.TRIED: "cyan",
    Kind.WAITS: "yellow",
    Kind.SILENT: "bright_black",
    Kind.NEITHER: "magenta",
}
ROWS = 8  # of reasons


class Screen:
    """The terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._stages: dict[str, tuple[Step, Tally]] = {}

    def stage(self, step: Step, of: int, tally: Tally) -> None:
        """Draw all stages so far; ``of``: how many there are."""
        self._live.start()  # not before: nothing is left on the terminal by who never came to a broker
        self._stages[step.sha] = step, tally
        bars = Table.grid(padding=(0, 2))
        for n, (each, its) in enumerate(self._stages.values(), 1):
            done = its.all - its.pending
            bars.add_row(
                f"{n}/{of}", each.share, ProgressBar(total=max(its.all, 1), completed=done, width=40), counts(its)
            )
        self._live.update(Group(bars, _table(tally)), refresh=True)

    def say(self, text: str) -> None:
        """Print it above."""
        self._live.console.print(Text(text))


def _table(tally: Tally) -> Table:
    table = Table(show_edge=False, pad_edge=False, expand=True)
    for title in ("poles", "", "why", "such as"):
        table.add_column(title, justify="right" if title == "poles" else "left", no_wrap=title != "why")
    rows = [(kind, why, poles) for kind in (Kind.BAD, Kind.WAITS, Kind.NEITHER) for why, poles in tally.named(kind)]
    for kind, why, poles in rows[:ROWS]:
        table.add_row(f"{len(poles):,}", Text(kind.value, COLOURS[kind]), Text(why), Text(some(poles, 2)))
    return table


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """Draw until it is over; what was drawn last stays."""
    live = Live(console=Console(), auto_refresh=False)
    try:
        yield Screen(live)
    finally:
        live.stop()

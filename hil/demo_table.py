"""What the demo shows: a live table of all channels, and at the end a summary."""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hil.receiver import Heard

FRAME_LINES = 12  # of the screen that are not rows of the table
QUALITY_WIDTH = 48  # the whole text stands in the log
OVERVIEW = 2  # channels of each device on the first page

Row = tuple[str, str, str, str, str, Text, str]


class Screen:
    """The terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def draw(self, status: Mapping[str, Any], heard: Heard, keys: Mapping[str, str], page: int) -> None:
        """Show how things are now."""
        rows = list(_rows(status, heard))
        size = max(5, self._live.console.height - FRAME_LINES)
        pages = [_overview(rows), *(rows[at : at + size] for at in range(0, len(rows), size))]
        page %= len(pages)
        table = Table(expand=True, show_edge=False, pad_edge=False)
        for title, justify in COLUMNS:
            table.add_column(title, justify=justify, no_wrap=True)
        for row in pages[page][:size]:
            table.add_row(*row)
        hints = Text("   ").join(
            Text.assemble((key.replace(" ", "space"), "bold"), " ", what) for key, what in keys.items()
        )
        head = Panel(Text(line(status, heard)), title="polegate: an emulated pole")
        self._live.update(
            Group(
                head,
                table,
                Text(f"page {page + 1} of {len(pages)}: {'all channels' if page else 'an overview'}", style="dim"),
                hints,
            ),
            refresh=True,
        )


COLUMNS: tuple[tuple[str, Any], ...] = (
    ("device", "left"),
    ("channel", "left"),
    ("value", "right"),
    ("unit", "left"),
    ("age", "right"),
    ("quality", "left"),
    ("at the broker", "right"),
)


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """Take the terminal and give it back."""
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        yield Screen(live)


def line(status: Mapping[str, Any], heard: Heard) -> str:
    """Say in a line how gateway and receiver do."""
    if not status:
        return "the gateway has not started yet"
    if status.get("silent"):
        return "the gateway does not answer"
    uplink, buffer = status["uplink"], status["buffer"]
    return (
        f"uplink {'up' if uplink['up'] else 'DOWN: ' + uplink['trouble']}   "
        f"buffer {buffer['packs']} packs, {buffer['readings']} values, {buffer['stored']} packs on disk   "
        f"epoch {status['epoch']}   "
        f"broker: {sum(map(len, heard.packs.values()))} packs, {len(heard.records)} values, "
        f"{sum(map(len, heard.holes().values()))} missing, {heard.repeats()} twice"
    )


def summary(expected: Collection[str], heard: Heard) -> str:
    """Say, by device, which channels arrived."""
    values = Counter(record.name for record in heard.records)
    devices: dict[str, list[str]] = {}
    for name in sorted(expected):
        devices.setdefault(name.split("/")[1], []).append(name)
    rows = [f"{'device':<16} {'channels':>9} {'values':>8}"]
    for device, names in devices.items():
        came = sum(name in heard.latest for name in names)
        rows.append(f"{device:<16} {came:>4}/{len(names):<4} {sum(values[name] for name in names):>8}")
    came = sum(name in heard.latest for name in expected)
    rows.append(f"{'all':<16} {came:>4}/{len(expected):<4} {len(heard.records):>8}")
    return "\n".join(rows)


def _overview(rows: list[Row]) -> list[Row]:
    """Pick the first channels of each device."""
    shown: Counter[str] = Counter()
    picked = []
    for row in rows:
        shown[row[0]] += 1
        if shown[row[0]] <= OVERVIEW:
            picked.append(row)
    return picked


def _rows(status: Mapping[str, Any], heard: Heard) -> Iterator[Row]:
    facts = {name: about for thing in heard.catalogues.values() for name, about in thing["properties"].items()}
    for device, state in status.get("devices", {}).items():
        age = f"{state['age']:.0f} s" if "age" in state else ""
        quality = Text(state["trouble"][:QUALITY_WIDTH] or "good", style="red" if state["trouble"] else "green")
        if not state.get("latest"):
            yield device, "", "", "", age, quality, ""
        for channel, value in state.get("latest", {}).items():
            about = facts.get(f"{device}/{channel}", {})
            record = heard.latest.get(about.get("polegate:name", ""))
            behind = f"{status['at'] - record.time:.0f} s" if record else "not yet"
            shown = "no reading" if value is None else f"{value:.7g}" if isinstance(value, float) else str(value)
            yield device, channel, shown, about.get("unit", ""), age, quality, behind

"""``polegate fleet status``: which configuration is in force at thousands of poles, from what each has reported last.

Of each report only the line that is shown is kept, so a fleet takes some hundred bytes a pole.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import click

from gateway.commands.broker import Place, access, made_of
from gateway.commands.fleet.publish import STEP, broker
from gateway.commands.fleet.reports import SHOWN, Heard, poles, reports
from gateway.config.toml_text import visible
from gateway.remote.config_state import LOCAL
from gateway.remote.verdict import Code
from gateway.words.messages import Reported

FIRST_OF_THE_BAD = Code.TOO_BIG
SILENT, UNREADABLE = "SILENT", "UNREADABLE"
SHOWN_SHA = 8
SHOWN_NAME = 80


class Line(NamedTuple):
    """What is kept of a pole.

    Attributes:
        pole: its name.
        in_force: streams with the document that is in force.
        trial: the document that is tried; "": none.
        verdict: name of the last one, or why there is none.
        text: the same in words.
        drift: keys that are not as documents say.
        is_bad: somebody should look at it.
    """

    pole: str
    in_force: str
    trial: str = ""
    verdict: str = ""
    text: str = ""
    drift: int = 0
    is_bad: bool = False


@click.command("status")
@broker
@access
@poles
@click.option("--pole", "wanted", metavar="NAME", multiple=True, help="Show only this pole; may stand again.")
@click.option("--bad", is_flag=True, help="Show only poles that somebody should look at.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, the last one with all counts.")
def status(
    url: str,
    named: Sequence[str] | None,
    wanted: Sequence[str],
    *,
    bad: bool,
    as_json: bool,
    **more: Any,  # noqa: ANN401  # the rest of what says where the broker is, as click has it
) -> int:
    """Tell which configuration is in force at all poles, on trial, and what became of the last document.

    It is what each pole has reported last; whether it is online does not matter. A pole is bad where its newest
    document did not come into force, where it refused the last one, or where its report cannot be read; with --poles,
    also where there is none.

    Exit code 0: told. 69: the broker cannot be reached. 77: it does not let you in, or read.
    """
    place = Place.of(made_of(url, more), "status", STEP)
    lines: dict[str, Line] = {}
    code = place.run(_gather(place, named or (), lines), f"read {place.prefix}/+/config/reported")
    if code:
        return code
    for pole in (*(named or ()), *wanted):
        lines.setdefault(pole, Line(pole, "", verdict=SILENT, text="it has reported nothing", is_bad=True))
    found = [lines[pole] for pole in sorted(lines)]
    shown = [line for line in found if (not wanted or line.pole in wanted) and (line.is_bad or not bad)]
    if as_json:
        for line in shown:
            click.echo(json.dumps(line._asdict()))
        click.echo(json.dumps(_counts(found)))
    else:
        _print(found, shown)
    return 0


async def _gather(place: Place, named: Sequence[str], lines: dict[str, Line]) -> int:
    def take(heard: Heard) -> None:
        if heard.report is not None:
            lines[heard.pole] = line_of(heard.pole, heard.report)
        elif heard.why:
            lines[heard.pole] = Line(heard.pole, "", verdict=UNREADABLE, text=heard.why, is_bad=True)
        else:
            lines.pop(heard.pole, None)

    link = await place.dial()
    try:
        async with reports(link, place.prefix, named, take):
            return 0
    finally:
        await link.close()


def line_of(pole: str, report: Reported) -> Line:
    """Keep of a report what is shown."""
    in_force, trial, last = [], report.trial, report.last
    fate = text = ""
    for stream, each in sorted(report.streams.items()):
        if each.active and stream != LOCAL:
            known_by = visible(each.active[:SHOWN_SHA], SHOWN_SHA)
            in_force.append(f"{visible(stream, SHOWN_NAME)} {each.active_seq} {known_by}")
        if each.fate:
            fate, text = each.fate, f"{stream} {each.seq}: {each.why}"
    if not fate and last is not None:
        fate, text = last.name, f"{last.stream} {last.seq or ''}: {last.text}"
    return Line(
        pole=pole,
        in_force=sys.intern(", ".join(in_force)),
        trial=visible(f"{trial.stream} {trial.seq}", SHOWN_NAME) if trial else "",
        verdict=sys.intern(visible(fate, SHOWN_NAME)),
        text=sys.intern(visible(text, SHOWN)),
        drift=len(report.drift),
        is_bad=bool(report.trouble)
        or any(each.fate for each in report.streams.values())
        or (last is not None and last.code >= FIRST_OF_THE_BAD),
    )


def _counts(found: Sequence[Line]) -> dict[str, Any]:
    return {
        "poles": len(found),
        "bad": sum(line.is_bad for line in found),
        "on_trial": sum(bool(line.trial) for line in found),
        "drift": sum(bool(line.drift) for line in found),
        "in_force": dict(Counter(line.in_force for line in found).most_common()),
        "verdicts": dict(Counter(line.verdict for line in found).most_common()),
    }


def _print(found: Sequence[Line], shown: Sequence[Line]) -> None:
    counts = _counts(found)
    of = f"{counts['bad']:,} bad, {counts['on_trial']:,} on trial, {counts['drift']:,} with drift"
    click.echo(f"{counts['poles']:,} poles: {of}")
    for title, key, none in (("in force", "in_force", "no document"), ("verdicts", "verdicts", "none yet")):
        for name, count in counts[key].items():
            click.echo(f"  {title:<9} {count:>7,}  {name or none}")
    if not shown:
        return
    rows = [("pole", "in force", "on trial", "drift", "verdict", "")]
    rows += [(e.pole, e.in_force or "-", e.trial or "-", str(e.drift or "-"), e.verdict or "-", e.text) for e in shown]
    click.echo()
    for row in aligned(rows):
        click.echo(row)


def aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Put cells below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

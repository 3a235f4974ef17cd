"""The page of ``polegate web``: what the doctor finds, and the latest values, as HTML for a phone.

It is whole in itself: no script, no picture, nothing to load, and :data:`POLICY` lets the browser do nothing else. It
asks for itself again every few seconds. All text is escaped where an element is made, wherever it comes from.
"""

import base64
import hashlib
import html
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.commands.doctor import Answer
from gateway.commands.doctor_findings import Finding, utc
from gateway.words.messages import DeviceState, Status

AGAIN_S = 10
STYLE = """
:root { color-scheme: light dark; --ink: #16191c; --dim: #5b6168; --ground: #f3f5f7; --card: #fff; --line: #d7dbdf;
  --wrong: #b3261e; --note: #7a5300; --ok: #1b6e35 }
@media (prefers-color-scheme: dark) { :root { --ink: #eceff2; --dim: #a2a9b1; --ground: #14171a; --card: #1f2327;
  --line: #3a3f45; --wrong: #ff8a80; --note: #f5c04a; --ok: #7fd893 } }
* { box-sizing: border-box; margin: 0 }
body { font: 1rem/1.45 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: .8rem;
  color: var(--ink); background: var(--ground); overflow-wrap: anywhere }
h1 { font-size: 1.5rem }
header p { font-size: 1.15rem; font-weight: 600 }
h2 { font-size: 1rem; color: var(--dim); margin: 1.2rem 0 .4rem }
h3 { font-size: 1.05rem }
article { background: var(--card); border: 1px solid var(--line); border-left-width: .35rem; border-radius: .4rem;
  padding: .6rem .7rem; margin-bottom: .5rem }
article.wrong { border-left-color: var(--wrong) }
article.note { border-left-color: var(--note) }
article.ok { border-left-color: var(--ok) }
p.wrong, .wrong h3 { color: var(--wrong) }
p.note, .note h3 { color: var(--note) }
p.ok { color: var(--ok) }
.step { margin-top: .3rem }
.step::before { content: "\\2192\\00a0" }
.dim, dt, footer { color: var(--dim); font-size: .9rem }
dd { font-variant-numeric: tabular-nums }
.values { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .35rem .8rem;
  margin-top: .5rem }
.values dd { font-weight: 600 }
.pole dd + dt { margin-top: .4rem }
footer { margin-top: 1.2rem }
a { color: inherit }
"""
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)
HEAD = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{AGAIN_S}">
<style>{STYLE}</style>
"""
SYMBOLS = {"Cel": "°C", "ug/m3": "µg/m³", "%RH": "% RH", "count": "", "/": ""}  # as people write them
NO_READING = "no reading"
SPANS_S = {"d": 86_400, "h": 3_600, "min": 60}
HEADINGS = {"wrong": "What is wrong", "note": "What to know"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def page(answer: Answer) -> str:
    """Return the page that shows an answer of the gateway, or that none came."""
    status = answer.status
    name = (status.details.pole if status else "") or "this pole"
    level, verdict = _verdict(answer)
    main = [
        _section(heading, [_told(each) for each in answer.findings if each.level == of])
        for of, heading in HEADINGS.items()
    ]
    if status:
        main += _section("The pole", [_pole(answer.findings)]), _section("Devices", _devices(status, answer))
    title = _element("title", f"{name}: {verdict}")
    header = _element("header", _element("h1", name), _element("p", verdict, kind=level))
    body = _element("body", header, _element("main", *main), _footer(status))
    return f"{HEAD}{title}\n</head>\n{body}\n</html>\n"


def _element(name: str, *content: str, kind: str = "") -> Html:
    inner = "".join(each if isinstance(each, Html) else html.escape(each) for each in content)
    return Html(f"<{name} class={kind}>{inner}</{name}>\n" if kind else f"<{name}>{inner}</{name}>\n")


def _section(heading: str, content: Iterable[Html]) -> Html:
    inside = [*content]
    return _element("section", _element("h2", heading), *inside) if inside else Html()


def _verdict(answer: Answer) -> tuple[str, str]:
    """Return how the pole is: a level, and in words."""
    wrong, notes = (sum(each.level == level for each in answer.findings) for level in HEADINGS)
    if answer.status is None:
        return "wrong", "the gateway does not answer"
    if wrong:
        return "wrong", "1 thing is wrong" if wrong == 1 else f"{wrong} things are wrong"
    if notes:
        return "note", f"well, with {notes} {'thing' if notes == 1 else 'things'} to know"
    return "ok", "all is well"


def _told(finding: Finding) -> Html:
    step = _element("p", finding.step, kind="step") if finding.step else Html()
    return _element("article", _element("h3", finding.subject), _element("p", finding.text), step, kind=finding.level)


def _devices(status: Status, answer: Answer) -> Iterable[Html]:
    levels = {each.subject: each.level for each in answer.findings}
    told: Any = answer.told  # as the gateway sends it: the latest values are no part of the state
    for name, device in status.devices.items():
        latest = told["devices"][name].get("latest", {})
        values = _values(latest, status.details.units.get(name, {}))
        heading = _element("h3", name)
        yield _element("article", heading, _look(device), values, kind=levels.get(f"device {name}", "ok"))


def _look(device: DeviceState) -> Html:
    """Tell when it gave values, and what was lost since the start."""
    told = [f"last values {_ago(device.age)}" if device.age is not None else "no values yet"]
    if device.lapse:
        told.append(device.lapse)
    told.append(f"good: {device.good}")
    if device.lost:
        told.append(f"lost: {', '.join(f'{count} {word}' for word, count in device.lost.items())}")
    return _element("p", "; ".join(told), kind="dim")


def _values(latest: Mapping[str, object], units: Mapping[str, str]) -> Html:
    rows = [
        _element("div", _element("dt", name), _element("dd", _value(value, units.get(name, ""))))
        for name, value in latest.items()
    ]
    return _element("dl", *rows, kind="values") if rows else Html()


def _value(value: object, unit: str) -> str:
    match value:
        case None:
            return NO_READING
        case bool():
            return "yes" if value else "no"
        case _:
            return f"{value} {SYMBOLS.get(unit, unit)}".rstrip()


def _pole(findings: Iterable[Finding]) -> Html:
    """Tell what is well."""
    rows: list[Html] = []
    well = (each for each in findings if each.level == "ok" and each.subject != "devices")
    for subject, of_it in itertools.groupby(well, lambda each: each.subject):
        rows += _element("dt", subject), *(_element("dd", each.text) for each in of_it)
    return _element("article", _element("dl", *rows, kind="pole"), kind="ok")


def _footer(status: Status | None) -> Html:
    time = f"{utc(status.at)} by the pole's clock. " if status else ""
    told = f"{time}This page asks again every {AGAIN_S} s. The same for scripts: "
    link = Html('<a href="status.json">status.json</a>')
    return _element("footer", told, link, ". The file of the pole is looked at by: sudo polegate doctor.")


def _ago(seconds: float) -> str:
    for name, span in SPANS_S.items():
        if seconds >= 2 * span:
            return f"{seconds // span:.0f} {name} ago"
    return f"{seconds:.0f} s ago"

"""The page of ``polegate web``: what it says of a pole, and that nothing a pole tells becomes part of it."""

from typing import Any

import pytest

from gateway.commands.doctor import Answer
from gateway.commands.doctor_findings import Finding
from gateway.commands.web_page import page
from gateway.words.messages import Details, DeviceState, Status
from tests.commands.web_scene import HARMLESS, Seen
from tests.words.contract import some_state

HOSTILE = "</p><script>alert('\"&amp;')</script>"


def shown(*findings: Finding, told: dict[str, Any] | None = None, **facts: Any) -> Seen:  # noqa: ANN401  # any fields
    """Return the page of a pole that is well but for some facts."""
    details = Details(pole="pole-17", signs=[], units={"dust": {"pm10": "ug/m3", "t": "Cel", "n": "count"}})
    status = Status(**dict(some_state("online")) | {"details": details} | facts)
    return Seen(page(Answer(0, [*findings], told or {}, status)))


def device(latest: dict[str, Any], **facts: Any) -> dict[str, Any]:  # noqa: ANN401  # any fields
    state = DeviceState(**{"good": 1, "lost": {}, "age": 2.0} | facts)
    return {"devices": {"dust": state}, "told": {"devices": {"dust": {"latest": latest}}}}


def test_nothing_that_a_pole_tells_becomes_part_of_the_page_itself() -> None:
    details = Details(pole=HOSTILE, signs=[], units={HOSTILE: {HOSTILE: HOSTILE}})
    state = DeviceState(good=1, lost={HOSTILE: 1}, age=1.0, lapse=HOSTILE)
    told = {"devices": {HOSTILE: {"latest": {HOSTILE: HOSTILE}}}}
    finding = Finding("wrong", HOSTILE, HOSTILE, HOSTILE)
    seen = shown(
        finding, finding._replace(level="ok"), told=told, details=details, devices={HOSTILE: state}, version=HOSTILE
    )
    assert set(seen.elements) <= HARMLESS
    assert seen.text.count(HOSTILE) == 13
    assert not [value for _, value in seen.attributes if value and "script" in value]


def test_what_is_wrong_comes_first_with_what_to_do() -> None:
    seen = shown(
        Finding("ok", "devices", "0 of 1 give values"),
        Finding("ok", "buffer", "it works"),
        Finding("ok", "buffer", "0 packs wait"),
        Finding("ok", "clock", "it is right"),
        Finding("note", "buffer", "3 packs had to give way", "Raise it."),
        Finding("wrong", "device dust", "no-reply since then", "Check it."),
        **device({}, age=None, lapse="no-reply", lost={"no-reply": 4}),
    )
    assert seen.text.startswith(
        "pole-17: 1 thing is wrong | pole-17 | 1 thing is wrong"
        " | What is wrong | device dust | no-reply since then | Check it."
        " | What to know | buffer | 3 packs had to give way | Raise it."
        " | The pole | buffer | it works | 0 packs wait | clock | it is right"
        " | Devices | dust | no values yet; no-reply; good: 1; lost: 4 no-reply | 1970-01-01 00:00:00 UTC by the"
    )
    assert seen.attributes.count(("class", "wrong")) == 3


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ("", "all is well"),
        ("n", "well, with 1 thing to know"),
        ("nn", "well, with 2 things to know"),
        ("wn", "1 thing is wrong"),
        ("ww", "2 things are wrong"),
    ],
)
def test_the_first_line_says_how_the_pole_is(levels: str, verdict: str) -> None:
    seen = shown(*(Finding("note" if each == "n" else "wrong", "clock", "so") for each in levels))
    assert seen.words[:3] == [f"pole-17: {verdict}", "pole-17", verdict]


@pytest.mark.parametrize(
    ("latest", "text"),
    [
        ({"pm10": 7.3}, "pm10 | 7.3 µg/m³"),
        ({"t": -0.5}, "t | -0.5 °C"),
        ({"n": 3}, "n | 3 |"),
        ({"pm10": None}, "pm10 | no reading"),
        ({"open": True}, "open | yes"),
        ({"open": False}, "open | no |"),
        ({"what": "GPRMC"}, "what | GPRMC"),
    ],
)
def test_a_value_is_shown_as_people_write_it(latest: dict[str, Any], text: str) -> None:
    assert text in shown(**device(latest)).text


@pytest.mark.parametrize(
    ("age", "text"),
    [(0.4, "0 s ago"), (119.0, "119 s ago"), (120.0, "2 min ago"), (7200.0, "2 h ago"), (2e5, "2 d ago")],
)
def test_an_age_is_shown_as_people_say_it(age: float, text: str) -> None:
    assert f"last values {text}" in shown(**device({}, age=age)).text

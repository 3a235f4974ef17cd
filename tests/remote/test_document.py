"""What a document says, and what none may say."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.remote import document, trust_root
from gateway.remote.document import Rollout, Window
from gateway.remote.trust_root import LARGEST_NUMBER
from gateway.remote.verdict import Code, Rejected
from tests.remote.operator import NOW, document_content

MONDAY = int(dt.datetime(2026, 11, 23, tzinfo=dt.UTC).timestamp())
HOUR = 3600


def refusal(content: Any) -> Code:  # noqa: ANN401  # any JSON
    with pytest.raises(Rejected) as refused:
        document.parsed(content if isinstance(content, bytes) else json.dumps(content).encode())
    return refused.value.code


def test_what_is_written_is_read() -> None:
    terms = {"window_s": 20, "hold_s": 5, "confirm": "server"}
    content = document_content(
        "[pole]", seq=7, trial=terms, rollout={"salt": "r", "permyriad": 500}, requires={"fleet": 3}
    )
    found = document.parsed(document.written(content))
    assert found == document.parsed(json.dumps(content).encode())
    assert (found.seq, found.trial.confirm, found.requires) == (7, "server", {"fleet": 3})


@pytest.mark.parametrize("seq", [0, -1, 2**53, True, 1.0, "7", None, [1]])
def test_a_sequence_is_a_whole_number(seq: object) -> None:
    assert refusal(document_content(seq=seq)) is Code.PARSE


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": "nobody"},
        {"stream": "group/a/b"},
        {"stream": "pole/"},
        {"stream": "fleet\n"},
        {"epoch": 0},
        {"expires": 1e9},
        {"settings": {}},
        {"more": 1},
        {"rollout": {"salt": "x", "permyriad": 10_001}},
        {"window": {"from": "24:00", "to": "25:00"}},
        {"window": {"from": "09:00", "to": "08:00"}},
        {"window": {"from": "09:00", "to": "09:10", "spread_s": 600}},
        {"trial": {"hold_s": 60, "window_s": 60}},
        {"trial": {"confirm": "never"}},
        {"requires": {"fleet": 0}},
        {"min_agent": "x"},
    ],
)
def test_what_is_no_document_is_refused(changes: dict[str, Any]) -> None:
    assert refusal(document_content(**changes)) is Code.PARSE


@pytest.mark.parametrize("parsed", [document.parsed, document.parsed_command, trust_root.parsed])
@pytest.mark.parametrize("raw", [b"[]", b"7", b'"x"', b"null", b"true", b"[{}]"])
def test_what_is_json_and_no_table_is_refused(parsed: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(Rejected, match="it must be a table of keys and values, not ") as refused:
        parsed(raw)
    assert refused.value.code is Code.PARSE


def test_what_is_signed_is_read_as_strictly_as_what_is_not() -> None:
    text = json.dumps(document_content())
    assert refusal(text.replace('"seq": 1', '"seq": 1, "seq": 2').encode()) is Code.PARSE
    assert refusal(text.replace('"seq": 1', '"seq": NaN').encode()) is Code.PARSE


def test_another_schema_is_told_as_such() -> None:
    assert refusal(document_content(schema="polegate.config/2")) is Code.SCHEMA


def test_it_is_timely_from_not_before_until_it_expires() -> None:
    found = document.parsed(json.dumps(document_content(not_before=NOW, expires=NOW + 10)).encode())
    found.must_be_timely(NOW)
    found.must_be_timely(NOW + 9)
    for at, code in ((NOW - 1, Code.NOT_YET), (NOW + 10, Code.EXPIRED), (2**62, Code.EXPIRED)):
        with pytest.raises(Rejected) as refused:
            found.must_be_timely(at)
        assert refused.value.code is code


def test_a_canary_is_its_share_of_the_poles_and_stays_in_when_it_is_widened() -> None:
    poles = [f"pole-{n}" for n in range(300)]
    some = {pole for pole in poles if Rollout(salt="a", permyriad=500).takes(pole)}
    more = {pole for pole in poles if Rollout(salt="a", permyriad=2500).takes(pole)}
    assert 5 <= len(some) <= 30
    assert some < more
    assert 50 <= len(more) <= 100
    assert {pole for pole in poles if Rollout(salt="b", permyriad=500).takes(pole)} != some
    assert not any(Rollout(salt="a", permyriad=0).takes(pole) for pole in poles)
    assert all(Rollout(salt="a", permyriad=10_000).takes(pole) for pole in poles)


def window(**changes: Any) -> Window:  # noqa: ANN401  # any JSON
    return Window.model_validate({"from": "09:00", "to": "15:00"} | changes)


def test_a_window_is_open_from_its_begin_until_its_end() -> None:
    hours = [hour for hour in range(24) if window().is_open(MONDAY + hour * HOUR, "p")]
    assert hours == [9, 10, 11, 12, 13, 14]
    days = [day for day in range(7) if window(days=["mon", "thu"]).is_open(MONDAY + (day * 24 + 10) * HOUR, "p")]
    assert days == [0, 3]


def test_a_window_is_looked_at_as_late_as_a_time_can_be_signed() -> None:
    for at in range(LARGEST_NUMBER - 7 * 24 * HOUR, LARGEST_NUMBER + 1, HOUR):
        alike = dt.datetime.fromtimestamp(at % (7 * 24 * HOUR), dt.UTC)  # of the first week of 1970
        assert window(days=["tue"]).is_open(at, "p") == (alike.weekday() == 1 and 9 <= alike.hour < 15)


def test_within_the_spread_each_pole_has_its_own_begin() -> None:
    spread = window(spread_s=HOUR)
    begins = {
        pole: next(s for s in range(9 * HOUR, 10 * HOUR + 1) if spread.is_open(MONDAY + s, pole)) for pole in "abcdef"
    }
    assert len(set(begins.values())) == 6
    assert all(9 * HOUR <= begin < 10 * HOUR for begin in begins.values())


@pytest.mark.parametrize(("version", "fits"), [("1.4", True), ("1.4.0", True), ("1.10", True), ("1.3.9", False)])
def test_it_may_ask_for_a_newer_agent(version: str, fits: bool) -> None:  # noqa: FBT001  # a case
    found = document.parsed(json.dumps(document_content(min_agent="1.4")).encode())
    assert found.fits_agent(version) is fits


def test_a_document_is_known_by_what_it_says() -> None:
    assert document.digest(b"a") != document.digest(b"b")
    assert len(document.digest(b"")) == 64

"""The account of a device: what becomes of its values, when its quality changes, and what the log says of it."""

import contextlib
import math
from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from drivers.contract import BadFrame, NoReply, NotReady, PortGone, Value
from gateway.words.catalogue import Catalogue
from gateway.words.reading import ACCEPTED, REJECTED, Quality
from gateway.words.records import read
from gateway.words.senml import encode
from tests.examples import examples
from tests.sensors.stage import NS, Shelf, meter


class Watch:
    """The time of day on the stage."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return it, seconds."""
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def shelf(watch: Watch) -> Shelf:
    return Shelf(meter(7), watch)


def test_a_look_becomes_one_reading_stamped_when_it_was_taken(shelf: Shelf, watch: Watch) -> None:
    watch.now = 12.5
    shelf.account.took({"sound_level": 58.1, "overload": False, "state": "ok"})
    (reading,) = shelf.readings
    assert (reading.device, reading.dataset, reading.at) == ("unit-7", "noise", 12_500_000_000)
    assert reading.values == {"sound_level": 58.1, "overload": False, "state": "ok"}
    assert shelf.lapses() == []


def test_a_device_that_is_lost_gives_one_record_and_one_more_when_it_is_back(shelf: Shelf, watch: Watch) -> None:
    shelf.account.took({"sound_level": 58.1})
    for watch.now in (10.0, 20.0, 30.0):
        shelf.account.lost(NoReply("no reply in time"))
    for watch.now in (40.0, 50.0):
        shelf.account.took({"sound_level": 60.2})
    assert [dict(reading.values) for reading in shelf.readings] == [
        {"sound_level": 58.1},
        {"quality": Quality(REJECTED, "no-reply")},
        {"quality": Quality(ACCEPTED, "ok"), "sound_level": 60.2},
        {"sound_level": 60.2},
    ]
    assert shelf.lapses() == [(10.0, "", "no-reply"), (40.0, "", "ok")]


def test_another_reason_is_another_record(shelf: Shelf) -> None:
    for error in (
        PortGone("pulled"),
        PortGone("pulled"),
        NoReply("nothing"),
        NotReady("warming up"),
        NotReady("still"),
    ):
        shelf.account.lost(error)
    assert [why for _, _, why in shelf.lapses()] == ["port-gone", "no-reply", "not-ready"]


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_a_value_that_is_none_is_never_a_number_and_its_channel_alone_is_rejected(shelf: Shelf, bad: Value) -> None:
    for value in (58.1, bad, bad, 60.2, 60.3):
        shelf.account.took({"sound_level": value, "battery": 3.1})
    assert [dict(reading.values) for reading in shelf.readings] == [
        {"sound_level": 58.1, "battery": 3.1},
        {"sound_level/quality": Quality(REJECTED, "no-reading"), "battery": 3.1},
        {"battery": 3.1},
        {"sound_level/quality": Quality(ACCEPTED, "ok"), "sound_level": 60.2, "battery": 3.1},
        {"sound_level": 60.3, "battery": 3.1},
    ]


def test_a_channel_that_never_had_a_reading_is_rejected_at_once_and_once(shelf: Shelf) -> None:
    for _ in range(3):
        shelf.account.took({"sound_level": None})
    assert [dict(reading.values) for reading in shelf.readings] == [
        {"sound_level/quality": Quality(REJECTED, "no-reading")}
    ]


def test_a_device_that_comes_back_without_a_channel_says_both(shelf: Shelf) -> None:
    shelf.account.took({"sound_level": None})
    shelf.account.lost(NoReply("nothing"))
    shelf.account.took({"sound_level": None})
    shelf.account.took({"sound_level": 58.1})
    assert [why for _, _, why in shelf.lapses()] == ["no-reading", "no-reply", "ok", "ok"]
    assert shelf.lapses()[3][1] == "sound_level"


@examples(200)
@given(
    looks=st.lists(
        st.one_of(
            st.dictionaries(
                st.sampled_from("abc"),
                st.one_of(st.none(), st.floats(), st.integers(), st.booleans(), st.text(max_size=2)),
                max_size=3,
            ),
            st.sampled_from([NoReply("nothing"), BadFrame("rubbish"), PortGone("pulled")]),
        ),
        max_size=30,
    )
)
def test_whatever_comes_no_bad_value_gets_through_and_each_quality_record_is_a_change(
    looks: list[dict[str, Value] | NoReply],
) -> None:
    shelf = Shelf(meter(7), Watch())
    for look in looks:
        if isinstance(look, dict):
            shelf.account.took(look)
        else:
            shelf.account.lost(look)
    said: dict[str, str] = {}
    for reading in shelf.readings:
        assert reading.values
        for name, value in reading.values.items():
            if isinstance(value, Quality):
                assert said.get(name, "ok") != value.why
                said[name] = value.why
            else:
                assert value is not None
                assert not isinstance(value, float) or math.isfinite(value)
        for name, value in reading.values.items():
            if not isinstance(value, Quality):  # a number stands only where nothing says that there is none
                assert said.get("quality", "ok") == said.get(f"{name}/quality", "ok") == "ok"


def test_counts_only_grow_and_tell_why(shelf: Shelf, watch: Watch) -> None:
    health = shelf.health
    assert (health.good, health.last_good, health.trouble) == (0, None, "")
    shelf.account.took({"sound_level": 58.1})
    watch.now = 10.0
    shelf.account.took({"sound_level": None})
    shelf.account.took({})  # a sound frame with nothing for us is no look
    shelf.account.lost(NoReply("no reply in time"))
    shelf.account.lost(BadFrame("checksum does not match", hint="Look at the cable."))
    shelf.account.count("bad-frame")
    assert health.good == 2
    assert health.lost == {"no-reply": 1, "bad-frame": 2}
    assert health.last_good == 10 * NS
    assert health.trouble == "checksum does not match. Look at the cable."
    assert (health.lapse, health.lapses, health.since) == ("bad-frame", {"no-reply": 1, "bad-frame": 1}, 10 * NS)
    watch.now = 20.0
    shelf.account.lost(BadFrame("checksum does not match"))
    assert (health.lapses["bad-frame"], health.since) == (1, 10 * NS)  # it is the same lapse
    shelf.account.took({"sound_level": 58.1})
    assert (health.trouble, health.lapse, health.since) == ("", "", 20 * NS)


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_the_latest_values_are_for_people_and_json_so_a_bad_one_is_none(shelf: Shelf, bad: Value) -> None:
    shelf.account.took({"sound_level": 58.1, "battery": 3.1})
    shelf.account.took({"sound_level": bad})
    assert shelf.health.latest == {"sound_level": None, "battery": 3.1}


def test_channels_are_noted_as_they_are_first_seen(shelf: Shelf) -> None:
    for values in ({"a": 1}, {"a": 2}, {"a": 1, "b": None}, {"b": 3}, {"c": 1}):
        shelf.account.took(values)
    assert shelf.noted == [("unit-7", ["a"]), ("unit-7", ["a", "b"]), ("unit-7", ["c"])]


class Half(IntEnum):
    """A whole number, and yet a class of its own."""

    FULL = 1


WORTHLESS: dict[str, Any] = {
    "a list": [1, 2],
    "a section": {"x": 1},
    "bytes": b"x",
    "a decimal": Decimal("1.5"),
    "a complex number": 1 + 2j,
    "a class made from int": Half.FULL,
    "half a character": "\ud800",
    "a number no float holds": 10**400,
}


@pytest.mark.parametrize("bad", WORTHLESS.values(), ids=WORTHLESS)
def test_a_value_that_no_driver_may_give_is_a_bug_and_nothing_of_the_look_is_kept(shelf: Shelf, bad: Any) -> None:  # noqa: ANN401  # that is the bug
    shelf.account.took({"sound_level": 58.1})
    with pytest.raises((TypeError, ValueError)):
        shelf.account.took({"sound_level": 58.2, "state": bad})
    assert [dict(reading.values) for reading in shelf.readings] == [{"sound_level": 58.1}]
    assert shelf.health.latest == {"sound_level": 58.1}
    assert shelf.noted == [("unit-7", ["sound_level"])]
    assert (shelf.health.looks, shelf.health.good) == (1, 1)


@pytest.mark.parametrize("name", ["", "x/y", "x y", "l\u00e4rm", "level\n", "c" * 64, "quality", 1])
def test_a_name_that_no_channel_may_have_is_a_bug_and_nothing_of_the_look_is_kept(shelf: Shelf, name: str) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="no channel may be called"):
            shelf.account.took({"sound_level": 58.1, name: 1})
    assert (shelf.readings, shelf.noted, shelf.health.looks) == ([], [], 0)


def test_a_channel_that_the_driver_does_not_describe_is_a_bug_each_time_and_never_kept(watch: Watch) -> None:
    device = meter(7)
    catalogue = Catalogue("pole-7", [device], {})
    described = catalogue.hash("noise")
    shelf = Shelf(device, watch, note=catalogue.note)
    for _ in range(2):
        with pytest.raises(KeyError, match="unheard_of"):
            shelf.account.took({"sound_level": 58.1, "unheard_of": 1})
    shelf.account.took({"sound_level": 58.1})
    assert [dict(reading.values) for reading in shelf.readings] == [{"sound_level": 58.1}]
    assert catalogue.hash("noise") == described


@examples(300)
@given(
    values=st.dictionaries(
        st.text(max_size=2) | st.sampled_from(["sound_level", "state"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.floats(),
            st.integers(),
            st.integers(10**300, 10**310),
            st.text(st.characters(exclude_categories=())),
            st.binary(max_size=2),
            st.lists(st.integers(), max_size=2),
        ),
        max_size=4,
    )
)
def test_whatever_a_driver_gives_is_refused_or_comes_out_of_the_pack_as_it_was(values: dict[str, Any]) -> None:
    shelf = Shelf(meter(7), Watch())
    with contextlib.suppress(TypeError, ValueError):
        shelf.account.took(values)
    for reading in shelf.readings:
        blob = encode([reading], pole="pole-7", unit_of=lambda *_: "", utc_offset=10**18, labels={})
        told = {record.name.removeprefix("pole-7/unit-7/"): record.value for record in read(blob, 0)}
        assert told == {
            name: value.code if isinstance(value, Quality) else value for name, value in reading.values.items()
        }


def logged(what: Callable[[], None]) -> list[tuple[str, str]]:
    """Return level and text of what is logged meanwhile."""
    with capture_logs() as lines:
        what()
    assert all(line["device"] == "unit-7" for line in lines)
    return [(line["log_level"], line["event"]) for line in lines]


def test_the_log_names_the_loss_the_hint_and_the_return(shelf: Shelf) -> None:
    with capture_logs() as lines:
        shelf.account.lost(NoReply("no reply in time"))
        shelf.account.took({"sound_level": 58.1})
    lost, back = lines
    assert (lost["log_level"], lost["event"], lost["device"]) == ("warning", "no reply in time", "unit-7")
    assert lost["hint"].startswith("Check the power of the device")
    assert (back["log_level"], back["event"], back["after"]) == ("info", "is back", "no-reply")


def test_a_device_that_flaps_for_an_hour_is_logged_once_a_minute(shelf: Shelf, watch: Watch) -> None:
    def flap() -> None:
        for second in range(0, 3600, 2):
            watch.now = float(second)
            shelf.account.lost(NoReply("no reply in time"))
            watch.now += 1
            shelf.account.took({"sound_level": 58.1})

    assert logged(flap) == [("warning", "no reply in time"), ("info", "is back")] * 60
    assert shelf.health.lost == {"no-reply": 1800}


def test_a_device_that_stays_away_is_logged_once_a_minute_and_a_new_reason_at_once(shelf: Shelf, watch: Watch) -> None:
    def away() -> None:
        for second in range(0, 180, 10):
            watch.now = float(second)
            shelf.account.lost(NoReply("nothing") if second < 100 else BadFrame("rubbish"))

    assert logged(away) == [("warning", "nothing")] * 2 + [("warning", "rubbish")] * 2


def test_a_bug_is_logged_with_its_traceback_once_a_minute(shelf: Shelf, watch: Watch) -> None:
    bug = ValueError("cannot convert")

    def stumble() -> None:
        for second in range(0, 120, 10):
            watch.now = float(second)
            shelf.account.lost(shelf.account.bug(bug))

    with capture_logs() as lines:
        stumble()
    assert [line["log_level"] for line in lines] == ["error", "error"]
    assert all(line["exc_info"] is bug for line in lines)
    assert shelf.health.lost == {"bug": 12}
    assert shelf.health.trouble.startswith("the driver modbus failed: ValueError('cannot convert'). Report it")
    assert logged(lambda: shelf.account.took({"sound_level": 58.1})) == [("info", "is back")]

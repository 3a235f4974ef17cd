"""What the gateway writes as SenML, read by a reader that shares no line with it."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.contract import NAME_PATTERN
from drivers.units import UNITS
from gateway.words.payload import packed
from gateway.words.reading import ACCEPTED, REJECTED, Quality, Reading
from gateway.words.senml import VERSION, encode
from hil.senml import BASE, FIELDS, read, resolve
from tests.examples import examples

NS = 1_000_000_000
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "senml.json").read_text())["vectors"]
EPOCH = 1_700_000_000 * NS  # of the time of day, minus since boot

Values = int | float | bool | str | Quality

names = st.text("aZ0_-", min_size=1, max_size=8).filter(re.compile(NAME_PATTERN).match)
units = st.sampled_from(["", *(symbol for symbol, unit in UNITS.items() if unit.senml)])
values = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.text()
    | st.builds(Quality, st.sampled_from((REJECTED, ACCEPTED)), st.sampled_from(("ok", "no-reply", "bad-frame")))
)


@st.composite
def packs(draw: st.DrawFn) -> tuple[list[Reading], dict[tuple[str, str], str]]:
    """Make readings of one pack, and the unit of each channel."""
    devices = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    channels = draw(st.lists(names | names.map(lambda name: f"{name}/quality"), min_size=1, max_size=4, unique=True))
    start = draw(st.integers(0, 10 * 365 * 86_400 * NS))
    readings = draw(
        st.lists(
            st.builds(
                Reading,
                st.sampled_from(devices),
                st.just("air"),
                st.integers(start, start + 86_400 * NS),
                st.dictionaries(st.sampled_from(channels), values, min_size=1),
            ),
            min_size=1,
            max_size=12,
        )
    )
    return readings, {(device, channel): draw(units) for device in devices for channel in channels}


def written(
    readings: Sequence[Reading],
    unit_of: Mapping[tuple[str, str], str],
    *,
    labels: Mapping[str, int | str] | None = None,
    utc_offset: int = EPOCH,
) -> bytes:
    return encode(
        readings,
        pole="pole-7",
        unit_of=lambda device, channel: unit_of[device, channel],
        utc_offset=utc_offset,
        labels=labels or {},
    )


def milliseconds(at: int, utc_offset: int = EPOCH) -> int:
    return (at + utc_offset + 500_000) // 1_000_000


def forbidden(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


@examples(200)
@given(packs(), st.integers(0, 2 * NS))
def test_an_independent_reader_reads_exactly_what_was_taken(
    pack: tuple[list[Reading], dict[tuple[str, str], str]], odd: int
) -> None:
    readings, unit_of = pack
    expected = [
        (
            f"pole-7/{reading.device}/{channel}",
            milliseconds(reading.at, EPOCH + odd),
            unit_of[reading.device, channel],
            value.code if isinstance(value, Quality) else value,
            {"why": value.why} if isinstance(value, Quality) else {},
        )
        for reading in readings
        for channel, value in reading.values.items()
    ]
    records = read(written(readings, unit_of, utc_offset=EPOCH + odd))
    found = [(record.name, round(record.time * 1000), record.unit, record.value, record.labels) for record in records]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))  # repr: True is not 1, and 1 is not 1.0


@examples(80)
@given(packs())
def test_a_pack_goes_from_device_to_device_and_each_is_named_once_and_each_look_has_one_time(
    pack: tuple[list[Reading], dict[tuple[str, str], str]],
) -> None:
    readings, unit_of = pack
    raw = json.loads(written(readings, unit_of), parse_constant=forbidden)
    in_order = sorted(readings, key=lambda reading: reading.device)
    devices = dict.fromkeys(reading.device for reading in in_order)
    assert [record["bn"] for record in raw if "bn" in record] == [f"pole-7/{device}/" for device in devices]
    times = [round(record["bt"] * 1000) for record in raw if "bt" in record]
    assert times == [milliseconds(reading.at) for reading in in_order]
    names = [f"pole-7/{reading.device}/{channel}" for reading in in_order for channel in reading.values]
    assert [record.name for record in resolve(raw)] == names


@examples(80)
@given(packs())
def test_the_first_record_carries_version_base_time_and_labels_and_no_other_does(
    pack: tuple[list[Reading], dict[tuple[str, str], str]],
) -> None:
    readings, unit_of = pack
    labels: dict[str, int | str] = {"epoch": 7, "seq": 12, "cat": "0123abcd", "after": "6:3", "clock": "unsynchronised"}
    first, *others = json.loads(written(readings, unit_of, labels=labels))
    assert labels.items() <= first.items()
    assert first["bver"] == VERSION == 26
    assert {"bn", "bt"} <= first.keys()
    # What the standard does not define, and a reader may not ignore, ends with "_".
    known = FIELDS | labels.keys() | {"why"}
    for record in (first, *others):
        assert known >= record.keys()
        assert not any(label.endswith("_") for label in record)
    for record in others:
        assert record.keys().isdisjoint({"bver", *labels})
        assert record.keys() & BASE.keys() <= {"bn", "bt"}


def test_numbers_are_written_as_the_device_sent_them() -> None:
    readings = [
        Reading(
            "a", "air", 0, {"t": 0.1, "n": 20, "x": -4.3, "e": 1e-7, "big": 2**60, "f": 21.0, "on": True, "s": "ü°"}
        )
    ]
    blob = written(readings, dict.fromkeys((("a", name) for name in readings[0].values), ""))
    for text in (
        '"v":0.1}',
        '"v":20}',
        '"v":-4.3}',
        '"v":1e-7}',
        f'"v":{2**60}}}',
        '"v":21.0}',
        '"vb":true}',
        '"vs":"ü°"}',
    ):
        assert text in blob.decode()


def test_a_percent_sign_stays_what_it_is() -> None:
    readings = [Reading("a", "air", 0, {"h": 40.5, "s": "100 %b", "q/quality": Quality(1, "%s")})]
    blob = written(readings, {("a", "h"): "%RH", ("a", "s"): "", ("a", "q/quality"): ""}, labels={"after": "%d"})
    found = {record.name: (record.unit, record.value) for record in read(blob)}
    assert found == {"pole-7/a/h": ("%RH", 40.5), "pole-7/a/s": ("", "100 %b"), "pole-7/a/q/quality": ("", 1)}
    assert [record.labels.get("why") for record in read(blob)] == [None, None, "%s"]
    assert read(blob)[0].labels["after"] == "%d"


def test_a_look_may_lack_what_the_one_before_had_and_a_channel_may_change_its_kind() -> None:
    readings = [
        Reading("a", "air", 0, {"t": 1, "on": True}),
        Reading("a", "air", NS, {"h": 5}),
        Reading("a", "air", 2 * NS, {"on": 3, "t": "high"}),
        Reading("a", "air", 3 * NS, {"on": False, "t": 2.5}),
    ]
    records = read(written(readings, {("a", "t"): "Cel", ("a", "h"): "%RH", ("a", "on"): ""}))
    assert [(record.name[9:], record.time - EPOCH / NS, record.unit, repr(record.value)) for record in records] == [
        ("t", 0, "Cel", "1"),
        ("on", 0, "", "True"),
        ("h", 1, "%RH", "5"),
        ("on", 2, "", "3"),
        ("t", 2, "Cel", "'high'"),
        ("on", 3, "", "False"),
        ("t", 3, "Cel", "2.5"),
    ]


def test_times_are_milliseconds_and_whole_seconds_have_no_point() -> None:
    ats = (0, 400_000, 1_499_999, 1_500_000, 2_000_000_000, 61_234_000_000)
    blob = written([Reading("a", "air", at, {"t": 1}) for at in ats], {("a", "t"): "Cel"})
    times = [text.removeprefix(b'"bt":') for text in re.findall(rb'"bt":[^,]*', blob)]
    assert times == [
        b"1700000000",
        b"1700000000",
        *(b"1700000000.%03d" % ms for ms in (1, 2)),
        b"1700000002",
        b"1700000061.234",
    ]


def test_ten_channels_in_a_hundred_rounds_stay_near_the_reference_size() -> None:
    # reference, by channel: 24,294 bytes, 3,947 compressed with level 3
    source = random.Random(3)  # noqa: S311  # weather, not secrets
    channels = {
        "temperature": ("Cel", 1, 12.0),
        "humidity": ("%RH", 1, 60.0),
        "pressure": ("hPa", 1, 1013.0),
        "wind_speed": ("m/s", 1, 3.0),
        "wind_direction": ("deg", 0, 180.0),
        "rain": ("mm", 1, 2.0),
        "pm2_5": ("ug/m3", 1, 8.0),
        "pm10": ("ug/m3", 1, 14.0),
        "noise": ("dB", 1, 55.0),
        "co2": ("ppm", 0, 420.0),
    }
    level = {name: start for name, (_, _, start) in channels.items()}
    readings = []
    for number in range(100):
        for name, (_, _, start) in channels.items():
            level[name] += source.gauss(0, start / 200)
        values = {
            name: round(level[name], digits) if digits else round(level[name])
            for name, (_, digits, _) in channels.items()
        }
        at = number * 60 * NS + source.randrange(1000) * 1_000_000
        readings.append(Reading("station", "weather", at, values))
    unit_of = {("station", name): unit for name, (unit, _, _) in channels.items()}
    blob = written(readings, unit_of, labels={"epoch": 41, "seq": 1204, "cat": "0123abcd"})
    assert len(read(blob)) == 1000
    assert len(packed(blob)) < 2_500


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_the_reader_of_the_bench_resolves_the_examples_of_the_standard(vector: dict[str, Any]) -> None:
    records = resolve(vector["pack"], vector.get("now", 0))
    assert len(records) >= vector.get("records", 0)
    for record, expected in zip(records, vector.get("resolved", []), strict=False):
        value = next(expected[kind] for kind in ("v", "vb", "vs", "vd") if kind in expected)
        assert (record.name, record.time, record.unit) == (expected["n"], expected["t"], expected.get("u", ""))
        assert (record.value, type(record.value)) == (value, type(value))


@pytest.mark.parametrize(
    ("pack", "says"),
    [([{"n": "a", "v": 1, "must_": 1}], "understood"), ([{"n": "a", "v": 1, "vs": "x"}], "more than one value")],
)
def test_the_reader_of_the_bench_refuses_what_it_must_not_read(pack: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        resolve(pack)

"""Advertising data: what is written is read, and what is broken is read as BlueZ reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.adverts import Advert, encode, from_report, parse, structure, structures
from tests.examples import examples

RUUVI = 0x0499
EDDYSTONE = "0000feaa-0000-1000-8000-00805f9b34fb"
PRIVATE = "6e400001-b5a3-f393-e0a9-e50e24dcca9e"

ADVERTS = st.builds(
    Advert,
    flags=st.none() | st.integers(0, 255),
    local_name=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    tx_power=st.none() | st.integers(-128, 127),
    service_uuids=st.lists(st.sampled_from([EDDYSTONE, PRIVATE]), unique=True).map(lambda uuids: tuple(sorted(uuids))),
    manufacturer_data=st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=40), max_size=3),
    service_data=st.dictionaries(st.sampled_from([EDDYSTONE, PRIVATE]), st.binary(max_size=40)),
)


def test_an_advert_is_these_bytes() -> None:
    advert = Advert(
        flags=0x06,
        local_name="pole",
        tx_power=-8,
        service_uuids=(EDDYSTONE, PRIVATE),
        manufacturer_data={RUUVI: b"\x05"},
        service_data={EDDYSTONE: b"\x20"},
    )
    assert encode(advert) == bytes.fromhex(
        "0201060303aafe11079ecadc240ee5a9e093f3a3b50100406e0416aafe2004ff990405020af80509706f6c65"
    )


@examples(100)
@given(ADVERTS)
def test_what_is_written_is_read(advert: Advert) -> None:
    assert parse(encode(advert)) == advert


@examples(100)
@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(data: bytes) -> None:
    parse(data)


@pytest.mark.parametrize(
    ("report", "payload", "rssi"),
    [
        ("1502010611FF990403651652CAE900080018041C0C8BC6", "03651652CAE900080018041C0C8B", -58),
        (
            "1F0201061BFF990405138A5F92C4F3FFE4FFDC0414C4F6EC29BBE62EB92E73E5BC",
            "05138A5F92C4F3FFE4FFDC0414C4F6EC29BBE62EB92E73E5",
            -68,
        ),
        (
            "300201062BFF9904e1170c5668c79e0065007004bd11ca00c90a0213e0ac000000decdee110000000000cbb8334c884fBC",
            "e1170c5668c79e0065007004bd11ca00c90a0213e0ac000000decdee110000000000cbb8334c884f",
            -68,
        ),
    ],
    ids=["format 3", "format 5", "format E1"],
)
def test_ruuvi_reports_are_read_and_written_again(report: str, payload: str, rssi: int) -> None:
    data, heard = from_report(bytes.fromhex(report))
    assert heard == rssi
    advert = parse(data)
    assert advert == Advert(flags=0x06, manufacturer_data={RUUVI: bytes.fromhex(payload)})
    assert encode(advert) == data


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("0201041BFF990406", Advert(flags=4, manufacturer_data={RUUVI: b"\x06".ljust(24, b"\0")})),
        ("0201041BFF9A0405", Advert(flags=4, manufacturer_data={0x049A: b"\x05".ljust(24, b"\0")})),
        ("0201041AFF990405", Advert(flags=4, manufacturer_data={RUUVI: b"\x05".ljust(23, b"\0")})),
        ("0301041BFF990405", Advert(flags=4)),
    ],
    ids=["bad format", "bad company", "bad length", "bad first length"],
)
def test_the_bad_frames_of_ruuvi_are_what_bluez_makes_of_them(prefix: str, expected: Advert) -> None:
    assert parse(bytes.fromhex(prefix).ljust(31, b"\0")) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("020106 05ff990405", Advert(flags=6)),
        ("020106 00 04ff990405", Advert(flags=6)),
        ("020106 04", Advert(flags=6)),
        ("0101 02ff99 03160faa 010a", Advert(service_data={"0000aa0f-0000-1000-8000-00805f9b34fb": b""})),
        ("0403aafe0f 0216aa", Advert(service_uuids=(EDDYSTONE,))),
        ("0505aafe0000", Advert(service_uuids=(EDDYSTONE,))),
        ("04ff990401 04ff990402", Advert(manufacturer_data={RUUVI: b"\x02"})),
        ("0609706f6c6500", Advert(local_name="pole")),
        ("0408ff41ff", Advert(local_name="A")),
        ("", Advert()),
    ],
    ids=[
        *("runs past the end", "zero length", "length alone", "too short for their types"),
        *("odd list of UUIDs", "32-bit UUID", "the same company twice"),
        *("name with a NUL", "name that is not UTF-8", "nothing"),
    ],
)
def test_broken_structures_are_dropped_and_the_others_kept(data: str, expected: Advert) -> None:
    assert parse(bytes.fromhex(data)) == expected


def test_structures_of_unknown_types_are_passed_over() -> None:
    unknown = structure(0x2A, b"mesh")
    assert list(structures(unknown)) == [(0x2A, b"mesh")]
    assert parse(unknown + structure(0x01, b"\x06")) == Advert(flags=6)

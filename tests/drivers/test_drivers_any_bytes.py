"""Any bytes at all: a decoder gives values, BadFrame or NotReady, and a search a place inside the buffer or none."""

import asyncio
import functools
import math
import re
import struct
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pynmea2 import ProprietarySentence, TalkerSentence

from drivers.contract import (
    NAME_PATTERN,
    QUALITY,
    Advertised,
    Asked,
    BadFrame,
    DeviceError,
    Driver,
    NotReady,
    Seek,
    Streamed,
    Values,
)
from drivers.units import UNITS
from hil.twins import nmea0183, pms5003, sds011, sps30
from hil.twins.modbus import crc16
from tests.drivers import vector_files
from tests.drivers.driver_bench import TwinPort, heard
from tests.drivers.vector_files import device, vectors
from tests.examples import examples

DRIVERS = tuple(vector_files.our_drivers())
TALKERS = tuple(name for name in DRIVERS if isinstance(device(name), Streamed))
CHECKED = tuple(name for name in DRIVERS if not isinstance(device(name), Advertised))  # the radio checks those
TRANSPORTS: tuple[Literal["serial", "tcp"], ...] = ("serial", "tcp")

one_driver = pytest.mark.parametrize("driver", DRIVERS)
many = examples(250)


def values_of(known: Driver, frame: bytes) -> Values | None:
    """Decode, and hold the values to all that a driver promises of them."""
    try:
        values = known.decode(frame)
    except (BadFrame, NotReady):
        return None
    for name, value in values.items():
        assert re.fullmatch(NAME_PATTERN, name), name
        assert name != QUALITY
        assert known.channel(name).unit in {"", *UNITS}
        assert known.channel(name).title
        assert not isinstance(value, int | float) or math.isfinite(value), name
    return values


def seeks_of(known: Driver) -> Iterator[Seek]:
    """Give all searches of a driver: its own, or those that it hands to its port."""
    if isinstance(known, Streamed):
        yield known.seek
    elif isinstance(known, Asked):
        for transport in TRANSPORTS:
            port = TwinPort(lambda _: b"", transport=transport)
            with pytest.raises(DeviceError):
                asyncio.run(known.poll(port))
            yield from port.seeks


DEVICES = {driver: [device(driver, name) for name in vectors(driver).devices or [""]] for driver in DRIVERS}
SEEKS = {driver: [seek for known in DEVICES[driver] for seek in seeks_of(known)] for driver in DRIVERS}


def try_all(driver: str, frame: bytes) -> None:
    for known in DEVICES[driver]:
        values_of(known, frame)
        if isinstance(known, Streamed):
            list(heard(known, frame))
    for seek in SEEKS[driver]:
        if span := seek(frame):
            assert 0 <= span[0] < span[1] <= len(frame)


@functools.cache
def good_frames(driver: str) -> list[bytes]:
    frames = [next(vector.frames()) + b"\r\n" * bool(vector.text) for vector in vectors(driver).good]
    if driver == "nmea0183":  # of its logs as well
        lines = next(log for log in vectors(driver).log if log.id == "bu353s4").read().splitlines(keepends=True)
        frames += [next(line for line in lines if line[3:6] == kind) for kind in (b"GGA", b"RMC")]
    return frames


# Any bytes


@one_driver
@many
@given(frame=st.binary(max_size=1100))
def test_any_bytes_give_values_or_the_reason_why_not(driver: str, frame: bytes) -> None:
    try_all(driver, frame)


@st.composite
def damaged(draw: st.DrawFn, frames: list[bytes]) -> bytes:
    """Good frames joined, with noise between them, bytes changed, and ends missing."""
    noise = st.binary(max_size=8)
    pieces = draw(st.lists(st.sampled_from(frames), min_size=1, max_size=3))
    whole = bytearray(draw(noise).join([b"", *pieces, b""]))
    for at in draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        whole[at] = draw(st.integers(0, 255))
    return bytes(whole[draw(st.integers(0, 12)) : len(whole) - draw(st.integers(0, 12))])


@one_driver
@many
@given(data=st.data())
def test_damaged_frames_give_values_or_the_reason_why_not(driver: str, data: st.DataObject) -> None:
    try_all(driver, data.draw(damaged(good_frames(driver))))


# Any content under a right checksum: what a device with a fault of its own sends

SOME = st.integers(0, 255)
FIELD = st.one_of(
    st.sampled_from(
        ["", "A", "V", "N", "S", "E", "W", "M", "K", "C", "P", "H", "G", "D", "B", "1", "0", "-0", "nan", "-inf"]
    ),
    st.sampled_from(
        ["1e999", "1e300", "1_0", "--1", 400 * "9", "9999.9", "5200.8499", "00421.7860", "rh", "a_pa", "speed"]
    ),
    st.from_regex(r"[+-]?[0-9]{0,5}(\.[0-9]{0,4})?", fullmatch=True),
    st.text(st.characters(codec="ascii", exclude_characters="*,\n"), max_size=60),
)
KINDS = [
    *("GPGGA", "GPRMC", "GPGLL", "WIMWV", "WIXDR", "gpgga", "PXYZ", "pubx", "CCGPQ"),  # the first five are read
    *sorted(f"GP{kind}" for kind in TalkerSentence.sentence_types),
    *sorted(f"P{maker}" for maker in ProprietarySentence.sentence_types if len(maker) < 5),
]


def sealed_rtu(frame: bytes) -> bytes:
    return frame + crc16(frame).to_bytes(2, "little")


SEALED: dict[str, SearchStrategy[bytes]] = {
    "modbus": st.one_of(
        st.builds(lambda head, data: sealed_rtu(bytes(head) + data), st.tuples(SOME, SOME), st.binary(max_size=90)),
        st.builds(
            lambda function, data: sealed_rtu(bytes([1, function, len(data)]) + data),
            st.sampled_from([3, 4, 0x83, 0x84]),
            st.binary(max_size=90),
        ),
    ),
    "nmea0183": st.builds(
        lambda kind, fields: nmea0183.sentence(",".join([kind, *fields])),
        st.one_of(st.sampled_from(KINDS[:5]), st.sampled_from(KINDS)),
        st.lists(FIELD, max_size=16),
    ),
    "pms5003": st.builds(
        lambda mass, counts, last: pms5003.frame([*mass, *sorted(counts, reverse=True), last]),
        st.lists(st.integers(0, 0xFFFF), min_size=6, max_size=6),
        st.lists(st.integers(0, 0xFFFF), min_size=6, max_size=6),
        st.integers(0, 0xFFFF),
    ),
    "ruuvi": st.builds(
        lambda kind, data: bytes([kind]) + data, st.sampled_from([3, 5, 0xC5, 6, 0xE1]), st.binary(max_size=45)
    )
    | st.builds(
        lambda head, data: bytes([head[0]]) + data[: head[1] - 1],
        st.sampled_from([(3, 14), (5, 24), (5, 18), (0xC5, 18), (6, 20), (0xE1, 40)]),
        st.binary(min_size=40, max_size=40),
    ),
    "sds011": st.builds(
        sds011.frame,
        st.sampled_from([0xC0, 0xC5]),
        st.binary(min_size=4, max_size=4),
        st.binary(min_size=2, max_size=2),
    ),
    "sps30": st.builds(
        sps30.frame,
        SOME,
        st.sampled_from([0, 3, 0xD0]),
        st.sampled_from([0, 1, 2, 3, 4, 0x28, 0x43, 0x80, 0xC3, 0x77]),
        st.one_of(st.binary(min_size=40, max_size=40), st.binary(max_size=255)),
    ),
}


@pytest.mark.parametrize("driver", sorted(SEALED))
@examples(500)
@given(data=st.data())
def test_any_content_under_a_right_checksum_gives_values_or_the_reason_why_not(
    driver: str, data: st.DataObject
) -> None:
    try_all(driver, data.draw(SEALED[driver]))


@pytest.mark.parametrize("special", [0x7FC00000, 0xFFC00001, 0x7F800000, 0xFF800000])
def test_what_is_no_number_in_floating_point_is_no_reading(special: int) -> None:
    sample = struct.pack(">10I", special, *[0x3F800000] * 9)
    values = values_of(device("sps30"), sps30.frame(0, 3, 0, sample))
    assert values is not None
    assert values["pm1"] is None
    assert values["pm2_5"] == 1.0
    meter = values_of(device("modbus", "sdm_volts"), sealed_rtu(struct.pack(">BBBI", 1, 4, 4, special)))
    assert meter == {"voltage_l1": None}


# One byte changed


@pytest.mark.parametrize("driver", CHECKED)
def test_a_frame_with_one_byte_changed_is_never_read_as_something_else(driver: str) -> None:
    for known in DEVICES[driver]:
        for frame in good_frames(driver):
            if (values := values_of(known, frame)) is None:
                continue  # of another device
            for at in range(len(frame)):
                for flip in range(1, 256):
                    changed = bytearray(frame)
                    changed[at] ^= flip
                    assert values_of(known, bytes(changed)) in (None, {}, values)


# A good frame in noise


@pytest.mark.parametrize("driver", TALKERS)
@many
@given(data=st.data(), before=st.binary(max_size=60), after=st.binary(max_size=60))
def test_a_good_frame_in_noise_is_found(driver: str, data: st.DataObject, before: bytes, after: bytes) -> None:
    (known,) = DEVICES[driver]
    assert isinstance(known, Streamed)
    frame = data.draw(st.sampled_from(good_frames(driver)))
    wanted = known.decode(frame)
    assert len(frame) <= known.LONGEST

    found = [values for values in heard(known, before + frame + after) if not isinstance(values, DeviceError)]

    assert [values for values in found if values] == [wanted]  # a sentence without values is nothing


@pytest.mark.parametrize("driver", TALKERS)
@many
@given(data=st.data())
def test_a_frame_behind_half_a_frame_is_found(driver: str, data: st.DataObject) -> None:
    (known,) = DEVICES[driver]
    assert isinstance(known, Streamed)
    first, second = (data.draw(st.sampled_from(good_frames(driver))) for _ in range(2))
    cut = data.draw(st.integers(1, len(first) - 1))

    found = list(heard(known, first[:cut] + second))

    assert known.decode(second) in found


POLLS = [
    ("sps30", "", bytes.fromhex(vectors("sps30").good[0].frame)),
    ("modbus", "sdm_volts", bytes.fromhex(vectors("modbus").good[0].frame)),
]


@pytest.mark.parametrize(("driver", "name", "answer"), POLLS, ids=[driver for driver, _, _ in POLLS])
@many
@given(
    before=st.binary(max_size=60),
    after=st.binary(max_size=9),
    decoy=st.sampled_from([b"", b"\x7e", b"\x7e\x55", b"\x01\x04\x04"]),
)
def test_an_answer_in_noise_is_found(
    driver: str, name: str, answer: bytes, before: bytes, after: bytes, decoy: bytes
) -> None:
    asked = device(driver, name)
    assert isinstance(asked, Asked)
    port = TwinPort(lambda _: before + decoy + answer + after)
    assert asyncio.run(asked.poll(port)) == asked.decode(answer)

"""Decimals: a float32 as its maker means it, and how many decimals a step has."""

import math
import struct
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.decimals import float32, places
from tests.examples import examples

many = examples(2000)
SINGLES = st.builds(
    lambda sign, exponent, fraction: (sign << 31 | exponent << 23 | fraction).to_bytes(4, "big"),
    st.integers(0, 1),
    st.integers(0, 254),  # each exponent is as likely as any other; 255 is infinity and NaN
    st.one_of(st.integers(0, 2**23 - 1), st.sampled_from([0, 1, 2**22, 2**23 - 2, 2**23 - 1])),
)


def power_of_two(exponent: int) -> Fraction:
    return Fraction(2**exponent) if exponent >= 0 else Fraction(1, 2**-exponent)


def exactly(raw: bytes) -> Fraction:
    """Return the number that IEEE 754 gives these bits, from their definition."""
    bits = int.from_bytes(raw, "big")
    sign, exponent, fraction = bits >> 31, bits >> 23 & 0xFF, bits & 0x7FFFFF
    mantissa = fraction if exponent == 0 else fraction | 1 << 23
    size = mantissa * power_of_two(max(exponent, 1) - 150)
    return -size if sign else size


def last_bit(value: Fraction) -> Fraction:
    """Return what the last of 24 bits stands for at this size."""
    return power_of_two(math.frexp(value)[1] - 24)


def digits_of(number: float) -> int:
    """Count the digits that a decimal is written with, zeros at its ends not counted."""
    return len("".join(map(str, Decimal(repr(number)).as_tuple().digits)).strip("0"))


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        ("43663334", 230.2),  # Eastron's manual; it is 230.20001220703125, and 230.2 is one bit below
        ("43663333", 230.2),
        ("43663335", 230.20003),
        ("00000000", 0.0),
        ("80000000", 0.0),
        ("3f800000", 1.0),
        ("3dcccccd", 0.1),
        ("c1200000", -10.0),
        ("7f7fffff", 3.4028235e38),
        ("00000001", 1.4012985e-45),
        ("4b7fffff", 16_777_215.0),
        ("449a51ec", 1234.56),
    ],
)
def test_a_single_is_the_decimal_that_was_meant(raw: str, meant: float) -> None:
    assert float32(bytes.fromhex(raw)) == meant


@pytest.mark.parametrize("raw", ["7fc00000", "ffc00000", "7f800001", "7f800000", "ff800000"])
def test_what_is_no_number_is_none(raw: str) -> None:
    assert float32(bytes.fromhex(raw)) is None


@many
@given(raw=SINGLES)
def test_the_decimal_is_within_one_last_bit(raw: bytes) -> None:
    decimal = float32(raw)
    assert decimal is not None
    assert abs(Fraction(decimal) - exactly(raw)) <= last_bit(exactly(raw))


@many
@given(raw=SINGLES)
def test_no_shorter_decimal_is_within_one_last_bit(raw: bytes) -> None:
    decimal = float32(raw)
    assert decimal is not None
    exact = exactly(raw)
    shorter = digits_of(decimal) - 1
    if shorter > 0:
        nearest = Fraction(Decimal(f"{float(exact):.{shorter - 1}e}"))  # a double holds a single exactly
        assert abs(nearest - exact) > last_bit(exact)


@many
@given(digits=st.integers(-999_999, 999_999), exponent=st.integers(-30, 30))
def test_a_decimal_of_six_digits_comes_back_as_it_was(digits: int, exponent: int) -> None:
    meant = float(f"{digits}e{exponent}")
    assert float32(struct.pack(">f", meant)) == meant


@given(digits=st.integers(100_000, 999_999), exponent=st.integers(-30, 20))
def test_the_singles_on_both_sides_of_a_decimal_read_as_it(digits: int, exponent: int) -> None:
    # A sensor's own arithmetic may end on either.
    meant = float(f"{digits}e{exponent}")
    bits = int.from_bytes(struct.pack(">f", meant), "big")
    for neighbour in (bits - 1, bits, bits + 1):
        raw = neighbour.to_bytes(4, "big")
        if abs(exactly(raw) - Fraction(meant)) < last_bit(exactly(raw)):
            assert float32(raw) == meant


@pytest.mark.parametrize(
    ("step", "decimals"),
    [(1, 0), (1.0, 0), (10, 0), (1000.0, 0), (0.1, 1), (0.5, 1), (0.25, 2), (0.005, 3), (0.0025, 4), (1.5, 1), (0, 0)],
)
def test_a_step_has_so_many_decimals(step: float, decimals: int) -> None:
    assert places(step) == decimals


@given(power=st.integers(0, 12), factor=st.integers(1, 9))
def test_every_power_of_ten_down_to_a_millionth_of_a_millionth_has_its_decimals(power: int, factor: int) -> None:
    assert places(factor / 10**power) == places(-factor / 10**power) == power


@given(raw=st.integers(-(2**31), 2**31), step=st.sampled_from(["0.1", "0.01", "0.005", "0.0025", "0.000001"]))
def test_rounding_to_the_places_of_the_step_gives_the_decimal_that_is_meant(raw: int, step: str) -> None:
    assert round(raw * float(step), places(float(step))) == float(raw * Decimal(step))

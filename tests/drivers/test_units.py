"""Units: the symbols of RFC 8428 and RFC 8798, told apart, and what people write instead.

Sources: RFC 8428 section 12.1 (the first registry); RFC 8798, whose tables are those of
core-wg/senml-more-units 2663b5d, draft-ietf-core-senml-more-units.md (secondary units need "bver" 26, RFC 9100).
"""

import collections

import pytest

from drivers.units import OTHER_NAMES, UNITS, suggestion

FIRST = """
    m kg g s A K cd mol Hz rad sr N Pa J W C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s m/s2 m3/s l/s W/m2
    cd/m2 bit bit/s lat lon pH dB dBW Bspl count / % %RH %EL EL 1/s 1/min beat/min beats S/m
"""
MORE = "B VA VAs var vars J/m kg/m3 deg NTU"
SECONDARY = """
    ms min h MHz kW kVA kvar Ah Wh kWh varh kvarh kVAh Wh/km KiB GB Mbit/s B/s MB/s mV mA dBm ug/m3 mm/h m/h ppm /100
    /1000 hPa mm cm km km/h
"""
CONVERTED = "ms h kW kvar Wh varh kVAh KiB Mbit/s MB/s mA ug/m3 m/h /100 hPa cm km/h"
"""Secondary units with a worked conversion in core-wg/senml-more-units 2663b5d."""

RFC_8428, RFC_8798, RFC_8798_SECONDARY = (frozenset(names.split()) for names in (FIRST, MORE, SECONDARY))


def test_what_senml_knows_is_in_its_registries_and_nothing_else() -> None:
    known = {symbol for symbol, unit in UNITS.items() if unit.senml}
    assert known <= RFC_8428 | RFC_8798 | RFC_8798_SECONDARY
    assert not {symbol for symbol, unit in UNITS.items() if not unit.senml} & (RFC_8428 | RFC_8798 | RFC_8798_SECONDARY)


def test_secondary_are_those_of_rfc_8798() -> None:
    secondary = {symbol for symbol, unit in UNITS.items() if unit.secondary}
    assert secondary == RFC_8798_SECONDARY & set(UNITS)
    assert secondary >= set(CONVERTED.split())
    assert all(UNITS[symbol].senml for symbol in secondary)


def test_percent_says_of_what() -> None:
    assert "%" not in UNITS  # RFC 8428 has it and advises against it
    assert {"%RH", "/100"} <= set(UNITS)


def test_symbols_that_differ_only_in_their_capitals_are_second_and_siemens() -> None:
    alike = collections.defaultdict(set)
    for symbol in UNITS:
        alike[symbol.lower()].add(symbol)
    assert [symbols for symbols in alike.values() if len(symbols) > 1] == [{"s", "S"}]


def test_every_unit_has_a_ucum_code_that_can_be_written() -> None:
    for symbol, unit in UNITS.items():
        assert unit.ucum, symbol
        assert unit.ucum.isascii(), symbol
        assert " " not in unit.ucum, symbol
        for opening, closing in ("[]", "{}"):
            assert unit.ucum.count(opening) == unit.ucum.count(closing), symbol


def test_two_units_share_a_ucum_code_only_where_they_are_the_same_size() -> None:
    alike = collections.defaultdict(set)
    for symbol, unit in UNITS.items():
        alike[unit.ucum].add(symbol)
    shared = {code: symbols for code, symbols in alike.items() if len(symbols) > 1}
    assert shared == {
        "1": {"count", "/", "1"},
        "%": {"%RH", "%EL", "/100"},
        "deg": {"deg", "lat", "lon"},
        "s": {"s", "EL"},  # expected seconds of battery life
    }


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("celsius", "Cel"),
        ("°C", "Cel"),
        ("C ", "C"),
        ("%", "%RH"),
        ("percent", "/100"),
        ("dB(A)", "dB"),
        ("mbar", "hPa"),
        ("HPA", "hPa"),
        ("Kwh", "kWh"),
        ("KWH", "kWh"),
        ("µg/m³", "ug/m3"),
        ("μg/m³", "ug/m3"),  # the Greek letter, not the micro sign
        ("lux", "lx"),
        ("Volt", "V"),
        ("pa", "Pa"),
        ("ma", "mA"),
        ("HZ", "Hz"),
        ("ug/m^3", "ug/m3"),
    ],
)
def test_what_people_write_leads_to_the_symbol(written: str, meant: str) -> None:
    assert suggestion(written) == f'; did you mean "{meant}"?'


def test_what_nobody_can_guess_leads_to_the_documents() -> None:
    assert suggestion("quux") == "; RFC 8428 and RFC 8798 list them"
    assert suggestion("") == "; RFC 8428 and RFC 8798 list them"


def test_other_names_are_in_small_letters_and_lead_to_symbols() -> None:
    for name, symbol in OTHER_NAMES.items():
        assert name == name.lower()
        assert name not in UNITS
        assert symbol in UNITS

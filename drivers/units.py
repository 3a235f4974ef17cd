"""Units of measurement: the symbols that stand in profiles, in packs and in the catalogue.

A symbol is a SenML unit wherever SenML has one: RFC 8428 section 12.1 (primary) and RFC 8798 section 3
(secondary, allowed in packs of version 26, RFC 9100). Where it has none, the symbol is the UCUM code, and packs
carry the number without a unit; the catalogue has the UCUM code of all of them (https://ucum.org). What UCUM has no
code for is an annotation in braces.
"""

import difflib
from typing import NamedTuple


class Unit(NamedTuple):
    """One unit: its UCUM code, and whether SenML knows its symbol and as what."""

    ucum: str
    senml: bool = True
    secondary: bool = False


UNITS: dict[str, Unit] = {
    # RFC 8428, the ones a pole can meet
    "m": Unit("m"),
    "kg": Unit("kg"),
    "g": Unit("g"),
    "s": Unit("s"),
    "A": Unit("A"),
    "K": Unit("K"),
    "Hz": Unit("Hz"),
    "rad": Unit("rad"),
    "Pa": Unit("Pa"),
    "J": Unit("J"),
    "W": Unit("W"),
    "C": Unit("C"),
    "V": Unit("V"),
    "F": Unit("F"),
    "Ohm": Unit("Ohm"),
    "S": Unit("S"),
    "T": Unit("T"),
    "Cel": Unit("Cel"),
    "lm": Unit("lm"),
    "lx": Unit("lx"),
    "Bq": Unit("Bq"),
    "Sv": Unit("Sv"),
    "m2": Unit("m2"),
    "m3": Unit("m3"),
    "m/s": Unit("m/s"),
    "m/s2": Unit("m/s2"),
    "m3/s": Unit("m3/s"),
    "W/m2": Unit("W/m2"),
    "cd/m2": Unit("cd/m2"),
    "bit": Unit("bit"),
    "bit/s": Unit("bit/s"),
    "lat": Unit("deg"),
    "lon": Unit("deg"),
    "pH": Unit("[pH]"),
    "dB": Unit("dB"),
    "dBW": Unit("dB[W]"),
    "count": Unit("1"),
    "/": Unit("1"),
    "%RH": Unit("%"),
    "%EL": Unit("%"),
    "EL": Unit("s"),
    "1/s": Unit("/s"),
    "1/min": Unit("/min"),
    "S/m": Unit("S/m"),
    # RFC 8798 section 2, added as primary units
    "B": Unit("By"),
    "VA": Unit("V.A"),
    "VAs": Unit("V.A.s"),
    "var": Unit("V.A{reactive}"),
    "vars": Unit("V.A.s{reactive}"),
    "kg/m3": Unit("kg/m3"),
    "deg": Unit("deg"),
    # RFC 8798 section 3, secondary units
    "ms": Unit("ms", secondary=True),
    "min": Unit("min", secondary=True),
    "h": Unit("h", secondary=True),
    "MHz": Unit("MHz", secondary=True),
    "kW": Unit("kW", secondary=True),
    "kVA": Unit("kV.A", secondary=True),
    "kvar": Unit("kV.A{reactive}", secondary=True),
    "Ah": Unit("A.h", secondary=True),
    "Wh": Unit("W.h", secondary=True),
    "kWh": Unit("kW.h", secondary=True),
    "varh": Unit("V.A.h{reactive}", secondary=True),
    "kvarh": Unit("kV.A.h{reactive}", secondary=True),
    "kVAh": Unit("kV.A.h", secondary=True),
    "KiB": Unit("KiBy", secondary=True),
    "GB": Unit("GBy", secondary=True),
    "Mbit/s": Unit("Mbit/s", secondary=True),
    "B/s": Unit("By/s", secondary=True),
    "MB/s": Unit("MBy/s", secondary=True),
    "mV": Unit("mV", secondary=True),
    "mA": Unit("mA", secondary=True),
    "dBm": Unit("{dBm}", secondary=True),
    "ug/m3": Unit("ug/m3", secondary=True),
    "mm/h": Unit("mm/h", secondary=True),
    "m/h": Unit("m/h", secondary=True),
    "ppm": Unit("[ppm]", secondary=True),
    "/100": Unit("%", secondary=True),
    "/1000": Unit("[ppth]", secondary=True),
    "hPa": Unit("hPa", secondary=True),
    "mm": Unit("mm", secondary=True),
    "cm": Unit("cm", secondary=True),
    "km": Unit("km", secondary=True),
    "km/h": Unit("km/h", secondary=True),
    # No SenML unit exists
    "1/cm3": Unit("/cm3", senml=False),
    "um": Unit("um", senml=False),
    "1": Unit("1", senml=False),
}

OTHER_NAMES = {
    "%": "%RH",
    "c": "Cel",
    "celsius": "Cel",
    "degc": "Cel",
    "db(a)": "dB",
    "dba": "dB",
    "lux": "lx",
    "mbar": "hPa",
    "ohms": "Ohm",
    "percent": "/100",
    "volt": "V",
    "watt": "W",
    "°": "deg",
    "°c": "Cel",
    "µg/m3": "ug/m3",
    "µg/m³": "ug/m3",
    "μg/m³": "ug/m3",
}
"""What people write instead, in small letters."""


def suggestion(symbol: str) -> str:
    """Return a hint to the unit that is meant: ``; did you mean "Cel"?``."""
    close = [OTHER_NAMES[symbol.lower()]] if symbol.lower() in OTHER_NAMES else []
    close += [known for known in UNITS if known.lower() == symbol.lower()]  # "pa" is nearer to Pa than to pH
    close += difflib.get_close_matches(symbol, UNITS, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else "; RFC 8428 and RFC 8798 list them"

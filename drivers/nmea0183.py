"""NMEA 0183 talkers: GNSS receivers, and weather stations that speak it.

Text, one sentence a line, ``$`` talker and type, fields, ``*`` and the XOR of all between as two hex digits. Any
talker id is welcome (GP, GL, GN, GB, II, WI, ...). What is read:

=====  =====================================================================
GGA    fix quality, satellites, HDOP; position and altitude while there is a fix
RMC    position, speed, course, while the status is A
GLL    position, while the status is A
MWV    wind direction and speed, relative (R) or true (T), while the status is A
XDR    transducers, each as a channel of its name and its unit in small letters
=====  =====================================================================

All other sentences, the makers' own included, are sound and give nothing. A field that is empty is no reading.
A receiver's idea of the date is not used: a cold one says 1980 or 2080, an old one is 1024 weeks off.

Source: NMEA 0183 (IEC 61162-1) as pynmea2 reads it.
"""

import functools
import operator
import re
from typing import ClassVar, Literal

import pynmea2

from drivers.contract import QUALITY, BadFrame, Channel, NotReady, Span, Streamed, Value, Values

KNOT = 1852 / 3600  # m/s
SPEED = {"N": KNOT, "M": 1.0, "K": 1 / 3.6, "S": 0.44704}  # m/s: knots, m/s, km/h, statute miles/h
TRANSDUCERS = {  # XDR type and unit to SenML unit and factor
    ("C", "C"): ("Cel", 1),
    ("A", "D"): ("deg", 1),
    ("H", "P"): ("%RH", 1),
    ("P", "P"): ("Pa", 1),
    ("P", "B"): ("Pa", 100_000),
    ("P", "H"): ("Pa", 100),
    ("U", "V"): ("V", 1),
    ("I", "A"): ("A", 1),
}
KINDS = {"A": "angle", "C": "temperature", "H": "humidity", "I": "current", "P": "pressure", "U": "voltage"}
SUFFIXES = {unit: unit.replace("%", "").lower() for unit, _ in TRANSDUCERS.values()}
LONGEST_ID = 48  # a channel's name has 63 characters at the most
CHECKSUM_DIGITS = 2
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII)
LARGEST = 1e12  # nothing that is measured here is more
HEMISPHERES = {"N": (1, 90), "S": (-1, 90), "E": (1, 180), "W": (-1, 180)}  # sign, most degrees


class Nmea0183(Streamed):
    """A ``[[device]]`` with ``driver = "nmea0183"``."""

    driver: Literal["nmea0183"]

    MAKE = "NMEA 0183 talker"
    DATASET = "position"
    CHANNELS: ClassVar = {
        "latitude": Channel("latitude, WGS 84", "lat", "3430/0"),
        "longitude": Channel("longitude, WGS 84", "lon", "3430/1"),
        "altitude": Channel("altitude above mean sea level", "m", "3430/2"),
        "speed": Channel("speed over ground", "m/s", "3430/4"),
        "course": Channel("course over ground", "deg"),
        "fix_quality": Channel("GGA fix quality: 0 none, 1 GNSS, 2 differential, 4 RTK, 8 simulated"),
        "satellites": Channel("satellites in use", "count"),
        "hdop": Channel("horizontal dilution of precision", "/"),
        "wind_direction": Channel("wind direction, from the sensor's zero", "deg", "3449/5705"),
        "wind_speed": Channel("wind speed", "m/s", "3449/5700"),
        "true_wind_direction": Channel("wind direction, from true north", "deg"),
        "true_wind_speed": Channel("wind speed over ground", "m/s"),
    }
    RECORDED = True
    LONGEST = 1024  # the standard says 82; makers' own sentences are longer
    SILENT_AFTER_S = 15.0

    def expected(self) -> tuple[str, ...]:
        """Nothing is certain: it depends on what talks, and on its fix."""
        return ()

    def channel(self, name: str) -> Channel:
        """Describe a channel; what is not one of ours came from a transducer, whose unit its name ends with."""
        return self.CHANNELS.get(name) or Channel(f"transducer {name}", _unit_of(name))

    def seek(self, buffer: bytes) -> Span | None:
        """Find a line that begins with ``$`` or ``!``."""
        start = min((at for at in (buffer.find(b"$"), buffer.find(b"!")) if at >= 0), default=-1)
        end = buffer.find(b"\n", start)
        return (start, end + 1) if 0 <= start < end else None

    def decode(self, frame: bytes) -> Values:
        """Read one sentence; a sound one that has nothing for us gives no values."""
        text = check(frame)
        if text[1:2] in {"P", "p"}:  # a maker's own; pynmea2 stumbles over a short one
            return {}
        try:
            sentence = pynmea2.parse(text)
        except pynmea2.ParseError:  # sound, but of a type pynmea2 does not know
            return {}
        read = READERS.get(sentence.sentence_type) if isinstance(sentence, pynmea2.TalkerSentence) else None
        if read is None:
            return {}
        try:
            return read(sentence)
        except (ValueError, TypeError, AttributeError, LookupError) as error:  # garbage under a right checksum
            raise BadFrame(f"a field of {sentence.sentence_type} cannot be read: {error}") from error


def check(frame: bytes) -> str:
    """Return the sentence without line end, if its checksum is right. Raises BadFrame."""
    try:
        text = frame.decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise BadFrame(f"not ASCII text: byte {frame[error.start]:02x}") from error
    body, star, said = text[1:].partition("*")
    if text[:1] not in {"$", "!"} or not star:
        raise BadFrame("a sentence begins with $ and ends with * and its checksum")
    if "$" in body or "!" in body:  # of such pairs one in 256 has a right checksum
        raise BadFrame("a sentence without its end, and the next one behind it")
    right = functools.reduce(operator.xor, body.encode(), 0)
    if len(said) != CHECKSUM_DIGITS or said.upper() != f"{right:02X}":
        raise BadFrame(f"checksum is {said}, the characters give {right:02X}")
    return text


def _number(field: object, factor: float = 1) -> float | None:
    """Convert a field, None where it is empty; a factor makes new digits, of which four are kept."""
    text = str(field or "") if field != 0 else "0"
    if not text:
        return None
    number = _measured(text)
    if factor != 1:
        return round(number * factor, 4)
    return int(text) if text.lstrip("-").isdecimal() else number


def _measured(text: str) -> float:
    """Convert what is written as a number; float() takes nan, inf and 1_000 for one as well. Raises ValueError."""
    if not NUMBER.fullmatch(text) or abs(float(text)) > LARGEST:
        raise ValueError(f'"{text}" is not a number')
    return float(text)


def _degrees(field: str, hemisphere: str) -> float | None:
    """Convert ``dddmm.mmmm`` to degrees; 9 decimals are 0.1 mm."""
    if not field or not hemisphere:
        return None
    sign, most = HEMISPHERES[hemisphere]
    whole, minutes = divmod(_measured(field), 100)
    degrees = whole + minutes / 60
    if not 0 <= degrees <= most:
        raise ValueError(f"{field},{hemisphere} is not on Earth")
    return round(sign * degrees, 9)


def _position(sentence: pynmea2.TalkerSentence) -> dict[str, Value]:
    return {
        "latitude": _degrees(sentence.lat, sentence.lat_dir),
        "longitude": _degrees(sentence.lon, sentence.lon_dir),
    }


def _gga(sentence: pynmea2.TalkerSentence) -> dict[str, Value]:
    quality = _number(sentence.gps_qual) or 0
    fix: dict[str, Value] = {"fix_quality": quality, "satellites": _number(sentence.num_sats)}
    if not quality:
        return fix | {"latitude": None, "longitude": None, "altitude": None}
    fix |= _position(sentence)
    return fix | {"hdop": _number(sentence.horizontal_dil), "altitude": _number(sentence.altitude)}


def _valid(status: str) -> None:
    if status != "A":
        raise NotReady(f"status is {status or 'empty'}, not A: no valid measurement")


def _rmc(sentence: pynmea2.TalkerSentence) -> dict[str, Value]:
    _valid(sentence.status)
    return _position(sentence) | {
        "speed": _number(sentence.spd_over_grnd, KNOT),
        "course": _number(sentence.true_course),
    }


def _gll(sentence: pynmea2.TalkerSentence) -> dict[str, Value]:
    _valid(sentence.status)
    return _position(sentence)


def _mwv(sentence: pynmea2.TalkerSentence) -> dict[str, Value]:
    _valid(sentence.status)
    prefix = {"R": "", "T": "true_"}[sentence.reference]
    return {
        f"{prefix}wind_direction": _number(sentence.wind_angle),
        f"{prefix}wind_speed": _number(sentence.wind_speed, SPEED[sentence.wind_speed_units]),
    }


def _xdr(sentence: pynmea2.TalkerSentence) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for index in range(sentence.num_transducers):
        transducer = sentence.get_transducer(index)
        unit, factor = TRANSDUCERS.get((transducer.type, transducer.units), ("", 1))
        plain = re.sub(r"[^a-z0-9-]+", "_", transducer.id.lower()).strip("_-")[:LONGEST_ID]
        if not plain[:1].isalpha():  # a number says too little: WXT calls all of its transducers 0
            plain = "_".join(filter(None, (KINDS.get(transducer.type, "transducer"), plain)))
        name = _name(plain, unit)
        values[name if name not in values else _name(f"{plain}_{index}", unit)] = _number(transducer.value, factor)
    return values


def _name(plain: str, unit: str) -> str:
    """Name the channel of a transducer; what has no unit must not look like what has one, nor like what is ours."""
    if unit:
        return f"{plain}_{SUFFIXES[unit]}"
    return f"{plain}_raw" if plain in {QUALITY, *Nmea0183.CHANNELS} or _unit_of(plain) else plain


def _unit_of(name: str) -> str:
    """Return the unit that the name of a transducer's channel ends with."""
    head, _, last = name.rpartition("_")
    return next((unit for unit, suffix in SUFFIXES.items() if head and suffix == last), "")


READERS = {"GGA": _gga, "RMC": _rmc, "GLL": _gll, "MWV": _mwv, "XDR": _xdr}

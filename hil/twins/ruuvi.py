"""Twins of the Ruuvi sensors: RuuviTag (data formats 3 and 5) and Ruuvi Air (data formats 6 and E1).

Each is given physical values and puts them on the air with the resolution and within the limits of the format, as the
firmware does. ``truth()`` says what can be read from the bytes, no more and no less.

Source: https://docs.ruuvi.com/communication/bluetooth-advertisements, "Data format 3 (RAWv1)", "5 (RAWv2)", "6", "E1".
All numbers are big-endian. "No reading" is all ones, or the most negative number; format 3 cannot say it. The pages
give the reserved bytes of formats 6 and E1 no meaning, so a reader must not mind what is in them.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from hil.adverts import Advert, encode

COMPANY_ID = 0x0499

Truth = dict[str, float | None]


class _Coding(Protocol):
    """How a physical value becomes a whole number on the air."""

    def number(self, value: float | None) -> int:
        """Return the number that is sent for a value, or for the lack of one."""

    def readable(self, value: float | None) -> float | None:
        """Return what a reader makes of that number."""


@dataclass(frozen=True, slots=True)
class _Linear:
    """A number of steps, kept within limits.

    Attributes:
        step: the physical value of one.
        lowest: the smallest number that is a reading.
        highest: the largest.
        invalid: the number that says "no reading", if there is one.
        zero: what the number 0 stands for, in steps.
    """

    step: Fraction
    lowest: int
    highest: int
    invalid: int | None = None
    zero: int = 0

    def number(self, value: float | None) -> int:
        if value is not None:
            return min(max(round(value / float(self.step)) - self.zero, self.lowest), self.highest)
        if self.invalid is None:
            raise ValueError("this format has no code for a reading that is missing")
        return self.invalid

    def readable(self, value: float | None) -> float | None:
        if value is None:
            return None
        exact = (self.number(value) + self.zero) * self.step
        return float(exact) if self.step.denominator > 1 else int(exact)


class _LogLux:
    """Illuminance in one byte: ``round(ln(lux + 1) / ln(65536) * 254)``, read to the lux; 255 is invalid."""

    _STEP = math.log(65536) / 254

    def number(self, value: float | None) -> int:
        return 255 if value is None else min(round(math.log(value + 1) / self._STEP), 254)

    def readable(self, value: float | None) -> float | None:
        return None if value is None else round(math.exp(self.number(value) * self._STEP) - 1)


class _LowByte:
    """The low byte of a counter; 255 is a count like any other."""

    def number(self, value: float | None) -> int:
        return 255 if value is None else int(value) & 0xFF

    def readable(self, value: float | None) -> float | None:
        return self.number(value)


_TEMPERATURE = _Linear(Fraction(1, 200), -32767, 32767, -32768)
_HUMIDITY = _Linear(Fraction(1, 400), 0, 65534, 65535)
_PRESSURE = _Linear(Fraction(1), 0, 65534, 65535, zero=50000)
_ACCELERATION = _Linear(Fraction("0.00980665"), -32767, 32767, -32768)
_PM = _Linear(Fraction(1, 10), 0, 10000, 65535)
_CO2 = _Linear(Fraction(1), 0, 40000, 65535)
_INDEX = _Linear(Fraction(1), 0, 500, 511)

_ACCELERATIONS = dict.fromkeys(("acceleration_x", "acceleration_y", "acceleration_z"), _ACCELERATION)
_CLIMATE = {"temperature": _TEMPERATURE, "humidity": _HUMIDITY, "pressure": _PRESSURE}
_GASES = {"co2": _CO2, "voc_index": _INDEX, "nox_index": _INDEX}

_FORMATS: dict[int, Mapping[str, _Coding]] = {
    3: {
        "temperature": _Linear(Fraction(1, 100), -12799, 12799),
        "humidity": _Linear(Fraction(1, 2), 0, 255),
        "pressure": _Linear(Fraction(1), 0, 65535, zero=50000),
        **_ACCELERATIONS,
        "battery_voltage": _Linear(Fraction(1, 1000), 0, 65535),
    },
    5: {
        **_CLIMATE,
        **_ACCELERATIONS,
        "battery_voltage": _Linear(Fraction(1, 1000), 0, 2046, 2047, zero=1600),
        "tx_power": _Linear(Fraction(2), 0, 30, 31, zero=-20),
        "movement_counter": _Linear(Fraction(1), 0, 254, 255),
        "sequence": _Linear(Fraction(1), 0, 65534, 65535),
    },
    6: {**_CLIMATE, "pm2_5": _PM, **_GASES, "illuminance": _LogLux(), "sequence": _LowByte()},
    0xE1: {
        **_CLIMATE,
        **dict.fromkeys(("pm1", "pm2_5", "pm4", "pm10"), _PM),
        **_GASES,
        "illuminance": _Linear(Fraction(1, 100), 0, 14_428_400, 0xFFFFFF),
        "sequence": _Linear(Fraction(1), 0, 0xFFFFFE, 0xFFFFFF),
    },
}


@dataclass
class RuuviTag:
    """A RuuviTag. The values may be changed at any time; each ``heartbeat`` sends them.

    Attributes:
        address: upper case with colons; format 5 carries it.
        data_format: 3 or 5.
        temperature: Cel; this and the following are None where the sensor has no reading, which format 3 cannot say.
        humidity: %RH.
        pressure: Pa.
        acceleration_x: m/s2, as y and z; 1 g is 9.80665.
        battery_voltage: V.
        tx_power: dBm, even.
        movement_counter: 0 to 254.
        sequence: of the measurement, 0 to 65534.
    """

    address: str
    data_format: int = 5
    temperature: float | None = 20.0
    humidity: float | None = 50.0
    pressure: float | None = 101_325.0
    acceleration_x: float | None = 0.0
    acceleration_y: float | None = 0.0
    acceleration_z: float | None = 9.80665
    battery_voltage: float | None = 3.0
    tx_power: float | None = 4.0
    movement_counter: int | None = 0
    sequence: int | None = 0

    def move(self) -> None:
        """Be knocked: the movement counter counts. 254 is followed by 0, as 255 is invalid."""
        self.movement_counter = ((self.movement_counter or 0) + 1) % 255

    def heartbeat(self) -> bytes:
        """Measure anew and return the advert. Sequence 65534 is followed by 0, as 65535 is invalid."""
        self.sequence = ((self.sequence or 0) + 1) % 65535
        return self.advert()

    def advert(self) -> bytes:
        """Return the present advert as AD structures: flags and manufacturer data, 31 bytes in format 5."""
        return _advert(self.payload())

    def truth(self) -> Truth:
        """Return what a right reader gets from the present advert, by channel. Format 3 lacks the last three."""
        return {name: coding.readable(getattr(self, name)) for name, coding in _FORMATS[self.data_format].items()}

    def payload(self) -> bytes:
        """Return the manufacturer data behind the company id.

        Raises:
            ValueError: a value is None in format 3.
        """
        sent = _numbers(self, self.data_format)
        acceleration = [sent[name] for name in _ACCELERATIONS]
        if self.data_format == 3:  # noqa: PLR2004  # that is its name
            below_zero = 0x80 if sent["temperature"] < 0 else 0  # sign and magnitude, whole degrees and hundredths
            whole, hundredths = divmod(abs(sent["temperature"]), 100)
            head = struct.pack(">BBBBH", 3, sent["humidity"], below_zero | whole, hundredths, sent["pressure"])
            return head + struct.pack(">hhhH", *acceleration, sent["battery_voltage"])
        power = sent["battery_voltage"] << 5 | sent["tx_power"]
        head = struct.pack(">BhHH", 5, sent["temperature"], sent["humidity"], sent["pressure"])
        tail = struct.pack(">HBH", power, sent["movement_counter"], sent["sequence"])
        return head + struct.pack(">hhh", *acceleration) + tail + _address(self.address)


@dataclass
class RuuviAir:
    """A Ruuvi Air. It sends format 6 for receivers that know legacy adverts only, and E1 in extended ones.

    Attributes:
        address: upper case with colons; E1 carries it, format 6 its last three bytes.
        data_format: 6 or 0xE1.
        temperature: Cel; this and the following are None where the sensor has no reading.
        humidity: %RH.
        pressure: Pa.
        pm1: ug/m3, as pm2_5, pm4 and pm10; format 6 has pm2_5 only.
        co2: ppm.
        voc_index: 0 to 500.
        nox_index: 0 to 500.
        illuminance: lx.
        calibrating: whether the sensors are still settling.
        sequence: of the measurement, 0 to 16777214; format 6 carries its low byte.
        reserved: what the reserved bytes hold, and with its bits 1 to 5 the reserved flags.
    """

    address: str
    data_format: int = 0xE1
    temperature: float | None = 20.0
    humidity: float | None = 50.0
    pressure: float | None = 101_325.0
    pm1: float | None = 4.0
    pm2_5: float | None = 6.0
    pm4: float | None = 7.0
    pm10: float | None = 8.0
    co2: float | None = 420.0
    voc_index: int | None = 100
    nox_index: int | None = 1
    illuminance: float | None = 1000.0
    calibrating: bool = False
    sequence: int | None = 0
    reserved: int = 0xFF

    def heartbeat(self) -> bytes:
        """Measure anew and return the advert. Sequence 16777214 is followed by 0, as all ones are invalid."""
        self.sequence = ((self.sequence or 0) + 1) % 0xFFFFFF
        return self.advert()

    def advert(self) -> bytes:
        """Return the present advert as AD structures: flags and manufacturer data, 47 bytes with E1."""
        return _advert(self.payload())

    def truth(self) -> Truth:
        """Return what a right reader gets from the present advert, by channel."""
        values = {name: coding.readable(getattr(self, name)) for name, coding in _FORMATS[self.data_format].items()}
        return values | {"calibrating": self.calibrating}

    def payload(self) -> bytes:
        """Return the manufacturer data behind the company id."""
        sent = _numbers(self, self.data_format)
        # VOC and NOX have nine bits: the upper eight have a byte each, the lowest are bits 6 and 7 of the flags.
        voc, nox = sent["voc_index"], sent["nox_index"]
        flags = int(self.calibrating) | self.reserved & 0x3E | (voc & 1) << 6 | (nox & 1) << 7
        climate = struct.pack(">BhHH", self.data_format, sent["temperature"], sent["humidity"], sent["pressure"])
        gases = struct.pack(">HBB", sent["co2"], voc >> 1, nox >> 1)
        if self.data_format == 6:  # noqa: PLR2004  # that is its name
            tail = bytes([sent["illuminance"], self.reserved, sent["sequence"], flags])
            return climate + struct.pack(">H", sent["pm2_5"]) + gases + tail + _address(self.address)[3:]
        dust = struct.pack(">HHHH", sent["pm1"], sent["pm2_5"], sent["pm4"], sent["pm10"])
        light = sent["illuminance"].to_bytes(3, "big") + bytes([self.reserved] * 3)
        tail = sent["sequence"].to_bytes(3, "big") + bytes([flags]) + bytes([self.reserved] * 5)
        return climate + dust + gases + light + tail + _address(self.address)


def _numbers(device: RuuviTag | RuuviAir, data_format: int) -> dict[str, int]:
    return {name: coding.number(getattr(device, name)) for name, coding in _FORMATS[data_format].items()}


def _address(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _advert(payload: bytes) -> bytes:
    return encode(Advert(flags=0x06, manufacturer_data={COMPANY_ID: payload}))

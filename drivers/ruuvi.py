"""RuuviTag and Ruuvi Air: weather, motion and air quality in Bluetooth LE advertisements.

The manufacturer data of company 0499 begin with the format:

======  =========================================  =====================
3       RAWv1, RuuviTag before 2019                14 bytes
5       RAWv2, RuuviTag                            24 bytes
c5      RAWv2 without acceleration                 18 bytes
6       Ruuvi Air, fits any Bluetooth              20 bytes
e1      Ruuvi Air, Bluetooth 5 extended            40 bytes
======  =========================================  =====================

A RuuviTag inside a pole gives its tilt and its vibration as well. Ruuvi Air sends the same measurement as e1 and
as 6; a radio that can hear e1 gets more digits and more channels, and 6 then adds nothing.

Source: Ruuvi, "Bluetooth advertisements", data formats 3, 5, C5, 6 and E1 (docs.ruuvi.com).
"""

import math
import struct
from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import PrivateAttr

from drivers.contract import Advert, Advertised, BadFrame, Channel, Value, Values
from drivers.quantities import CO2, HUMIDITY, ILLUMINANCE, PM1, PM2_5, PM4, PM10, PRESSURE, TEMPERATURE

G0 = 9.80665  # m/s2, standard acceleration of free fall
AXES = ("acceleration_x", "acceleration_y", "acceleration_z")
ENOUGH_OF_6 = 20  # adverts: e1 is gone for good, because another radio was put in that cannot hear it
LUMINOSITY_STEP = math.log(65_536) / 254  # format 6 sends lux on a logarithmic scale of 254 steps


class Ruuvi(Advertised):
    """A ``[[device]]`` with ``driver = "ruuvi"``."""

    driver: Literal["ruuvi"]

    MAKE = "Ruuvi RuuviTag or Ruuvi Air"
    DATASET = "weather"
    MANUFACTURER = 0x0499
    CHANNELS: ClassVar = {
        "temperature": TEMPERATURE,
        "humidity": HUMIDITY,
        "pressure": PRESSURE,
        **{axis: Channel(axis.replace("_", " along "), "m/s2", f"3313/570{2 + i}") for i, axis in enumerate(AXES)},
        "battery_voltage": Channel("battery voltage", "V", "3411/3"),
        "tx_power": Channel("transmit power", "dBm"),
        "movement_counter": Channel("movements, wraps at 254", "count"),
        "sequence": Channel("measurement number, wraps", "count"),
        "pm1": PM1,
        "pm2_5": PM2_5,
        "pm4": PM4,
        "pm10": PM10,
        "co2": CO2,
        "voc_index": Channel("VOC index, 100 is the average of the last day", "1"),
        "nox_index": Channel("NOx index, 1 is the average of the last day", "1"),
        "illuminance": ILLUMINANCE,
        "calibrating": Channel("air quality calibration in progress", kind="boolean"),
    }

    def expected(self) -> tuple[str, ...]:
        """Only these three stand in every format."""
        return ("temperature", "humidity", "pressure")

    _six_since_e1: int = PrivateAttr(ENOUGH_OF_6)

    def payload(self, advert: Advert) -> bytes | None:
        """Return the bytes after the company id; not those of format 6 while the same tag is heard in e1."""
        data = advert.manufacturer.get(self.MANUFACTURER)
        if data and data[0] == 0xE1:  # noqa: PLR2004  # the format's name
            self._six_since_e1 = 0
        elif data and data[0] == 0x06:  # noqa: PLR2004  # the format's name
            self._six_since_e1 += 1
            return data if self._six_since_e1 > ENOUGH_OF_6 else None
        return data

    def decode(self, frame: bytes) -> Values:
        """Read the manufacturer data of one advertisement, company id not included."""
        if not frame:
            raise BadFrame("empty manufacturer data")
        kind = 0xC5 if (frame[0], len(frame)) == CUT_AS_PRINTED else frame[0]
        if kind not in FORMATS:
            known = ", ".join(f"{number:02x}" for number in FORMATS)
            raise BadFrame(f"data format {kind:02x} is not one of {known}", hint=NEWER)
        sizes, read = FORMATS[kind]
        if len(frame) not in sizes:
            least = f"{sizes[0]} to " if len(sizes) > 1 else ""
            raise BadFrame(f"data format {kind:02x} has {least}{sizes[-1]} bytes, this has {len(frame)}")
        return read(frame)


NEWER = "The tag is newer than this driver, or the address belongs to another Ruuvi product."

CUT_AS_PRINTED = (0x05, 18)
"""The maker's page prints its examples of format c5 with a leading 05; the length tells them apart."""


def _unless(invalid: int, raw: int, scale: Callable[[int], Value]) -> Value:
    return None if raw == invalid else scale(raw)


def _climate(temperature: int, humidity: int, pressure: int) -> dict[str, Value]:
    """Formats 5, c5, 6 and e1: int16 0.005 Cel, uint16 0.0025 %RH, uint16 Pa - 50000."""
    return {
        "temperature": _unless(-0x8000, temperature, lambda raw: raw / 200),
        "humidity": _unless(0xFFFF, humidity, lambda raw: raw / 400),
        "pressure": _unless(0xFFFF, pressure, lambda raw: raw + 50_000),
    }


def _acceleration(milli_g: tuple[int, ...], invalid: int | None) -> dict[str, Value]:
    """Convert int16 in 0.001 g; in m/s2 five decimals keep every step apart."""
    return {
        axis: None if raw == invalid else round(raw * G0 / 1000, 5) for axis, raw in zip(AXES, milli_g, strict=True)
    }


def _power(raw: int) -> dict[str, Value]:
    """Split 11 bits of mV above 1600 and 5 bits of 2 dBm above -40."""
    return {
        "battery_voltage": _unless(0x7FF, raw >> 5, lambda mv: (mv + 1600) / 1000),
        "tx_power": _unless(0x1F, raw & 0x1F, lambda step: 2 * step - 40),
    }


def _indices(voc: int, nox: int, flags: int) -> dict[str, Value]:
    """Join the 9 bits of the gas indices: the lowest stands among the flags (bit 6 VOC, bit 7 NOx)."""
    return {
        "voc_index": _unless(0x1FF, voc << 1 | flags >> 6 & 1, int),
        "nox_index": _unless(0x1FF, nox << 1 | flags >> 7 & 1, int),
        "calibrating": bool(flags & 1),
    }


def _dust(raw: int) -> Value:
    return _unless(0xFFFF, raw, lambda tenths: tenths / 10)


def _format_3(frame: bytes) -> Values:
    _, humidity, whole, hundredths, pressure, x, y, z, millivolt = struct.unpack(">BBBBHhhhH", frame)
    degrees = (whole & 0x7F) + hundredths / 100  # sign and magnitude, not two's complement
    return {
        "temperature": round(-degrees if whole & 0x80 else degrees, 2),
        "humidity": humidity / 2,
        "pressure": pressure + 50_000,
        **_acceleration((x, y, z), None),
        "battery_voltage": millivolt / 1000,
    }


def _format_5(frame: bytes) -> Values:
    temperature, humidity, pressure, x, y, z, power, movement, sequence = struct.unpack(">hHHhhhHBH", frame[1:18])
    return {
        **_climate(temperature, humidity, pressure),
        **_acceleration((x, y, z), -0x8000),
        **_power(power),
        "movement_counter": _unless(0xFF, movement, int),
        "sequence": _unless(0xFFFF, sequence, int),
    }


def _format_c5(frame: bytes) -> Values:
    temperature, humidity, pressure, power, movement, sequence = struct.unpack(">hHHHBH", frame[1:12])
    return {
        **_climate(temperature, humidity, pressure),
        **_power(power),
        "movement_counter": _unless(0xFF, movement, int),
        "sequence": _unless(0xFFFF, sequence, int),
    }


def _format_6(frame: bytes) -> Values:
    fields = struct.unpack(">hHHHHBBBxBB", frame[1:17])
    temperature, humidity, pressure, pm2_5, co2, voc, nox, luminosity, sequence, flags = fields
    return {
        **_climate(temperature, humidity, pressure),
        "pm2_5": _dust(pm2_5),
        "co2": _unless(0xFFFF, co2, int),
        **_indices(voc, nox, flags),
        "illuminance": _unless(0xFF, luminosity, lambda code: round(math.expm1(code * LUMINOSITY_STEP))),
        "sequence": sequence,
    }


def _format_e1(frame: bytes) -> Values:
    fields = struct.unpack(">hHHHHHHHBB3s3x3sB", frame[1:29])
    temperature, humidity, pressure, pm1, pm2_5, pm4, pm10, co2, voc, nox, luminosity, sequence, flags = fields
    return {
        **_climate(temperature, humidity, pressure),
        "pm1": _dust(pm1),
        "pm2_5": _dust(pm2_5),
        "pm4": _dust(pm4),
        "pm10": _dust(pm10),
        "co2": _unless(0xFFFF, co2, int),
        **_indices(voc, nox, flags),
        "illuminance": _unless(0xFFFFFF, int.from_bytes(luminosity, "big"), lambda raw: raw / 100),
        "sequence": _unless(0xFFFFFF, int.from_bytes(sequence, "big"), int),
    }


FORMATS: dict[int, tuple[range, Callable[[bytes], Values]]] = {
    0x03: (range(14, 15), _format_3),
    0x05: (range(24, 25), _format_5),
    0xC5: (range(18, 19), _format_c5),
    0x06: (range(17, 22), _format_6),
    0xE1: (range(29, 41), _format_e1),
}
"""First byte to the lengths it may have, and who reads it.

Formats 6 and e1 end with bytes that say nothing of the measurement (reserved, and the tag's own address, which
the radio knows anyway); recorded ones exist with that tail cut short or one byte too long.
"""

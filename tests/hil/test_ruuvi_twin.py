"""The Ruuvi twins put the published values into the published bytes, and say no more than the bytes do.

Source: https://docs.ruuvi.com (data formats 3, 5, 6, E1); tests of ruuvitag-ble and of ruuvitag-sensor. X stands for
what is reserved.
"""

import re
from typing import Any

import pytest

from hil.adverts import parse
from hil.twins.ruuvi import COMPANY_ID, RuuviAir, RuuviTag

G = 9.80665

NO_READING: dict[str, Any] = dict.fromkeys(("temperature", "humidity", "pressure", "sequence"))
NO_MOTION: dict[str, Any] = dict.fromkeys(("acceleration_x", "acceleration_y", "acceleration_z", "movement_counter"))
NO_POWER: dict[str, Any] = dict.fromkeys(("battery_voltage", "tx_power"))
NO_AIR: dict[str, Any] = dict.fromkeys(
    ("pm1", "pm2_5", "pm4", "pm10", "co2", "voc_index", "nox_index", "illuminance"),
)

NOWHERE, DOCUMENTED = "FF:FF:FF:FF:FF:FF", "CB:B8:33:4C:88:4F"


def climate(celsius: float, humidity: float, pascal: float) -> dict[str, Any]:
    return {"temperature": celsius, "humidity": humidity, "pressure": pascal}


def gravity(x: float, y: float, z: float) -> dict[str, Any]:
    return {"acceleration_x": x * G, "acceleration_y": y * G, "acceleration_z": z * G}


def power(volt: float, dbm: float, movement: int, sequence: int) -> dict[str, Any]:
    return {"battery_voltage": volt, "tx_power": dbm, "movement_counter": movement, "sequence": sequence}


def dust(pm1: float, pm2_5: float, pm4: float, pm10: float) -> dict[str, Any]:
    return {"pm1": pm1, "pm2_5": pm2_5, "pm4": pm4, "pm10": pm10}


def gases(co2: float, voc: int, nox: int, lux: float, sequence: int) -> dict[str, Any]:
    return {"co2": co2, "voc_index": voc, "nox_index": nox, "illuminance": lux, "sequence": sequence}


def tag_3(**values: Any) -> RuuviTag:  # noqa: ANN401  # fields of the twin
    return RuuviTag(NOWHERE, 3, **values)


PUBLISHED = {
    "format 3, valid": (
        tag_3(**climate(26.3, 20.5, 102_766), **gravity(-1, -1.726, 0.714), battery_voltage=2.899),
        "03291A1ECE1EFC18F94202CA0B53",
    ),
    "format 3, minimum": (
        tag_3(**climate(-127.99, 0, 50_000), **gravity(-32.767, -32.767, -32.767), battery_voltage=0),
        "0300FF6300008001800180010000",
    ),
    "format 3, below zero": (
        tag_3(**climate(-1.69, 89, 101_744), **gravity(0.122, 0.038, 0.976), battery_voltage=2.191),
        "03B28145CA20007A002603D0088F",
    ),
    "format 5, on the air": (
        RuuviTag(
            "E6:2E:B9:2E:73:E5",
            **climate(25.01, 61.165, 100_419),
            **gravity(-0.028, -0.036, 1.044),
            **power(3.175, 4, 236, 10_683),
        ),
        "05138A5F92C4F3FFE4FFDC0414C4F6EC29BBE62EB92E73E5",
    ),
    "format 5, maximum": (
        RuuviTag(
            DOCUMENTED,
            **climate(163.835, 163.835, 115_534),
            **gravity(32.767, 32.767, 32.767),
            **power(3.646, 20, 254, 65_534),
        ),
        "057FFFFFFEFFFE7FFF7FFF7FFFFFDEFEFFFECBB8334C884F",
    ),
    "format 5, invalid": (
        RuuviTag(NOWHERE, **NO_READING, **NO_MOTION, **NO_POWER),
        "058000FFFFFFFF800080008000FFFFFFFFFFFFFFFFFFFFFF",
    ),
    "format 6, breath": (
        RuuviAir(
            "00:00:00:FF:00:FF",
            6,
            **climate(26.69, 85.91, 101_459),
            pm2_5=0.9,
            **gases(3577, 332, 1, 1080, 0xF6),
            reserved=0x10,
        ),
        "0614DA863CC90300090DF9A600A0XXF690FF00FF",
    ),
    "format 6, maximum": (
        RuuviAir(
            "00:00:00:4C:8F:4F",
            6,
            **climate(163.835, 100, 115_534),
            pm2_5=1000,
            **gases(40_000, 500, 500, 65_535, 255),
            calibrating=True,
            reserved=0x06,
        ),
        "067FFF9C40FFFE27109C40FAFAFEXXFF074C8F4F",
    ),
    "format 6, invalid": (
        RuuviAir(NOWHERE, 6, **NO_READING, **NO_AIR, calibrating=True),
        "068000FFFFFFFFFFFFFFFFFFFFFFXXFFFFFFFFFF",
    ),
    "format E1, on the air": (
        RuuviAir(
            DOCUMENTED,
            **climate(29.5, 55.3, 101_102),
            **dust(10.1, 11.2, 121.3, 455.4),
            **gases(201, 20, 4, 13_027, 14_601_710),
            calibrating=True,
            reserved=0x10,
        ),
        "E1170C5668C79E0065007004BD11CA00C90A0213E0ACXXXXXXDECDEE11XXXXXXXXXXCBB8334C884F",
    ),
    "format E1, maximum": (
        RuuviAir(
            DOCUMENTED,
            **climate(163.835, 100, 115_534),
            **dust(1000, 1000, 1000, 1000),
            **gases(40_000, 500, 500, 144_284, 16_777_214),
            calibrating=True,
        ),
        "E17FFF9C40FFFE27102710271027109C40FAFADC28F0XXXXXXFFFFFE3FXXXXXXXXXXCBB8334C884F",
    ),
    "format E1, invalid": (
        RuuviAir(NOWHERE, **NO_READING, **NO_AIR),
        "E18000FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFXXXXXXFFFFFFFEXXXXXXXXXXFFFFFFFFFFFF",
    ),
}


@pytest.mark.parametrize(("twin", "published"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_values_give_the_published_bytes_and_are_the_truth(twin: RuuviTag | RuuviAir, published: str) -> None:
    assert re.fullmatch(published.replace("X", "."), twin.payload().hex().upper())
    truth = twin.truth()
    stated = {name: getattr(twin, name) for name in truth}
    if twin.data_format == 6 and twin.sequence is None:
        stated["sequence"] = 255  # format 6 has no code for "no sequence"
    assert truth == pytest.approx(stated)


def test_the_truth_is_no_finer_than_the_format() -> None:
    tag = RuuviTag(DOCUMENTED, temperature=20.0013, humidity=50.0012, acceleration_x=0.0062, tx_power=5)
    assert tag.truth() == {
        "temperature": 20.0,
        "humidity": 50.0,
        "pressure": 101_325,
        "acceleration_x": 0.00980665,
        "acceleration_y": 0.0,
        "acceleration_z": 9.80665,
        "battery_voltage": 3.0,
        "tx_power": 4,
        "movement_counter": 0,
        "sequence": 0,
    }
    tag.data_format = 3
    tag.temperature, tag.humidity = -20.006, 50.3
    assert tag.truth() == {
        "temperature": -20.01,
        "humidity": 50.5,
        "pressure": 101_325,
        "acceleration_x": 0.00980665,
        "acceleration_y": 0.0,
        "acceleration_z": 9.80665,
        "battery_voltage": 3.0,
    }


def test_values_beyond_the_format_stop_at_its_limits() -> None:
    hot = RuuviTag(DOCUMENTED, temperature=500.0, pressure=20_000.0, battery_voltage=5.0)
    assert hot.truth()["temperature"] == 163.835
    assert hot.truth()["pressure"] == 50_000
    assert hot.truth()["battery_voltage"] == 3.646
    assert RuuviAir(DOCUMENTED, pm10=2000.0).truth()["pm10"] == 1000.0


def test_format_6_reads_the_light_to_the_lux_its_logarithm_allows() -> None:
    air = RuuviAir(DOCUMENTED, 6, illuminance=225.0)
    assert air.payload()[13] == 0x7C
    assert air.truth()["illuminance"] == 224


def test_counters_skip_the_number_that_is_invalid() -> None:
    tag = RuuviTag(DOCUMENTED, sequence=65_534, movement_counter=254)
    tag.move()
    tag.heartbeat()
    assert (tag.movement_counter, tag.sequence) == (0, 0)
    air = RuuviAir(DOCUMENTED, sequence=16_777_214)
    air.heartbeat()
    assert air.sequence == 0


def test_format_6_carries_the_low_byte_of_the_sequence() -> None:
    air = RuuviAir(DOCUMENTED, 6, sequence=0x1FE)
    assert parse(air.heartbeat()).manufacturer_data[COMPANY_ID][15] == 0xFF
    assert air.truth()["sequence"] == 0xFF


def test_format_3_refuses_a_value_it_cannot_leave_out() -> None:
    with pytest.raises(ValueError, match="no code for a reading that is missing"):
        RuuviTag(DOCUMENTED, 3, humidity=None).advert()


def test_an_advert_of_format_5_fills_a_legacy_advert() -> None:
    tag = RuuviTag(DOCUMENTED)
    advert = tag.advert()
    assert len(advert) == 31
    assert parse(advert).flags == 0x06
    assert parse(advert).manufacturer_data == {0x0499: tag.payload()}

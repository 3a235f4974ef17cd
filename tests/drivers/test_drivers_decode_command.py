"""``polegate decode`` says what the vectors say: all of Ruuvi, from payloads and from raw adverts, and the others."""

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner, Result

from drivers.contract import Advert, Advertised, DeviceError
from gateway.cli import polegate
from hil import adverts
from tests.drivers.vector_files import Bad, Good, NoAdvert, Raw, device, each, vectors

COMPANY = 0x0499


def decode(*arguments: str) -> Result:
    return CliRunner().invoke(polegate, ["decode", *arguments], standalone_mode=False)


def printed(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def heard(data: bytes) -> bytes | None:
    """Return what the driver takes out of an advert, as the radio hands it over."""
    parsed = adverts.parse(data)
    tag = device("ruuvi")
    assert isinstance(tag, Advertised)
    return tag.payload(Advert(tag.address, -70, parsed.manufacturer_data, parsed.service_data))


@pytest.mark.parametrize(("driver", "vector"), each("good", "ruuvi"))
def test_decode_prints_the_values_of_every_ruuvi_vector(driver: str, vector: Good) -> None:
    wanted = vector.wanted()
    for frame in vector.frames():
        result = decode(driver, "--json", "--manufacturer", f"{COMPANY:#06x}", frame.hex())
        assert (result.exception, result.return_value) == (None, 0)
        (line,) = printed(result)
        shown = {name: value for name, value in line["values"].items() if name in wanted or not vector.partial}
        assert shown == wanted
        assert line["units"] == {name: device(driver).channel(name).unit for name in line["values"]}


@pytest.mark.parametrize(("driver", "vector"), each("advert", "ruuvi"))
def test_decode_reads_the_payload_of_a_recorded_advert(driver: str, vector: Raw) -> None:
    data, rssi = adverts.from_report(bytes.fromhex(vector.report))
    payload = heard(data)
    assert payload is not None
    assert payload == (bytes.fromhex(vector.payload) or payload)
    assert payload[0] == int(vector.format, 16)
    assert -100 < rssi < 0
    result = decode(driver, "--json", "--manufacturer", hex(COMPANY), payload.hex())
    assert [line["values"] for line in printed(result)] == [device(driver).decode(payload)]
    assert None not in printed(result)[0]["values"].values()


WITHOUT_PROFILE = ("nmea0183", "pms5003", "sds011", "sps30")
FORMAT_5 = bytes.fromhex("138a5f92c4f3ffe4ffdc0414c4f6ec29bbe62eb92e73e5")
"""What follows the format byte of a good frame of format 5."""


@pytest.mark.parametrize(("driver", "vector"), each("no_advert", "ruuvi"))
def test_an_advert_that_is_not_format_5_is_not_read_as_it(driver: str, vector: NoAdvert) -> None:
    begins = bytes.fromhex(vector.begins)
    assert heard(begins) is None  # cut off there
    payload = heard(begins + FORMAT_5)
    if payload is not None:
        with pytest.raises(DeviceError):
            device(driver).decode(payload)
        result = decode(driver, "--json", "--manufacturer", hex(COMPANY), payload.hex())
        assert result.return_value == 1
        assert printed(result)[0]["error"] == "BadFrame"


def test_the_same_bytes_in_a_right_advert_are_read() -> None:
    payload = heard(bytes.fromhex("0201041bff990405") + FORMAT_5)
    assert payload == b"\x05" + FORMAT_5
    assert device("ruuvi").decode(payload)["temperature"] == 25.01


def test_what_stands_behind_another_company_is_not_decoded() -> None:
    result = decode("ruuvi", "--manufacturer", "0x049a", "05" + FORMAT_5.hex())
    assert result.return_value == 1
    assert "does not read what stands behind company 0x049a" in result.stderr


@pytest.mark.parametrize(("driver", "vector"), [one for name in WITHOUT_PROFILE for one in each("good", name)])
def test_decode_prints_what_the_driver_reads(driver: str, vector: Good) -> None:
    result = decode(driver, "--json", vector.text or vector.frame)
    assert [line["values"] for line in printed(result)] == [device(driver).decode(next(vector.frames()))]
    assert result.return_value == 0


def test_decode_reads_a_modbus_request_and_its_answer_with_an_installed_profile() -> None:
    (vector,) = [vector for vector in vectors("modbus").good if vector.device == "sdm630"]
    result = decode("modbus", "--json", "--profile", "eastron-sdm630", bytes.fromhex(vector.frame).hex())
    assert printed(result) == [{"values": vector.values, "units": {"voltage_l1": "V"}}]


TYPED = [one for one in each("bad", "ruuvi") + each("bad", "sps30") if one.values[1].frame]


@pytest.mark.parametrize(("driver", "vector"), TYPED)
def test_decode_says_why_a_frame_gives_nothing(driver: str, vector: Bad) -> None:
    result = decode(driver, next(vector.frames()).hex())
    assert result.return_value == 1
    assert result.stdout == ""
    assert vector.says in result.stderr


def test_decode_as_a_command_prints_a_table_and_ends_with_0() -> None:
    (vector,) = [vector for vector in vectors("ruuvi").good if vector.id == "ruuvi-df5-invalid-values"]
    command = [sys.executable, "-m", "gateway", "decode", "ruuvi", next(vector.frames()).hex()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # our own
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert set(rows) == set(vector.no_reading)
    assert rows["temperature"] == "no reading Cel"
    assert rows["sequence"] == "no reading count"

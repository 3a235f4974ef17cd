"""``polegate decode``: frames in as any tool prints them, values out for a person or a script, and why not."""

import json
from pathlib import Path

import pytest

from hil.twins.modbus import crc16
from hil.twins.ruuvi import RuuviAir
from tests.commands.cli_scene import call
from tests.config.settings_scene import PROFILE

EX_USAGE = 64
SDS011 = "aac0d4043a0aa1601dab"
DAMAGED = "aac0d4043a0aa16000ab"
WARMING = "aac000000000a16001ab"
DUST = {"values": {"pm2_5": 123.6, "pm10": 261.8}, "units": {"pm2_5": "ug/m3", "pm10": "ug/m3"}}
NOISE = ("modbus", "--profile", "rs485-noise-meter")
GLL = "$GPGLL,4916.45,N,12311.12,W,225444,A*31"
VOLTS = bytes.fromhex("0103060000000a0005")
VOLTS += crc16(VOLTS).to_bytes(2, "little")
RUUVI = "0512fc5394c37c0004fffc040cac364200cdcbb8334c884f"
CABLE = "Wrong driver for this device, wrong baud rate, or a cable that picks up noise."


@pytest.mark.parametrize(
    "pieces",
    [
        [SDS011],
        [SDS011.upper()],
        ["0x" + SDS011],
        ["aa", "c0", "d4", "04", "3a", "0a", "a1", "60", "1d", "ab"],
        ["aa c0 d4 04 3a 0a a1 60 1d ab"],
        ["aa:c0:d4:04:3a:0a:a1:60:1d:ab"],
        ["aac0", "d404", "3a0a", "a160", "1dab"],
        ["00ff" + SDS011],  # a stream begins anywhere
        ["aac0" + SDS011],  # also in a frame that was cut off
        ["aac0d4043a" + SDS011],
        ["0xaa", "0xC0", "0xd4", "0x04", "0x3a", "0x0a", "0xa1", "0x60", "0x1d", "0xab"],
        ["0xaa,", "0xc0,", "0xd4,", "0x04,", "0x3a,", "0x0a,", "0xa1,", "0x60,", "0x1d,", "0xab"],
        ["0xaa 0xc0 0xd4 0x04 0x3a 0x0a 0xa1 0x60 0x1d 0xab"],
        ["AA-C0-D4-04-3A-0A-A1-60-1D-AB"],
        ["aa,c0,d4,04,3a,0a,a1,60,1d,ab"],
    ],
)
def test_a_frame_may_be_given_as_any_tool_prints_it(pieces: list[str]) -> None:
    assert call("decode", "sds011", *pieces) == (0, "pm2_5  123.6 ug/m3\npm10   261.8 ug/m3\n", "")


def test_a_script_gets_one_object_a_frame_with_values_and_units() -> None:
    code, out, err = call("decode", "--json", "sds011", SDS011 + SDS011, SDS011)

    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [DUST] * 3


def test_a_script_gets_one_object_for_what_cannot_be_read_and_why() -> None:
    code, out, err = call("decode", "--json", "sds011", DAMAGED, WARMING, SDS011, "aac0d404")

    assert (code, err) == (1, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"error": "BadFrame", "reason": "checksum is 00, the bytes give 1d"},
        {"error": "NotReady", "reason": "all values are zero: the sensor is warming up"},
        DUST,
        {"error": "BadFrame", "reason": "an SDS011 frame has 10 bytes, this has 4"},
    ]


def test_a_person_gets_what_cannot_be_read_with_the_next_step_on_the_other_output() -> None:
    code, out, err = call("decode", "sds011", SDS011, DAMAGED)

    assert (code, out) == (1, "pm2_5  123.6 ug/m3\npm10   261.8 ug/m3\n\n")
    assert err == f"bad-frame: checksum is 00, the bytes give 1d. {CABLE}\n"


def test_a_person_sees_frames_apart_from_each_other() -> None:
    _, out, _ = call("decode", "sds011", SDS011, SDS011)

    assert out == "pm2_5  123.6 ug/m3\npm10   261.8 ug/m3\n\npm2_5  123.6 ug/m3\npm10   261.8 ug/m3\n"


def test_text_is_given_as_text_and_a_log_of_lines_at_once() -> None:
    code, out, _ = call("decode", "nmea0183", f"{GLL}\r\n$GPZDA,,,,,,*48\r\n{GLL}")

    one = "latitude   49.274166667 deg\nlongitude  -123.185333333 deg\n"
    assert (code, out) == (0, f"{one}\na sound frame, with nothing in it that is read\n\n{one}")


def test_a_value_that_is_not_there_reads_so() -> None:
    code, out, _ = call("decode", "--json", "ruuvi", "058000ffffffff800080008000ffffffffffcbb8334c884f")
    _, shown, _ = call("decode", "ruuvi", "058000ffffffff800080008000ffffffffffcbb8334c884f")

    assert code == 0
    assert set(json.loads(out)["values"].values()) == {None}
    assert all("no reading" in line for line in shown.splitlines())


def test_a_flag_reads_as_yes_or_no() -> None:
    _, out, _ = call("decode", "ruuvi", RuuviAir("CB:B8:33:4C:88:4F", calibrating=True).payload().hex())
    _, other, _ = call("decode", "ruuvi", RuuviAir("CB:B8:33:4C:88:4F").payload().hex())

    assert dict(line.split(None, 1) for line in out.splitlines())["calibrating"] == "yes"
    assert dict(line.split(None, 1) for line in other.splitlines())["calibrating"] == "no"


@pytest.mark.parametrize("given", ["0x0499", "0499", "1177"])
def test_the_company_a_payload_stood_behind_may_be_given(given: str) -> None:
    code, out, _ = call("decode", "--json", "ruuvi", "--manufacturer", given, "--address", "cb:b8:33:4c:88:4f", RUUVI)

    assert code == 0
    assert json.loads(out)["values"]["temperature"] == 24.3


@pytest.mark.parametrize(
    ("option", "behind"),
    [
        (("--manufacturer", "0x004c"), "company 0x004c"),
        (("--service-data", "fcd2"), "service 0000fcd2-0000-1000-8000-00805f9b34fb"),
        (("--service-data", "0xFCD2"), "service 0000fcd2-0000-1000-8000-00805f9b34fb"),
        (
            ("--service-data", "6E400001-B5A3-F393-E0A9-E50E24DCCA9E"),
            "service 6e400001-b5a3-f393-e0a9-e50e24dcca9e",
        ),
    ],
)
def test_what_stood_behind_another_id_is_refused_with_the_id_that_is_read(option: tuple[str, str], behind: str) -> None:
    code, out, err = call("decode", "ruuvi", *option, RUUVI)

    assert (code, out) == (1, "")
    assert err == f"bad-frame: ruuvi does not read what stands behind {behind}. It reads company 0x0499.\n"


def test_a_register_map_is_taken_by_name_or_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(PROFILE)

    assert call("decode", *NOISE, "01", "03", "02", "02", "4b", "f9", "13") == (0, "sound_level  58.7 dB\n", "")
    code, out, _ = call("decode", "modbus", "--profile", str(tmp_path / "mine.toml"), VOLTS.hex())
    assert (code, out) == (0, "volts    10 V\namperes  5 A\n")


def test_a_register_map_with_faults_is_told_as_a_check_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(PROFILE.replace('"V"', '"Volt"'))

    code, out, err = call("decode", "modbus", "--profile", str(path), "00")

    assert (code, out) == (78, "")
    assert err == f'{path}:10: [[register]] "volts": "Volt" is not a unit of SenML; did you mean "V"?\n'


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sds01", "00"], 'driver "sds01" does not exist; did you mean "sds011"?'),
        (["x", "00"], "there are"),
        (["sds011", "abc"], '"abc" is not hex; it has 3 digits, and a byte has two'),
        (["sds011", "hello"], '"hello" is not hex; text of a text protocol begins with $ or ! and stands in single'),
        (["sds011", "aa", "bb", "c"], '"aabbc" is not hex; it has 5 digits'),
        (["modbus", "00"], 'modbus needs --profile NAME; there are "eastron-sdm630" and "rs485-noise-meter"'),
        (["modbus", "--profile", "acme", "00"], 'profile "acme" does not exist; there are "eastron-sdm630"'),
        (["modbus", "--profile", "eastron-smd630", "00"], 'does not exist; did you mean "eastron-sdm630"?'),
        (["ruuvi", "--key", "00", RUUVI], "ruuvi takes no --key"),
        (["sds011", "--address", "00:00:00:00:00:00", SDS011], "sds011 takes no --address"),
        (["sds011", "--profile", "x", SDS011], "sds011 takes no --profile"),
        (["sds011", "--manufacturer", "1", SDS011], "sds011 hears no Bluetooth"),
        (["sds011", "--service-data", "fcd2", SDS011], "sds011 hears no Bluetooth"),
        (["ruuvi", "--address", "12", RUUVI], '"address" is "12"; it is written AA:BB:CC:DD:EE:FF'),
        (["ruuvi", "--manufacturer", "0x10000", RUUVI], '"0x10000" is no company id; write it as 0x0499'),
        (["ruuvi", "--manufacturer", "ruuvi", RUUVI], '"ruuvi" is no company id; write it as 0x0499'),
        (["ruuvi", "--service-data", "fcd", RUUVI], '"fcd" is no UUID; write it as fcd2 or as 0000fcd2-0000'),
    ],
)
def test_a_wrong_call_says_what_to_write(arguments: list[str], says: str) -> None:
    code, out, err = call("decode", *arguments)

    assert (code, out) == (EX_USAGE, "")
    assert says in err
    assert "Traceback" not in err

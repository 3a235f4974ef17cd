"""What a technician reads when a section of his file is wrong: every fault, once, at its line, with the next step."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.config import driver_index
from tests.config.settings_scene import SOUND, edited, faults, read

METER = '[[device]] "meter": '
TAG = '[[device]] "tag": '
NAME = "it must begin with a letter or digit and hold only letters, digits, - and _, 63 at the most"
ID = "name of the device, unique on the pole; part of every name it sends"
ADDRESS = "bluetooth address, as AA:BB:CC:DD:EE:FF"
FACTS = '"accuracy", "calibrated", "certificate", "dataset", "driver", "every", "framing", "heading", "height"'
KEYS = f'{FACTS}, "id", "port", "profile", "serial", "siting", "timeout" and "unit"'
HEARD = '"accuracy", "address", "calibrated", "certificate", "dataset", "driver", "every", "heading", "height", "id"'
HEARD_KEYS = f'{HEARD}, "serial" and "siting"'
DATE = '"calibrated" must be a date such as 2026-03-14'
URL = "write mqtts://broker.example, or mqtt://broker.example for a broker without TLS"
SECTIONS = '"bluetooth", "buffer", "dataset", "device", "pole", "port", "reload", "remote" and "uplink"'
ELSEWHERE = "is not a known key here; it is one of"
UNKNOWN = "is not a known key"
DRIVERS = '"modbus", "nmea0183", "pms5003", "ruuvi", "sds011" and "sps30"'
NO_DRIVER = f'key "driver" is missing; there are {DRIVERS}'


def spoilt(tmp_path: Path, old: str, new: str) -> list[str]:
    return [fault.removeprefix("pole.toml:") for fault in faults(tmp_path, edited(SOUND, (old, new)))]


def test_a_sound_file_has_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, SOUND) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # The driver
        ('"ruuvi"', '"ruvi"', f'19: {TAG}driver "ruvi" does not exist; did you mean "ruuvi"?'),
        ('"ruuvi"', '"Ruuvi"', f'19: {TAG}driver "Ruuvi" does not exist; did you mean "ruuvi"?'),
        ('"ruuvi"', '"x"', f'19: {TAG}driver "x" does not exist; there are {DRIVERS}'),
        ('driver = "ruuvi"\n', "", f"17: {TAG}{NO_DRIVER}"),
        ('"ruuvi"', "5", f'19: {TAG}"driver" must be a text in quotes, not 5'),
        (
            'driver = "ruuvi"',
            'drvier = "ruuvi"',
            f'17: {TAG}{NO_DRIVER}\n19: {TAG}"drvier" {UNKNOWN}; did you mean "driver"?',
        ),
        # The port
        (
            'port = "rs485"\n',
            "",
            f'10: {METER}key "port" is missing: name of the [port] section the device hangs on',
        ),
        ('port = "rs485"', 'port = "rs458"', f'13: {METER}there is no section [port.rs458]; did you mean "rs485"?'),
        ('port = "rs485"', 'port = "x"', f'13: {METER}there is no section [port.x]; there is only "rs485"'),
        ('port = "rs485"', "port = 1", f'13: {METER}"port" must be a text in quotes, not 1'),
        ('"ruuvi"', '"ruuvi"\nport = "rs485"', f'20: {TAG}"port" is not a known key; there are {HEARD_KEYS}'),
        ('"ruuvi"', '"ruuvi"\nport = "a b"', f'20: {TAG}"port" is not a known key; there are {HEARD_KEYS}'),
        ('"ruuvi"', '"ruuvi"\nbaud = 9600', f'20: {TAG}"baud" {ELSEWHERE} [port.NAME]'),
        # A key of another section
        ("unit = 1", "max_bytes = 5000000", f'14: {METER}"max_bytes" {ELSEWHERE} [buffer]'),
        ("unit = 1", "send_every = 5", f'14: {METER}"send_every" {ELSEWHERE} [dataset.NAME]'),
        ('"ruuvi"', '"ruuvi"\nadapter = "hci0"', f'20: {TAG}"adapter" {ELSEWHERE} [bluetooth]'),
        ('"ruuvi"', '"ruuvi"\ntimeout = 1', f'20: {TAG}"timeout" is not a known key; there are {HEARD_KEYS}'),
        ('"pole-1"', '"pole-1"\npassword_file = "/x"', f'3: [pole]: "password_file" {ELSEWHERE} [uplink]'),
        ('port0"', 'port0"\nevery = 10', f'9: [port.rs485]: "every" {ELSEWHERE} [[device]]'),
        ("[pole]", "every = 10\n[pole]", f'1: "every" {ELSEWHERE} [[device]]'),
        ("[pole]", "path = 10\n[pole]", f'1: "path" {UNKNOWN}; there are {SECTIONS}'),
        # The profile
        ('"mine"', '"main"', f'15: {METER}profile "main" does not exist; did you mean "mine"?'),
        ('profile = "mine"\n', "", f'10: {METER}key "profile" is missing: name of a register map, profiles/NAME.toml'),
        ('"mine"', "5", f'15: {METER}"profile" must be a text in quotes, not 5'),
        ('"mine"', '{ maker = "x" }', f'15: {METER}"profile" must be a text in quotes, not a section'),
        # The id
        ('"tag"', '"meter"', f"18: {METER}this id stands in line 11 already; each device needs its own"),
        ('"tag"', '"a/b"', f'18: [[device]] "a/b": "id" is "a/b"; {NAME}'),
        ('"tag"', '""', f'18: [[device]] "": "id" is ""; {NAME}'),
        ('"tag"', '"tag\\n"', f'18: [[device]] "tag\\n": "id" is "tag\\n"; {NAME}'),
        ('"tag"', "7", '18: [[device]] number 2: "id" must be a text in quotes, not 7'),
        ('id = "tag"\n', "", f'17: [[device]] number 2: key "id" is missing: {ID}'),
        # Other keys
        ("CB:B8:33:4C:88:4F", "CB-B8", f'20: {TAG}"address" is "CB-B8"; it is written AA:BB:CC:DD:EE:FF'),
        ("unit = 1", "untt = 1", f'14: {METER}"untt" is not a known key; did you mean "unit"?'),
        ("unit = 1", "baud = 9600", f'14: {METER}"baud" belongs in [port.rs485]'),
        ("unit = 1", 'framing = "ascii"', f'14: {METER}"framing" must be "rtu" or "tcp", not "ascii"'),
        (
            "unit = 1",
            'framing = "RTU"',
            f'14: {METER}"framing" must be "rtu" or "tcp", not "RTU"; did you mean "rtu"?',
        ),
        (
            "address =",
            "adress =",
            f'17: {TAG}key "address" is missing: {ADDRESS}\n20: {TAG}"adress" {UNKNOWN}; did you mean "address"?',
        ),
        ("unit = 1", 'calibrated = "14.3.2026"', f'14: {METER}{DATE} without quotes, not "14.3.2026"'),
        ("unit = 1", "calibrated = 2026-03-14T08:00:00", f"14: {METER}{DATE}, not a date or time"),
        ("unit = 1", "heading = 360", f'14: {METER}"heading" must be less than 360, not 360'),
        ("unit = 1", "serial = 20417", f'14: {METER}"serial" must be a text in quotes, not 20417'),
        ("unit = 1", 'serial = ""', f'14: {METER}"serial" cannot be "": its serial number'),
        (
            "unit = 1",
            f'siting = "{"x" * 201}"',
            f'14: {METER}"siting" must be 200 characters or fewer, not "{"x" * 60}..."',
        ),
        (
            "unit = 1",
            "colour = 1",
            f'14: {METER}"colour" is not a known key; there are {KEYS}',
        ),
    ],
)
def test_a_fault_of_a_device_is_told_in_the_words_of_its_section(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert spoilt(tmp_path, old, new) == expected.split("\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('unit = "1"', 'a whole number without quotes, not "1"'),
        ("unit = 1.0", "a whole number, not 1.0"),
        ("unit = true", "a whole number, not true"),
        ("unit = [1]", "a whole number, not a list"),
        ("unit = { a = 1 }", "a whole number, not a section"),
        ("unit = 2026-01-01", "a whole number, not a date or time"),
        ("unit = 12:30:00", "a whole number, not a date or time"),
        ("unit = nan", "a whole number, not nan"),
        ("unit = 256", "255 or less, not 256"),
        ("unit = -1", "0 or more, not -1"),
        (f"unit = {10**30}", f"255 or less, not {10**30}"),
        (f"unit = 0x{'f' * 5000}", "255 or less, not a number of that length"),
        ('every = "1"', 'a number without quotes, not "1"'),
        ("every = true", "a number, not true"),
        ("every = 0", "0.001 or more, not 0"),
        ("every = 5e-324", "0.001 or more, not 5e-324"),
        ("every = 86401", "86400 or less, not 86401"),
        ("every = inf", "86400 or less, not inf"),
        ("every = -inf", "0.001 or more, not -inf"),
        ("every = nan", "86400 or less, not nan"),
        (f"every = {'9' * 400}", "a smaller number, not a number of that length"),
        ("timeout = 0", "0.01 or more, not 0"),
        ("dataset = 5", "a text in quotes, not 5"),
    ],
)
def test_a_value_of_the_wrong_kind_or_size_is_told_with_what_it_must_be(
    tmp_path: Path, value: str, expected: str
) -> None:
    key = value.split(" ", maxsplit=1)[0]

    assert spoilt(tmp_path, "unit = 1", value) == [f'14: {METER}"{key}" must be {expected}']


@pytest.mark.parametrize("unit", [0, 248, 255])
def test_a_unit_id_that_no_device_on_a_serial_line_can_have_is_told_there_and_taken_over_tcp(
    tmp_path: Path, unit: int
) -> None:
    text = edited(SOUND, ("unit = 1", f"unit = {unit}"))
    step = "write the slave address that the device is set to"

    assert faults(tmp_path, text) == [
        f'pole.toml:14: {METER}"unit" must be 1 to 247 on a serial port, not {unit}; {step}'
    ]
    over_tcp = edited(text, ("/dev/serial/by-id/usb-FTDI-port0", "tcp://192.0.2.1:502"))
    assert faults(tmp_path, over_tcp) == []
    assert faults(tmp_path, edited(over_tcp, ("profile =", 'framing = "rtu"\nprofile ='))) == [
        f'pole.toml:14: {METER}"unit" must be 1 to 247 with framing = "rtu", not {unit}; {step}'
    ]


@pytest.mark.parametrize("unit", [1, 247])
def test_the_first_and_the_last_unit_id_of_a_serial_line_are_taken(tmp_path: Path, unit: int) -> None:
    assert faults(tmp_path, edited(SOUND, ("unit = 1", f"unit = {unit}"))) == []


def test_a_device_of_an_unknown_driver_is_still_told_what_else_is_wrong_with_it(tmp_path: Path) -> None:
    text = edited(SOUND, ('"ruuvi"', '"ruvi"'), ('"tag"', '"a/b"'))

    assert faults(tmp_path, text) == [
        f'pole.toml:18: [[device]] "a/b": "id" is "a/b"; {NAME}',
        'pole.toml:19: [[device]] "a/b": driver "ruvi" does not exist; did you mean "ruuvi"?',
    ]


def test_a_bad_name_of_a_port_is_told_at_the_port_and_not_again_at_its_devices(tmp_path: Path) -> None:
    text = edited(SOUND, ("[port.rs485]", '[port."a b"]'), ('port = "rs485"', 'port = "a b"'))

    assert faults(tmp_path, text) == [f'pole.toml:7: [port."a b"]: its name is "a b"; {NAME}']


def test_a_key_that_a_device_does_not_know_never_takes_it_out_of_the_pole(tmp_path: Path) -> None:
    keys = {name: set(driver_index.driver(name).model_fields) for name in driver_index.names()}
    least = dict.fromkeys(keys, 'port = "rs485"') | {
        "ruuvi": 'address = "CB:B8:33:4C:88:4F"',
        "modbus": 'port = "rs485"\nprofile = "mine"',
    }
    above = SOUND[: SOUND.index("[[device]]")]
    for driver, known in keys.items():
        section = f'[[device]]\nid = "it"\ndriver = "{driver}"\n{least[driver]}\n'
        assert len(read(tmp_path, above + section).devices) == 1
        for key in sorted(set().union(*keys.values()) - known):
            assert len(faults(tmp_path, f'{above}{section}{key} = "rs485"\n')) == 1, (driver, key)


def test_a_driver_of_somebody_else_that_makes_no_device_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stranger(BaseModel):
        id: str

    monkeypatch.setattr(driver_index, "names", lambda: ("modbus", "stranger"))
    original = driver_index.driver
    monkeypatch.setattr(driver_index, "driver", lambda name: Stranger if name == "stranger" else original(name))

    assert spoilt(tmp_path, '"ruuvi"', '"stranger"') == [
        f'17: {TAG}driver "stranger" makes no device of it and tells no fault; ask who made it'
    ]


def test_all_faults_of_all_sections_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = edited(
        SOUND,
        ('id = "pole-1"', 'id = "a b"\nfoo = 1'),
        ("mqtts://", "htp://"),
        ("path =", "pth ="),
        ("unit = 1", 'unit = "1"\nevery = -1'),
        ('"mine"', '"main"'),
        ('"ruuvi"', '"ruvi"'),
    )

    assert faults(tmp_path, text) == [
        f'pole.toml:2: [pole]: "id" is "a b"; {NAME}',
        'pole.toml:3: [pole]: "foo" is not a known key; there are "description", "id", "latitude" and "longitude"',
        f'pole.toml:6: [uplink]: "url" is "htp://broker.example"; {URL}',
        'pole.toml:8: [port.rs485]: key "path" is missing: /dev/serial/by-id/..., or tcp://HOST:PORT',
        'pole.toml:9: [port.rs485]: "pth" is not a known key; did you mean "path"?',
        f'pole.toml:15: {METER}"unit" must be a whole number without quotes, not "1"',
        f'pole.toml:16: {METER}"every" must be 0.001 or more, not -1',
        f'pole.toml:17: {METER}profile "main" does not exist; did you mean "mine"?',
        f'pole.toml:21: {TAG}driver "ruvi" does not exist; did you mean "ruuvi"?',
    ]


def test_ports_are_compared_even_where_another_section_is_wrong(tmp_path: Path) -> None:
    text = edited(SOUND, ('"pole-1"', "5")) + f'[port.b]\npath = "{tmp_path}"\n'

    assert faults(tmp_path, text) == [
        'pole.toml:2: [pole]: "id" must be a text in quotes, not 5',
        f"pole.toml:22: [port.b]: {tmp_path} is no serial port; see ls -l /dev/serial/by-id",
    ]


def test_a_file_with_thousands_of_faults_is_told_to_be_the_wrong_one(tmp_path: Path) -> None:
    found = faults(tmp_path, SOUND + "".join(f"key{number} = 1\n" for number in range(5000)))

    assert len(found) == 1001
    assert found[0] == "pole.toml: has more than 1000 faults; is it the right file? Some of them:"


def test_nothing_in_the_file_can_steer_the_terminal_that_shows_a_fault(tmp_path: Path) -> None:
    for old, new in [
        ('"ruuvi"', '"\\u001b[2J"'),
        ('"tag"', '"\\u001b[2J"'),
        ('"mine"', '"\\u001b[2J"'),
        ('port = "rs485"', 'port = "\\u001b[2J"'),
        ("mqtts://broker", "\\u001b[2J"),
        ('path = "/dev', 'path = "/dev/\\u001b[2J'),
        ("unit = 1", '"\\u001b[2J" = 1'),
        ("[port.rs485]", '[port."\\u001b[2J"]'),
        ("[uplink]", '["\\u001b[2J"]'),
    ]:
        found = spoilt(tmp_path, old, new)
        assert found
        assert all(fault.isprintable() for fault in found), found


def test_a_long_text_is_cut_where_it_is_shown(tmp_path: Path) -> None:
    found = spoilt(tmp_path, '"ruuvi"', f'"{"x" * 10_000}"')

    assert found == [f'19: {TAG}driver "{"x" * 60}..." does not exist; there are {DRIVERS}']

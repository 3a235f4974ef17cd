"""What a technician reads when a register map is wrong: the fault, at its line in that file, once."""

from pathlib import Path

import pytest

from drivers.modbus import Modbus
from tests.config.settings_scene import PROFILE, SOUND, edited, faults, read

REGISTERS = PROFILE[PROFILE.index("[[register]]") :]
VOLTS, AMPERES = '[[register]] "volts": ', '[[register]] "amperes": '
SENT = "as it is sent: the first register is 0"
UNKNOWN = "not a known key; did you mean"
OURS = '"channel" must not be "quality": records of why a device gives no values have that name'
TYPES = '"uint16", "int16", "uint32", "int32", "uint64", "int64" or "float32"'
NEEDS = '"channel", "address", "unit" and "title"'


def spoilt(tmp_path: Path, old: str, new: str) -> list[str]:
    found = faults(tmp_path, SOUND, edited(PROFILE, (old, new)))
    return [fault.removeprefix("profiles/mine.toml:").strip() for fault in found]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("address = 2", "address = 1", f'13: {AMPERES}"amperes" at 1 overlaps "volts", which takes 0 to 1'),
        ('"V"', '"Volt"', f'10: {VOLTS}"Volt" is not a unit of SenML; did you mean "V"?'),
        ('"V"', '"°C"', f'10: {VOLTS}"°C" is not a unit of SenML; did you mean "Cel"?'),
        ('"V"', "5", f'10: {VOLTS}"unit" must be a text in quotes, not 5'),
        ("maker", "makr", 'key "maker" is missing\n1: "makr" is not a known key; did you mean "maker"?'),
        ('"uint32"', '"u32"', f'9: {VOLTS}"type" must be {TYPES}, not "u32"; did you mean "uint32"?'),
        (
            "address = 2",
            "adress = 2",
            f'13: {AMPERES}key "address" is missing: {SENT}\n15: {AMPERES}"adress" is {UNKNOWN} "address"?',
        ),
        ("address = 2", "address = 70000", f'15: {AMPERES}"address" must be 65535 or less, not 70000'),
        ("= 2", '= "0x2"', f'15: {AMPERES}"address" must be a whole number without quotes, not "0x2"'),
        ("= 2", "= 2\nscale = nan", f'16: {AMPERES}"scale" must be a number, not nan'),
        ("= 2", "= 2\noffset = -inf", f'16: {AMPERES}"offset" must be a number, not -inf'),
        ("= 2", "= 2\ninvalid = 5", f'16: {AMPERES}"invalid" must be a list in [ ], not 5'),
        ("= 2", "= 2\ninvalid = [1, 2.5]", f'16: {AMPERES}"invalid" number 2 must be a whole number, not 2.5'),
        ("dataset", "baud = 0\ndataset", '4: "baud" must be 50 or more, not 0'),
        ("dataset", "baud = 99999999999\ndataset", '4: "baud" must be 4000000 or less, not 99999999999'),
        (
            "= 2",
            "= 2\ninvalid = [0, 0xFFFFFFFF]",
            f'16: {AMPERES}"invalid" number 2 must be 0 to 65535: raw values of uint16',
        ),
        ("= 2", "= 2\nscale = 0", f'16: {AMPERES}"scale" must not be 0: every value would be the same'),
        (
            "address = 0",
            "address = 65535",
            f'6: {VOLTS}"volts" goes beyond the last register, which is 65535',
        ),
        (
            "dataset",
            "most_registers = 1\ndataset",
            f'7: {VOLTS}"volts" takes 2 registers; the device gives 1 in one answer',
        ),
        (
            '"amperes"',
            '"quality"',
            f'14: [[register]] "quality": {OURS}',
        ),
        ("dataset", "function = 5\ndataset", '4: "function" must be 3 or 4, not 5'),
        ("dataset", 'recorded = "yes"\ndataset', '4: "recorded" must be true or false without quotes, not "yes"'),
        ("= 2", '= 2\nword_order = "low-first"', f'16: {AMPERES}"word_order" belongs above the first [[register]]'),
        ("= 2", "= 2\nbaud = 19200", f'16: {AMPERES}"baud" belongs above the first [[register]]'),
        ("dataset", "scale = 0.1\ndataset", '4: "scale" belongs in [[register]]'),
        ("dataset", "timeout = 1\ndataset", '4: "timeout" is not a known key here; it is one of [[device]]'),
        ('"amperes"', '"volts"', f'13: {VOLTS}channel "volts" stands twice; give each register a name of its own'),
        (REGISTERS, "", f"section [[register]] is missing; it needs {NEEDS}"),
        (REGISTERS, "register = []", "the profile has no [[register]]"),
        (REGISTERS, "register = 5", "6: write [[register]], not register = 5"),
        (REGISTERS, "[register]\nunit = 5", "6: write [[register]], not [register]"),
        ("dataset = ", "dataset ", "4: cannot be read: a line is KEY = VALUE, [SECTION] or # COMMENT"),
    ],
)
def test_a_fault_of_a_profile_is_told_at_its_line_in_the_profile(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert spoilt(tmp_path, old, new) == expected.split("\n")


TAG = 'driver = "ruuvi"\naddress = "CB:B8:33:4C:88:4F"'
SECOND = edited(SOUND, (TAG, 'driver = "modbus"\nport = "rs485"\nunit = 2\nprofile = "mine"'))
"""Two devices with the same profile."""


@pytest.mark.parametrize("broken", [PROFILE.replace('"V"', '"Volt"'), PROFILE.replace("dataset = ", "dataset ")])
def test_a_profile_that_two_devices_share_is_told_once(tmp_path: Path, broken: str) -> None:
    assert len(faults(tmp_path, SECOND, broken)) == 1


def test_a_profile_that_does_not_exist_is_told_at_each_device_that_names_it(tmp_path: Path) -> None:
    found = faults(tmp_path, SECOND.replace('"mine"', '"acme-7"'))

    own = f'there are "eastron-sdm630", "mine" and "rs485-noise-meter"; your own goes into {tmp_path / "profiles"}'
    assert found == [
        f'pole.toml:15: [[device]] "meter": profile "acme-7" does not exist; {own}',
        f'pole.toml:22: [[device]] "tag": profile "acme-7" does not exist; {own}',
    ]


@pytest.mark.parametrize("name", ["../mine", "mine.toml", "profiles/mine", "/etc/passwd", "", "..", "a\\u0000b"])
def test_a_profile_is_a_name_and_never_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.toml").write_text(PROFILE)

    (fault,) = faults(tmp_path, edited(SOUND, ('"mine"', f'"{name}"')))

    assert fault.startswith('pole.toml:15: [[device]] "meter": profile "')
    assert "does not exist" in fault


def test_a_profile_beside_the_configuration_goes_before_one_that_came_along(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "eastron-sdm630.toml").write_text(PROFILE)

    meter = read(tmp_path, edited(SOUND, ('"mine"', '"eastron-sdm630"'))).devices[0]

    assert isinstance(meter, Modbus)
    assert meter.make() == "Acme X"


def test_devices_of_one_kind_share_its_register_map(tmp_path: Path) -> None:
    one, two = read(tmp_path, SECOND).devices

    assert isinstance(one, Modbus)
    assert isinstance(two, Modbus)
    assert one.profile is two.profile

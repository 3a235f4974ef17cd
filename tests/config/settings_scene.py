"""A sound configuration and profile for the tests that spoil them, and what a person then reads."""

from pathlib import Path

from gateway.config.faults import SettingsError
from gateway.config.settings import Settings
from gateway.config.settings_file import load

SOUND = """\
[pole]
id = "pole-1"

[uplink]
url = "mqtts://broker.example"

[port.rs485]
path = "/dev/serial/by-id/usb-FTDI-port0"

[[device]]
id = "meter"
driver = "modbus"
port = "rs485"
unit = 1
profile = "mine"

[[device]]
id = "tag"
driver = "ruuvi"
address = "CB:B8:33:4C:88:4F"
"""

PROFILE = """\
maker = "Acme"
model = "X"
source = "manual 1.0"
dataset = "energy"

[[register]]
channel = "volts"
address = 0
type = "uint32"
unit = "V"
title = "voltage"

[[register]]
channel = "amperes"
address = 2
unit = "A"
title = "current"
"""


def edited(text: str, *changes: tuple[str, str]) -> str:
    """Replace each first text, which is there once, by the second."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def write(folder: Path, text: str | bytes, profile: str = PROFILE) -> Path:
    """Write a configuration, and the profile ``mine`` beside it."""
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "profiles" / "mine.toml").write_text(profile)
    path = folder / "pole.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes, profile: str = PROFILE) -> Settings:
    """Read what is written."""
    return load(write(folder, text, profile))


def faults(folder: Path, text: str | bytes, profile: str = PROFILE) -> list[str]:
    """Return what a person reads of a configuration with faults, less the folder; nothing where there are none."""
    try:
        read(folder, text, profile)
    except SettingsError as error:
        return [str(fault).removeprefix(f"{folder}/") for fault in error.faults]
    return []


def warnings(folder: Path, text: str) -> list[str]:
    """Return the warnings of a sound configuration, less the folder."""
    return [str(fault).replace(f"{folder}/", "") for fault in read(folder, text).warnings]

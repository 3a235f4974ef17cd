"""What parts are handed of the settings, and what two settings differ in."""

from pathlib import Path

import pytest

from drivers.contract import Advert
from drivers.ruuvi import Ruuvi
from gateway import shares
from gateway.config.settings import Settings
from gateway.config.settings_file import load
from gateway.remote import settings_layers
from tests.config.settings_scene import PROFILE, SOUND, edited

TEXT = (
    SOUND
    + """
[dataset.weather]
priority = 3

[[device]]
id = "dust"
driver = "sds011"
port = "usb"

[port.usb]
path = "/dev/serial/by-id/usb-1a86-port0"
"""
)


@pytest.fixture(autouse=True)
def profile(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.toml").write_text(PROFILE)


def settings(folder: Path, *changes: tuple[str, str]) -> Settings:
    path = folder / "pole.toml"
    path.write_text(edited(TEXT, *changes))
    return load(path)


RENAMED = ('id = "meter"', 'id = "mains"')
CHANGES = [
    pytest.param(("priority = 3", "priority = 4"), {"weather"}, id="priority"),
    pytest.param(("priority = 3", "send_every = 6.0"), {"weather"}, id="rhythm"),
    pytest.param(("priority = 3", 'owner = "a city"'), {"weather"}, id="owner"),
    pytest.param(("unit = 1", "unit = 2"), {"energy"}, id="unit"),
    pytest.param(RENAMED, {"energy"}, id="renamed"),
    pytest.param(('driver = "ruuvi"', 'driver = "ruuvi"\ndataset = "inside"'), {"weather", "inside"}, id="moved"),
    pytest.param(
        ('id = "pole-1"', 'id = "pole-1"\ndescription = "corner"'),
        {"weather", "energy", "air", "configuration"},
        id="site",
    ),
    pytest.param(("broker.example", "other.example"), set(), id="broker"),
    pytest.param(('port = "usb"', 'port = "uart"'), {"air"}, id="port of a device"),
]


@pytest.mark.parametrize(("change", "touched"), CHANGES)
def test_only_datasets_that_are_packed_or_described_in_another_way_are_touched(
    tmp_path: Path, change: tuple[str, str], touched: set[str]
) -> None:
    more = [("[port.usb]", "[port.uart]")] if "uart" in change[1] else []
    old, new = settings(tmp_path), settings(tmp_path, change, *more)
    assert shares.touched(old, new) == shares.touched(new, old) == touched
    assert shares.digest(old) != shares.digest(new)


def test_what_is_written_in_another_way_and_means_the_same_is_the_same(tmp_path: Path) -> None:
    old = settings(tmp_path)
    same = settings(
        tmp_path,
        ("priority = 3", "priority = 3\nsend_every = 5.0 # seconds"),
        ('url = "mqtts://broker.example"', 'url = ["mqtts://broker.example"]'),
        ("CB:B8:33:4C:88:4F", "cb:b8:33:4c:88:4f"),
    )
    assert shares.digest(old) == shares.digest(same)
    assert shares.touched(old, same) == set()


def test_a_tag_that_has_been_heard_is_the_same_and_can_be_renamed(tmp_path: Path) -> None:
    old, same = settings(tmp_path), settings(tmp_path)
    for device in old.devices:
        if isinstance(device, Ruuvi):
            device.payload(Advert(device.address, -60, {device.MANUFACTURER: b"\xe1" + bytes(39)}, {}))
    assert shares.touched(old, same) == set()
    assert shares.roster(old) == shares.roster(same)
    assert shares.renamed(old, settings(tmp_path, ('id = "tag"', 'id = "air"'))) == {"tag": "air"}


def test_a_changed_profile_is_another_device(tmp_path: Path) -> None:
    old = settings(tmp_path)
    (tmp_path / "profiles" / "mine.toml").write_text(edited(PROFILE, ("address = 2", "address = 4")))
    new = settings(tmp_path)
    assert shares.digest(old) != shares.digest(new)
    assert shares.touched(old, new) == {"energy"}


def test_a_line_is_told_by_what_it_is_and_not_by_how_that_is_written(tmp_path: Path) -> None:
    port = 'path = "/dev/serial/by-id/usb-FTDI-port0"'
    old, same = settings(tmp_path), settings(tmp_path, (port, f"{port}\nbaud = 9600"))
    assert shares.roster(old) == shares.roster(same)
    assert shares.roster(old).ways != shares.roster(settings(tmp_path, (port, f"{port}\nbaud = 19200"))).ways


def test_a_device_that_only_has_another_id_is_renamed_and_no_other(tmp_path: Path) -> None:
    old, new = settings(tmp_path), settings(tmp_path, RENAMED)
    assert shares.renamed(old, new) == {"meter": "mains"}
    assert shares.renamed(old, settings(tmp_path, RENAMED, ("unit = 1", "unit = 2"))) == {}
    assert shares.renamed(old, old) == {}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (('id = "pole-1"', 'id = "pole-2"'), '"id" in [pole]'),
        (("[port.usb]", '[buffer]\npath = "/tmp/b"\n[port.usb]'), '"path" in [buffer]'),
        (("[port.usb]", '[buffer]\nhistory = "7d"\n[port.usb]'), '"history" in [buffer]'),
        (('url = "mqtts', 'prefix = "p/2"\nurl = "mqtts'), '"prefix" in [uplink]'),
        (("[port.usb]", "[remote]\nenabled = true\n[port.usb]"), '"enabled" in [remote]'),
        (("[port.usb]", '[remote]\nstate = "/tmp/c"\n[port.usb]'), '"state" in [remote]'),
    ],
)
def test_what_needs_a_restart_is_named_with_the_command(tmp_path: Path, change: tuple[str, str], key: str) -> None:
    old, new = settings(tmp_path), settings(tmp_path, change)
    why = f"{key} cannot be changed while the gateway runs; sudo systemctl restart polegate"
    assert shares.needs_restart(old, new) == why
    assert shares.needs_restart(old, settings(tmp_path, RENAMED)) == ""


def test_a_device_has_three_of_its_intervals_and_half_a_minute_at_least(tmp_path: Path) -> None:
    it = settings(tmp_path, ("unit = 1", "unit = 1\nevery = 20.0"))
    patience = {device.id: settings_layers.patience_s(it, device) for device in it.devices}
    assert patience == {"meter": 60.0, "tag": 60.0, "dust": 30.0}
    short = settings(tmp_path, ("[port.usb]", "[reload]\ndevice_within = 100.0\n[port.usb]"))
    assert settings_layers.patience_s(short, short.devices[0]) == 100.0

"""What may be a mistake is said, and does not keep the gateway from starting."""

from pathlib import Path

from tests.config.settings_scene import SOUND, edited, warnings

NOT_THERE = "is not there now; the gateway opens it as soon as it is"
LATER = "is not there now; the gateway does not connect without it"
WITHOUT_DEVICES = SOUND[: SOUND.index("[[device]]")]
THERE = edited(SOUND, ("/dev/serial/by-id/usb-FTDI-port0", "/dev/null"))


def test_a_file_in_order_has_no_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path, THERE) == []


def test_a_port_that_is_not_plugged_in_is_a_warning_because_it_may_come(tmp_path: Path) -> None:
    assert warnings(tmp_path, SOUND) == [f"pole.toml:8: [port.rs485]: /dev/serial/by-id/usb-FTDI-port0 {NOT_THERE}"]


def test_a_tcp_port_is_not_tried(tmp_path: Path) -> None:
    assert warnings(tmp_path, edited(SOUND, ("/dev/serial/by-id/usb-FTDI-port0", "tcp://127.0.0.1:9"))) == []


def test_a_port_without_a_device_is_a_warning(tmp_path: Path) -> None:
    text = THERE + '[port.spare]\npath = "tcp://h:502"\n'

    assert warnings(tmp_path, text) == ["pole.toml:21: [port.spare]: no device uses this port"]


def test_a_pole_without_a_device_is_a_warning(tmp_path: Path) -> None:
    text = edited(WITHOUT_DEVICES, ("/dev/serial/by-id/usb-FTDI-port0", "/dev/null"))

    assert warnings(tmp_path, text) == [
        "pole.toml:7: [port.rs485]: no device uses this port",
        "pole.toml: there is no [[device]]: the pole reports only its own state",
    ]


def test_a_file_of_the_uplink_that_is_missing_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    files = f'[uplink]\npassword_file = "{tmp_path}/password"\nca_file = "{tmp_path}/ca.pem"'
    files += f'\ncert_file = "{tmp_path}/pole.pem"\nkey_file = "credential:mqtt-key"'

    assert warnings(tmp_path, edited(THERE, ("[uplink]", files))) == [
        f"pole.toml:5: [uplink]: password {LATER}",
        f"pole.toml:7: [uplink]: pole.pem {LATER}",
    ]

"""What a technician reads when a section other than a device is wrong, or is no section."""

from pathlib import Path

import pytest

from gateway.config.toml_text import quoted
from gateway.store.pack_file import PackFile
from tests.config.settings_scene import SOUND, edited, faults, read

PORT = "/dev/serial/by-id/usb-FTDI-port0"
EITHER = "write /dev/serial/by-id/... or tcp://HOST:PORT"
DOTS = "the host has a dot too many, or a part of it is missing; correct it"
LONG = "a part of the host between dots has 63 characters at the most; correct it"
IPV4 = "write an IPv4 address as four numbers up to 255 without zeros in front, such as 192.168.1.20"
IPV6 = "what stands in [ ] must be an IPv6 address, such as [2001:db8::7]"
TCP = "write tcp://HOST:PORT, for instance tcp://192.168.1.20:502"
NAME = "it must begin with a letter or digit and hold only letters, digits, - and _, 63 at the most"
TOPIC = "it is made of letters, digits, - and _, with a / between two words"
SEALED = "a pack is sealed before it is stored"
CLEAR = "who blocks the one gets all that goes to the other in clear"
CREDENTIAL = 'write "credential:NAME", with the name that LoadCredential= has'
SECTIONS = '"bluetooth", "buffer", "dataset", "device", "pole", "port", "reload", "remote" and "uplink"'
ALIKE = "set the devices alike and write their baud, parity and stop_bits into [port.rs485]"
AIR = '"access", "commit_within", "licence", "owner", "priority", "send_every" and "when_full"'


def found(tmp_path: Path, text: str) -> list[str]:
    return [fault.removeprefix("pole.toml:").strip() for fault in faults(tmp_path, text)]


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("broker.example", "broker.example"),
        ("broker.example:8883", "broker.example:8883"),
        ("http://broker.example", "broker.example"),
        ("ssl://10.0.0.7:8883", "10.0.0.7:8883"),
        ("mqtts:broker", "broker"),
        ("mqtts:/broker", "broker"),
        ("mqtts://broker/path", "broker"),
        ("mqtts://broker?x=1", "HOST"),
        ("mqtts://a b", "HOST"),
        ("mqtts://", "HOST"),
        ("mqtts://[::1", "HOST"),
        ("", "HOST"),
    ],
)
def test_a_broker_url_that_is_none_is_told_how_to_write_it(tmp_path: Path, url: str, meant: str) -> None:
    assert found(tmp_path, edited(SOUND, ("mqtts://broker.example", url))) == [
        f'5: [uplink]: "url" is "{url}"; write mqtts://{meant}, or mqtt://{meant} for a broker without TLS'
    ]


@pytest.mark.parametrize("port", ["99999", "65536", "0", "-1", "abc", "1883x", "٣"])
def test_a_broker_url_with_a_bad_port_is_told_the_range(tmp_path: Path, port: str) -> None:
    assert found(tmp_path, edited(SOUND, ("broker.example", f"b:{port}"))) == [
        f'5: [uplink]: "url" is "mqtts://b:{port}"; the port is a number from 1 to 65535'
    ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.168.1..20", DOTS),
        (".broker.example", DOTS),
        (".", DOTS),
        ("..", DOTS),
        ("m" * 64, LONG),
        (f"broker.{'m' * 64}.", LONG),
        ("192.168.001.020", IPV4),
        ("192.168.1", IPV4),
        ("192.168.1.300", IPV4),
        ("192.168.1.20.", IPV4),
        ("3232235796", IPV4),
        ("0x7F.1", IPV4),
        ("[1..2]", IPV6),
        ("[:]", IPV6),
        ("[10.0.0.7]", IPV6),
    ],
)
def test_a_name_that_no_host_can_have_is_told(tmp_path: Path, host: str, expected: str) -> None:
    for url in (f"mqtts://{host}", f"mqtt://{host}:1883", f"wss://{host}/mqtt"):
        assert found(tmp_path, edited(SOUND, ("mqtts://broker.example", url))) == [
            f'5: [uplink]: "url" is {quoted(url)}; {expected}'
        ]
    path = f"tcp://{host}:502"
    assert found(tmp_path, edited(SOUND, (PORT, path))) == [f'8: [port.rs485]: "path" is {quoted(path)}; {expected}']


@pytest.mark.parametrize(
    "host",
    [
        "broker.example.",
        f"{'m' * 63}.{'n' * 63}",
        "_b-1",
        "10.0.0.7",
        "10.0.0.7a",
        "[::1]",
        "[fe80::1%eth0]",
        "[::ffff:10.0.0.7]",
    ],
)
def test_a_name_that_a_host_can_have_is_taken(tmp_path: Path, host: str) -> None:
    settings = read(tmp_path, edited(SOUND, ("broker.example", host), (PORT, f"tcp://{host}:502")))
    bare = host.strip("[]")
    assert settings.root.uplink.brokers[0].host == bare
    assert settings.root.port["rs485"].tcp == (bare, 502)
    bare.encode("idna")  # what the resolver is handed


@pytest.mark.parametrize("url", ["mqtts://me:hunter2@b", "mqtts://hunter2@b", "me:hunter2@b", "http://me:hunter2@b"])
def test_a_password_in_the_url_is_never_shown(tmp_path: Path, url: str) -> None:
    assert found(tmp_path, edited(SOUND, ("mqtts://broker.example", url))) == [
        '5: [uplink]: "url" holds a user or a password; put them in username and password_file'
    ]


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://b", ("b", 1883, False)),
        ("mqtts://b", ("b", 8883, True)),
        ("MQTTS://b", ("b", 8883, True)),
        ("mqtts://b:", ("b", 8883, True)),
        ("mqtts://b/", ("b", 8883, True)),
        ("mqtts://b:443", ("b", 443, True)),
        ("mqtt://10.0.0.7:1884", ("10.0.0.7", 1884, False)),
        ("mqtt://[fe80::1%eth0]:1884", ("fe80::1%eth0", 1884, False)),
    ],
)
def test_a_broker_url_names_host_port_and_tls(tmp_path: Path, url: str, broker: tuple[str, int, bool]) -> None:
    assert read(tmp_path, edited(SOUND, ("mqtts://broker.example", url))).root.uplink.brokers == [(*broker, "")]


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("ws://b", ("b", 80, False, "/mqtt")),
        ("wss://b", ("b", 443, True, "/mqtt")),
        ("WSS://b:9001/", ("b", 9001, True, "/")),
        ("wss://b/a/path?x=1", ("b", 443, True, "/a/path?x=1")),
        ("ws://[::1]:9001/mqtt", ("::1", 9001, False, "/mqtt")),
    ],
)
def test_a_url_of_web_socket_names_the_path_too(tmp_path: Path, url: str, broker: tuple[str, int, bool, str]) -> None:
    assert read(tmp_path, edited(SOUND, ("mqtts://broker.example", url))).root.uplink.brokers == [broker]


def test_several_brokers_are_a_list_the_best_first(tmp_path: Path) -> None:
    text = edited(SOUND, ('"mqtts://broker.example"', '["wss://b/mqtt", "mqtts://a"]'))
    assert read(tmp_path, text).root.uplink.brokers == [("b", 443, True, "/mqtt"), ("a", 8883, True, "")]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("[]", '"url" is an empty list; write one broker, or several with the best first'),
        ("5", '"url" must be a text in quotes, or a list of them in [ ], not 5'),
        ('["mqtts://a", 5]', '"url" number 2 must be a text in quotes, not 5'),
        ('["mqtts://a", "b"]', '"url" is "b"; write mqtts://b, or mqtt://b for a broker without TLS'),
        ('["mqtts://a", "mqtts://b:0"]', '"url" is "mqtts://b:0"; the port is a number from 1 to 65535'),
        ('["mqtts://a", "mqtts://a"]', '"url" has the same broker twice; remove one'),
        (
            '["mqtts://a", "mqtt://b"]',
            f'"url" has brokers with TLS and without; {CLEAR}; write mqtts:// or wss:// for all',
        ),
        ('"wss://b:x/mqtt"', '"url" is "wss://b:x/mqtt"; the port is a number from 1 to 65535'),
        ('"ws://b/a b"', '"url" is "ws://b/a b"; write mqtts://b, or mqtt://b for a broker without TLS'),
        ('"ws://b/a\\nX:y"', '"url" is "ws://b/a\\nX:y"; write mqtts://b, or mqtt://b for a broker without TLS'),
    ],
)
def test_a_list_of_brokers_with_a_fault_says_which(tmp_path: Path, url: str, expected: str) -> None:
    assert found(tmp_path, edited(SOUND, ('"mqtts://broker.example"', url))) == [f"5: [uplink]: {expected}"]


@pytest.mark.parametrize("place", ["/etc/polegate/pole.key", "credential:mqtt-key"])
def test_a_certificate_and_its_key_are_files_or_credentials(tmp_path: Path, place: str) -> None:
    text = edited(SOUND, ("[uplink]", f'[uplink]\ncert_file = "/etc/pole.pem"\nkey_file = "{place}"'))
    assert read(tmp_path, text).root.uplink.key_file == place


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("ttyUSB0", f'"path" is "ttyUSB0"; {EITHER}'),
        ("", f'"path" is ""; {EITHER}'),
        ("~/tty", f'"path" is "~/tty"; {EITHER}'),
        ("http://h:1", f'"path" is "http://h:1"; {EITHER}'),
        ("/dev/\\u0000", f'"path" is "/dev/\\x00"; {EITHER}'),
        ("tcp://", f'"path" is "tcp://"; {TCP}'),
        ("tcp://h", f'"path" is "tcp://h"; {TCP}'),
        ("tcp://h:0", f'"path" is "tcp://h:0"; {TCP}'),
        ("tcp://h:65536", f'"path" is "tcp://h:65536"; {TCP}'),
        ("tcp://h:modbus", f'"path" is "tcp://h:modbus"; {TCP}'),
        ("tcp://h:502/x", f'"path" is "tcp://h:502/x"; {TCP}'),
        ("tcp://[::1", f'"path" is "tcp://[::1"; {TCP}'),
        ("TCP://h:502", f'"path" is "TCP://h:502"; {TCP}'),
    ],
)
def test_a_path_that_is_no_port_is_told_how_to_write_it(tmp_path: Path, path: str, expected: str) -> None:
    assert found(tmp_path, edited(SOUND, (PORT, path))) == [f"8: [port.rs485]: {expected}"]


@pytest.mark.parametrize("path", ["tcp://192.168.1.20:502", "tcp://meter.local:65535", "tcp://[::1]:502"])
def test_a_port_may_be_a_tcp_connection(tmp_path: Path, path: str) -> None:
    assert faults(tmp_path, edited(SOUND, (PORT, path))) == []


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            '[port.b]\npath = "/dev/b"\nbaud = "9600"',
            '3: [port.b]: "baud" must be a whole number without quotes, not "9600"',
        ),
        ('[port.b]\npath = "/dev/b"\nbaud = 9', '3: [port.b]: "baud" must be 50 or more, not 9'),
        (
            '[port.b]\npath = "/dev/b"\nparity = "evn"',
            '3: [port.b]: "parity" must be "none", "even" or "odd", not "evn"; did you mean "even"?',
        ),
        ('[port.b]\npath = "/dev/b"\nparity = "N"', '3: [port.b]: "parity" must be "none", "even" or "odd", not "N"'),
        ('[port.b]\npath = "/dev/b"\nstop_bits = 3', '3: [port.b]: "stop_bits" must be 1 or 2, not 3'),
        (
            '[port.b]\npath = "/dev/b"\nstop_bits = "1"',
            '3: [port.b]: "stop_bits" must be 1 or 2 without quotes, not "1"',
        ),
        (
            '[port.b]\npath = "tcp://h:502"\nstop_bits = 1\nbaud = 9600',
            "4: [port.b]: a tcp:// port has no baud or stop_bits; remove what is set",
        ),
        (
            f'[port.b]\npath = "{PORT}"',
            f"10: [port.rs485]: {PORT} is [port.b] already; remove one of the two, devices may share a port",
        ),
        ('[port."a/b"]\npath = "/dev/b"', f'1: [port."a/b"]: its name is "a/b"; {NAME}'),
        (
            "[dataset.air]\nsend_every = 20.0",
            f'2: [dataset.air]: "send_every" (20) must not be more than "commit_within" (10): {SEALED}',
        ),
        (
            "[dataset.air]\ncommit_within = 1",
            f'2: [dataset.air]: "send_every" (5) must not be more than "commit_within" (1): {SEALED}',
        ),
        ('[dataset.air]\nlicense = "x"', '2: [dataset.air]: "license" is not a known key; did you mean "licence"?'),
        ("[dataset.air]\nfoo = 1", f'2: [dataset.air]: "foo" is not a known key; there are {AIR}'),
        ('[dataset."a b"]\nowner = "x"', f'1: [dataset."a b"]: its name is "a b"; {NAME}'),
        ('[buffer]\npath = "buffer.db"', '2: [buffer]: "path" must be a whole path, one that begins with /'),
        ("[buffer]\npath = 5", '2: [buffer]: "path" must be a text in quotes, not 5'),
        ('[buffer]\nmax_bytes = "64MB"', '2: [buffer]: "max_bytes" must be a whole number without quotes, not "64MB"'),
        ("[buffer]\nmax_bytes = 1", '2: [buffer]: "max_bytes" must be 4194304 or more, not 1'),
        (
            "[buffer]\nmax_bytes = 1_099_511_627_777",
            '2: [buffer]: "max_bytes" must be 1099511627776 or less, not 1099511627777',
        ),
        ('[bluetooth]\nadapter = "0"', '2: [bluetooth]: "adapter" is "0"; it is written hci0, hci1 and so on'),
    ],
)
def test_a_fault_of_a_section_is_told_in_its_words(tmp_path: Path, section: str, expected: str) -> None:
    assert found(tmp_path, f"{section}\n{SOUND}") == [expected]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('prefix = "/a"', f'"prefix" is "/a"; {TOPIC}'),
        ('prefix = "a/#"', f'"prefix" is "a/#"; {TOPIC}'),
        ("username = true", '"username" must be a text in quotes, not true'),
        ('password = "hunter2"', '"password" is not a known key; did you mean "password_file"?'),
        ('password_file = "secret"', '"password_file" must be a whole path, one that begins with /'),
        ('ca_file = ""', '"ca_file" must be a whole path, one that begins with /'),
        ("ca_file = []", '"ca_file" must be a text in quotes, not a list'),
        ('cert_file = "/c"', '"cert_file" is of no use without "key_file"; a certificate and its key go together'),
        ('key_file = "/k"', '"key_file" is of no use without "cert_file"; a certificate and its key go together'),
        (
            'password_file = "credential:../etc/shadow"',
            f'"password_file" is "credential:../etc/shadow"; {CREDENTIAL}',
        ),
    ],
)
def test_a_fault_of_the_uplink_is_told_in_its_words(tmp_path: Path, line: str, expected: str) -> None:
    assert found(tmp_path, edited(SOUND, ("[uplink]", f"[uplink]\n{line}"))) == [f"5: [uplink]: {expected}"]


@pytest.mark.parametrize("lines", ['ca_file = "/c"', 'cert_file = "/c"\nkey_file = "/k"'])
def test_certificates_are_of_no_use_without_tls(tmp_path: Path, lines: str) -> None:
    (text,) = found(tmp_path, edited(SOUND, ('mqtts://broker.example"', f'ws://b"\n{lines}')))
    key = lines.split(maxsplit=1)[0]
    assert text == f'6: [uplink]: "{key}" is for TLS, which "url" does not use; write mqtts:// or wss:// there'


REST = SOUND[SOUND.index("[uplink]") :]
WITHOUT_DEVICES = SOUND[: SOUND.index("[[device]]")]
DEVICES = SOUND[SOUND.index("[[device]]") :]
WITHOUT_PORT = WITHOUT_DEVICES[: WITHOUT_DEVICES.index("[port")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (REST, 'section [pole] is missing; it needs "id"'),
        (SOUND[: SOUND.index("[uplink]")], 'section [uplink] is missing; it needs "url"'),
        (
            f"[pole]\n{REST}",
            '1: [pole]: key "id" is missing: name of the pole; its MQTT user and client id, one level of every topic',
        ),
        (f'pole = "x"\n{REST}', '1: write [pole], not pole = "x"'),
        (f'[[pole]]\nid = "x"\n{REST}', "1: write [pole], not [[pole]]"),
        (f"port = []\n{WITHOUT_PORT}", "1: write [port.NAME], not port = [...]"),
        (f"port = []\n{WITHOUT_PORT}{DEVICES}", "1: write [port.NAME], not port = [...]"),
        (f"port = 5\n{WITHOUT_PORT}", "1: write [port.NAME], not port = 5"),
        (f'port = "rs485"\n{WITHOUT_PORT}', '1: write [port.NAME], not port = "rs485"'),
        (f'{WITHOUT_PORT}[[port]]\npath = "/dev/a"', "7: write [port.NAME], not [[port]]"),
        (f'{WITHOUT_PORT}[port]\npath = "/dev/a"', '8: [port]: "path" stands in a section with a name: [port.NAME]'),
        (f'{WITHOUT_PORT}[port]\nrs485 = "/dev/a"', '8: [port]: write [port.rs485], not rs485 = "/dev/a"'),
        (f"device = 5\n{WITHOUT_DEVICES}", "1: write [[device]], not device = 5"),
        (f"device = [5]\n{WITHOUT_DEVICES}", "1: each [[device]] is a section, not 5"),
        (f'{WITHOUT_DEVICES}[device]\nid = "x"', "10: write [[device]], not [device]"),
        (f"dataset = 1\n{SOUND}", "1: write [dataset.NAME], not dataset = 1"),
        (f"[dataset]\nair = 5\n{SOUND}", "2: [dataset]: write [dataset.air], not air = 5"),
        (f"buffer = true\n{SOUND}", "1: write [buffer], not buffer = true"),
        (f"bluetooth = 2026-01-01\n{SOUND}", "1: write [bluetooth], not bluetooth = a date or time"),
        (f"{SOUND}[[devices]]\n", '21: "devices" is not a known section; did you mean "device"?'),
        (f"{SOUND}[Buffer]\n", '21: "Buffer" is not a known section; did you mean "buffer"?'),
        (
            f"id = 5\n{SOUND}",
            f'1: "id" is not a known key; there are {SECTIONS}',
        ),
    ],
)
def test_what_is_no_section_is_told_how_to_write_it(tmp_path: Path, text: str, expected: str) -> None:
    assert found(tmp_path, text) == [expected]


def test_the_devices_of_a_misspelt_port_section_are_told_of_it(tmp_path: Path) -> None:
    assert found(tmp_path, edited(SOUND, ("[port.rs485]", "[ports.rs485]"))) == [
        '7: "ports" is not a known section; did you mean "port"?',
        '13: [[device]] "meter": there is no section [port.rs485]',
    ]


def test_a_device_that_talks_by_itself_needs_a_port_of_its_own(tmp_path: Path) -> None:
    text = edited(SOUND, ('driver = "ruuvi"\naddress = "CB:B8:33:4C:88:4F"', 'driver = "sds011"\nport = "rs485"'))

    assert found(tmp_path, text) == [
        '20: [[device]] "tag": sds011 talks by itself and needs a port of its own; "meter" is on [port.rs485] too'
    ]


def test_devices_that_are_set_differently_cannot_share_a_serial_port_unless_it_says_how(tmp_path: Path) -> None:
    noise = 'driver = "modbus"\nport = "rs485"\nunit = 2\nprofile = "rs485-noise-meter"'
    text = edited(SOUND, ('driver = "ruuvi"\naddress = "CB:B8:33:4C:88:4F"', noise))

    assert found(tmp_path, text) == [
        f'20: [[device]] "tag": it speaks 4800 baud 8N1 and "meter", on the same port, 9600 baud 8N1; {ALIKE}'
    ]
    assert faults(tmp_path, edited(text, (f'"{PORT}"', f'"{PORT}"\nbaud = 9600'))) == []
    assert faults(tmp_path, edited(text, (PORT, "tcp://h:502"))) == []


def test_two_names_of_one_serial_port_are_one_port(tmp_path: Path) -> None:
    link = tmp_path / "by-id"
    link.symlink_to("/dev/null")
    text = edited(SOUND, (PORT, str(link))) + '[port.b]\npath = "/dev/null"\n'

    assert found(tmp_path, text) == [
        "22: [port.b]: /dev/null is [port.rs485] already; remove one of the two, devices may share a port"
    ]


@pytest.mark.parametrize(("key", "other"), [("latitude", "longitude"), ("longitude", "latitude")])
def test_half_a_position_is_none(tmp_path: Path, key: str, other: str) -> None:
    text = edited(SOUND, ('id = "pole-1"', f'id = "pole-1"\n{key} = 24.9'))
    assert found(tmp_path, text) == [f'3: [pole]: "{key}" needs a "{other}" beside it']
    assert found(tmp_path, text.replace(f"{key} =", f"{other} = 60.2\n{key} =")) == []


def test_a_folder_is_no_buffer_and_all_else_that_is_wrong_is_told_too(tmp_path: Path) -> None:
    text = edited(SOUND, ('"pole-1"', "5")) + '[buffer]\npath = "{}"\n'

    for folder in (f"{tmp_path}", f"{tmp_path}/"):
        assert found(tmp_path, text.format(folder)) == [
            '2: [pole]: "id" must be a text in quotes, not 5',
            f'22: [buffer]: "path" is a folder; name the file in it: "{tmp_path}/buffer.db"',
        ]
    assert found(tmp_path, f'{SOUND}[buffer]\npath = "/"\n') == [
        '22: [buffer]: "path" is a folder; name the file in it: "/buffer.db"'
    ]
    assert found(tmp_path, f'{SOUND}[buffer]\npath = "{tmp_path}/buffer.db"\n') == []
    assert found(tmp_path, f'{SOUND}[buffer]\npath = "{tmp_path}/\\u0000"\n') == [
        '22: [buffer]: "path" must be a whole path, one that begins with /'
    ]


def test_a_folder_in_the_place_of_a_buffer_that_was_there_is_no_fault_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    PackFile(path, 2**24).open("boot")
    path.unlink()
    path.mkdir()

    assert found(tmp_path, f'{SOUND}[buffer]\npath = "{path}"\n') == []

"""Layers over one another: what is in force, where it is from, and what a person is told."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.config.faults import SettingsError
from gateway.config.layers import Drift
from gateway.remote import document
from gateway.remote.document import Document
from gateway.remote.override import Override
from gateway.remote.settings_layers import Configuration, compose
from gateway.remote.verdict import Code, Rejected
from tests.remote.operator import document_content

LOCAL = """\
[pole]
id = "pole-1"

[uplink]
url = "mqtts://broker.example"

[remote]
enabled = true
groups = ["harbour", "dim"]

[port.rs485]
path = "tcp://192.0.2.1:502"

[[device]]
id = "meter"
driver = "modbus"
port = "rs485"
profile = "eastron-sdm630"
every = 10.0

[[device]]
id = "tag"
driver = "ruuvi"
address = "CB:B8:33:4C:88:4F"
"""
PINNED = LOCAL.replace("enabled = true", 'enabled = true\npins = ["device.meter.every", "uplink"]')
MINE = "pole/pole-1"
EVERY = ("device", "meter", "every")


def documents(layers: Mapping[str, str]) -> dict[str, Document]:
    return {
        stream: document.parsed(json.dumps(document_content(text, stream=stream)).encode())
        for stream, text in layers.items()
    }


def override(key: str, value: str) -> Override:
    return Override(key=key, value=value, why="a test", boot="b", until_boottime=1.0, until=1.0)


def composed(layers: Mapping[str, str], *overrides: Override, local: str = LOCAL) -> Configuration:
    return compose(Path("/etc/polegate/pole.toml"), local, documents(layers), overrides)


def every(found: Configuration, device: str = "meter") -> float:
    return next(each.every for each in found.settings.devices if each.id == device)  # type: ignore[attr-defined,no-any-return]


def meter(seconds: float) -> str:
    return f'[[device]]\nid = "meter"\nevery = {seconds}\n'


def faults(layers: Mapping[str, str], *overrides: Override, local: str = LOCAL) -> list[str]:
    with pytest.raises(SettingsError) as error:
        composed(layers, *overrides, local=local)
    return [str(fault) for fault in error.value.faults]


def not_owned(layers: Mapping[str, str]) -> str:
    with pytest.raises(Rejected) as refused:
        composed(layers)
    assert refused.value.code is Code.OWNERSHIP
    return refused.value.text


def test_the_later_layer_wins() -> None:
    layers = {"fleet": meter(1), "group/harbour": meter(2), "group/dim": meter(3), MINE: meter(4)}
    for value, stream in ((4.0, MINE), (3.0, "group/dim"), (2.0, "group/harbour"), (1.0, "fleet")):
        found = composed(layers)
        assert every(found) == value
        assert found.merged.origin[EVERY].name == f"{stream} seq 1"
        del layers[stream]
    assert every(composed({})) == 10.0
    assert composed({}).merged.origin[EVERY].name == "/etc/polegate/pole.toml"


def test_the_streams_are_those_of_the_pole_in_the_order_of_its_file() -> None:
    assert composed({}).streams == ("fleet", "group/harbour", "group/dim", MINE)
    assert every(composed({"group/elsewhere": meter(1), "pole/pole-2": meter(1)})) == 10.0


def test_a_pole_that_is_not_to_be_configured_takes_nothing() -> None:
    local = LOCAL.replace("enabled = true", "enabled = false")
    assert composed({"fleet": meter(1)}, local=local).streams == ()
    assert every(composed({"fleet": meter(1)}, local=local)) == 10.0


def test_a_layer_sets_single_keys_and_adds_sections() -> None:
    more = (
        '[dataset.air]\npriority = 7\n[port.rs485]\n[port.second]\nbaud = 9600\n[[device]]\nid = "tag"\nheight = 3.0\n'
    )
    layer = more.replace("[port.second]\nbaud = 9600\n", "")
    found = composed({"fleet": layer + '[[device]]\nid = "new"\ndriver = "ruuvi"\naddress = "CB:B8:33:4C:88:4E"\n'})
    assert found.settings.dataset("air").priority == 7
    assert [device.id for device in found.settings.devices] == ["meter", "tag", "new"]
    assert found.settings.root.port["rs485"].tcp == ("192.0.2.1", 502)
    assert faults({"fleet": more}) == [
        'fleet seq 1:4: [port.second]: key "path" is missing: /dev/serial/by-id/..., or tcp://HOST:PORT'
    ]


def test_a_fault_is_told_by_the_line_of_the_layer_it_is_in() -> None:
    assert faults({"fleet": "\n" + meter(0)}) == [
        'fleet seq 1:4: [[device]] "meter": "every" must be 0.001 or more, not 0'
    ]
    assert faults({"fleet": "[uplnk]\nx = 1\n"}) == [
        'fleet seq 1:1: "uplnk" is not a known section; did you mean "uplink"?'
    ]
    second = LOCAL.replace("every = 10.0", "every = 0")
    assert faults({"fleet": ""}, local=second) == [
        '/etc/polegate/pole.toml:19: [[device]] "meter": "every" must be 0.001 or more, not 0'
    ]


def test_an_unreadable_layer_is_told_with_its_line() -> None:
    with pytest.raises(Rejected, match=r"fleet seq 1:2: cannot be read") as refused:
        composed({"fleet": "[pole]\nx =\n"})
    assert refused.value.code is Code.SCHEMA


@pytest.mark.parametrize(
    "layer",
    [
        '[pole]\nid = "other"',
        "[remote]\nenabled = false",
        '[remote]\npins = []\ntrust = "/tmp"',
        '[port.rs485]\npath = "/dev/ttyUSB0"',
        '[bluetooth]\nadapter = "hci1"',
        '[buffer]\npath = "/tmp/x"',
        "[buffer]\nmax_bytes = 5000000",
        '[uplink]\nprefix = "other"',
        '[uplink]\nca_file = "/tmp/ca.pem"',
        '[uplink]\npassword_file = "/etc/shadow"',
        '[uplink]\nurl = "mqtt://broker.example"',
        '[uplink]\nurl = ["mqtts://broker.example", "ws://broker.example"]',
        "pole = 1",
        "remote = 1",
        '[[device]]\nid = "meter"\n[remote]\n',
    ],
)
def test_what_is_the_poles_own_is_refused_from_remote(layer: str) -> None:
    if layer == "pole = 1":
        assert faults({"fleet": layer})
    else:
        assert "fleet seq 1:" in not_owned({"fleet": layer})


def test_a_remote_layer_names_credentials_and_brokers_with_tls() -> None:
    found = composed({"fleet": '[uplink]\nca_file = "credential:new-ca"\nurl = "wss://other.example"\n'})
    assert found.settings.root.uplink.ca_file == "credential:new-ca"
    assert found.settings.root.uplink.url == ("wss://other.example",)
    plain = LOCAL.replace("mqtts://", "mqtt://")
    assert composed({"fleet": '[uplink]\nurl = "mqtt://x"'}, local=plain).settings.root.uplink.url == ("mqtt://x",)


def test_shadowed_is_told_where_the_value_differs() -> None:
    assert composed({"fleet": meter(10)}).merged.drift == []
    assert composed({"fleet": meter(2)}).merged.drift == [Drift(EVERY, "SHADOWED", "fleet seq 1")]


def test_a_pinned_key_keeps_the_value_of_the_file_or_the_default() -> None:
    found = composed({"fleet": meter(2) + '[uplink]\nbackfill = "20%"\n'}, local=PINNED)
    assert every(found) == 10.0
    assert found.settings.root.uplink.backfill == "50%"
    assert found.merged.drift == [
        Drift(EVERY, "PINNED", "/etc/polegate/pole.toml"),
        Drift(("uplink", "backfill"), "PINNED", "default"),
    ]


def test_an_override_is_above_everything_pins_too() -> None:
    found = composed({MINE: meter(2)}, override("device.meter.every", "1.5"), local=PINNED)
    assert every(found) == 1.5
    assert Drift(EVERY, "OVERRIDDEN", "override") in found.merged.drift
    assert not [drift for drift in found.merged.drift if drift.standing == "SHADOWED"]


def test_an_override_that_does_not_fit_is_left_out_and_told() -> None:
    found = composed({MINE: meter(2)}, override("device.meter.every", "0"))
    assert every(found) == 2.0
    assert found.trouble == 'override: device.meter.every: "every" must be 0.001 or more, not 0'
    assert composed({MINE: meter(2)}, override("device.meter.every", "1")).trouble == ""
    assert faults({MINE: meter(0)}, override("device.meter.evry", "1"))[0].startswith(MINE)


def test_equal_settings_have_one_fingerprint_however_they_came() -> None:
    alone = composed({}).fingerprint
    assert composed({"fleet": meter(10)}).fingerprint == alone
    assert (
        composed({"fleet": meter(2)}).fingerprint == composed({MINE: meter(2), "fleet": meter(3)}).fingerprint != alone
    )


def test_devices_without_an_id_of_their_own_are_kept_apart() -> None:
    twice = meter(1) + meter(2) + "[[device]]\nevery = 3\n"
    told = faults({"fleet": twice})
    assert any("this id" in fault and fault.startswith("fleet seq 1:5") for fault in told), told
    assert any('key "id" is missing' in fault and fault.startswith("fleet seq 1:7") for fault in told), told


def test_a_section_over_a_value_and_a_value_over_a_section() -> None:
    assert any("write [pole], not pole = 1" in fault for fault in faults({"fleet": "pole = 1"}))
    assert any('"description"' in fault for fault in faults({"fleet": "[pole.description]\na = 1\n"}))


def test_patience_is_three_intervals_and_never_short() -> None:
    assert composed({}).patience_s == {"meter": 30.0, "tag": 60.0}
    assert composed({"fleet": meter(60)}).patience_s == {"meter": 180.0, "tag": 60.0}

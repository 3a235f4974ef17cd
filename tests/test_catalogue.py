"""The catalogue: every channel described, and a hash that changes when the description does."""

import json
import subprocess
import sys
from typing import Any

from drivers.contract import Driver
from drivers.nmea0183 import Nmea0183
from drivers.ruuvi import Ruuvi
from drivers.sds011 import Sds011
from gateway.catalogue import Catalogue

DUST = Sds011(id="dust", driver="sds011", port="usb")
TAG = Ruuvi(id="tag", driver="ruuvi", address="AA:BB:CC:DD:EE:FF", dataset="inside")
MAST = Nmea0183(id="mast", driver="nmea0183", port="tty")


def catalogue(*devices: Driver, pole: str = "pole-7", **licences: dict[str, str]) -> Catalogue:
    return Catalogue(pole, devices or (DUST, TAG, MAST), licences)


def content(of: Catalogue) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(of.document())
    return document


def test_what_is_certain_from_the_configuration_is_described_before_the_first_reading() -> None:
    document = content(catalogue(air={"owner": "City of Poleham", "licence": "CC-BY-4.0"}))
    assert document["pole"] == "pole-7"
    assert set(document["channels"]) == {
        "dust/pm2_5",
        "dust/pm10",
        "tag/temperature",
        "tag/humidity",
        "tag/pressure",
    }
    temperature = document["channels"]["tag/temperature"]
    assert (temperature["unit"], temperature["ucum"], temperature["dataset"]) == ("Cel", "Cel", "inside")
    assert temperature["title"]
    assert document["channels"]["dust/pm10"]["lwm2m"] == "3428/1"
    assert document["devices"]["dust"] == {"driver": "sds011", "make": "Nova SDS011"}
    assert document["datasets"]["air"] == {"owner": "City of Poleham", "licence": "CC-BY-4.0"}
    assert document["datasets"]["inside"] == {}


def test_it_grows_when_a_device_sends_a_channel_for_the_first_time() -> None:
    grown = catalogue()
    before = grown.hash
    grown.note("tag", ["temperature", "humidity"])
    assert grown.hash == before
    grown.note("tag", ["temperature", "battery_voltage"])
    assert grown.hash != before
    assert content(grown)["channels"]["tag/battery_voltage"]["unit"] == "V"
    assert grown.unit("tag", "battery_voltage") == "V"
    again = grown.hash
    grown.note("tag", ["battery_voltage"])
    assert grown.hash == again


def test_a_unit_that_senml_does_not_know_is_told_by_the_catalogue_alone() -> None:
    grown = catalogue()
    grown.note("tag", ["voc_index", "tx_power"])
    channels = content(grown)["channels"]
    assert grown.unit("tag", "voc_index") == ""
    assert "unit" not in channels["tag/voc_index"]
    assert channels["tag/voc_index"]["ucum"] == "1"
    assert channels["tag/tx_power"]["unit"] == grown.unit("tag", "tx_power") == "dBm"


def test_a_channel_nobody_noted_has_no_unit() -> None:
    assert catalogue().unit("dust", "quality") == ""
    assert catalogue().unit("nobody", "temperature") == ""


def test_the_hash_stands_for_the_whole_description() -> None:
    hashes = {
        catalogue().hash,
        catalogue(DUST).hash,
        catalogue(pole="pole-8").hash,
        catalogue(air={"licence": "CC-BY-4.0"}).hash,
        catalogue(DUST, TAG.model_copy(update={"dataset": "weather"}), MAST).hash,
        catalogue(DUST, TAG.model_copy(update={"id": "tag-2"}), MAST).hash,
    }
    assert len(hashes) == 6
    assert content(catalogue())["hash"] == catalogue().hash


def test_the_hash_does_not_depend_on_the_order_in_which_channels_came() -> None:
    one, other = catalogue(), catalogue(MAST, TAG, DUST)
    for channel in ("battery_voltage", "tx_power"):
        one.note("tag", [channel])
    other.note("tag", ["tx_power", "battery_voltage"])
    assert one.hash == other.hash


def test_the_hash_is_the_same_in_every_run() -> None:
    code = "from tests.test_catalogue import catalogue; print(catalogue().hash)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout  # noqa: S603
        for _ in range(2)
    ]
    assert runs == [f"{catalogue().hash}\n"] * 2


def test_text_of_any_language_travels_as_it_is() -> None:
    document = catalogue(air={"owner": "Stadt Köln"}).document()
    assert "Stadt Köln".encode() in document

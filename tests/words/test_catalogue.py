"""The catalogue: every channel described by dataset, and a hash that changes when the description does."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from drivers.contract import Driver
from drivers.nmea0183 import Nmea0183
from drivers.ruuvi import Ruuvi
from drivers.sds011 import Sds011
from gateway.words.catalogue import Catalogue, Site
from tests.words.contract import faults, must_be, theirs

DUST = Sds011(id="dust", driver="sds011", port="usb")
TAG = Ruuvi(id="tag", driver="ruuvi", address="AA:BB:CC:DD:EE:FF", dataset="inside")
MAST = Nmea0183(id="mast", driver="nmea0183", port="tty")
FACTS: dict[str, Any] = {
    "serial": "N-20417",
    "accuracy": "1.5 dB, class 2",
    "calibrated": date(2026, 3, 14),
    "certificate": "K-118",
    "height": 4.0,
    "heading": 135.0,
    "siting": "below the arm",
}


def catalogue(*devices: Driver, pole: str = "pole-7", site: Site = Site(), **terms: dict[str, str]) -> Catalogue:  # noqa: B008  # it is frozen
    return Catalogue(pole, devices or (DUST, TAG, MAST), terms, site=site)


def content(of: Catalogue, dataset: str) -> dict[str, Any]:
    """Return a document, which is what it calls itself: a Thing Description, and one of ours."""
    document: dict[str, Any] = json.loads(of.document(dataset))
    must_be("catalogue", document)
    assert faults(theirs("thing-description-1.1"), document) == []
    return document


def test_what_is_certain_from_the_configuration_is_described_before_the_first_reading() -> None:
    of = catalogue(air={"owner": "City of Poleham", "licence": "CC-BY-4.0", "access": "public"})
    assert of.datasets == ["air", "inside", "position"]
    air, inside = content(of, "air"), content(of, "inside")
    assert set(air["properties"]) == {"dust/pm2_5", "dust/pm10"}
    assert set(inside["properties"]) == {"tag/temperature", "tag/humidity", "tag/pressure"}
    assert content(of, "position")["properties"] == {}
    assert (
        inside["properties"]["tag/temperature"].items()
        >= {
            "title": "air temperature",
            "type": "number",
            "unit": "Cel",
            "polegate:name": "pole-7/tag/temperature",
            "polegate:device": "tag",
            "polegate:senml": "Cel",
            "polegate:ucum": "Cel",
        }.items()
    )
    assert air["properties"]["dust/pm10"]["polegate:lwm2m"] == "3428/1"
    assert air["polegate:devices"] == {"dust": {"driver": "sds011", "make": "Nova SDS011"}}
    terms = {key: air[f"dcterms:{key}"] for key in ("publisher", "license", "accessRights", "identifier")}
    assert terms == {
        "publisher": "City of Poleham",
        "license": "CC-BY-4.0",
        "accessRights": "public",
        "identifier": "air",
    }
    assert not {"dcterms:publisher", "dcterms:license", "dcterms:accessRights"} & set(inside)


def test_a_dataset_says_nothing_of_the_others() -> None:
    text = catalogue(inside={"owner": "a tenant"}).document("air").decode()
    assert "tag" not in text
    assert "inside" not in text
    assert "tenant" not in text


def test_each_channel_says_where_its_values_are_published() -> None:
    of = Catalogue("pole-7", [DUST], {}, prefix="city/lights")
    (form,) = json.loads(of.document("air"))["properties"]["dust/pm10"]["forms"]
    assert form == {
        "href": "city/lights/pole-7/data/air",
        "op": "observeproperty",
        "contentType": "application/senml+json",
        "contentCoding": "zstd",
        "mqv:controlPacket": "subscribe",
        "mqv:topic": "city/lights/pole-7/data/air",
        "mqv:qos": "1",
        "mqv:retain": False,
    }


def test_what_a_technician_wrote_of_device_and_pole_stands_there() -> None:
    site = Site("at the crossing", 60.1699, 24.9384)
    document = content(catalogue(DUST.model_copy(update=FACTS), site=site), "air")
    assert document["polegate:devices"]["dust"] == {
        "driver": "sds011",
        "make": "Nova SDS011",
        **FACTS,
        "calibrated": "2026-03-14",
    }
    assert (document["description"], document["geo:lat"], document["geo:long"]) == ("at the crossing", 60.1699, 24.9384)


def test_it_grows_when_a_device_sends_a_channel_for_the_first_time() -> None:
    grown = catalogue()
    before, air = grown.hash("inside"), grown.hash("air")
    grown.note("tag", ["temperature", "humidity"])
    assert grown.hash("inside") == before
    grown.note("tag", ["temperature", "battery_voltage"])
    assert grown.hash("inside") != before
    assert grown.hash("air") == air
    assert content(grown, "inside")["properties"]["tag/battery_voltage"]["unit"] == "V"
    assert grown.unit("tag", "battery_voltage") == "V"
    again = grown.hash("inside")
    grown.note("tag", ["battery_voltage"])
    assert grown.hash("inside") == again


def test_a_unit_that_senml_does_not_know_is_told_by_the_catalogue_alone() -> None:
    grown = catalogue()
    grown.note("tag", ["voc_index", "tx_power", "calibrating"])
    channels = content(grown, "inside")["properties"]
    assert grown.unit("tag", "voc_index") == ""
    assert "polegate:senml" not in channels["tag/voc_index"]
    assert channels["tag/voc_index"]["unit"] == channels["tag/voc_index"]["polegate:ucum"] == "1"
    assert channels["tag/tx_power"]["polegate:senml"] == grown.unit("tag", "tx_power") == "dBm"
    assert channels["tag/tx_power"]["polegate:ucum"] == "{dBm}"
    assert channels["tag/calibrating"]["type"] == "boolean"
    assert "unit" not in channels["tag/calibrating"]


def test_a_channel_nobody_noted_has_no_unit() -> None:
    assert catalogue().unit("dust", "quality") == ""
    assert catalogue().unit("nobody", "temperature") == ""


@pytest.mark.parametrize("fact", FACTS)
def test_the_hash_changes_with_each_fact_of_a_device(fact: str) -> None:
    told = catalogue(DUST.model_copy(update={fact: FACTS[fact]}))
    assert told.hash("air") != catalogue(DUST).hash("air")


def test_the_hash_stands_for_the_whole_description() -> None:
    hashes = [
        catalogue().hash("air"),
        catalogue().hash("inside"),
        catalogue(pole="pole-8").hash("air"),
        catalogue(air={"licence": "CC-BY-4.0"}).hash("air"),
        catalogue(DUST.model_copy(update={"id": "dust-2"})).hash("air"),
        catalogue(DUST, TAG.model_copy(update={"dataset": "air"})).hash("air"),
        catalogue(site=Site("at the crossing")).hash("air"),
    ]
    assert len(set(hashes)) == len(hashes)
    assert content(catalogue(), "air")["version"] == {"instance": hashes[0]}
    assert catalogue(DUST).hash("air") == catalogue(inside={"owner": "a tenant"}).hash("air") == hashes[0]


def test_the_hash_does_not_depend_on_the_order_in_which_channels_came() -> None:
    one, other = catalogue(), catalogue(MAST, TAG, DUST)
    for channel in ("battery_voltage", "tx_power"):
        one.note("tag", [channel])
    other.note("tag", ["tx_power", "battery_voltage"])
    assert one.hash("inside") == other.hash("inside")


def test_the_hash_is_the_same_in_every_run() -> None:
    code = "from tests.words.test_catalogue import catalogue; print(catalogue().hash('inside'))"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout  # noqa: S603
        for _ in range(2)
    ]
    assert runs == [f"{catalogue().hash('inside')}\n"] * 2


def test_text_of_any_language_travels_as_it_is() -> None:
    document = catalogue(air={"owner": "Stadt Köln"}).document("air")
    assert "Stadt Köln".encode() in document


def _no_title(document: dict[str, Any]) -> None:
    del document["title"]


def _no_security(document: dict[str, Any]) -> None:
    del document["securityDefinitions"]


def _no_context(document: dict[str, Any]) -> None:
    document["@context"] = document["@context"][1:]


def _no_href(document: dict[str, Any]) -> None:
    del document["properties"]["dust/pm10"]["forms"][0]["href"]


@pytest.mark.parametrize("spoil", [_no_title, _no_security, _no_context, _no_href])
def test_what_is_no_thing_description_is_found(spoil: Callable[[dict[str, Any]], None]) -> None:
    document = copy.deepcopy(content(catalogue(), "air"))
    spoil(document)
    assert faults(theirs("thing-description-1.1"), document)


def test_the_units_of_a_device_that_is_gone_are_known_and_it_is_not_described() -> None:
    of = catalogue()
    before = {dataset: content(of, dataset) for dataset in of.datasets}
    of.remember("gone", ["pm10"], {"pm10": "ug/m3"})
    assert of.unit("gone", "pm10") == "ug/m3"
    assert {dataset: content(of, dataset) for dataset in of.datasets} == before
    of.note("mast", ["wind_speed"])
    assert of.units("mast") == {"wind_speed": "m/s"}


def test_the_unit_of_a_channel_that_a_device_does_not_have_any_more_is_known_and_it_is_not_described() -> None:
    of = catalogue()
    before = {dataset: content(of, dataset) for dataset in of.datasets}
    of.remember("dust", ["noise", "pm10"], {"noise": "dB", "pm10": "lm"})
    assert (of.unit("dust", "noise"), of.unit("dust", "pm10")) == ("dB", "ug/m3")
    assert {dataset: content(of, dataset) for dataset in of.datasets} == before
    of.change([DUST], {}, Site())
    assert of.unit("dust", "noise") == "dB"
    assert "dust/noise" not in content(of, "air")["properties"]


def test_other_devices_are_described_and_what_was_seen_of_an_equal_one_still_holds() -> None:
    of = catalogue()
    of.note("mast", ["wind_speed"])
    of.note("tag", ["battery_voltage"])
    before = {dataset: of.hash(dataset) for dataset in of.datasets}
    of.change([DUST, MAST, TAG], {}, Site())
    assert {dataset: of.hash(dataset) for dataset in of.datasets} == before
    of.change([MAST, TAG.model_copy(update={"address": "AA:BB:CC:DD:EE:00"})], {"position": {"owner": "x"}}, Site())
    assert of.datasets == ["inside", "position"]
    assert content(of, "position")["dcterms:publisher"] == "x"
    assert of.hash("position") != before["position"]
    assert set(content(of, "position")["properties"]) == {"mast/wind_speed"}
    assert "tag/battery_voltage" not in content(of, "inside")["properties"]
    assert of.unit("mast", "wind_speed") == "m/s"
    assert of.unit("dust", "pm10") == ""
    of.change([DUST, TAG, MAST], {}, Site())
    assert of.unit("dust", "pm10") != ""
    assert of.hash("air") == before["air"]

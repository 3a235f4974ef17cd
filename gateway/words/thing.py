"""The catalogue's form: a W3C Thing Description 1.1 of one dataset, with DCAT terms and ours.

A dataset is a thing, its channels are properties. JSON-LD gives each term a meaning; who reads it as plain JSON needs
none of that. The vocabulary for MQTT (``mqv``) is a draft of the W3C. A form's ``href`` is relative: the broker is the
one this was read from.
"""

from datetime import date
from typing import Any, Literal

from pydantic import Field

from gateway.words.messages import Content

TERMS = "urn:polegate:terms#"
CONTEXT: list[Any] = [
    "https://www.w3.org/2022/wot/td/v1.1",
    {
        "dcat": "http://www.w3.org/ns/dcat#",
        "dcterms": "http://purl.org/dc/terms/",
        "geo": "http://www.w3.org/2003/01/geo/wgs84_pos#",
        "mqv": "http://www.example.org/mqtt-binding#",
        "polegate": TERMS,
        "polegate:devices": {
            "@id": "polegate:devices",
            "@container": "@index",
            "@context": {"@vocab": TERMS},
        },
    },
]
SECURITY = "broker"


class Form(Content):
    """How to get a property."""

    href: str
    op: Literal["observeproperty"] = "observeproperty"
    content_type: str = Field("application/senml+json", serialization_alias="contentType")
    content_coding: str = Field(
        "zstd", serialization_alias="contentCoding", description="Of packs above 200 bytes; smaller ones are plain."
    )
    packet: Literal["subscribe"] = Field("subscribe", serialization_alias="mqv:controlPacket")
    topic: str = Field(serialization_alias="mqv:topic")
    qos: Literal["1"] = Field("1", serialization_alias="mqv:qos")
    retain: Literal[False] = Field(default=False, serialization_alias="mqv:retain")


class Property(Content):
    """A channel."""

    title: str
    type: Literal["number", "boolean", "string"]
    unit: str | None = Field(None, description="As it stands in packs; where SenML has none, the UCUM code.")
    read_only: Literal[True] = Field(default=True, serialization_alias="readOnly")
    observable: Literal[True] = True
    name: str = Field(serialization_alias="polegate:name", description="The resolved SenML name in packs.")
    device: str = Field(serialization_alias="polegate:device", description="One of polegate:devices.")
    senml: str | None = Field(
        None, serialization_alias="polegate:senml", description="Unit of SenML (RFC 8428, RFC 8798), where it has one."
    )
    ucum: str | None = Field(None, serialization_alias="polegate:ucum", description="The unit's code in UCUM.")
    lwm2m: str | None = Field(
        None, serialization_alias="polegate:lwm2m", description="object/resource of the OMA LwM2M / uCIFI registry."
    )
    forms: list[Form]


class Device(Content):
    """What the channels of one device have in common; all but make and driver is as the technician wrote it."""

    make: str = Field(description="Maker and model.")
    driver: str
    serial: str | None = None
    accuracy: str | None = None
    calibrated: date | None = Field(None, description="When it was calibrated last.")
    certificate: str | None = Field(None, description="What says so.")
    height: float | None = Field(None, description="Metres above ground.")
    heading: float | None = Field(None, description="Where it looks: degrees from north over east.")
    siting: str | None = Field(None, description="How it is mounted, in words.")


class Version(Content):
    """Which state of the description this is."""

    instance: str = Field(description="Stands in packs as cat.")


class Scheme(Content):
    """How the broker lets readers in: it is told by the broker."""

    scheme: Literal["auto"] = "auto"


class Thing(Content):
    """One dataset of a pole: what its channels mean, and on what terms they may be used. Retained."""

    context: list[Any] = Field(CONTEXT, serialization_alias="@context")
    kind: list[str] = Field(["dcat:Dataset"], serialization_alias="@type")
    id: str
    title: str
    description: str | None = None
    version: Version | None = None
    identifier: str = Field(serialization_alias="dcterms:identifier", description="Name of the dataset.")
    pole: str = Field(serialization_alias="polegate:pole")
    owner: str | None = Field(None, serialization_alias="dcterms:publisher")
    licence: str | None = Field(None, serialization_alias="dcterms:license")
    access: str | None = Field(None, serialization_alias="dcterms:accessRights")
    latitude: float | None = Field(None, serialization_alias="geo:lat", description="Of the pole, WGS 84.")
    longitude: float | None = Field(None, serialization_alias="geo:long")
    security_definitions: dict[str, Scheme] = Field(
        {SECURITY: Scheme()}, serialization_alias="securityDefinitions", validate_default=True
    )
    security: list[str] = Field([SECURITY], min_length=1)
    devices: dict[str, Device] = Field(serialization_alias="polegate:devices")
    properties: dict[str, Property]

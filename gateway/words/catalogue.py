"""The catalogue: what every channel of this pole means, so that a receiver needs no code for a new sensor.

There is one for each dataset, so that the broker can give somebody a dataset and its description alone. It begins
with the channels that are certain from the configuration and grows when a device sends one for the first time. Its
hash goes into every pack of its dataset, so that a reader knows which description held.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from drivers.contract import Channel
from drivers.units import UNITS
from gateway.words.thing import Device, Form, Property, Thing, Version

HASH_DIGITS = 8
FACTS = Device.model_fields.keys() - {"make", "driver"}  # what a technician may write of a device


class Site(NamedTuple):
    """Where the pole stands.

    Attributes:
        description: in words.
        latitude: WGS 84.
        longitude: WGS 84.
    """

    description: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class Source(Protocol):
    """Who sends channels: a device, which is a :class:`drivers.contract.Driver`, or the pole itself."""

    @property
    def id(self) -> str:
        """Return its name."""

    @property
    def driver(self) -> str:
        """Tell who reads it."""

    @property
    def home(self) -> str:
        """Name the dataset its readings go to."""

    def make(self) -> str:
        """Name maker and model."""

    def expected(self) -> tuple[str, ...]:
        """Name the channels that are certain to come."""

    def channel(self, name: str) -> Channel:
        """Describe a channel."""


class Catalogue:
    """The channels of one pole, by dataset, device and name."""

    def __init__(
        self,
        pole: str,
        devices: Iterable[Source],
        terms: Mapping[str, Mapping[str, str]],
        *,
        site: Site = Site(),  # noqa: B008  # it is frozen
        prefix: str = "pole/1",
    ) -> None:
        """Begin with what is certain.

        Args:
            pole: what all names begin with.
            devices: all of them.
            terms: dataset to its owner, licence and access.
            site: where the pole stands.
            prefix: what all topics begin with.
        """
        self._pole = pole
        self._prefix = prefix
        self._devices: dict[str, Source] = {}
        self._units: dict[tuple[str, str], str] = {}
        self._undescribed: set[tuple[str, str]] = set()
        self._hashes: dict[str, str] = {}
        self.change(devices, terms, site)

    def change(self, devices: Iterable[Source], terms: Mapping[str, Mapping[str, str]], site: Site) -> None:
        """Describe these from now on. What was seen of a device that is equal still holds."""
        before = self._devices
        self._devices = {device.id: device for device in devices}
        self._terms = terms
        self._site = site
        equal = {name for name, device in self._devices.items() if device == before.get(name)}
        self._units = {(device, channel): unit for (device, channel), unit in self._units.items() if device in equal}
        self._undescribed &= self._units.keys()
        self._unit = _told_by(self._units)
        self._hashes.clear()
        for name in self._devices.keys() - equal:
            source = self._devices[name]
            self._units |= {(name, channel): _unit(source, channel) for channel in source.expected()}

    @property
    def datasets(self) -> list[str]:
        """Name the datasets there are."""
        return sorted({device.home for device in self._devices.values()})

    def remember(self, device: str, channels: Iterable[str], units: Mapping[str, str]) -> None:
        """Take in channels that a device was seen to send before, when it may have been another one.

        Args:
            device: its id; it may be the id of none by now.
            channels: their names.
            units: of those that are not described any more; they are known, and told in no catalogue.
        """
        for channel in channels:
            try:
                self.note(device, [channel])
            except KeyError:
                self._units[device, channel] = units.get(channel, "")
                self._undescribed.add((device, channel))

    def note(self, device: str, channels: Iterable[str]) -> None:
        """Take in channels that a device was seen to send: all of them, or none. Raises KeyError."""
        source = self._devices[device]
        new = [channel for channel in channels if (device, channel) not in self._units]
        if new:
            self._units |= {(device, channel): _unit(source, channel) for channel in new}
            self._hashes.pop(source.home, None)

    @property
    def unit(self) -> Callable[[str, str], str]:
        """What tells the SenML unit of a channel that was noted, by device and name; "" for none.

        It is another one after a change: who keeps what one said asks the next one anew.
        """
        return self._unit

    def units(self, device: str) -> dict[str, str]:
        """Return the SenML units of a device's channels that have one."""
        return {channel: unit for (name, channel), unit in self._units.items() if name == device and unit}

    def hash(self, dataset: str) -> str:
        """Return what stands for the whole description of a dataset."""
        if dataset not in self._hashes:
            self._hashes[dataset] = hashlib.sha256(self._thing(dataset).encoded()).hexdigest()[:HASH_DIGITS]
        return self._hashes[dataset]

    def document(self, dataset: str) -> bytes:
        """Return the description of a dataset as JSON."""
        version = Version(instance=self.hash(dataset))
        return self._thing(dataset).model_copy(update={"version": version}).encoded()

    def _thing(self, dataset: str) -> Thing:
        devices = {name: device for name, device in sorted(self._devices.items()) if device.home == dataset}
        topic = f"{self._prefix}/{self._pole}"
        form = Form(href=f"{topic}/data/{dataset}", topic=f"{topic}/data/{dataset}")
        return Thing(
            id=f"urn:polegate:{topic}/catalogue/{dataset}",
            title=f"{dataset} of {self._pole}",
            description=self._site.description,
            identifier=dataset,
            pole=self._pole,
            **self._terms.get(dataset, {}),
            latitude=self._site.latitude,
            longitude=self._site.longitude,
            devices={name: _device(device) for name, device in devices.items()},
            properties={
                f"{device}/{channel}": self._property(devices[device], channel, form)
                for device, channel in sorted(self._units)
                if device in devices and (device, channel) not in self._undescribed
            },
        )

    def _property(self, device: Source, name: str, form: Form) -> Property:
        channel = device.channel(name)
        unit = UNITS.get(channel.unit)
        return Property(
            title=channel.title,
            type=channel.kind,
            unit=channel.unit or None,
            name=f"{self._pole}/{device.id}/{name}",
            device=device.id,
            senml=self._units[device.id, name] or None,
            ucum=unit.ucum if unit else None,
            lwm2m=channel.lwm2m,
            forms=[form],
        )


def _device(device: Source) -> Device:
    facts = {fact: getattr(device, fact, None) for fact in FACTS}
    return Device(make=device.make(), driver=device.driver, **facts)


def _unit(device: Source, name: str) -> str:
    try:
        unit = device.channel(name).unit
    except KeyError:
        raise KeyError(f'it describes no channel "{name}"') from None
    return unit if unit in UNITS and UNITS[unit].senml else ""


def _told_by(units: Mapping[tuple[str, str], str]) -> Callable[[str, str], str]:
    return lambda device, channel: units.get((device, channel), "")

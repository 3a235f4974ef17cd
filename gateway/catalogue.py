"""The catalogue: what every channel of this pole means, so that a receiver needs no code for a new sensor.

It begins with the channels that are certain from the configuration and grows when a device sends one for the
first time. Its hash goes into every pack, so that a reader knows which description held.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

from drivers.contract import Driver
from drivers.units import UNITS

HASH_DIGITS = 8


class Catalogue:
    """The channels of one pole, by device and name."""

    def __init__(self, pole: str, devices: Iterable[Driver], licences: Mapping[str, Mapping[str, str]]) -> None:
        self._pole = pole
        self._devices = {device.id: device for device in devices}
        self._licences = licences
        self._channels: dict[str, dict[str, str]] = {}
        self._units: dict[tuple[str, str], str] = {}
        for device in self._devices.values():
            for channel in device.expected():
                self._describe(device, channel)
        self.hash = self._hash()

    def note(self, device: str, channels: Iterable[str]) -> None:
        """Take in channels that a device was seen to send."""
        new = [channel for channel in channels if (device, channel) not in self._units]
        for channel in new:
            self._describe(self._devices[device], channel)
        if new:
            self.hash = self._hash()

    def unit(self, device: str, channel: str) -> str:
        """Return the SenML unit of a channel that was noted; "" for none, and for records of quality."""
        return self._units.get((device, channel), "")

    def document(self) -> bytes:
        """Return it as JSON."""
        return json.dumps({"hash": self.hash} | self._content(), ensure_ascii=False).encode()

    def _describe(self, device: Driver, name: str) -> None:
        channel = device.channel(name)
        unit = UNITS.get(channel.unit)
        self._units[device.id, name] = channel.unit if unit and unit.senml else ""
        facts = {
            "title": channel.title,
            "dataset": device.home,
            "unit": self._units[device.id, name],
            "ucum": unit.ucum if unit else "",
            "lwm2m": channel.lwm2m or "",
        }
        self._channels[f"{device.id}/{name}"] = {key: fact for key, fact in facts.items() if fact}

    def _content(self) -> dict[str, object]:
        return {
            "pole": self._pole,
            "datasets": {
                name: self._licences.get(name, {}) for name in sorted({d.home for d in self._devices.values()})
            },
            "devices": {d.id: {"driver": d.driver, "make": d.make()} for d in self._devices.values()},
            "channels": dict(sorted(self._channels.items())),
        }

    def _hash(self) -> str:
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]

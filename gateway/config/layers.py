"""Layers of a configuration over one another: local file, fleet, groups, pole, override; the last one wins.

Each layer is whole, so what is in force is told by the layers alone, not by how they came. A layer is taken apart into
single keys, ``device.meter.every``; a device goes by its id, so a layer may set one key of a device that another layer
has. A list is one value.

What the local file pins is not taken from a remote layer. Some keys belong to the pole and are refused from remote:
who it is, whom it trusts, what hangs on it and where its files are. A remote layer names secrets only as credentials,
else who signs it could have any file of the pole sent to a broker of his choice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateway.config import toml_syntax
from gateway.config.faults import Fault
from gateway.config.toml_file import TomlFile
from gateway.config.toml_text import Path as Place
from gateway.config.toml_text import key_text
from gateway.host.secret_file import CREDENTIAL

Key = tuple[str | int, ...]
"""Steps to a value; a device is named by its id, by its number where it has none of its own."""

ANY = "*"
OF_THE_POLE: tuple[Key, ...] = (
    ("pole", "id"),
    ("remote",),
    ("port", ANY, "path"),
    ("bluetooth",),
    ("buffer", "path"),
    ("buffer", "max_bytes"),
    ("uplink", "prefix"),
)
SECRETS = "password_file", "ca_file", "cert_file", "key_file"
WITH_TLS = "mqtts://", "wss://"

Standing = Literal["SHADOWED", "PINNED", "OVERRIDDEN"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A value, and where it stands in the file of its layer."""

    value: Any
    place: Place


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        name: what a person calls it.
        entries: its values by key.
        file: where they stand; None: an override.
    """

    name: str
    entries: Mapping[Key, Entry]
    file: TomlFile | None

    def below(self, key: Key) -> Entry | None:
        """Return the entry of a key, or the first of the section it names."""
        return self.entries.get(key) or next((e for k, e in self.entries.items() if k[: len(key)] == key), None)

    def place(self, key: Key) -> str:
        """Name the place of a key, with its line where there is one."""
        line = self.file.line(self.entries[key].place) if self.file else 0
        return f"{self.name}:{line}" if line else self.name

    def fault(self, key: Key, text: str) -> Fault | None:
        """Blame a key of this layer; None where the layer has nothing to do with it."""
        for length in range(len(key), 0, -1):
            if entry := self.below(key[:length]):
                if self.file is None:
                    return Fault(self.name, 0, f"{dotted(key)}: {text}")
                return self.file.fault((*entry.place[:length], *key[length:]), text)
        return None


@dataclass(frozen=True, slots=True)
class Drift:
    """A key that does not have the value one may expect.

    Attributes:
        key: which.
        standing: SHADOWED: the local file sets it, and a remote layer sets it otherwise. PINNED: a remote layer sets
            it, and the local file pins it. OVERRIDDEN: for some hours a technician's value holds.
        by: the layer whose value holds.
    """

    key: Key
    standing: Standing
    by: str


def of_file(file: TomlFile) -> Layer:
    """Make a layer of a file."""
    return Layer(file.name, dict(_entries(file.content)), file)


def of_override(key: str, value: str) -> Layer:
    """Make a layer of an override. Raises ValueError where its key or value is none."""
    place, content = setting(key, value)
    return Layer("override", {place: Entry(content, ())}, None)


def setting(key: str, value: str) -> tuple[Key, Any]:
    """Read a key and a value as they would stand in a file. Raises ValueError."""
    try:
        content = toml_syntax.parse(f"{key} = {value}\n")
    except toml_syntax.Unreadable as error:
        raise ValueError(f"{key} = {value}: {error}") from error
    found = list(_leaves(content, ()))
    if len(found) != 1 or "\n" in key + value:
        raise ValueError(f"{key} = {value}: write one key and one value, such as device.meter.every 2.0")
    return found[0]


def key_of(text: str) -> Key:
    """Read a key. Raises ValueError."""
    return setting(text, "0")[0]


def dotted(key: Key) -> str:
    """Write a key."""
    return ".".join(key_text(str(step)) for step in key)


def is_of_the_pole(key: Key) -> bool:
    """Tell whether a key is set in the local file only."""
    return any(_covers(pattern, key) for pattern in OF_THE_POLE)


def not_for_remote(layer: Layer, local: Layer) -> Iterator[Fault]:
    """Find what a remote layer may not set."""
    for key, entry in layer.entries.items():
        text = ""
        if is_of_the_pole(key):
            text = "is set in the pole's own file only; remove it here"
        elif key[0] == "uplink" and key[-1] in SECRETS and not str(entry.value).startswith(CREDENTIAL):
            text = 'names a file; from remote write "credential:NAME", and hand it to the service on the pole'
        elif key == ("uplink", "url") and _is_safe(local.entries.get(key)) and not _is_safe(entry):
            text = "is without TLS, and the pole's own file has it with TLS; write mqtts:// or wss://"
        if text and (fault := layer.fault(key, f'"{key[-1]}" {text}')):
            yield fault


class Merged:
    """Layers over one another, as one configuration.

    Attributes:
        name: of the local file.
        folder: where that is.
        content: as it would stand in one file.
        local: the local file's layer.
        origin: by key the layer that its value is from.
        pinned: by key the remote layer that the local file keeps out, the strongest.
        drift: what a person should be told.
    """

    def __init__(self, local: Layer, remote: Sequence[Layer], overrides: Sequence[Layer], pins: Sequence[Key]) -> None:
        """Lay them over one another; ``remote`` has the strongest last."""
        self.name = local.name
        self.local = local
        self.folder = local.file.folder if local.file else Path()
        self._layers = [local, *remote, *overrides]
        self.origin: dict[Key, Layer] = {}
        values: dict[Key, Any] = {}
        self.pinned: dict[Key, Layer] = {}
        for layer in self._layers:
            for key, entry in layer.entries.items():
                if layer in remote and any(_covers(pin, key) for pin in pins):
                    self.pinned[key] = layer
                else:
                    self._set(values, key, entry.value, layer)
        self.content, self._devices = _content(values)
        self.drift: list[Drift] = [Drift(key, "PINNED", self._holder(key)) for key in self.pinned]
        self.drift += [Drift(key, "OVERRIDDEN", layer.name) for layer in overrides for key in layer.entries]
        overridden = {key for layer in overrides for key in layer.entries}
        self.drift += [
            Drift(key, "SHADOWED", self.origin[key].name)
            for key, entry in local.entries.items()
            if key in self.origin and self.origin[key] is not local and key not in overridden
            if values[key] != entry.value
        ]

    def line(self, place: Place) -> int:
        """Return the line of a place in the file of the layer it is from."""
        return self.fault(place, "").line

    def fault(self, place: Place, text: str) -> Fault:
        """Blame a place, by the file of the layer that is nearest to it, the strongest of those."""
        key = self._key(place)
        for length in range(len(key), 0, -1):
            for layer in reversed(self._layers):
                if layer.below(key[:length]) and (fault := layer.fault(key, text)):
                    return fault
        return Fault(self.name, 0, text)

    def _set(self, values: dict[Key, Any], key: Key, value: object, layer: Layer) -> None:
        if key not in values:
            inner = [other for other in values if other[: len(key)] == key]
            if inner and value == {}:
                return  # a section that stands there already
            outer = [key[:length] for length in range(1, len(key)) if key[:length] in values]
            for other in inner + outer:
                del values[other]
                del self.origin[other]
        values[key] = value
        self.origin[key] = layer

    def _holder(self, key: Key) -> str:
        return self.origin[key].name if key in self.origin else "default"

    def _key(self, place: Place) -> Key:
        if len(place) > 1 and place[0] == "device" and isinstance(place[1], int) and place[1] < len(self._devices):
            return ("device", self._devices[place[1]], *place[2:])
        return place


def _entries(content: Mapping[str, Any]) -> Iterator[tuple[Key, Entry]]:
    for name, value in content.items():
        if name == "device" and isinstance(value, list) and all(isinstance(each, dict) for each in value):
            yield from _device_entries(value)
        else:
            for key, leaf in _leaves(value, (name,)):
                yield key, Entry(leaf, key)


def _device_entries(devices: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Key, Entry]]:
    seen = set()
    for number, device in enumerate(devices):
        name = device.get("id")
        step = name if isinstance(name, str) and name not in seen else number
        seen.add(step)
        for key, leaf in _leaves(device, ("device", step)):
            yield key, Entry(leaf, ("device", number, *key[2:]))


def _leaves(value: object, key: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*key, name))
    else:
        yield key, value


def _content(values: Mapping[Key, Any]) -> tuple[dict[str, Any], list[str | int]]:
    content: dict[str, Any] = {}
    devices: dict[str | int, dict[str, Any]] = {}
    for key, value in values.items():
        of_device = key[0] == "device" and len(key) > 1
        steps = key[2:] if of_device else key
        here = devices.setdefault(key[1], {}) if of_device else content
        for step in steps[:-1]:
            here = here.setdefault(str(step), {})
        if steps:
            here[str(steps[-1])] = value
    if devices:
        content["device"] = list(devices.values())
    return content, list(devices)


def _covers(pattern: Key, key: Key) -> bool:
    return len(pattern) <= len(key) and all(want in (ANY, have) for want, have in zip(pattern, key, strict=False))


def _is_safe(entry: Entry | None) -> bool:
    urls = entry.value if entry and isinstance(entry.value, list) else [entry.value if entry else ""]
    return all(isinstance(url, str) and url.lower().startswith(WITH_TLS) for url in urls)

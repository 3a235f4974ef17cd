"""From layers to settings: the pole's own file, the documents of its streams and the overrides, as one configuration.

What comes of it is validated as ``polegate check`` validates a file; a fault is told by the line of the layer it is in.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivers.contract import Advertised, Driver
from gateway.config import layers
from gateway.config.faults import SettingsError
from gateway.config.layers import Merged
from gateway.config.settings import Settings
from gateway.config.settings_file import settings_of
from gateway.config.toml_file import TomlFile
from gateway.remote.document import FLEET, GROUP, POLE, Document
from gateway.remote.override import Override
from gateway.remote.verdict import Code, Rejected

SAMPLES = 3  # intervals that a device may take for its first sample


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is in force, or is to be.

    Attributes:
        settings: as the jobs need them.
        merged: where each key is from.
        streams: whose documents it takes, the weakest first.
        patience_s: how long each device may take for a sample.
        fingerprint: equal where nothing that is in force differs.
        trouble: why the overrides are left out; "" while they are not.
    """

    settings: Settings
    merged: Merged
    streams: tuple[str, ...]
    patience_s: Mapping[str, float]
    fingerprint: str
    trouble: str

    @property
    def pole(self) -> str:
        """Id of the pole."""
        return self.settings.root.pole.id

    @property
    def window_s(self) -> float:
        """How long the trial of an edit takes at the most, but for slow devices."""
        return self.settings.root.reload.uplink_within

    @property
    def hold_s(self) -> float:
        """How long all must be well in one go in such a trial."""
        return self.settings.root.reload.hold

    @property
    def drift(self) -> dict[str, str]:
        """What a person should be told, by key."""
        return {layers.dotted(each.key): each.standing for each in self.merged.drift}


def compose(path: Path, text: str, documents: Mapping[str, Document], overrides: Sequence[Override]) -> Configuration:
    """Lay documents and overrides over the pole's own file.

    Args:
        path: where that file is; it is not read.
        text: what it holds.
        documents: by stream; those of streams that the pole does not take are passed over.
        overrides: those that have not ended.

    Overrides that do not fit what lies below them any more are left out: they must not keep anything else from coming
    into force.

    Raises:
        SettingsError: with every fault there is.
        Rejected: OWNERSHIP: a document sets what is the pole's own. SCHEMA: its settings are no TOML.
    """
    file = TomlFile(path, text)
    own = settings_of(file)
    remote = own.root.remote
    taken = streams(own) if remote.enabled else ()
    local = layers.of_file(file)
    above = [layers.of_file(_file_of(documents[stream])) for stream in taken if stream in documents]
    if refused := [str(fault) for layer in above for fault in layers.not_for_remote(layer, local)]:
        raise Rejected(Code.OWNERSHIP, "; ".join(refused))
    pins = [layers.key_of(pin) for pin in remote.pins]
    on_top = [layers.of_override(each.key, each.value) for each in overrides]
    merged, trouble = Merged(local, above, on_top, pins), ""
    try:
        settings = settings_of(merged)
    except SettingsError as error:
        if not on_top:
            raise
        merged, trouble = Merged(local, above, [], pins), str(error)
        settings = settings_of(merged)
    patience = {each.id: patience_s(settings, each) for each in settings.devices}
    return Configuration(settings, merged, taken, patience, _fingerprint(settings), trouble)


def patience_s(settings: Settings, device: Driver) -> float:
    """Tell how many seconds a device may take to give values after it was started."""
    silence = device.SILENT_AFTER_S if isinstance(device, Advertised) else 0.0
    every: float = getattr(device, "every", 0.0)
    return max(settings.root.reload.device_within, SAMPLES * every, silence)


def streams(settings: Settings) -> tuple[str, ...]:
    """Name the streams a pole takes documents of, the weakest first."""
    groups = (f"{GROUP}{group}" for group in settings.root.remote.groups)
    return (FLEET, *groups, f"{POLE}{settings.root.pole.id}")


def _fingerprint(settings: Settings) -> str:
    found = hashlib.sha256()
    for section in (settings.root.model_copy(update={"device": []}), *settings.devices):
        found.update(section.model_dump_json().encode() + b"\n")
    return found.hexdigest()


def _file_of(document: Document) -> TomlFile:
    try:
        return TomlFile(Path(document.name), document.settings)
    except SettingsError as error:
        raise Rejected(Code.SCHEMA, str(error)) from error

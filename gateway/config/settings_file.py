"""Reading the configuration: a TOML file in, settings out, or all its faults at once.

A profile (a Modbus register map) is a file of its own, found by name in ``profiles/`` beside the configuration,
then among those that came with polegate. It is validated where a device names it; a fault in it is told at its own
line.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from drivers.contract import NAME_PATTERN, Asked, Driver, Name, OnPort
from gateway.config import agreement, driver_index, faults
from gateway.config.faults import Fault, Findings, NotProvisioned, SettingsError, mean, show
from gateway.config.settings import PortSettings, Root, Settings
from gateway.config.toml_file import Source, TomlFile, sections, tables
from gateway.config.toml_text import Path as Place
from gateway.config.toml_text import key_text, quoted

PROFILE = "profile"
DEVICE = "[[device]]"
HOMES = faults.homes(Root, Asked)
ONE_OF = {key: f"is not a known key here; it is one of {header}" for key, header in HOMES.items()}


def load(path: Path) -> Settings:
    """Read a configuration. Raises SettingsError with every fault there is."""
    return settings_of(TomlFile(path))


def settings_of(file: Source) -> Settings:
    """Validate a configuration. Raises SettingsError with every fault there is."""
    if not file.content:
        text = 'holds no setting; the least is [pole] with its "id" and [uplink] with its "url"'
        raise NotProvisioned([file.fault((), text)])
    found = Findings(file.name)
    root = None
    try:
        root = Root.model_validate(file.content)
    except ValidationError as error:
        found.add(file.fault(place, text) for place, text in faults.from_pydantic(error, Root, ONE_OF))
    devices = list(_Devices(file, found))
    ports = root.port if root else _sound_ports(file)
    found.add(agreement.of_names(file, _has_port))
    found.add(agreement.of_buffer(file))
    found.add(agreement.of_ports(file, devices, ports))
    if not found.faults:
        found.add(_left_out(file, {index for index, _ in devices}))
    if found.faults or root is None:
        raise SettingsError(found.faults)
    warnings = tuple(agreement.warnings(file, devices, root))
    return Settings(root, tuple(device for _, device in devices), warnings)


def profile_folders(beside: Path | None) -> list[Path]:
    """Return where profiles are looked for: beside the configuration, beside the code, where we are installed."""
    own = Path(__file__).resolve().parents[2] / "config" / "profiles"  # of the checkout, or of this release
    folders = [own, Path(sys.prefix) / "share" / "polegate" / "profiles"]
    return [beside / "profiles", *folders] if beside else folders


def profile(name: str, beside: Path | None) -> TomlFile:
    """Find a profile by name. Raises KeyError with a sentence, SettingsError."""
    known = profile_names(beside)
    if name not in known:
        hint = mean(name, known)
        own = "" if hint.endswith("?") or beside is None else f"; your own goes into {beside / 'profiles'}"
        raise KeyError(f"profile {quoted(name)} does not exist{hint}{own}")
    return TomlFile(next(path for folder in profile_folders(beside) if (path := folder / f"{name}.toml").is_file()))


def profile_names(beside: Path | None) -> set[str]:
    """Return the names of all profiles there are."""
    return {path.stem for folder in profile_folders(beside) for path in folder.glob("*.toml") if path.is_file()}


def _has_port(driver: str) -> bool:
    return driver in driver_index.names() and issubclass(driver_index.driver(driver), OnPort)


def _left_out(file: Source, read: set[int]) -> Iterator[Fault]:
    """Blame each [[device]] that is none, where nothing else is wrong: the pole has all that stand in the file."""
    for index, section in enumerate(sections(file, "device")):
        if index not in read:
            text = f"driver {show(section['driver'])} makes no device of it and tells no fault; ask who made it"
            yield file.fault(("device", index), text)


def _sound_ports(file: Source) -> dict[str, PortSettings]:
    """Return the [port] sections that are sound, where other sections of the file are not."""
    ports = {}
    for name, section in tables(file, "port").items():
        try:
            ports[name] = PortSettings.model_validate(section)
        except ValidationError:
            continue  # told already
    return ports


class _AnyDevice(BaseModel):
    """What can be told of a [[device]] whose driver is not known."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: Name
    dataset: Name | None = None


class _Devices:
    """The sound [[device]] sections with their indices; what is wrong with the others goes to ``found``."""

    def __init__(self, file: Source, found: Findings) -> None:
        self._file = file
        self._found = found
        self._files: dict[str, TomlFile] = {}
        self._profiles: dict[str, object] = {}  # as in the file, then as a model; None: no good, and told

    def __iter__(self) -> Iterator[tuple[int, Driver]]:
        for index, section in enumerate(sections(self._file, "device")):
            if isinstance(section, dict):
                device = self._device(("device", index), section)
                if isinstance(device, Driver):
                    yield index, device

    def _device(self, place: Place, section: Mapping[str, Any]) -> BaseModel | None:
        model = self._model(place, section)
        content = dict(section)
        name = section.get(PROFILE) if PROFILE in model.model_fields else None
        if name is not None:
            content[PROFILE] = self._profile(place, name)
        try:
            device = model.model_validate(content)
        except ValidationError as error:
            self._blame(place, section, model, error)
            return None
        if name is not None:
            self._profiles[name] = getattr(device, PROFILE)
        return device

    def _model(self, place: Place, section: Mapping[str, Any]) -> type[BaseModel]:
        known, driver = driver_index.names(), section.get("driver")
        if isinstance(driver, str) and driver in known:
            return driver_index.driver(driver)
        if isinstance(driver, str):
            text = f"driver {show(driver)} does not exist{mean(driver, known)}"
        elif driver is None:
            text = f'key "driver" is missing{mean("", known)}'
            for key in section:
                if (hint := mean(key, ["driver"])).endswith("?"):
                    self._found.add([self._file.fault((*place, key), f"{quoted(key)} is not a known key{hint}")])
        else:
            text = f'"driver" must be a text in quotes, not {show(driver)}'
        self._found.add([self._file.fault((*place, "driver"), text)])
        return _AnyDevice

    def _profile(self, place: Place, name: object) -> object:
        """Return what a device names as its profile; None where that is no good, which is told."""
        if not isinstance(name, str):
            text = f'"{PROFILE}" must be a text in quotes, not {show(name)}'
            self._found.add([self._file.fault((*place, PROFILE), text)])
            return None
        if name not in self._profiles:
            try:
                self._files[name] = profile(name, self._file.folder)
            except KeyError as error:
                self._found.add([self._file.fault((*place, PROFILE), error.args[0])])
                return None
            except SettingsError as error:
                self._found.add(error.faults)
                self._profiles[name] = None
            else:
                self._profiles[name] = self._files[name].content
        return self._profiles[name]

    def _blame(self, place: Place, section: Mapping[str, Any], model: type[BaseModel], error: ValidationError) -> None:
        """Tell faults at the lines they stand in: in the section, or in the profile it names."""
        port, has_port = section.get("port"), issubclass(model, OnPort)
        header = f"[port.{key_text(port) if isinstance(port, str) else 'NAME'}]"
        own = model.model_fields  # such a key is told only of a section in the profile
        elsewhere = {key: told for key, told in ONE_OF.items() if key in own or HOMES[key] != DEVICE}
        if has_port:
            elsewhere |= dict.fromkeys(PortSettings.model_fields, f"belongs in {header}")
        name = section.get(PROFILE)
        is_read = isinstance(name, str) and self._profiles.get(name) is not None
        for loc, text in faults.from_pydantic(error, model, elsewhere):
            if loc[:1] == (PROFILE,) and name is not None:
                if is_read:
                    self._found.add([self._files[name].fault(loc[1:], text)])
            elif has_port and loc == ("port",) and isinstance(port, str) and not re.fullmatch(NAME_PATTERN, port):
                continue  # a section of that name is blamed for it, or is missing
            else:
                self._found.add([self._file.fault(place + loc, text)])

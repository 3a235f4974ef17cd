"""Reading the configuration: a TOML file in, settings out, or all its faults at once.

A profile (a Modbus register map) is a file of its own, found by name in ``profiles/`` beside the configuration,
then among those that came with polegate. It is validated where a device names it; a fault in it is told at its own
line.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from drivers.contract import Driver, OnPort
from gateway import agreement, driver_index, faults
from gateway.faults import Fault, SettingsError, mean
from gateway.settings import Root, Settings
from gateway.toml_file import TomlFile
from gateway.toml_text import Path as Place

PROFILE = "profile"


def load(path: Path) -> Settings:
    """Read a configuration. Raises SettingsError with every fault there is."""
    file = TomlFile(path)
    found: list[Fault] = []
    root = None
    try:
        root = Root.model_validate(file.content)
    except ValidationError as error:
        for place, text in faults.from_pydantic(error, Root, "the file"):
            found.append(file.fault(place, _named(place, text)))
    devices = []
    for index, section in enumerate(file.sections("device")):
        if isinstance(section, dict):
            try:
                devices.append((index, _device(file, index, section)))
            except SettingsError as error:
                found += error.faults
    found += agreement.of_names(file, _has_port)
    if root is not None:
        found += agreement.of_ports(file, devices, root.port)
    if found or root is None:
        raise SettingsError(found)
    warnings = tuple(agreement.warnings(file, devices, root.port))
    return Settings(root, tuple(device for _, device in devices), warnings)


def profile_folders(beside: Path | None) -> list[Path]:
    """Return where profiles are looked for: beside the configuration, where we are installed, in the checkout."""
    own = Path(__file__).resolve().parent.parent / "config" / "profiles"
    folders = [Path(sys.prefix) / "share" / "polegate" / "profiles", own]
    return [beside / "profiles", *folders] if beside else folders


def profile(name: str, beside: Path | None) -> TomlFile:
    """Find a profile by name. Raises KeyError with a sentence, SettingsError."""
    for folder in profile_folders(beside):
        if (path := folder / f"{name}.toml").is_file():
            return TomlFile(path)
    raise KeyError(f'profile "{name}" does not exist{mean(name, profile_names(beside))}')


def profile_names(beside: Path | None) -> set[str]:
    """Return the names of all profiles there are."""
    return {path.stem for folder in profile_folders(beside) for path in folder.glob("*.toml")}


def _has_port(driver: str) -> bool:
    return driver in driver_index.names() and issubclass(driver_index.driver(driver), OnPort)


def _named(place: Place, text: str) -> str:
    """Call a fault of the file by its section."""
    if place[:1] in {("port",), ("dataset",)} and len(place) > 1:
        return text.replace("the file", f"[{place[0]}.{place[1]}]", 1)
    return text.replace("the file", f"[{place[0]}]", 1) if len(place) > 1 else text


def _device(file: TomlFile, index: int, section: Mapping[str, Any]) -> Driver:
    place: Place = ("device", index)
    what = f'[[device]] "{section["id"]}"' if isinstance(section.get("id"), str) else f"[[device]] number {index + 1}"
    name = section.get("driver")
    if not isinstance(name, str):
        text = f'{what}: key "driver" is missing{mean("", driver_index.names())}' if name is None else None
        raise SettingsError([file.fault((*place, "driver"), text or f'{what}: "driver" must be a text in quotes')])
    try:
        model = driver_index.driver(name)
    except KeyError:
        text = f'{what}: driver "{name}" does not exist{mean(name, driver_index.names())}'
        raise SettingsError([file.fault((*place, "driver"), text)]) from None
    profile_file = None
    content = dict(section)
    if PROFILE in model.model_fields and isinstance(section.get(PROFILE), str):
        try:
            profile_file = profile(section[PROFILE], Path(file.name).parent)
        except KeyError as error:
            raise SettingsError([file.fault((*place, PROFILE), f"{what}: {error.args[0]}")]) from None
        content[PROFILE] = profile_file.content
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise SettingsError(_blame(file, place, profile_file, faults.from_pydantic(error, model, what))) from error


def _blame(
    file: TomlFile,
    place: Place,
    profile_file: TomlFile | None,
    found: Iterable[tuple[Place, str]],
) -> Iterator[Fault]:
    """Tell a fault at the line it stands in: the device's section, or the profile it names."""
    for loc, text in found:
        if profile_file is not None and loc[:1] == (PROFILE,):
            yield profile_file.fault(loc[1:], text)
        else:
            yield file.fault(place + loc, text)

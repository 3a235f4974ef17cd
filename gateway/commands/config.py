"""``polegate config show``: what is in force on a pole, and where each key is from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gateway.commands.check import FILE, report
from gateway.config.faults import SettingsError
from gateway.config.layers import Key, dotted
from gateway.config.toml_file import read
from gateway.config.toml_text import in_toml
from gateway.remote.beside import in_force
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import LOCAL, State
from gateway.remote.settings_layers import Configuration


@click.group("config")
def command() -> None:
    """Show what is in force on this pole."""


@command.command("show")
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--origin", is_flag=True, help="Tell for each key where it is from, and for all keys that are not set.")
def show(path: Path, *, origin: bool) -> int:
    """Print the configuration that is in force: the file, and what operators and overrides lay over it.

    SHADOWED: the file sets the key, and a document sets it otherwise. PINNED: a document sets it, and the file pins
    it. OVERRIDDEN: a technician set it for some hours.

    Exit code 0: printed. 78: the configuration has faults.
    """
    try:
        folder, state, found, _ = in_force(path)
    except SettingsError as error:
        return report(error.faults)
    for line in (*_told(folder, state, path), *([f"left out: {found.trouble}"] if found.trouble else [])):
        click.echo(f"# {line}")
    for key, value, place in sorted(_keys(found, origin=origin), key=lambda row: tuple(map(str, row[0]))):
        click.echo(f"{dotted(key)} = {in_toml(value)}" + (f"  # {place}" if origin else ""))
    return 0


def _told(folder: ConfigFolder, state: State, path: Path) -> Iterator[str]:
    if state.trial:
        yield f"{state.trial.stream} seq {state.trial.seq} is being tried and not shown here"
    for name, standing in state.streams.items():
        what = f"{path} as it is now" if name == LOCAL else f"{name} seq {standing.seq}"
        if standing.fate:
            yield f"{what} did not come into force: {standing.fate.name}: {standing.why}"
        elif standing.waits and not (state.trial and state.trial.sha == standing.sha):
            yield f"{what} waits"
    local = state.of(LOCAL)
    text = folder.document(local.active)
    if text is not None and not local.waits and not local.fate and text != read(path).encode():
        yield f"{path} was edited since; it is tried when the gateway reads it"


def _keys(found: Configuration, *, origin: bool) -> Iterator[tuple[Key, Any, str]]:
    drift: dict[Key, list[str]] = {}
    for each in found.merged.drift:
        drift.setdefault(each.key, []).append(each.standing)
    for key, layer in found.merged.origin.items():
        words = "".join(f"; {standing}" for standing in drift.get(key, ()))
        yield key, layer.entries[key].value, f"{layer.place(key)}{words}"
    if origin:
        for key, value in _defaults(found):
            pinned = "".join(f"; {standing}" for standing in drift.get(key, ()))
            yield key, value, f"default{pinned}"


def _defaults(found: Configuration) -> Iterator[tuple[Key, Any]]:
    """Find what no layer sets."""
    known = set(found.merged.origin)
    sections: list[tuple[Key, Mapping[str, Any]]] = [((), found.settings.root.model_dump(exclude={"device"}))]
    sections += [(("device", device.id), device.model_dump()) for device in found.settings.devices]
    while sections:
        above, section = sections.pop()
        for name, value in section.items():
            key = (*above, name)
            if key in known or value is None:
                continue
            if isinstance(value, dict):
                sections.append((key, value))
            else:
                yield key, value

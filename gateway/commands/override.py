"""``polegate override``: set one key for some hours, above every document, and say why."""

from pathlib import Path

import click
from pydantic import ValidationError

from gateway.commands.check import EX_CONFIG, FILE, report
from gateway.config import layers
from gateway.config.faults import SettingsError, from_pydantic, mean
from gateway.config.layers import dotted
from gateway.config.settings import UNIT_S
from gateway.config.settings_file import load
from gateway.config.toml_text import in_toml
from gateway.host.clock import Clock
from gateway.remote.beside import NS, in_force, live
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.override import Override

EX_CANTCREAT = 73  # sysexits.h
LONGEST_S = 7 * 86_400
AS_IN = "write it as in device.meter.every"

config = click.option("--config", "path", metavar="FILE", required=True, type=FILE, help="The configuration file.")


class Duration(click.ParamType[int]):
    """``30m``, ``4h`` or ``2d``, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        text = str(value)
        if not (text[:-1].isdecimal() and text[-1] in UNIT_S and int(text[:-1])):
            self.fail(f"{text} is no duration; write 30m, 4h or 2d", param, ctx)
        return int(text[:-1]) * UNIT_S[text[-1]]


@click.group("override")
def command() -> None:
    """Set a key of this pole for some hours, above what operators send."""


@command.command("set")
@click.argument("key")
@click.argument("value")
@click.option(
    "--for", "seconds", metavar="4h", required=True, type=Duration(), help="How long: 30m, 4h, 2d; 7d at most."
)
@click.option("--why", required=True, help="What it is for; operators read it.")
@config
def set_(key: str, value: str, seconds: int, why: str, path: Path) -> int:
    """Set KEY to VALUE, as in device.meter.every 2.0. It ends by itself.

    Exit code 0: set. 64: the command is wrong. 73: it cannot be written. 78: it does not fit the configuration.
    """
    if seconds > LONGEST_S:
        raise click.UsageError("an override lasts 7d at most; what is to stay belongs into the file")
    clock = Clock()
    now = clock.now() / NS
    try:
        place = layers.key_of(key)
        layers.setting(key, value)
    except ValueError:
        value, place = in_toml(value), _key(key)  # a shell takes the quotes away
    if place[0] == "device" and len(place) < len(("device", "ID", "KEY")):
        raise click.UsageError(f"{key} is no key of a device; {AS_IN}")
    try:
        override = Override(
            key=dotted(place),
            value=value,
            why=why,
            boot=clock.boot,
            until_boottime=now + seconds,
            until=now + clock.utc_offset() / NS + seconds,
        )
    except ValidationError as error:
        ((_, text),) = from_pydantic(error, Override)
        raise click.UsageError(text.replace('"why"', "--why", 1)) from None
    if layers.is_of_the_pole(place):
        click.echo(f"{dotted(place)} is set in {path} only", err=True)
        return EX_CONFIG
    try:
        folder, _, found, _ = in_force(path, override)
    except SettingsError as error:
        return report(error.faults)
    if place[0] == "device" and not any(device.id == place[1] for device in found.settings.devices):
        known = [device.id for device in found.settings.devices]
        click.echo(f"there is no device {place[1]}{mean(str(place[1]), known)}", err=True)
        return EX_CONFIG
    if found.trouble:
        click.echo(found.trouble, err=True)
        return EX_CONFIG
    return _keep(folder, [*(each for each in live(folder, Clock()) if each.key != override.key), override])


@command.command("end")
@click.argument("key")
@config
def end(key: str, path: Path) -> int:
    """End the override of KEY before its time.

    Exit code 0: ended. 1: there is none. 73: it cannot be written. 78: the configuration has faults.
    """
    try:
        folder = ConfigFolder(load(path).root.state)
        found = live(folder, Clock())
    except SettingsError as error:
        return report(error.faults)
    except ValueError as error:
        click.echo(f"{error}; remove it", err=True)
        return EX_CONFIG
    left = [each for each in found if each.key != dotted(_key(key))]
    if len(left) == len(found):
        click.echo(f"there is no override of {key}", err=True)
        return 1
    return _keep(folder, left)


def _key(text: str) -> layers.Key:
    try:
        return layers.key_of(text)
    except ValueError as error:
        raise click.UsageError(f"{text} is no key; {AS_IN}") from error


def _keep(folder: ConfigFolder, overrides: list[Override]) -> int:
    try:
        folder.keep_overrides(overrides)
    except OSError as error:
        click.echo(f"the override cannot be written: {error}; try sudo", err=True)
        return EX_CANTCREAT
    return 0

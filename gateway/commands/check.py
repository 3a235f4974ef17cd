"""``polegate check``: every fault of a configuration file at once."""

from collections.abc import Sequence
from pathlib import Path

import click

from gateway.config.faults import Fault, SettingsError
from gateway.config.settings_file import load
from gateway.remote import drift
from gateway.remote.beside import NotReadable, in_force

EX_CONFIG = 78  # sysexits.h
END_OVERRIDE = "polegate override end KEY --config FILE"
FILE = click.Path(path_type=Path, readable=False)  # what cannot be read is our fault to tell, not one of the command


@click.command("check")
@click.argument("path", metavar="FILE", type=FILE)
def command(path: Path) -> int:
    """Find every fault of the configuration FILE, and print each with its line and the next step.

    A warning is what may be meant so, and may be a mistake. On a pole that operators configure it is also what has no
    effect, because a document, a pin or an override says otherwise. Nothing is opened, sent or written.

    Exit code 0: no fault. 78: faults.
    """
    try:
        settings = load(path)
        warnings = [*settings.warnings, *(_without_effect(path))]
    except SettingsError as error:
        return report(error.faults)
    report(warnings, "warning: ")
    click.echo(f"{path}: {_count(settings.devices, 'device')}, {_count(warnings, 'warning')}, no fault")
    return 0


def _without_effect(path: Path) -> list[Fault]:
    """Find what is written in vain, with the file as it is now. Raises SettingsError."""
    try:
        found, overrides = in_force(path, edited=True)[2:]
    except NotReadable as error:
        return [Fault(str(path), 0, f"was checked alone, without what lies over it: {error}")]
    left_out = f"the overrides are left out, since they do not fit any more: {found.trouble}; {END_OVERRIDE}"
    return [*drift.told(found, overrides), *([Fault(str(path), 0, left_out)] if found.trouble else [])]


def report(faults: Sequence[Fault], kind: str = "") -> int:
    """Print faults, or warnings, and return the exit code of a configuration that has them."""
    for fault in faults:
        click.echo(f"{kind}{fault}", err=True)
    return EX_CONFIG


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things) or 'no'} {name}{'' if len(things) == 1 else 's'}"

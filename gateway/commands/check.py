"""``polegate check``: every fault of a configuration file at once."""

from collections.abc import Sequence
from pathlib import Path

import click

from gateway.faults import Fault, SettingsError
from gateway.settings_file import load

EX_CONFIG = 78  # sysexits.h; systemd does not start the service again after it


@click.command("check")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
def command(path: Path) -> int:
    """Find every fault of a configuration FILE; exit 78 where there is one."""
    try:
        settings = load(path)
    except SettingsError as error:
        return report(error.faults)
    report(settings.warnings, "warning: ")
    click.echo(f"{path}: {len(settings.devices)} devices, no fault")
    return 0


def report(faults: Sequence[Fault], kind: str = "") -> int:
    """Print faults, or warnings, and return the exit code of a configuration that has them."""
    for fault in faults:
        click.echo(f"{kind}{fault}", err=True)
    return EX_CONFIG

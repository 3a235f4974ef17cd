"""``polegate run``: the gateway."""

import asyncio
import faulthandler
import os
import sys
from pathlib import Path

import click

from gateway import app
from gateway.commands import run_wait
from gateway.commands.check import FILE, report
from gateway.config.faults import NotProvisioned, SettingsError
from gateway.config.settings_file import load
from gateway.host import log, release
from gateway.host.notify import notify
from gateway.remote.config_folder import InUse
from gateway.store.pack_disk import BufferUnusable

EX_CANTCREAT = 73  # sysexits.h


@click.command("run")
@click.option("--config", "path", metavar="FILE", required=True, type=FILE, help="The configuration file.")
def command(path: Path) -> int:
    """Run the gateway until SIGTERM or SIGINT.

    A FILE that was edited is tried, at a start and upon SIGHUP: where the pole does worse, what ran before comes back.
    Upon SIGHUP it ends instead where its input is a terminal, since that is gone then.

    It stops within 5 seconds, and what the broker did not acknowledge is kept for the next run.

    As a service of systemd it goes on with what was in force where FILE has faults. Without that, and without FILE or
    a setting in it, it waits for one, and says so in its status; a file that is put right is taken within seconds, or
    at once with SIGHUP.
    A new release that has not proved healthy does not wait, so that the one before comes back, which may know the file.

    Exit code 73: another gateway has the buffer, or the folder of the configuration. 78: the configuration has faults;
    see polegate check.
    """
    settings = None
    try:
        settings = load(path)
    except SettingsError as error:
        if not run_wait.is_service() or (release.is_on_trial() and not isinstance(error, NotProvisioned)):
            return report(error.faults)
        settings = run_wait.last_good(path)
    log.start()
    faulthandler.enable()  # where it hung, when systemd's watchdog ends it
    runner = asyncio.Runner()
    if settings is None:
        settings = runner.run(run_wait.wait_for(path, notify))
    if settings is None:
        runner.close()
        return 0
    report(settings.warnings, "warning: ")
    try:
        runner.run(app.run(path, settings))
    except (BufferUnusable, InUse) as error:
        click.echo(f"{path}: {error}", err=True)
        return EX_CANTCREAT
    # All is on the disk. A look-up of the broker's name may still hang in a thread, which nothing can end: no use in
    # waiting for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

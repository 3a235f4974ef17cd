"""``polegate version``: which release runs on this pole, which stands by, and which was given up."""

from datetime import UTC, datetime

import click

from gateway.host import release
from gateway.jobs.pole_state import VERSION


@click.command("version")
def command() -> int:
    """Print the version of this program and, where the Debian package keeps releases side by side, which they are.

    A release that does not prove healthy in three starts goes back to the one before by itself. dpkg goes on to name
    the release that was installed last; what runs is the one this command calls current.

    Exit code 0: what was installed last is current. 1: a release was given up, and the one before it runs.
    """
    click.echo(f"polegate {VERSION}")
    there = release.look()
    if not there.current:
        return 0
    click.echo(f"current   {there.current}{_trial(there)}")
    if there.previous:
        click.echo(f"previous  {there.previous}")
    if there.given_up is None:
        return 0
    lost = there.given_up
    at = datetime.fromtimestamp(lost.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    click.echo(f"given up  {lost.name}, {at}: {lost.why}")
    click.echo(f"dpkg still names {lost.name}. Why it failed: journalctl -u polegate. Then install another release.")
    return 1


def _trial(there: release.Releases) -> str:
    proved = release.is_proved()
    if not there.starts or proved:
        return ""
    unsure = "" if proved is False else "; as root: whether it has proved healthy since"
    return f", on trial: start {there.starts} of 3{unsure}"

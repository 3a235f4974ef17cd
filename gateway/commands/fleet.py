"""``polegate fleet``: the operator's side of configuration over the air.

Keys stay in files on his machine: ``sign`` and ``rollout`` read them, and only signatures leave it. ``sign`` needs no
broker, so it can run where there is no network.
"""

import click

from gateway.commands.fleet_publish import publish
from gateway.commands.fleet_revoke import revoke
from gateway.commands.fleet_rollout import rollout
from gateway.commands.fleet_sign import keygen, sign, verify
from gateway.commands.fleet_status import status


@click.group("fleet")
def command() -> None:
    """Make keys, sign what poles are to take, bring it to them, and see what became of it."""


for each in (keygen, sign, verify, publish, status, rollout, revoke):
    command.add_command(each)

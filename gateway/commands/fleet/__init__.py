"""``polegate fleet``: the operator's side of configuration over the air.

Keys stay in files on his machine: ``sign`` and ``rollout`` read them, and only signatures leave it. ``sign`` needs no
broker, so it can run where there is no network.
"""

import click

from gateway.commands.fleet import publish, revoke, rollout, sign, status


@click.group("fleet")
def command() -> None:
    """Make keys, sign what poles are to take, bring it to them, and see what became of it."""


for each in (
    sign.keygen,
    sign.sign,
    sign.verify,
    publish.publish,
    status.status,
    rollout.rollout,
    revoke.revoke,
):
    command.add_command(each)

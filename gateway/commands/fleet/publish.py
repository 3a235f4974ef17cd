"""``polegate fleet publish``: bring to the poles what was signed."""

import time
from pathlib import Path
from typing import Any

import click

from gateway.commands.broker import WHERE, Place, access, made_of
from gateway.commands.check import FILE
from gateway.commands.fleet.shelf import Behind, NotThere, Post, is_there, post, shelf
from gateway.commands.fleet.sign import UNUSABLE, refused, root_in, unusable
from gateway.link.broker import Message
from gateway.remote.trust_root import Root

STEP = "give --username and --password-file, or --cert-file and --key-file"

broker = click.option("--broker", "url", metavar="URL", required=True, help=WHERE)
trusted = click.option(
    "--root", "root_path", metavar="ROOT", required=True, type=FILE, help="The root of trust of the poles, root.json."
)


@click.command("publish")
@click.argument("path", metavar="SIGNED", type=FILE)
@trusted
@broker
@access
@click.option("--replace", is_flag=True, help="Also where what lies there is not signed for ROOT, as after a new root.")
def publish(path: Path, root_path: Path, url: str, *, replace: bool, **more: Any) -> int:  # noqa: ANN401  # of click
    """Publish SIGNED, a document, root of trust or command, where its poles hear it.

    It must be signed by enough keys of ROOT, in time, and newer than what lies there; what lies there already is left.
    A new root of trust is checked against ROOT, the one before it.

    Exit code 0: it lies there. 65: it cannot be used, or is older than what lies there. 69: the broker cannot be
    reached. 77: it does not let you in, or publish.
    """
    place = Place.of(made_of(url, more), "publish", STEP)
    try:
        root = root_in(root_path)
        new = post(path.read_bytes(), root, place.prefix, int(time.time()))
    except UNUSABLE as error:
        return refused(error, path)
    return place.run(bring(place, new, root, replace=replace), f"publish on {new.topic}, or read it")


async def bring(place: Place, new: Post, root: Root, *, replace: bool = False) -> int:
    """Publish it, and return the exit code. Raises UplinkDown, Refused."""
    link = await place.dial()
    try:
        if new.is_command:
            await link.send(Message(new.topic, new.raw))
            click.echo(f"{new.name}: sent on {new.topic}")
            return 0
        async with shelf(link, new.topic) as there:
            if not replace and is_there(there.held, new, root):
                click.echo(f"{new.name} lies on {new.topic} already")
                return 0
            await there.put(new.raw)
        click.echo(f"{new.name}: published on {new.topic}")
    except (Behind, NotThere) as error:
        return unusable(str(error))
    finally:
        await link.close()
    return 0

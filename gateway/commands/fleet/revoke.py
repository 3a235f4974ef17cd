"""``polegate fleet revoke``: take a layer back, by the settings from before under a new number.

Nothing at a pole can be unsaid: a cleared topic changes nothing, and a number that was seen is used up. So to go back
is to go on, to older settings. With the folder of the rollout they are signed already, and no key is needed.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from gateway.commands.broker import Place, access, made_of
from gateway.commands.check import FILE
from gateway.commands.fleet.plan import Plan, Unready, load
from gateway.commands.fleet.publish import STEP, broker, trusted
from gateway.commands.fleet.shelf import NotThere, shelf, signed_document
from gateway.commands.fleet.sign import UNUSABLE, refused, root_in, signed
from gateway.commands.override import Duration
from gateway.config.toml_file import TomlFile, read
from gateway.config.toml_text import quoted
from gateway.remote import document, envelope
from gateway.remote.document import STREAM_PATTERN, WHOLE
from gateway.remote.envelope import CONFIG_TYPE, Envelope
from gateway.remote.remote import topic_of
from gateway.remote.trust_root import Root


@click.command("revoke")
@click.argument("stream")
@click.option("--folder", type=FILE, help="The folder of the rollout that is to be taken back.")
@click.option("--settings", type=FILE, help="The layer to go back to, in TOML; an empty file for none.")
@click.option("--key", "keys", metavar="KEY", multiple=True, type=FILE, help="A private key; may stand again.")
@click.option(
    "--valid", "valid_s", type=Duration(), default="7d", show_default=True, help="How long poles may take it."
)
@trusted
@broker
@access
def revoke(
    stream: str,
    folder: Path | None,
    settings: Path | None,
    keys: Sequence[Path],
    valid_s: int,
    root_path: Path,
    url: str,
    **more: Any,  # noqa: ANN401  # the rest of what says where the broker is, as click has it
) -> int:
    """Take the layer of STREAM back: fleet, group/NAME or pole/NAME.

    \b
      polegate fleet revoke fleet --folder document.rollout --root root.json --broker mqtts://broker.example
      polegate fleet revoke fleet --settings old.toml --key c1 --key c2 --root root.json --broker ...

    With the folder of its rollout the settings from before are published, which were signed with it; where nothing was
    before, an empty layer. With --key they are signed anew, where that is too long ago.

    Exit code 0: published, or there already. 65: something given cannot be used, or what lies at the broker is another
    document. 69: the broker cannot be reached. 77: it does not let you in, or publish. 78: the settings are no TOML,
    or cannot be read.
    """  # noqa: D301  # click keeps the lines behind a backspace as they are
    if (folder is None) == (settings is None):
        raise click.UsageError("say either --folder or --settings")
    if not re.fullmatch(STREAM_PATTERN, stream):
        raise click.UsageError(f"{quoted(stream)} is no stream; write fleet, group/NAME or pole/NAME")
    place = Place.of(made_of(url, more), "revoke", STEP)
    topic = topic_of(stream, place.prefix)
    try:
        root = root_in(root_path)
        plan = load(folder, root) if folder is not None else None
        text = read(settings) if settings is not None else plan.back.document.settings if plan else ""
        TomlFile(settings or Path(), text)  # finds what is no TOML
        way = Way(stream, root, plan, text, keys, valid_s)
        return place.run(_bring(place, topic, way), f"publish on {topic}, or read it")
    except (*UNUSABLE, NotThere, Unready) as error:
        return refused(error)


async def _bring(place: Place, topic: str, way: "Way") -> int:
    link = await place.dial()
    try:
        async with shelf(link, topic) as there:
            raw = way.back_from(there.held)
            if raw is None:
                click.echo(f"what lies on {topic} goes back already")
                return 0
            await there.put(raw)
    finally:
        await link.close()
    name = document.parsed(envelope.read(raw).payload).name
    click.echo(f"{name} is published on {topic}, with the settings from before; polegate fleet status shows who has it")
    return 0


class Way(NamedTuple):
    """The way back.

    Attributes:
        stream: of this layer.
        root: says whose signatures count.
        plan: of the rollout that is taken back; None: there is none.
        text: the settings to go back to.
        keys: sign them, where they are not signed.
        valid_s: how long poles take what is signed now.
    """

    stream: str
    root: Root
    plan: Plan | None
    text: str
    keys: Sequence[Path]
    valid_s: int

    def back_from(self, held: bytes) -> bytes | None:
        """Return what is to be published; None: it lies there. Raises Unready, Rejected, ValueError, OSError."""
        if not held:
            raise Unready(f"nothing lies at the broker for {self.stream}; sign what is to be in force, and publish it")
        there = signed_document(held, self.stream, self.root)
        is_whole = there.rollout is None or there.rollout.permyriad == WHOLE
        if there.settings == self.text and is_whole and there.expires > time.time():
            return None
        if self.plan is None:
            return self._signed(there.seq + 1)
        back = self.plan.back.document
        if back.stream != self.stream or self.plan.find(document.digest(envelope.read(held).payload)) is None:
            raise Unready(f"{there.name} lies at the broker, which is not of that rollout; name a layer: --settings")
        return self.plan.back.raw if back.expires > time.time() else self._signed(back.seq + 1)

    def _signed(self, seq: int) -> bytes:
        if not self.keys:
            raise Unready("that has to be signed; name the keys: --key")
        now = int(time.time())
        content = {
            "stream": self.stream,
            "seq": seq,
            "epoch": self.root.epoch,
            "issued": now,
            "not_before": now,
            "expires": now + self.valid_s,
            "schema": document.SCHEMA,
            "settings": self.text,
        }
        sealed = signed(Envelope(CONFIG_TYPE, document.written(content)), self.keys)
        self.root.must_sign(sealed, document.role_of(self.stream))
        return sealed.written()

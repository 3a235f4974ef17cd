"""``polegate fleet rollout``: bring one layer to a share of the poles first, and to more only while it does well."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from gateway.commands.broker import Place, access, made_of
from gateway.commands.check import FILE
from gateway.commands.fleet.plan import STAGE, Plan, Unready, add_signatures, drawn, laid, load, percent, salt_of
from gateway.commands.fleet.publish import STEP, broker, trusted
from gateway.commands.fleet.reports import poles
from gateway.commands.fleet.shelf import NotThere, signed_document
from gateway.commands.fleet.show import show
from gateway.commands.fleet.sign import UNUSABLE, drafted, refused, root_in
from gateway.commands.fleet.tally import Roll
from gateway.commands.fleet.widen import Terms, Widening
from gateway.commands.override import Duration
from gateway.config.toml_file import TomlFile
from gateway.remote import document, envelope
from gateway.remote.document import WHOLE, Document, Rollout
from gateway.remote.remote import topic_of
from gateway.remote.trust_root import Root
from gateway.remote.verdict import Rejected


class Share(click.ParamType[int]):
    """``5%``, in ten-thousandths."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        try:
            share = Decimal(str(value).strip().removesuffix("%").strip()) * 100
        except InvalidOperation:
            share = Decimal(-1)
        if not (str(value).strip().endswith("%") and 0 <= share <= WHOLE and share == int(share)):
            self.fail(f"{value} is no share; write 0.5%, 5% or 100%", param, ctx)
        return int(share)


class Shares(click.ParamType[tuple[int, ...]]):
    """``1%,10%,100%``."""

    name = "shares"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Read them."""
        shares = tuple(Share().convert(part, param, ctx) for part in str(value).split(","))
        if shares[-1] != WHOLE or shares[0] == 0 or list(shares) != sorted(set(shares)):
            self.fail(f"{value}: each stage is larger than the one before, and the last one is 100%", param, ctx)
        return shares


@click.command("rollout")
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--key", "keys", metavar="KEY", multiple=True, type=FILE, help="A private key; may stand again.")
@trusted
@broker
@access
@click.option("--stages", type=Shares(), default="1%,10%,100%", show_default=True, help="Shares of the poles.")
@click.option(
    "--max-failures", "most", type=Share(), default="5%", show_default=True, help="It stops when more of a stage fail."
)
@click.option(
    "--min-good",
    "least",
    type=Share(),
    default="80%",
    show_default=True,
    help="When the time of a stage is over, so many that are not silent must have it in force.",
)
@click.option(
    "--stage-timeout", "stage_s", type=Duration(), default="1h", show_default=True, help="How long a stage may take."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where what is signed lies; FILE without .toml, with .rollout, if it is not named.",
)
@poles
def rollout(
    *,
    path: Path,
    keys: Sequence[Path],
    root_path: Path,
    url: str,
    stages: tuple[int, ...],
    folder: Path | None,
    named: Sequence[str] | None,
    **more: Any,  # noqa: ANN401  # when a stage is good enough, and how to get into the broker, as click has it
) -> int:
    """Bring the layer in FILE, a document in TOML, to more and more poles, while they do well with it.

    \b
      polegate fleet rollout document.toml --key c1 --key c2 --root root.json --broker mqtts://broker.example

    All documents it may need are signed first and put into a folder: one for each stage, and one with the settings that
    lie at the broker now. When more poles of a stage fail than may, that one is published, and all go back. FILE needs
    no seq. Where the keys are with several people, it ends until all have signed what is in the folder.

    It can be ended at any time. The same command goes on, from what lies at the broker; it needs no key then.

    Exit code 0: published for all, and good; who failed, waits or is silent is told. 1: stopped by failures, and taken
    back. 65: FILE, a key or the folder cannot be used, or somebody else is at work. 69: the broker cannot be reached.
    75: not done; run it again. 77: the broker does not let you in, read or publish. 78: the settings are no TOML, or
    cannot be read.
    """  # noqa: D301  # click keeps the lines behind a backspace as they are
    terms = Terms(more.pop("most") / WHOLE, more.pop("least") / WHOLE, more.pop("stage_s"))
    place = Place.of(made_of(url, more), "rollout", STEP)
    try:
        root = root_in(root_path)
        content = TomlFile(path).content
        draft = drafted({"epoch": root.epoch, **content}, path)
        stream = _stream_of(draft)
        planning = Planning(folder or path.with_suffix(".rollout"), draft, stages, keys, root)
        with show() as shown:
            work = Widening(place, stream, named or (), terms, shown, planning.plan)
            return place.run(work.run(), f"read or publish on {topic_of(stream, place.prefix)}, or read reports")
    except (*UNUSABLE, NotThere, Unready) as error:
        return refused(error, path)


def _stream_of(draft: dict[str, Any]) -> str:
    """Return the stream of a draft, and find what is wrong with it. Raises Rejected, ValueError."""
    found = document.parsed(drawn(draft, [WHOLE], 1, None)[STAGE.format(1)])
    if found.trial.confirm == "server":
        raise ValueError('confirm = "server" is not for a rollout: nobody would confirm thousands of trials')
    return found.stream


class Planning:
    """Makes the plan of a rollout, or reads the one that was made."""

    def __init__(
        self, folder: Path, draft: dict[str, Any], stages: Sequence[int], keys: Sequence[Path], root: Root
    ) -> None:
        """Make it.

        Args:
            folder: where it lies.
            draft: what the document says, but for number and share.
            stages: shares of the poles, in ten-thousandths.
            keys: sign it.
            root: says whose signatures count.
        """
        self._folder = folder
        self._draft = draft
        self._stages = stages
        self._keys = keys
        self._root = root

    def plan(self, held: bytes, roll: Roll) -> Plan:
        """Return the plan, when it is known what lies at the broker and who is there.

        Raises:
            Unready: it cannot begin, or is not signed enough.
            Rejected, ValueError, OSError: something given cannot be used.
        """
        if self._folder.exists():
            return self._going_on(held)
        if not self._keys:
            raise Unready(f"there is no {self._folder} yet, so name the keys that sign it: --key")
        before = self._before(held)
        seq = self._first(before, roll)
        shares = self._worth(salt_of(self._draft, seq), list(roll.members))
        laid(self._folder, drawn(self._draft, shares, seq, before), self._keys)
        return load(self._folder, self._root)

    def _going_on(self, held: bytes) -> Plan:
        if self._keys:
            add_signatures(self._folder, self._keys)
        plan = load(self._folder, self._root)
        first = plan.stages[0].document
        own = self._draft["stream"], self._draft["settings"]
        if (first.stream, first.settings) != own:
            raise Unready(
                f"{self._folder} holds another rollout, {first.name}; finish it, or move it away to begin a new one"
            )
        if held:
            there = self._signed(held)
            sha = document.digest(envelope.read(held).payload)
            if plan.find(sha) is None and there.seq >= first.seq:
                raise Unready(
                    f"{there.name} lies at the broker, which is not of this rollout; move {self._folder} away"
                )
        return plan

    def _before(self, held: bytes) -> Document | None:
        """Return what the fleet goes back to."""
        if not held:
            return None
        found = self._signed(held)
        if found.rollout and found.rollout.permyriad < WHOLE:
            raise Unready(
                f"{found.name} lies at the broker, for {percent(found.rollout.permyriad)} of the poles only: a rollout "
                "that was not finished. Finish it, or go back first: polegate fleet revoke"
            )
        return found

    def _signed(self, held: bytes) -> Document:
        stream = self._draft["stream"]
        try:
            return signed_document(held, stream, self._root)
        except Rejected as error:
            raise Unready(
                f"what lies at the broker for {stream} is not signed for this root of trust: {error.text}; so it is "
                "not known what to go back to. Publish what is to be in force now: polegate fleet publish --replace"
            ) from error

    def _first(self, before: Document | None, roll: Roll) -> int:
        """Return the first number."""
        least = before.seq + 1 if before else 1
        seq: int = self._draft.get("seq", least)
        if seq < least:
            raise Unready(f"seq {seq} is not newer than what lies at the broker; {least} is, or leave it out")
        seen = roll.seen()
        ahead = sum(count for number, count in seen.items() if number >= seq)
        if 2 * ahead > len(roll.members):
            highest = max(seen)
            raise Unready(
                f"{ahead:,} of {len(roll.members):,} poles have seen {self._draft['stream']} seq {highest} already, "
                f"and would refuse seq {seq}. Publish again what they have in force, or begin with seq = {highest + 1}"
            )
        return seq

    def _worth(self, salt: str, members: Sequence[str]) -> list[int]:
        """Leave out stages that would bring it to no pole that is known and not in a smaller one."""
        if not members:
            return list(self._stages)
        kept, last = [], 0
        for share in self._stages:
            taking = sum(Rollout(salt=salt, permyriad=share).takes(pole) for pole in members)
            if taking > last or share == WHOLE:
                kept.append(share)
            last = taking
        if len(kept) == 1 and len(self._stages) > 1 and len(members) > 1:
            raise Unready(
                f"with {len(members)} poles no stage but the last one would have any; name larger ones, as "
                "--stages 25%,100%, or --stages 100% for all at once"
            )
        return kept

"""The folder of a rollout: all that it may publish, numbered and signed before the first of it is published.

It holds ``stage-1.json``, ``stage-2.json`` and so on, the same settings for a larger share of the poles each time, and
``back.json``: the settings from before, under the highest number of all. So

* a rollout that is killed goes on from what lies at the broker, which is one of these, and never uses a number twice;
* the way back is ready before it is needed, also where nobody who may sign is there;
* several people sign one after the other, each on his own machine: the folder goes around, and no key does.

Where the fleet goes back to is what lies at the broker when the rollout begins, if it is signed for the root of trust
and is for all poles; where nothing lies there, an empty layer, so that the layers below it hold again.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.commands.fleet.sign import signed
from gateway.host import durable
from gateway.remote import document, envelope
from gateway.remote.document import WHOLE, Document
from gateway.remote.envelope import CONFIG_TYPE, Envelope
from gateway.remote.trust_root import Root
from gateway.remote.verdict import Rejected

BACK = "back.json"
STAGE = "stage-{}.json"


class Unready(Exception):
    """A rollout cannot begin or go on; the text says why, and the next step."""


@dataclass(frozen=True, slots=True)
class Step:
    """What may be published.

    Attributes:
        path: where it lies.
        raw: as it is published.
        document: what it says.
        sha: what it is known by.
    """

    path: Path
    raw: bytes
    document: Document
    sha: str

    @property
    def share(self) -> str:
        """The share of the poles that takes it, as a person writes it."""
        return percent(self.document.rollout.permyriad if self.document.rollout else WHOLE)


@dataclass(frozen=True, slots=True)
class Plan:
    """A rollout.

    Attributes:
        stages: the smallest share first; the last one is for all.
        back: takes a fleet back to what was before.
    """

    stages: tuple[Step, ...]
    back: Step

    @property
    def stream(self) -> str:
        """The layer."""
        return self.back.document.stream

    @property
    def shas(self) -> frozenset[str]:
        """What the stages are known by."""
        return frozenset(stage.sha for stage in self.stages)

    def find(self, sha: str) -> Step | None:
        """Return the one that is known by this."""
        return next((step for step in (*self.stages, self.back) if step.sha == sha), None)


def percent(permyriad: int) -> str:
    """Write a share."""
    return f"{permyriad / 100:g} %"


def salt_of(draft: Mapping[str, Any], seq: int) -> str:
    """Return what decides who is in a share: its own for each rollout, so that the first are not always the same."""
    own = draft.get("rollout")
    return str(own["salt"]) if isinstance(own, dict) and "salt" in own else f"{draft['stream']} {seq}"


def drawn(draft: Mapping[str, Any], shares: Sequence[int], seq: int, before: Document | None) -> dict[str, bytes]:
    """Write the documents of a rollout, by the name of their file.

    Args:
        draft: what its document says, but for its number and share.
        shares: ten-thousandths of the poles, rising.
        seq: the first number.
        before: what to go back to; None: nothing was there.

    Raises:
        Rejected: it is no document.
    """
    own = draft.get("rollout")
    terms = {**(own if isinstance(own, dict) else {}), "salt": salt_of(draft, seq)}
    written = {
        STAGE.format(n + 1): document.written({**draft, "seq": seq + n, "rollout": {**terms, "permyriad": share}})
        for n, share in enumerate(shares)
    }
    kept: dict[str, Any] = before.model_dump(by_alias=True, exclude_none=True) if before else {"settings": ""}
    for key in ("rollout", "window", "note"):
        kept.pop(key, None)
    kept["trial"] = {**kept.get("trial", {}), "confirm": "auto"}  # nobody stands by to confirm it
    said = {key: draft[key] for key in ("stream", "epoch", "issued", "expires", "schema")}
    back = {
        **kept,
        **said,
        "seq": seq + len(shares),
        "not_before": draft["issued"],
        "note": f"back to before seq {seq}",
    }
    return {**written, BACK: document.written(back)}


def laid(folder: Path, payloads: Mapping[str, bytes], keys: Sequence[Path]) -> None:
    """Sign the documents of a rollout, and put them into a new folder: all or none. Raises OSError, ValueError."""
    new = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.new")
    new.mkdir(parents=True)
    for name, payload in payloads.items():
        durable.replace(new / name, signed(Envelope(CONFIG_TYPE, payload), keys).written())
    new.rename(folder)
    durable.sync_folder(folder.parent)


def add_signatures(folder: Path, keys: Sequence[Path]) -> None:
    """Sign what lies in a folder by more keys. Raises OSError, ValueError, Unready."""
    for path in _paths(folder):
        durable.replace(path, signed(envelope.read(path.read_bytes(), CONFIG_TYPE), keys).written())


def load(folder: Path, root: Root) -> Plan:
    """Read a rollout. Raises Unready where it is none, or not signed enough; OSError."""
    steps = [_step(path, root) for path in _paths(folder)]
    *stages, back = steps
    last = (0, 0)
    for step in steps:
        rank = step.document.seq, WHOLE + 1
        if step.document.rollout and step is not back:
            rank = step.document.seq, step.document.rollout.permyriad
        if (step.document.stream, step.document.epoch) != (back.document.stream, back.document.epoch) or not (
            rank[0] > last[0] and rank[1] > last[1]
        ):
            raise Unready(f"{step.path} does not go with the others there; use the folder as it was made")
        last = rank
    first = stages[0].document
    if any(stage.document.settings != first.settings or _salt(stage) != _salt(stages[0]) for stage in stages):
        raise Unready(f"the stages in {folder} are not of one rollout; use the folder as it was made")
    return Plan(tuple(stages), back)


def _paths(folder: Path) -> list[Path]:
    stages: list[Path] = []
    while (path := folder / STAGE.format(len(stages) + 1)).exists():
        stages.append(path)
    if not stages or not (folder / BACK).exists():
        raise Unready(f"{folder} is no folder of a rollout; it holds {STAGE.format(1)} and {BACK}. Name another folder")
    return [*stages, folder / BACK]


def _step(path: Path, root: Root) -> Step:
    raw = path.read_bytes()
    try:
        sealed = envelope.read(raw, CONFIG_TYPE)
        found = document.parsed(sealed.payload)
        root.must_sign(sealed, found.role)
    except Rejected as error:
        step = f"polegate fleet sign {path} --key KEY --out {path}"
        raise Unready(f"{path}: {error.text}; who may sign runs, for each file there, {step}") from error
    if found.epoch != root.epoch:
        raise Unready(f"{path}: its epoch is {found.epoch}; that of the root of trust is {root.epoch}")
    return Step(path, raw, found, document.digest(sealed.payload))


def _salt(step: Step) -> str:
    return step.document.rollout.salt if step.document.rollout else ""

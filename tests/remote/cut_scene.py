"""A life of several documents, and what must hold after a cut at any point of it."""

import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from unittest import mock

from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import State
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import Document, digest
from gateway.remote.envelope import read
from gateway.remote.incoming import Incoming
from gateway.remote.plant import Way
from gateway.remote.trust_chain import TrustChain
from gateway.remote.verdict import Code, Verdict
from hil.vclock import run
from tests.remote.disk_model import Disk, Image, images, lay
from tests.remote.operator import NOW, POLE, document, root

MINE = f"pole/{POLE}"
TERMS = {"window_s": 12, "hold_s": 3}
BAD = "bad"
OWN, EDITED = "own", "own, edited"


def wanted(settings: str, seq: int, stream: str = MINE) -> bytes:
    """Return a document."""
    return document(settings, stream=stream, seq=seq, trial=TERMS)


FIRST, SECOND, THIRD, FOURTH = wanted("one", 1), wanted(BAD, 2), wanted("three", 3), wanted("four", 4)
FLEET = wanted("all", 1, "fleet")
ROOTED = root(version=2)


@dataclass(frozen=True)
class Texts:
    """A configuration: the texts of its layers."""

    own: str
    layers: Mapping[str, str]
    pole: str = POLE
    streams: tuple[str, ...] = ("fleet", MINE)
    window_s: float = 30.0
    hold_s: float = 3.0
    patience_s: Mapping[str, float] = field(default_factory=dict)
    drift: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""

    @property
    def fingerprint(self) -> str:
        """The texts."""
        return " | ".join([self.own, *(f"{name} {self.layers[name]}" for name in sorted(self.layers))])


def composed(own: str, documents: Mapping[str, Document]) -> Texts:
    """Lay texts beside one another."""
    return Texts(own, {name: found.settings for name, found in documents.items()})


class Life:
    """A pole with a folder on a disk that notes; its broker answers unless a layer is bad."""

    def __init__(self, folder: Path, disk: Disk, boot: str) -> None:
        self.boot = boot
        self.time = 0.0
        self.applied: list[Texts] = []
        self.applied_at = 0.0
        self.disk = disk
        self.saves: list[tuple[int, int, State]] = []
        self.accepted: list[tuple[int, bytes, str]] = []
        self.trials: list[tuple[int, str]] = []
        self.told: list[tuple[int, Verdict]] = []
        self.folder = ConfigFolder(folder / "config")
        self.commit = ConfirmedCommit(self, self.folder, composed)
        self.incoming = Incoming(self, self.commit.in_force, TrustChain(folder / "trust"), agent="1.0")
        self._note_saves()

    def _note_saves(self) -> None:
        save = self.folder.save

        def noted(state: State) -> None:
            begin = len(self.disk.ops)
            save(state)
            self.saves.append((begin, len(self.disk.ops), state))

        self.folder.save = noted  # type: ignore[method-assign]

    async def start(self, own: str) -> None:
        """Start the gateway."""
        await self.commit.start(own)
        self.incoming.load()
        self.commit.incoming = self.incoming

    def now(self) -> float:
        """Count."""
        return self.time

    def utc(self) -> int | None:
        """Tell the time."""
        return NOW + 10

    async def probe(self, wanted: Texts) -> None:
        """Find nothing."""

    async def apply(self, wanted: Texts) -> None:
        """Run so, and note what is tried."""
        self.applied.append(wanted)
        self.applied_at = self.time
        tried = self.commit.state.trial
        if tried:
            self.trials.append((len(self.disk.ops), tried.sha))

    def way(self) -> Way:
        """Tell since when the link is."""
        if BAD in self.applied[-1].layers.values() or self.time < self.applied_at + 1:
            return Way(None, None)
        return Way(self.applied_at + 1, self.applied_at + 1)

    async def find_way(self) -> None:
        """Find nothing more."""

    def well_in(self, wanted: Texts) -> tuple[str, ...]:
        """Name none."""
        del wanted
        return ()

    def healthy(self) -> tuple[str, ...]:
        """Name none."""
        return ()

    def good_since(self, at: float) -> tuple[str, ...]:
        """Name none."""
        del at
        return ()

    def tell(self, verdict: Verdict) -> None:
        """Note it."""
        self.told.append((len(self.disk.ops), verdict))

    async def hear(self, raw: bytes, stream: str = MINE) -> None:
        """Hear a document, and note whether it was believed."""
        if await self.incoming.hear(stream, raw) in (Code.OK, Code.BUSY):
            self.accepted.append((len(self.disk.ops), raw, stream))

    async def run(self, seconds: int) -> None:
        """Let time pass."""
        for _ in range(seconds):
            self.time += 1
            await self.commit.tick()

    async def whole(self) -> None:
        """Live: documents good and bad, one during the trial of another, a root, an edit, a stop in order."""
        await self.start(OWN)
        await self.run(2)
        await self.hear(FIRST)
        await self.run(8)
        await self.hear(FLEET, "fleet")
        await self.run(8)
        await self.hear(SECOND)
        await self.run(4)
        await self.hear(THIRD)
        await self.commit.stop()
        await self.run(20)
        await self.incoming.hear_root(ROOTED)
        await self.commit.edited(EDITED)
        await self.run(70)
        await self.hear(FOURTH)
        await self.run(8)

    async def comes_up(self) -> None:
        """Start after a cut, and hear what is retained at the broker until all is done."""
        await self.start(EDITED)
        await self.run(2)
        await self.incoming.hear_root(ROOTED)
        await self.hear(SECOND)
        for _ in range(2):
            await self.run(20)
            await self.hear(FLEET, "fleet")
            await self.hear(FOURTH)
            await self.run(90)


def lived(folder: Path, image: Image | None = None, boot: str = "first") -> Life:
    """Live a whole life in a new folder, or come up in one that a cut left."""
    disk = Disk() if image is None else Disk.holding(image)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "trust").mkdir(parents=True)
    (folder / "trust" / "root.json").write_bytes(root())
    lay(image or {}, folder / "config")
    life = Life(folder, disk, boot)
    with disk.noting(), mock.patch("structlog.get_logger"):
        run(life.whole() if image is None else life.comes_up())  # what is for a thread on the spot
    return life


END = f"{EDITED} | fleet all | {MINE} four"


def must_hold(life: Life, cut: int, image: Image, folder: Path, before: Image | None = None) -> None:
    """Check what a cut left: a state that was saved, and all that it needs. ``before``: what the life began with."""
    first = _laid(before or {}, folder).load()
    left = _laid(image, folder)
    state = left.load()
    done = [saved for _, end, saved in life.saves if end <= cut]
    begun = [saved for begin, end, saved in life.saves if begin < cut < end]
    assert state in (done[-1:] or [first]) + begun, "neither the last state nor the one being saved"
    for sha in state.documents:
        assert left.document(sha) is not None, "it points at a document that is not there"
    if state.root > 1:
        assert left.root(state.root) == ROOTED
    for at, raw, stream in life.accepted:
        if at <= cut:
            assert state.of(stream).seq >= seq_of(raw), "it forgot a number"
    for at, sha in life.trials:
        if at == cut:
            assert state.trial, "it is tried and not written down"
            assert state.trial.sha == sha


def _laid(image: Image, folder: Path) -> ConfigFolder:
    shutil.rmtree(folder, ignore_errors=True)
    lay(image, folder)
    return ConfigFolder(folder)


def seq_of(raw: bytes) -> int:
    """Return the number of a document."""
    return [FIRST, SECOND, THIRD, FOURTH].index(raw) + 1 if raw != FLEET else 1


def must_come_up(life: Life, ended: Collection[str], *, cuts: int = 1) -> None:
    """Check what became of it: it ends where it must, nothing bad is in force, nothing that ended is tried again.

    What was cut twice while it was tried may have ended by that.
    """
    by_cuts = [each for each in life.commit.state.streams.values() if each.fate is Code.RB_POWER]
    assert life.applied[-1].fingerprint == END or (cuts > 1 and by_cuts)
    assert life.commit.state.trial is None
    assert BAD not in life.applied[-1].layers.values()
    tried = [each for each in life.applied if BAD in each.layers.values()]
    assert len(tried) <= 1
    assert not (tried and digest(read(SECOND).payload) in ended), "it was taken back and is tried again"


def cuts(life: Life) -> Iterator[tuple[int, Image]]:
    """Return every cut of a life, with every folder it could leave."""
    for cut in range(life.disk.begin, len(life.disk.ops) + 1):
        for image in images(life.disk.ops[:cut]):
            yield cut, image


def ended_before(life: Life, cut: int) -> set[str]:
    """Return what was tried and taken back before a cut, as soon as the disk says that it is not tried any more."""
    states = [state for _, end, state in life.saves if end <= cut]
    return {
        before.trial.sha
        for before, after in pairwise(states)
        if before.trial and after.trial is None and before.trial.sha != after.of(before.trial.stream).active
    }

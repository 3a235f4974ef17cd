"""A power cut without a power switch: what a disk may hold at any moment is built, and opened as the next start would.

A victim (:mod:`tests.store.power_cut_victim`) runs under strace. Its writes, syncs and names are replayed on a model
of a disk, up to a cut. Then the power is gone, and the model says what may be there:

* What a file held when its last fsync or fdatasync returned is there.
* Of what came after, each sector of 512 bytes is by itself old, or as any of the writes since has left it; and the
  file has any of the lengths that it had since. So writes are dropped, torn and reordered.
* A name that was made, taken away or changed is so for certain once its folder was synced, and not before. That holds
  for the folder that the buffer makes as well. It is stricter than ext4, where a synced file brings its new name along.

A fate picks among these: all that was not synced is lost; or all is kept; or, mostly, chance decides, for each file
with another bias. A cut falls on any event after the first commit, all alike. Of the cuts of the real thing each fifth
falls in the making of the file, just before a name or a sync; the control has nothing to lose there.

What was said to be safe before the cut, and was not about to be acknowledged, and did not give way in a commit begun
before the cut, must be there, byte for byte; nothing may be there that was never put; the epoch must be a new one; and
the next start must be able to read, to write and to close, and leave a sound file. Most victims of the real thing go
on with what a cut has left of the last one.

The model is held to the truth: replayed to its end with all kept, it must be the victim's folder, byte for byte.
"""

import asyncio
import contextlib
import copy
import itertools
import random
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from gateway.words.reading import Pack
from tests.store.power_cut_victim import Create, Door, Event, Mark, Rename, Resize, Sync, Unlink, Write, watch

SECTOR = 512
CUTS_EACH = 30  # of one victim
FRESH_EACH = 3  # of so many victims one begins with no file
MAKING_EACH = 5  # of so many cuts one falls in the making of the file
FATES = ("lost", "lost", "kept", *["chance"] * 17)
FILE = "state/buffer.db"  # the buffer makes the folder

T = TypeVar("T")
Image = dict[str, bytes | None]  # what is in a folder; None: a folder in it


@dataclass
class Tally:
    """What many cuts came to. Where something went wrong, the text says at which cut.

    Attributes:
        cuts: how many.
        safe: packs that had to be there, over all cuts.
        evicted: packs that gave way, over all victims.
        restarts: how often a victim began its log again, over all victims.
        lost: packs, and epochs, that had to be there and were not.
        invented: packs that nobody put, or with other bytes.
        unopenable: starts that failed, and files that were left damaged.
        caught: cuts with any of these.
    """

    cuts: int = 0
    safe: int = 0
    evicted: int = 0
    restarts: int = 0
    lost: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    unopenable: list[str] = field(default_factory=list)
    caught: int = 0

    def note(self, events: Sequence[Event]) -> None:
        """Note what a victim did."""
        self.evicted += sum(isinstance(event, Mark) and event.word == "evicted" for event in events)
        writes = [event for event in events if isinstance(event, Write)]
        self.restarts += sum(write.path.endswith("-wal") and not write.offset for write in writes)


def cut_again_and_again(folder: Path, cuts: int, seed: int, *, safe: bool = True, level: str = "OFF") -> Tally:
    """Cut the power that often.

    Args:
        folder: an empty one.
        cuts: how many, spread over victims.
        seed: of all that is random.
        safe: the buffer as it is; else a control, which must be caught.
        level: SQLite's ``synchronous`` in the control.
    """
    source = random.Random(seed)  # noqa: S311  # it picks moments and fates
    tally, left, nothing = Tally(), Left({}, Promise()), Left({}, Promise())
    for victim in range(-(-cuts // CUTS_EACH)):
        if not safe or victim % FRESH_EACH == 0:
            left = nothing
        root = folder / str(victim)
        write_image(root, left.image)
        events = watch(root, root / FILE, source.randrange(1 << 30), "FULL" if safe else level)
        tally.note(events)
        moments = sorted(moments_of(events, min(CUTS_EACH, cuts - tally.cuts), source, making=safe))
        left = Cutter(root, left, tally, source).cut(events, moments)
        shutil.rmtree(root)
    return tally


def moments_of(events: Sequence[Event], count: int, source: random.Random, *, making: bool) -> Iterable[int]:
    """Pick before which events the power goes."""
    first = next(at for at, event in enumerate(events) if isinstance(event, Mark) and event.word == "safe")
    begins = [at for at, event in enumerate(events[:first]) if not isinstance(event, Write | Mark)]
    for number in range(count):
        in_making = making and number % MAKING_EACH == 0
        yield source.choice(begins) if in_making else source.randrange(first + 1, len(events) + 1)


class Fate:
    """Picks what the power cut leaves of what was not synced."""

    def __init__(self, kind: str, source: random.Random) -> None:
        self.kind = kind
        self._source = source
        self._reach = 0.5

    def next_file(self) -> None:
        """Take another bias: nearly nothing, half, or nearly all of the next file reaches the disk."""
        self._reach = self._source.choice((0.0, self._source.random(), 1.0))

    def of(self, versions: Sequence[T]) -> T:
        """Pick one of the versions; the first is what was synced."""
        if self.kind == "kept":
            return versions[-1]
        if self.kind == "lost" or len(versions) == 1 or self._source.random() >= self._reach:
            return versions[0]
        return self._source.choice(versions[1:])


class Inode:
    """A file's bytes, and what may be there of them: each version of a sector, and of the size, since its last sync."""

    def __init__(self, data: bytes = b"") -> None:
        self.now = bytearray(data)
        self._sizes = [len(data)]
        self._sectors: dict[int, list[bytes]] = {}

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes."""
        end = offset + len(data)
        self._change(offset, end, max(len(self.now), end), data)

    def resize(self, size: int) -> None:
        """Make it longer, with zeros, or shorter."""
        self._change(size, max(len(self.now), size), size, b"")

    def sync(self) -> None:
        """Make sure of all that it holds."""
        self._sizes = [len(self.now)]
        self._sectors.clear()

    def after_cut(self, fate: Fate) -> bytes:
        """Return what may be there."""
        size = fate.of(self._sizes)
        image = self.now.ljust(size, b"\0")
        for number, versions in self._sectors.items():
            at = number * SECTOR
            if at < size:
                image[at : at + SECTOR] = fate.of(versions).ljust(SECTOR, b"\0")
        return bytes(image[:size])

    def _change(self, begin: int, end: int, size: int, data: bytes) -> None:
        touched = range(begin // SECTOR, -(-end // SECTOR))
        for number in touched:
            self._sectors.setdefault(number, [self._sector(number)])
        del self.now[size:]
        self.now.extend(bytes(size - len(self.now)))
        self.now[begin : begin + len(data)] = data
        for number in touched:
            self._sectors[number].append(self._sector(number))
        self._sizes.append(size)

    def _sector(self, number: int) -> bytes:
        return bytes(self.now[number * SECTOR : (number + 1) * SECTOR])


class Folder:
    """What names there are in it now, and what for certain."""

    def __init__(self) -> None:
        self.now: dict[str, Node | None] = {}
        self.sure: dict[str, Node | None] = {}


Node = Inode | Folder
Change = Sequence[tuple[Folder, str, Node | None]]  # all or nothing: in this folder this name is now that, or gone


class Disk:
    """Names and files under a folder whose own name is certain."""

    def __init__(self, root: Path, image: Image) -> None:
        self._path = str(root)
        self._root = Folder()
        self._pending: list[Change] = []
        for name, data in sorted(image.items()):
            folder, last = self._place(str(root / name))
            folder.now[last] = folder.sure[last] = Folder() if data is None else Inode(data)

    def apply(self, event: Event) -> None:
        """Do what the victim did."""
        match event:
            case Write(path, offset, data):
                self._file(path).write(offset, data)
            case Resize(path, size, grow):
                file = self._file(path)
                file.resize(max(size, len(file.now)) if grow else size)
            case Sync(path):
                self._sync(self._node(path))
            case Create(path, is_folder):
                folder, name = self._place(path)
                if folder.now.get(name) is None:
                    self._change((folder, name, Folder() if is_folder else Inode()))
            case Unlink(path):
                self._change((*self._place(path), None))
            case Rename(path, to):
                self._change((*self._place(path), None), (*self._place(to), self._node(path)))
            case Mark():
                pass

    def after_cut(self, fate: Fate) -> Image:
        """Return what may be there."""
        fate.next_file()
        happened = [change for change in self._pending if fate.of((False, True))]
        return dict(self._walk(self._root, "", happened, fate))

    def _walk(
        self, folder: Folder, before: str, happened: Sequence[Change], fate: Fate
    ) -> Iterator[tuple[str, bytes | None]]:
        names = folder.sure | {name: node for change in happened for where, name, node in change if where is folder}
        for name, node in names.items():
            if isinstance(node, Inode):
                fate.next_file()
                yield before + name, node.after_cut(fate)
            elif node:
                yield before + name, None
                yield from self._walk(node, f"{before}{name}/", happened, fate)

    def _sync(self, node: Node) -> None:
        if isinstance(node, Inode):
            node.sync()
            return
        done = [change for change in self._pending if any(folder is node for folder, _, _ in change)]
        self._pending = [change for change in self._pending if change not in done]
        for folder, name, what in (part for change in done for part in change):
            folder.sure[name] = what

    def _change(self, *change: tuple[Folder, str, Node | None]) -> None:
        self._pending.append(change)
        for folder, name, node in change:
            folder.now[name] = node

    def _place(self, path: str) -> tuple[Folder, str]:
        before, _, name = path.rpartition("/")
        folder = self._node(before)
        assert isinstance(folder, Folder), path
        return folder, name

    def _node(self, path: str) -> Node:
        if path == self._path:
            return self._root
        folder, name = self._place(path)
        node = folder.now[name]
        assert node, path
        return node

    def _file(self, path: str) -> Inode:
        node = self._node(path)
        assert isinstance(node, Inode), path
        return node


@dataclass
class Promise:
    """What the victims of one file have said, up to a cut: what they put, what of it must be there, the last epoch."""

    put: set[str] = field(default_factory=set)
    safe: set[str] = field(default_factory=set)
    epoch: int = 0

    def hear(self, mark: Mark, later: Iterable[Event]) -> None:
        """Hear what one says, and what it will say of a commit that begins: from then on those packs may be gone."""
        match mark.word:
            case "epoch":
                self.epoch = int(mark.name)
            case "put":
                self.put.add(mark.name)
            case "safe":
                self.safe.add(mark.name)
            case "gone":
                self.safe.discard(mark.name)
            case "barrier":
                marks = (event for event in later if isinstance(event, Mark))
                commit = itertools.takewhile(lambda mark: mark.word != "barrier", marks)
                self.safe -= {mark.name for mark in commit if mark.word == "evicted"}
            case _:
                pass


class Left(NamedTuple):
    """What a cut has left, and what was said before it."""

    image: Image
    promise: Promise


class Cutter:
    """Replays one victim's life and cuts the power in it."""

    def __init__(self, root: Path, left: Left, tally: Tally, source: random.Random) -> None:
        self._root = root
        self._tally = tally
        self._source = source
        self._disk = Disk(root, left.image)
        self._promise = copy.deepcopy(left.promise)

    def cut(self, events: Sequence[Event], moments: Sequence[int]) -> Left:
        """Cut at these moments, which are sorted; return what one of them has left."""
        left = Left({}, Promise())
        for number, (done, moment) in enumerate(itertools.pairwise([0, *moments])):
            self._replay(events[done:moment], events[moment:])
            here = self._cut_here(moment)
            if here and not self._source.randrange(number + 1):  # in the end each is as likely
                left = here
        self._replay(events[moments[-1] :], ())
        self._check()
        return left

    def _replay(self, events: Sequence[Event], later: Sequence[Event]) -> None:
        for at, event in enumerate(events):
            self._disk.apply(event)
            if isinstance(event, Mark):
                self._promise.hear(event, itertools.chain(events[at + 1 :], later))

    def _check(self) -> None:
        """The model and the machine agree on what is there in the end."""
        image = self._disk.after_cut(Fate("kept", self._source))
        found = self._root.rglob("*")
        truth = {str(path.relative_to(self._root)): None if path.is_dir() else path.read_bytes() for path in found}
        assert image == truth, "the model has missed what the victim did"

    def _cut_here(self, moment: int) -> Left | None:
        fate = Fate(self._source.choice(FATES), self._source)
        image = self._disk.after_cut(fate)
        self._tally.cuts += 1
        self._tally.safe += len(self._promise.safe)
        promise, where = self._promise, f"victim {self._root.name}, before event {moment}, {fate.kind}"
        try:
            epoch, found = start_on(self._root.parent / "cut", image)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next start failed
            self._tally.unopenable.append(f"{where}: {error!r}")
            self._tally.caught += 1
            return None
        lost = sorted(promise.safe - found)
        lost += [f"epoch {promise.epoch}"] if epoch <= promise.epoch else []
        invented = sorted(found - promise.put)
        self._tally.lost += [f"{where}: {each}" for each in lost]
        self._tally.invented += [f"{where}: {each}" for each in invented]
        self._tally.caught += bool(lost or invented)
        return None if lost or invented else Left(image, copy.deepcopy(promise))


def start_on(folder: Path, image: Image) -> tuple[int, set[str]]:
    """Start on what a cut has left, and return the epoch and the packs. Raises where that fails, or what follows."""
    write_image(folder, image)
    try:
        found = asyncio.run(look_and_write(folder / FILE))
        with contextlib.closing(sqlite3.connect(folder / FILE)) as sql:
            assert sql.execute("PRAGMA quick_check").fetchall() == [("ok",)], "it leaves a damaged file"
    finally:
        shutil.rmtree(folder)
    return found


async def look_and_write(path: Path) -> tuple[int, set[str]]:
    """Be the next start: look, write one more pack, close."""
    door = Door(path)
    epoch = await door.open()
    names = set(await door.names())
    door.put(Pack("after", epoch, 1, 10, 0, bytes(3000)))
    await door.barrier()
    await door.close()
    return epoch, names


def write_image(folder: Path, image: Image) -> None:
    """Make the folder what the image says."""
    folder.mkdir()
    for name, data in sorted(image.items()):
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)

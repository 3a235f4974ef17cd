"""A victim of a power cut: it lives under strace, and all it does to its folder is read back as events, in order.

``python -m tests.store.power_cut_victim FILE SEED LEVEL`` is the victim: a buffer, and packs that are put, committed,
taken, acknowledged and released at random. The file is small, so that packs give way and the log is used over and over.
It lives twice: there is a clean close between, and none at the end. It says on standard output, each line with a system
call of its own, so that strace has the lines among its writes:

===================  ====================================================
``epoch NUMBER``     the buffer is open
``put NAME``         about to be put
``gone NAME``        about to be acknowledged
``barrier``          about to commit
``evicted NAME``     it gave way in the last commit
``safe NAME``        its commit returned
===================  ====================================================

What gave way is found out by taking all that is there, whatever the rule is by which packs give way. LEVEL is SQLite's
``synchronous``: FULL is the real one. How a Buffer is used stands in ``Door``, and where its settings are in ``main``.
"""

import asyncio
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import structlog

from gateway.store import pack_sql
from gateway.store.buffer import Buffer
from gateway.store.held import Held
from gateway.words.reading import Pack

MAX_BYTES, LARGEST = 1_400_000, 6000  # of the file: a third of a megabyte beside the log; of a pack
STEPS = (30, 140)  # of either life; in the second the log is full, goes into the file, and is begun again
DATASETS = ("air", "noise")
PATIENCE_S = 10.0  # only a damaged file makes a take wait

STRACE = ("strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "1000000", "-e", "signal=none", "-e")
CALLS = (  # with those that the model does not know: it says so when they come; not all machines have those with a ?
    "trace=openat,?open,close,lseek,pwrite64,write,ftruncate,fallocate,fsync,fdatasync,mkdirat,?mkdir,unlinkat,?unlink,"
    "?rmdir,?rename,?renameat,?renameat2,"
    "mmap,writev,pwritev,?pwritev2,sendfile,?copy_file_range,truncate,?link,linkat,?symlink,symlinkat"
)
WHOLE = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
BEGUN = re.compile(r"(\d+) +(.*) <unfinished \.\.\.>")
RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")


class PtraceRefused(Exception):
    """This machine lets nobody trace; the message is strace's."""


class Unmodelled(Exception):
    """The victim changed its folder in a way that the model does not know."""


class Door:
    """A buffer as the victims and the next start use it."""

    def __init__(self, path: Path) -> None:
        self.buffer = Buffer(path, MAX_BYTES)
        self.acknowledge, self.release, self.close = self.buffer.acknowledge, self.buffer.release, self.buffer.close

    async def open(self) -> int:
        """Open it and return the epoch."""
        await self.buffer.open("boot")
        return self.buffer.epoch

    def put(self, pack: Pack) -> None:
        """Put a pack."""
        self.buffer.put(pack, 10.0)

    async def barrier(self) -> None:
        """Return when all that was put is on disk."""
        await self.buffer.barrier()

    async def take(self, limit: int = 1_000_000) -> list[Held]:
        """Take what is there, which may be nothing."""
        if not self.buffer.depth.packs:
            return []
        async with asyncio.timeout(PATIENCE_S):
            return await self.buffer.take(limit)

    @property
    def dropped(self) -> int:
        """How many packs gave way."""
        return self.buffer.depth.dropped

    async def names(self) -> list[str]:
        """Name all packs in it; none may be taken."""
        held = await self.take()
        for each in held:
            self.release(each)
        return [name(each.pack) for each in held]


def name(pack: Pack) -> str:
    """Name a pack by its number and by its bytes."""
    return f"{pack.dataset}/{pack.epoch}/{pack.n}/{len(pack.blob)}/{zlib.crc32(pack.blob):08x}"


def say(line: str) -> None:
    """Say a line."""
    os.write(1, line.encode())


class Victim:
    """Uses one file, and knows what must be in it."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)  # noqa: S311  # it picks what to do
        self._counts: dict[str, int] = {}
        self._epoch = 0
        self._waiting: dict[str, None] = {}
        self._stored: set[str] = set()

    async def live_twice(self, path: Path) -> None:
        """Open it, use it, close it, and once more without a close."""
        door = await self._open(path)
        self._waiting = dict.fromkeys(await door.names())  # what an earlier victim has left
        self._say_safe()
        for _ in range(STEPS[0]):
            await self._step(door)
        dropped = await self._close(door)
        door = await self._open(path)
        await self._name_evicted(door, dropped)
        self._say_safe()
        for _ in range(STEPS[1]):
            await self._step(door)
        os._exit(0)

    async def _open(self, path: Path) -> Door:
        door = Door(path)
        self._epoch = await door.open()
        self._counts = dict.fromkeys(DATASETS, 0)
        say(f"epoch {self._epoch}")
        return door

    async def _close(self, door: Door) -> int:
        """Close it, which commits what waits, and return how many gave way."""
        dropped = -door.dropped
        say("barrier")
        await door.close()
        dropped += door.dropped
        if not dropped:
            self._say_safe()  # else it is only known which gave way once it is open again
        return dropped

    async def _step(self, door: Door) -> None:
        for _ in range(self._source.randrange(1, 6)):
            self._put(door)
        taken = await door.take(self._source.randrange(1, 4))
        if self._source.random() < 0.3:  # some are acknowledged that never see the disk
            self._give_back(door, taken, acknowledged=0.4)
            return
        dropped = -door.dropped
        say("barrier")
        await door.barrier()
        dropped += door.dropped
        self._give_back(door, taken, acknowledged=0.0 if dropped else 0.4)  # they may be among those that gave way
        await self._name_evicted(door, dropped)
        self._say_safe()

    def _put(self, door: Door) -> None:
        dataset, blob = self._source.choice(DATASETS), self._source.randbytes(self._source.randrange(100, LARGEST))
        self._counts[dataset] += 1
        pack = Pack(dataset, self._epoch, self._counts[dataset], 10, 0, blob)
        say(f"put {name(pack)}")
        door.put(pack)
        self._waiting[name(pack)] = None

    def _give_back(self, door: Door, taken: Iterable[Held], acknowledged: float) -> None:
        for held in taken:
            if self._source.random() >= acknowledged:
                door.release(held)
                continue
            say(f"gone {name(held.pack)}")
            door.acknowledge(held)
            self._forget(name(held.pack))

    async def _name_evicted(self, door: Door, dropped: int) -> None:
        there = {*self._stored, *self._waiting}
        evicted = there.difference(await door.names()) if dropped else set()
        assert len(evicted) == dropped, "the buffer has miscounted what gave way"
        for each in sorted(evicted):
            say(f"evicted {each}")
            self._forget(each)

    def _forget(self, name: str) -> None:
        self._waiting.pop(name, None)
        self._stored.discard(name)

    def _say_safe(self) -> None:
        for each in self._waiting:
            say(f"safe {each}")
        self._stored.update(self._waiting)
        self._waiting.clear()


class Write(NamedTuple):
    """Bytes were written to a file."""

    path: str
    offset: int
    data: bytes


class Resize(NamedTuple):
    """A file was made longer or shorter; ``grow``: only longer."""

    path: str
    size: int
    grow: bool = False


class Create(NamedTuple):
    """A name was opened that may have to be made."""

    path: str
    folder: bool = False


class Unlink(NamedTuple):
    """A name was taken away."""

    path: str


class Rename(NamedTuple):
    """A name was changed."""

    path: str
    to: str


class Sync(NamedTuple):
    """An fsync or fdatasync of a file or a folder returned."""

    path: str


class Mark(NamedTuple):
    """The victim said something."""

    word: str
    name: str


Event = Write | Resize | Create | Unlink | Rename | Sync | Mark


def watch(root: Path, path: Path, seed: int, level: str) -> list[Event]:
    """Run a victim on a file in ``root`` and return all that happened in that folder. Raises PtraceRefused."""
    assert shutil.which("strace"), "strace is missing: apt install strace"
    trace = root.with_name("strace")
    victim = (sys.executable, "-m", "tests.store.power_cut_victim", str(path), str(seed), level)
    run = subprocess.run(  # noqa: S603  # our own words
        [*STRACE, CALLS, "-o", str(trace), *victim],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    if run.returncode and re.search(r"ptrace.*not permitted", run.stderr, re.IGNORECASE):
        raise PtraceRefused(run.stderr.strip())
    assert not run.returncode, f"the victim died by itself:\n{run.stderr}"
    with trace.open() as lines:
        return list(Reader(root).events(lines))


class Call(NamedTuple):
    """A system call that succeeded."""

    name: str
    words: list[str]
    result: int


class Reader:
    """Makes events of strace's lines. What touches nothing in ``root`` is passed over."""

    def __init__(self, root: Path) -> None:
        self._inside = "".join(f"\\x{byte:02x}" for byte in os.fsencode(root))
        self._positions: dict[str, int] = {}  # a file that is read and written at one position is not known

    def events(self, lines: Iterable[str]) -> Iterator[Event]:
        """Give what happened, in order."""
        for line in whole(lines):
            if self._inside not in line and " write(1<" not in line:
                continue
            if (match := WHOLE.match(line)) and not match[3].startswith("-"):
                yield from self._event(Call(match[1], match[2].split(", "), int(match[3])))

    def _event(self, call: Call) -> Iterator[Event]:
        words = call.words
        match call.name:
            case "write" if words[0].startswith("1<"):
                word, _, name = data_of(words[1]).decode().partition(" ")
                yield Mark(word, name)
            case "write":
                end = self._positions[words[0]] = self._positions.get(words[0], 0) + call.result
                yield Write(path_of(words[0]), end - call.result, data_of(words[1])[: call.result])
            case "pwrite64":
                yield Write(path_of(words[0]), int(words[3]), data_of(words[1])[: call.result])
            case "ftruncate":
                yield Resize(path_of(words[0]), int(words[1]))
            case "fallocate" if words[1] == "0":
                yield Resize(path_of(words[0]), int(words[2]) + int(words[3]), grow=True)
            case "fsync" | "fdatasync":
                yield Sync(path_of(words[0]))
            case "lseek":
                self._positions[words[0]] = call.result
            case "close":
                self._positions.pop(words[0], None)
            case _:
                yield from self._name_event(call, names_in(words))

    def _name_event(self, call: Call, names: Sequence[str]) -> Iterator[Event]:
        match call.name:
            case "openat" | "open" if "O_APPEND" not in " ".join(call.words):
                yield from self._open(names[0], " ".join(call.words))
            case "mkdir" | "mkdirat":
                yield Create(names[0], folder=True)
            case "unlink" | "unlinkat" | "rmdir":
                yield Unlink(names[0])
            case "rename" | "renameat" | "renameat2":
                yield Rename(*names)
            case "mmap" if "MAP_SHARED" not in call.words[3] or "PROT_WRITE" not in call.words[2]:
                pass
            case _:
                raise Unmodelled(f"{call.name}({call.words})"[:300])

    def _open(self, path: str, flags: str) -> Iterator[Event]:
        if "O_CREAT" in flags:
            yield Create(path)
        if "O_TRUNC" in flags:
            yield Resize(path, 0)


def whole(lines: Iterable[str]) -> Iterator[str]:
    """Join the lines of calls in whose midst another thread was heard; a call is where it returned."""
    begun: dict[str, str] = {}
    for line in lines:
        if match := BEGUN.match(line):
            begun[match[1]] = line[: match.end(2)]
        elif match := RESUMED.match(line):
            yield begun.pop(match[1]) + match[2]
        else:
            yield line


def names_in(words: Iterable[str]) -> list[str]:
    """Return the names that a call was given; one may be relative to the folder before it."""
    folder, names = Path(), []
    for word in words:
        if word.startswith('"'):
            names.append(str(folder / os.fsdecode(data_of(word))))
        elif "<" in word:
            folder = Path(path_of(word))
    return names


def path_of(word: str) -> str:
    """Return the path that strace has put beside a descriptor."""
    return text_of(word[word.index("<") + 1 : word.index(">")])


@cache
def text_of(digits: str) -> str:
    """Return a path from its hexadecimal digits."""
    return os.fsdecode(bytes.fromhex(digits.replace("\\x", "")))


def data_of(word: str) -> bytes:
    """Return the bytes of an argument."""
    assert word.endswith('"'), "strace cut it short"
    return bytes.fromhex(word[1:-1].replace("\\x", ""))


def main() -> None:
    """Be a victim: FILE SEED LEVEL."""
    file, seed, level = sys.argv[1:]
    assert "synchronous=FULL" in pack_sql.PRAGMAS
    pack_sql.PRAGMAS = pack_sql.PRAGMAS.replace("synchronous=FULL", f"synchronous={level}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(Victim(int(seed)).live_twice(Path(file)))


if __name__ == "__main__":
    main()

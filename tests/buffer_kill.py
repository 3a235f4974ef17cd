"""Victims that fill a buffer until they are killed, and one who kills them, looks into the file, and does it again.

``python -m tests.buffer_kill`` makes victims: for each line ``SEED FILE`` it gets it forks one, which is quicker than a
Python from the start. A victim says on standard output what it is about to do and what it has done, a line each:
``pid``, ``put``, ``safe`` (commit returned), ``gone`` (about to be acknowledged); when it is dead, its maker says
``end``.
"""

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from gateway.buffer import Buffer
from gateway.pack_file import PackFile
from gateway.reading import Pack

MAX_BYTES = 64 * 1024 * 1024
DATASETS = ("air", "noise")
MOST_LINES = 400  # a victim lives that long at the most
LONGEST_US = 3000


@dataclass
class Tally:
    """What many kills came to.

    Attributes:
        kills: how many.
        safe: packs that were committed and not acknowledged, over all kills.
        lost: those of them that the file did not have.
        invented: packs in the file that nobody put, or with other bytes.
    """

    kills: int = 0
    safe: int = 0
    lost: set[str] = field(default_factory=set)
    invented: set[str] = field(default_factory=set)


def kill_again_and_again(folder: Path, count: int, seed: int) -> Tally:
    """Kill that many victims at random moments; each fifth starts a new file, the others go on with the last one."""
    source = random.Random(seed)  # noqa: S311  # it picks moments
    tally = Tally()
    put: set[str] = set()
    safe: set[str] = set()
    path = folder
    with Victims() as victims:
        for number in range(count):
            lines = source.randrange(MOST_LINES)
            if number % 5 == 0:
                path = folder / str(number) / "buffer.db"
                put, safe = set(), set()
                lines = 0  # in the middle of making the file
            for line in victims.kill_one(path, source.randrange(1 << 30), lines, source.randrange(LONGEST_US) / 1e6):
                what, _, name = line.partition(" ")
                if what == "put":
                    put.add(name)
                elif what == "safe":
                    safe.add(name)
                elif what == "gone":
                    safe.discard(name)
            found = look(path)
            tally.kills += 1
            tally.safe += len(safe)
            tally.lost |= safe - found
            tally.invented |= found - put
    return tally


class Victims:
    """The maker of victims."""

    def __init__(self) -> None:
        self._maker = subprocess.Popen(
            [sys.executable, "-m", "tests.buffer_kill"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=Path(__file__).parents[1],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It ends when it hears nothing more."""
        self._maker.communicate()

    def kill_one(self, path: Path, seed: int, lines: int, moment: float) -> Iterator[str]:
        """Run a victim, kill it a moment after it said so many lines, and give all that it said."""
        to, says = self._maker.stdin, self._maker.stdout
        assert to is not None
        assert says is not None
        to.write(f"{seed} {path}\n")
        pid = int(says.readline().removeprefix("pid "))
        for heard in itertools.count():
            if heard == lines:
                time.sleep(moment)
                os.kill(pid, signal.SIGKILL)
            line = says.readline().strip()
            if line.startswith("end"):
                assert line == f"end {-signal.SIGKILL}", "it ended by itself"
                return
            yield line


def look(path: Path) -> set[str]:
    """Open the file as the next gateway would and name the packs in it, with what they say."""
    file = PackFile(path, MAX_BYTES)
    file.open("boot")
    try:
        return {name(row.pack) for row in file.read(0, 1_000_000)[0]}
    finally:
        file.close()


def name(pack: Pack) -> str:
    """Name a pack by its number and by its bytes."""
    return f"{pack.dataset}/{pack.epoch}/{pack.n}/{len(pack.blob)}/{hash_of(pack.blob)}"


def hash_of(blob: bytes) -> str:
    """Shorten bytes."""
    return f"{sum(blob[::7]) % 65_536}"


def say(line: str) -> None:
    """Say a line; once this returns it is in the pipe, whatever becomes of the process."""
    os.write(1, f"{line}\n".encode())


async def fill(path: Path, seed: int) -> None:
    """Put, commit, acknowledge, for ever."""
    source = random.Random(seed)  # noqa: S311  # it picks what to do
    buffer = Buffer(path, MAX_BYTES)
    await buffer.open("boot")
    counts = dict.fromkeys(DATASETS, 0)
    waiting: list[str] = []
    while True:
        for _ in range(source.randrange(1, 6)):
            dataset = source.choice(DATASETS)
            counts[dataset] += 1
            pack = Pack(dataset, buffer.epoch, counts[dataset], 10, 0, source.randbytes(source.randrange(100, 8000)))
            say(f"put {name(pack)}")
            buffer.put(pack, 10.0)
            waiting.append(name(pack))
        await buffer.barrier()
        for each in waiting:
            say(f"safe {each}")
        waiting.clear()
        for held in await buffer.take(source.randrange(1, 4)):
            if source.random() < 0.8:
                say(f"gone {name(held.pack)}")
                buffer.acknowledge(held)
            else:
                buffer.release(held)


def make_victims() -> None:
    """Fork one for each line that comes."""
    for line in sys.stdin:
        seed, path = line.strip().split(" ", 1)
        pid = os.fork()
        if not pid:
            say(f"pid {os.getpid()}")
            asyncio.run(fill(Path(path), int(seed)))
        _, status = os.waitpid(pid, 0)
        say(f"end {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    make_victims()

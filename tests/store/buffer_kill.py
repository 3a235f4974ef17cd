"""Victims that accept, seal, commit and acknowledge until they are killed, and one who kills them and looks.

``python -m tests.store.buffer_kill`` makes victims: for each line ``SEED LIFE JOURNAL FILE`` it gets it forks one,
which is quicker than a Python from the start. A victim says on standard output what it is about to do and what it has
done, a line each; when it is dead, its maker says ``end``::

    pid PID
    try D V              about to accept reading V of dataset D; a reading is a number that comes once
    have D V             accepted
    pack D E N V,V,...   about to put pack (E, N) with these readings
    safe D E N           its commit returned
    gone D E N           about to be acknowledged

With a journal every accepted reading is promised to be found again, without one every committed one; unless it was
acknowledged, or the file says that it was evicted.
"""

import asyncio
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from drivers.sds011 import Sds011
from gateway.config.settings import DatasetSettings
from gateway.host.clock import Clock
from gateway.jobs.pack import Packer
from gateway.store.buffer import Buffer
from gateway.store.journal import Journal
from gateway.store.pack_file import PackFile
from gateway.store.pack_sql import WAL_BYTES
from gateway.words.catalogue import Catalogue
from gateway.words.payload import unpacked
from gateway.words.reading import Pack, Reading
from hil.senml import read

MAX_BYTES = WAL_BYTES + 160 * 1024  # some hundred packs: eviction goes on
DATASETS = ("air", "noise")
BOOT = "boot"
SHM = Path("/dev/shm")  # noqa: S108  # the journal lies in RAM
MOST_LINES = 1500  # a victim lives that long at the most
LONGEST_US = 3000
LIFE = 1_000_000  # readings of a life

Name = tuple[str, int, int]
Promise = Literal["accepted", "committed"]


@dataclass
class Tally:
    """What many kills came to.

    Attributes:
        kills: how many.
        accepted: readings, over all kills.
        safe: packs that were committed, over all kills.
        evicted: packs, as the files tell.
        lost: readings that should have been found and were not.
        invented: what was found and nobody had put there.
    """

    kills: int = 0
    accepted: int = 0
    safe: int = 0
    evicted: int = 0
    lost: set[str] = field(default_factory=set)
    invented: set[str] = field(default_factory=set)


@dataclass
class Told:
    """What the victims of one file said."""

    tried: set[str] = field(default_factory=set)
    have: set[str] = field(default_factory=set)
    packs: dict[Name, set[str]] = field(default_factory=dict)
    safe: set[Name] = field(default_factory=set)
    gone: set[Name] = field(default_factory=set)

    def hear(self, line: str) -> None:
        """Take a line."""
        what, dataset, *rest = line.split(" ")
        if what == "try":
            self.tried.add(f"{dataset} {rest[0]}")
        elif what == "have":
            self.have.add(f"{dataset} {rest[0]}")
        elif what == "pack":
            self.packs[dataset, int(rest[0]), int(rest[1])] = {f"{dataset} {v}" for v in rest[2].split(",")}
        elif what == "safe":
            self.safe.add((dataset, int(rest[0]), int(rest[1])))
        elif what == "gone":
            self.gone.add((dataset, int(rest[0]), int(rest[1])))


@dataclass
class Found:
    """What the next gateway finds."""

    packs: dict[Name, set[str]]
    readings: set[str]
    evicted: set[Name]

    def all(self) -> set[str]:
        """Return all readings."""
        return self.readings.union(*self.packs.values())


def kill_again_and_again(folder: Path, count: int, seed: int, *, journal: bool, promise: Promise) -> Tally:
    """Kill that many victims at random moments; each fifth starts a new file, the others go on with the last one.

    Args:
        folder: where the files lie.
        count: of kills.
        seed: of the moments.
        journal: victims have a journal.
        promise: what must be found again.
    """
    source = random.Random(seed)  # noqa: S311  # it picks moments
    tally = Tally()
    told = Told()
    path = ram = folder
    with (
        tempfile.TemporaryDirectory(dir=SHM if SHM.is_dir() else None) as shm,
        Victims(folder / "victims.log") as victims,
    ):
        for number in range(count):
            lines = source.randrange(MOST_LINES)
            if number % 5 == 0:
                path, ram = folder / str(number) / "buffer.db", Path(shm) / str(number)
                ram.mkdir()
                told = Told()
                lines = source.randrange(30)  # in the middle of making the file
            moment = source.randrange(LONGEST_US) / 1e6
            for line in victims.kill_one(path, ram if journal else None, number, lines, moment):
                told.hear(line)
            tally.kills += 1
            judge(told, look(path, ram), tally, promise)
    return tally


def judge(told: Told, found: Found, tally: Tally, promise: Promise) -> None:
    """Compare what was said with what is there."""
    left = told.gone | found.evicted
    excused = set().union(*(readings for name, readings in told.packs.items() if name in left))
    wanted = told.have if promise == "accepted" else set().union(*(told.packs[name] for name in told.safe))
    tally.accepted += len(told.have)
    tally.safe += len(told.safe)
    tally.evicted += len(found.evicted)
    tally.lost |= wanted - found.all() - excused
    tally.invented |= found.all() - told.tried
    tally.invented |= {str(name) for name, readings in found.packs.items() if told.packs.get(name) != readings}


class Victims:
    """The maker of victims."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("w")  # a pipe that nobody reads would hold them up
        self._maker = subprocess.Popen(
            [sys.executable, "-m", "tests.store.buffer_kill"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It ends when it hears nothing more."""
        self._maker.communicate()
        self._log.close()

    def kill_one(self, path: Path, ram: Path | None, life: int, lines: int, moment: float) -> Iterator[str]:
        """Run a victim, kill it a moment after it said so many lines, and give all that it said."""
        to, says = self._maker.stdin, self._maker.stdout
        assert to is not None
        assert says is not None
        to.write(f"{life} {ram or '-'} {path}\n")
        pid = int(says.readline().removeprefix("pid "))
        for heard in itertools.count():
            if heard == lines:
                time.sleep(moment)
                os.kill(pid, signal.SIGKILL)
            line = says.readline().strip()
            if line.startswith("end"):
                assert line == f"end {-signal.SIGKILL}", (
                    f"it ended by itself: {line}: {Path(self._log.name).read_text()}"
                )
                return
            yield line


def look(path: Path, ram: Path) -> Found:
    """Open copies of the files as the next gateway would, and name what is in them."""
    with tempfile.TemporaryDirectory(dir=ram) as copies:
        copy = Path(copies) / path.name
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, copies)
        file = PackFile(copy, MAX_BYTES)
        file.open(BOOT)
        try:
            rows, _, damaged = file.read(0, 1_000_000)
            assert not damaged
            _, losses = file.losses()
        finally:
            file.close()
        if (ram / "journal").exists():
            shutil.copy(ram / "journal", copies)
        kept = Journal(Path(copies), BOOT)
        left = kept.open()
        kept.close()
    # The oldest go, one after the other; between them may lie some that were acknowledged.
    evicted = {(loss.dataset, loss.epoch, n) for loss in losses for n in range(loss.first, loss.last + 1)}
    assert len(evicted) >= sum(loss.packs for loss in losses)
    packs = [*(row.pack for row in rows), *left.packs.values()]
    return Found(
        packs={(pack.dataset, pack.epoch, pack.n): set(values_of(pack)) for pack in packs},
        readings={f"{reading.dataset} {reading.values['pm10']}" for reading in left.readings},
        evicted=evicted,
    )


def values_of(pack: Pack) -> list[str]:
    """Name the readings in a pack, in order."""
    return [f"{pack.dataset} {record.value}" for record in read(unpacked(pack.blob)) if record.name.endswith("pm10")]


def say(line: str) -> None:
    """Say a line; once this returns it is in the pipe, whatever becomes of the process."""
    os.write(1, f"{line}\n".encode())


async def live(path: Path, ram: Path | None, life: int) -> None:
    """Accept, seal, commit, acknowledge, for ever."""
    source = random.Random(life)  # noqa: S311  # it picks what to do
    journal = Journal(ram, BOOT)
    buffer = Buffer(path, MAX_BYTES, journal=journal)
    await buffer.open(BOOT)
    waiting: list[str] = []

    def put(pack: Pack, within: float) -> None:
        name = f"{pack.dataset} {pack.epoch} {pack.n}"
        say(f"pack {name} {','.join(value.split(' ')[1] for value in values_of(pack))}")
        buffer.put(pack, within)
        waiting.append(name)

    device = Sds011(id="dust", driver="sds011", port="x")
    packer = Packer(
        "pole",
        epoch=buffer.epoch,
        after=buffer.after,
        rhythm=lambda _: DatasetSettings(send_every=3600, commit_within=3600),
        catalogue=Catalogue("pole", [device], {}),
        clock=Clock(),
        put=put,
    )
    left = journal.open()
    await buffer.restore(left, lambda _: 10.0)
    for reading in left.readings:
        packer.keep(reading)
    for number in itertools.count(life * LIFE):
        dataset = source.choice(DATASETS)
        padding = source.randbytes(source.randrange(400)).hex()  # so that the file becomes full
        reading = Reading("dust", dataset, number, {"pm10": number, "padding": padding})
        say(f"try {dataset} {number}")
        journal.accept(reading)
        packer.keep(reading)
        say(f"have {dataset} {number}")
        if source.random() < 0.1:
            packer.seal_all()
        if source.random() < 0.03:
            await buffer.barrier()
            for name in waiting:
                say(f"safe {name}")
            waiting.clear()
        if source.random() < 0.05 and buffer.depth.packs:
            for held in await buffer.take(source.randrange(1, 4)):
                if source.random() < 0.5:
                    say(f"gone {held.pack.dataset} {held.pack.epoch} {held.pack.n}")
                    buffer.acknowledge(held)
                else:
                    buffer.release(held)


def make_victims() -> None:
    """Fork one for each line that comes."""
    for line in sys.stdin:
        life, ram, path = line.strip().split(" ", 2)
        pid = os.fork()
        if not pid:
            say(f"pid {os.getpid()}")
            asyncio.run(live(Path(path), None if ram == "-" else Path(ram), int(life)))
        _, status = os.waitpid(pid, 0)
        say(f"end {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    make_victims()

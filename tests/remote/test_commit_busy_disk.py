"""A disk that takes its time: the pole goes on, nothing acts before it is written down, and all comes in its turn."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import State
from gateway.remote.document import digest
from gateway.remote.envelope import read
from gateway.remote.verdict import Code
from tests.remote.cut_scene import EDITED, FLEET, MINE, OWN, ROOTED, SECOND, TERMS, THIRD, Life, Texts
from tests.remote.disk_fault import BusyDisk, busy_disk
from tests.remote.disk_model import Disk
from tests.remote.operator import command, document, root

__all__ = ["busy_disk"]

FIRST = document("one", stream=MINE, trial={**TERMS, "confirm": "server"})
CONFIRM, CANCEL = (command(do, digest(read(FIRST).payload)) for do in ("confirm", "cancel"))
FIRST_ROOT = root()
A_WHILE = 30  # turns of the loop: more than what is not held takes

Do = Callable[["Pole"], Awaitable[Any]]


class Pole(Life):
    """A life on a disk of which nothing is noted, that takes a moment to apply something."""

    def __init__(self, folder: Path, own: str = OWN) -> None:
        super().__init__(folder, Disk(), "first")
        self.own = own
        self.place = folder

    async def apply(self, wanted: Texts) -> None:
        """Run so, a moment later."""
        await asyncio.sleep(0)
        await super().apply(wanted)


class Outcome(NamedTuple):
    """What became of a pole."""

    state: State
    told: list[tuple[str, Code]]
    applied: list[str]


def outcome(pole: Pole) -> Outcome:
    told = [(verdict.stream, verdict.code) for _, verdict in pole.told]
    return Outcome(pole.commit.state, told, [each.fingerprint for each in pole.applied])


def new_pole(folder: Path) -> Pole:
    (folder / "trust").mkdir(parents=True)
    (folder / "trust" / "root.json").write_bytes(FIRST_ROOT)
    return Pole(folder)


async def pole_that(folder: Path, begin: Do) -> Pole:
    """Start a pole, and bring it to where a scene begins."""
    pole = new_pole(folder)
    await pole.start(OWN)
    await pole.run(2)
    await begin(pole)
    return pole


# --- how a pole is ---


async def calm(pole: Pole) -> None:
    """Let nothing wait and nothing be tried."""


async def waits(pole: Pole) -> None:
    """Let a document wait."""
    await pole.hear(FIRST)


async def tried(pole: Pole) -> None:
    """Let it be tried, and all be well; it is not confirmed."""
    await waits(pole)
    await pole.run(8)


async def proven(pole: Pole) -> None:
    """Let it be confirmed."""
    await tried(pole)
    await confirm(pole)


async def lost(pole: Pole) -> None:
    """Let one that is no good be over its time."""
    await pole.hear(SECOND)
    await pole.run(5)
    pole.time += 100


# --- what is done with it ---


async def tick(pole: Pole) -> None:
    await pole.commit.tick()


async def edit(pole: Pole) -> None:
    pole.own = EDITED
    await pole.commit.edited(EDITED)


async def newer(pole: Pole) -> None:
    await pole.hear(THIRD)


async def fleet(pole: Pole) -> None:
    await pole.hear(FLEET, "fleet")


async def rooted(pole: Pole) -> None:
    await pole.incoming.hear_root(ROOTED)


async def confirm(pole: Pole) -> None:
    await pole.commit.command(CONFIRM, retained=False)


async def cancel(pole: Pole) -> None:
    await pole.commit.command(CANCEL, retained=False)


async def stop(pole: Pole) -> None:
    await pole.commit.stop()


WRITES: list[tuple[Do, Do]] = [
    (calm, edit), (calm, newer), (calm, fleet), (waits, tick), (proven, tick), (lost, tick),
    (tried, edit), (tried, newer), (tried, rooted), (tried, confirm), (tried, cancel), (tried, stop),
]  # fmt: skip


def named(do: Do) -> str:
    return getattr(do, "__name__", "")


async def a_while() -> None:
    for _ in range(A_WHILE):
        await asyncio.sleep(0)


def on_disk(pole: Pole) -> State:
    return ConfigFolder(pole.place / "config").load()


@pytest.mark.parametrize(("begin", "do"), WRITES, ids=named)
def test_the_pole_goes_on_and_nothing_acts_before_it_is_written_down(
    tmp_path: Path, busy_disk: BusyDisk, begin: Do, do: Do
) -> None:
    async def scene() -> int:
        for after in itertools.count():
            pole = await pole_that(tmp_path / str(after), begin)
            before = outcome(pole)
            async with busy_disk.held(after) as held:
                job = asyncio.ensure_future(do(pole))
                if not await held.reached(job):
                    return after
                await a_while()
                assert not job.done()
                assert outcome(pole) == before
            await job
            assert outcome(pole) != before
            assert on_disk(pole) == pole.commit.state
        return 0

    assert asyncio.run(scene()) >= 2  # a file and its folder


def test_in_a_whole_life_the_pole_never_waits_for_the_disk(tmp_path: Path, busy_disk: BusyDisk) -> None:
    async def scene() -> None:
        pole = new_pole(tmp_path / "pole")
        async with busy_disk.held(after=10**6):
            await pole.whole()
        assert on_disk(pole) == pole.commit.state

    asyncio.run(scene())


@pytest.mark.parametrize("later", [tick, edit, newer, fleet, rooted, cancel, stop], ids=named)
@pytest.mark.parametrize(("begin", "do"), WRITES, ids=named)
def test_what_comes_while_something_is_written_down_comes_after_it(
    tmp_path: Path, busy_disk: BusyDisk, begin: Do, do: Do, later: Do
) -> None:
    async def scene() -> None:
        pole = await pole_that(tmp_path / "in turn", begin)
        await do(pole)
        await later(pole)
        wanted = outcome(pole)
        for after in itertools.count(0, 2):  # files, each with its folder
            pole = await pole_that(tmp_path / str(after), begin)
            async with busy_disk.held(after) as held:
                job = asyncio.ensure_future(do(pole))
                if not await held.reached(job):
                    return
                another = asyncio.ensure_future(later(pole))
                await a_while()
            await asyncio.gather(job, another)
            assert outcome(pole) == wanted
            assert on_disk(pole) == wanted.state

    asyncio.run(scene())


async def goes_on(pole: Pole) -> Pole:
    await pole.commit.tick()
    return pole


async def ends_in_order(pole: Pole) -> Pole:
    await pole.commit.stop()
    again = Pole(pole.place, pole.own)
    await again.start(pole.own)
    return again


@pytest.mark.parametrize("then", [goes_on, ends_in_order], ids=named)
@pytest.mark.parametrize(("begin", "do"), WRITES, ids=named)
def test_who_is_cancelled_while_he_writes_leaves_nothing_half_done(
    tmp_path: Path, busy_disk: BusyDisk, begin: Do, do: Do, then: Callable[[Pole], Awaitable[Pole]]
) -> None:
    async def scene() -> None:
        pole = await pole_that(tmp_path / "not cancelled", begin)
        await do(pole)
        told = outcome(pole).told
        wanted = outcome(await then(pole))
        for after in itertools.count():
            pole = await pole_that(tmp_path / str(after), begin)
            async with busy_disk.held(after) as held:
                job = asyncio.ensure_future(do(pole))
                if not await held.reached(job):
                    return
                for _ in range(2):  # also where somebody is in a hurry
                    job.cancel()
                    await a_while()
                    assert not job.done()
            await asyncio.wait([job])
            assert job.cancelled()
            assert on_disk(pole) == pole.commit.state
            assert outcome(pole).told == told
            became = outcome(await then(pole))
            assert (became.state, became.applied[-1]) == (wanted.state, wanted.applied[-1])

    asyncio.run(scene())


def test_whose_time_is_over_while_he_writes_is_told_that(tmp_path: Path, busy_disk: BusyDisk) -> None:
    async def impatient(pole: Pole) -> None:
        async with asyncio.timeout(0):
            await pole.hear(THIRD)
            await asyncio.Future()

    async def scene() -> None:
        pole = await pole_that(tmp_path / "pole", calm)
        async with busy_disk.held() as held:
            asyncio.get_running_loop().call_later(0.01, held.free.set)
            with pytest.raises(TimeoutError):
                await impatient(pole)

    asyncio.run(scene())

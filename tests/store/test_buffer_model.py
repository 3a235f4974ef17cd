"""The buffer against a plain model of it: the same random life, and after each step the same content.

The model is a list of what was put and not acknowledged. Both live through puts, acknowledgements, commits, time that
passes, restarts, crashes (the files as they are in that moment, opened by another), links that come while others are
there, datasets that rest and eviction, with a disk that is instant or slow, so that what happens while it writes and
reads is seen as well. Where there is room for all, one dataset is urgent.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.store.buffer import Buffer
from gateway.store.held import Held
from gateway.store.level import SET_ASIDE
from gateway.store.pack_room import URGENT, Terms
from gateway.store.pack_sql import Row
from gateway.words.reading import Pack
from tests.examples import examples
from tests.store.buffer_bench import ROOMY, WAL_BYTES, Key, SlowDisk, key, pack

DATASETS = ("air", "noise", "weather")
SETTLED_S = 0.5  # all that the disk has to do is done by then, however slow it is here
SHM = Path("/dev/shm")  # noqa: S108  # hundreds of lives: fsync need not be real here
TIGHT = WAL_BYTES + 32 * 1024

T = TypeVar("T")


@dataclass
class Kept:
    """What the model knows of a pack that was not acknowledged."""

    pack: Pack
    due: float


class BufferLife(RuleBasedStateMachine):
    """One buffer and its model, through restarts and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="buffer-model-", dir=SHM if SHM.is_dir() else None))
        self.lives = 0
        self.kept: dict[Key, Kept] = {}
        self.safe: set[Key] = set()  # certainly on the disk
        self.put_ever: dict[Key, Pack] = {}
        self.acknowledged: set[Key] = set()
        self.gave_way: set[Key] = set()
        self.aside: set[Key] = set()
        self.resting: set[str] = set()
        self.limited = False
        self.urgent: str | None = None
        self.out: dict[Key, Held] = {}
        self.given: set[Key] = set()  # taken and not released, as the model has it
        self.numbers: dict[str, int] = {}
        self.taking: asyncio.Task[list[Held]] | None = None
        self.commits: set[asyncio.Task[None]] = set()
        self.dropped = 0
        self.epoch = 0

    @initialize(job_s=st.sampled_from((0.0, 0.01)), max_bytes=st.sampled_from((TIGHT, ROOMY)))
    def begin(self, job_s: float, max_bytes: int) -> None:
        """Open the first buffer."""
        self.loop = SlowDisk(job_s)
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.max_bytes = max_bytes
        self.urgent = DATASETS[-1] if max_bytes == ROOMY else None  # else who gives way would be another tale
        self.path = self.folder / "0" / "buffer.db"
        self.open()
        assert self.buffer.depth.packs == 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the event loop, then see what became of the rest."""
        result = self.runner.run(work)
        self.look()
        return result

    def look(self) -> None:
        """Take over what happened by itself: packs that gave way, packs that were taken."""
        lost = self.buffer.depth.dropped - self.dropped
        self.dropped += lost
        for oldest in list(self.kept)[:lost]:
            del self.kept[oldest]
            self.gave_way.add(oldest)
            self.given.discard(oldest)
        if self.taking is not None and self.taking.done():
            taken, self.taking = self.taking.result(), None
            self.was_given(taken)
        for commit in [commit for commit in self.commits if commit.done()]:
            commit.result()
            self.commits.discard(commit)

    def was_given(self, taken: list[Held]) -> None:
        """Compare what came with what may come."""
        assert taken
        for held in taken:
            assert key(held.pack) not in self.given, "given twice"
            if key(held.pack) in self.kept:
                assert held.pack.blob == self.kept[key(held.pack)].pack.blob
                self.given.add(key(held.pack))
            else:
                assert key(held.pack) in self.gave_way, "neither put nor released"
            self.out[key(held.pack)] = held

    def open(self) -> None:
        """Open a buffer on the path."""

        async def opened() -> Buffer:
            terms = {self.urgent: Terms(URGENT)} if self.urgent else {}
            buffer = Buffer(self.path, self.max_bytes, terms=terms)
            await buffer.open(f"boot {self.lives}")
            self.running = asyncio.create_task(buffer.run())
            return buffer

        self.buffer = self.runner.run(opened())
        self.lives += 1
        self.epoch += 1
        self.dropped = 0
        self.numbers.clear()
        self.out.clear()
        self.given.clear()
        self.resting.clear()
        self.limited = False
        assert self.buffer.epoch == self.epoch, "each start is one epoch further"

    def end(self) -> None:
        """End the buffer in order; whatever it is at is not waited for, as at the end of the gateway."""
        cancelled = {self.running, *self.commits} | ({self.taking} if self.taking else set())
        self.taking = None
        self.commits.clear()

        async def end() -> None:
            for task in cancelled:
                task.cancel()
            await asyncio.wait(cancelled)
            await self.buffer.close()

        self.do(end())

    @rule(sizes=st.lists(st.integers(20, 6000), min_size=1, max_size=6), data=st.data())
    def put(self, sizes: list[int], data: st.DataObject) -> None:
        """Packs are sealed."""
        within = data.draw(st.sampled_from((0.0, 0.2, 10.0)))

        async def put(new: Pack) -> None:
            self.buffer.put(new, within)

        for size in sizes:
            dataset = data.draw(st.sampled_from(DATASETS))
            number = self.numbers[dataset] = self.numbers.get(dataset, 0) + 1
            new = pack(number, dataset, epoch=self.epoch, size=size, readings=size % 7 + 1)
            self.kept[key(new)] = Kept(new, self.loop.time() + within)
            self.put_ever[key(new)] = new
            self.do(put(new))

    @rule(limit=st.integers(1, 8), seconds=st.sampled_from((0.0, 0.002, 0.006, 0.5)))
    def take(self, limit: int, seconds: float) -> None:
        """The forwarder asks for packs, and gets them when there are some."""

        async def begin() -> None:
            if self.taking is None:
                self.taking = asyncio.create_task(self.buffer.take(limit))
            await asyncio.sleep(seconds)

        self.do(begin())

    @rule(first=st.sampled_from(("link", "answers")))
    def link_breaks(self, first: str) -> None:
        """All that is under way comes back, before or after the next link is there, and all can be had on that."""
        if first == "link":
            self.do(self.new_link(None))
        for each in list(self.out):
            self.not_answered(each)
        if first == "answers":
            self.do(self.new_link(None))
        self.all_comes()

    def not_answered(self, each: Key) -> None:
        """A pack comes back."""
        self.given.discard(each)
        self.do(self.answer_one(self.out.pop(each), good=False))

    def all_comes(self) -> None:
        """All that waits can be had on this link, once nothing rests."""
        for dataset in list(self.resting):
            self.rest_or_resume(dataset)
        for _ in range(len(self.kept) + 1):
            if set(self.kept) == self.given:
                break
            self.take(3, SETTLED_S)
        assert set(self.kept) == self.given, "there is more, and it does not come"

    @rule(data=st.data(), moment=st.sampled_from((0.002, 0.007, 0.012, 0.017)))
    def link_breaks_while_the_file_is_read(self, data: st.DataObject, moment: float) -> None:
        """There is a new link before those who read for the last one are through."""
        self.do(self.new_link(None))
        self.put([300, 300], data)
        self.take(data.draw(st.integers(1, 8)), SETTLED_S)
        self.commit(wait=True)
        self.take(3, moment)
        self.link_breaks("answers")

    @rule(data=st.data())
    def broker_refuses(self, data: st.DataObject) -> None:
        """The broker refuses a dataset, and its answers come in any order."""
        self.link_breaks("link")
        if not self.out:
            return
        dataset = data.draw(st.sampled_from(sorted({each[0] for each in self.out})))
        first, *others = data.draw(st.permutations([each for each in self.out if each[0] == dataset]))
        self.not_answered(first)
        self.rest_or_resume(dataset)
        for each in others:
            self.not_answered(each)
        self.take(1, SETTLED_S)
        self.all_comes()

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """The broker acknowledges some packs; for others the link breaks first."""
        some = data.draw(st.lists(st.sampled_from(sorted(self.out)), min_size=1, unique=True))

        for each in some:
            good = data.draw(st.booleans())
            self.given.discard(each)
            if good and self.kept.pop(each, None) is not None:
                self.acknowledged.add(each)
            self.do(self.answer_one(self.out.pop(each), good=good))

    @precondition(lambda self: self.lives)
    @rule(dataset=st.sampled_from(DATASETS))
    def rest_or_resume(self, dataset: str) -> None:
        """The broker refuses a dataset, or takes it again."""

        async def change() -> None:
            (self.buffer.resume if dataset in self.resting else self.buffer.rest)(dataset)

        self.do(change())
        self.resting ^= {dataset}

    @rule(packs=st.sampled_from((0, 1, 3, None)))
    def link_comes(self, packs: int | None) -> None:
        """What is on the disk is backlog from now on, and only so much of it is wanted."""
        self.do(self.new_link(packs))

    async def new_link(self, packs: int | None) -> None:
        """Begin a link on which so many old packs may be taken, None for all."""
        self.limited = packs is not None
        self.buffer.begin_backlog()
        self.buffer.allow_backlog(1 << 30 if packs is None else packs)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def set_aside(self, data: st.DataObject) -> None:
        """No broker takes a pack."""
        each = data.draw(st.sampled_from(sorted(self.out)))

        async def aside(held: Held) -> None:
            self.buffer.set_aside(held, -0x99)

        if self.kept.pop(each, None) is not None:
            self.aside.add(each)
        self.given.discard(each)
        self.do(aside(self.out.pop(each)))

    @rule(sizes=st.lists(st.integers(1000, 6000), min_size=1, max_size=6), data=st.data(), dead=st.booleans())
    def answer_during_a_commit(self, sizes: list[int], data: st.DataObject, *, dead: bool) -> None:
        """The broker answers while the thread is at work."""
        self.put(sizes, data)
        self.take(1, 0.0)  # more would wait for the thread
        self.commit(wait=False)
        self.do(asyncio.sleep(0.007))
        if self.out:
            (self.set_aside if dead else self.answer)(data)
        if dead:
            self.replay(data.draw(st.sampled_from(DATASETS)), busy=data.draw(st.booleans()))

    @rule(dataset=st.sampled_from(DATASETS), busy=st.booleans())
    def replay(self, dataset: str, *, busy: bool) -> None:
        """A receiver asks for packs of this run once more and gets them, maybe while the thread commits something."""
        rows = self.do(self.held(dataset))

        async def arrive() -> None:
            for row in rows:
                self.buffer.arrived(row)

        if busy:
            self.commit(wait=False)
            self.do(asyncio.sleep(0.007))
        self.do(arrive())
        dead = {key(row.pack) for row in rows if row.level <= SET_ASIDE}
        self.aside -= dead
        self.acknowledged |= dead
        self.commit(wait=True)
        assert not {key(row.pack) for row in self.do(self.held(dataset)) if row.level <= SET_ASIDE} & dead

    async def held(self, dataset: str) -> list[Row]:
        """Return what there is of the packs of this run."""
        rows = await self.buffer.held(dataset, self.epoch, 1, 1000, 1000)
        found = [row.pack.n for row in rows]
        assert found == sorted(set(found)), "in order, each once"
        return rows

    async def answer_one(self, held: Held, *, good: bool) -> None:
        """Acknowledge or release it."""
        (self.buffer.acknowledge if good else self.buffer.release)(held)

    @rule(wait=st.booleans())
    def commit(self, wait: bool) -> None:  # noqa: FBT001  # Hypothesis passes by name
        """Somebody has it commit, and waits for it or not."""
        waiting = set(self.kept)

        async def begin() -> None:
            self.commits.add(asyncio.create_task(self.buffer.barrier()))
            await asyncio.sleep(0)

        if wait:
            self.do(self.buffer.barrier())
            self.safe |= waiting & set(self.kept)
            assert self.buffer.depth.set_aside <= len(self.aside)
        else:
            self.do(begin())

    @rule(seconds=st.sampled_from((0.003, 0.007, 0.02, 1.0, 11.0, 61.0)))
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self.do(asyncio.sleep(seconds))
        self.note_what_was_due()
        if seconds >= 1 and self.taking is not None and not self.limited:
            ready = {each for each in set(self.kept) - self.given if each[0] not in self.resting}
            assert not ready, "somebody waits for packs, there are some, and nothing happens"

    def note_what_was_due(self) -> None:
        """What was due is on the disk, and what waited beside it."""
        late = [kept for kept in self.kept.values() if kept.due <= self.loop.time() - SETTLED_S]
        self.safe |= {key(kept.pack) for kept in late}

    @precondition(lambda self: len(self.numbers) > 1)
    @rule(in_order=st.booleans())
    def end_and_begin(self, in_order: bool) -> None:  # noqa: FBT001  # Hypothesis passes by name
        """The gateway ends, one way or the other, and is started."""
        if in_order:
            self.restart()
        else:
            self.crash()

    def restart(self) -> None:
        """It is stopped and started."""
        self.end()
        self.safe = set(self.kept)
        self.open()
        assert self.buffer.depth.packs == len(self.kept)
        self.check_marks()

    def crash(self) -> None:
        """It is killed in this moment, and started."""
        certain = self.safe & set(self.kept)
        acknowledged, aside = set(self.acknowledged), set(self.aside)
        copy = self.folder / str(self.lives) / "buffer.db"
        shutil.copytree(self.path.parent, copy.parent)
        self.end()
        self.path = copy
        self.open()
        # What the dead one wrote on, after the copy was made, is not ours to expect.
        back = {key(held.pack): held.pack for held in self.take_all()}
        assert certain <= set(back) | self.gave_way, "lost what was committed"
        assert all(self.put_ever[each].blob == found.blob for each, found in back.items()), "invented"
        self.kept = {each: Kept(found, 0.0) for each, found in back.items()}
        self.safe = set(back)
        self.acknowledged = acknowledged - set(back)
        self.aside = aside - set(back)  # one that was not written as such waits again, or gave way with the rest
        self.gave_way = set(self.put_ever) - self.acknowledged - self.aside - set(back)
        self.check_marks()

    def take_all(self) -> list[Held]:
        """Take all there is, give it all back."""

        async def take() -> list[Held]:
            held: list[Held] = []
            while len(held) < self.buffer.depth.packs:
                held += await asyncio.wait_for(self.buffer.take(5), 10)
            for each in held:
                self.buffer.release(each)
            return held

        held = self.runner.run(take())
        places = [(each.pack.dataset != self.urgent, each.number) for each in held]
        assert places == sorted(set(places)), "from the disk: the urgent, then the oldest first, each once"
        return held

    def check_marks(self) -> None:
        """The mark of a dataset is a pack that was put, and none older than what is certain."""
        for dataset in DATASETS:
            certain = [each[1:] for each in self.safe if each[0] == dataset]
            put = {each[1:] for each in self.put_ever if each[0] == dataset}
            told = self.buffer.after(dataset)
            mark = tuple(int(part) for part in told.split(":")) if told else (0, 0)
            assert mark == (0, 0) or mark in put
            assert mark >= max(certain, default=(0, 0))

    @invariant()
    def counts_agree(self) -> None:
        """What it tells of itself is so."""
        if self.lives:
            depth = self.buffer.depth
            assert depth.packs == len(self.kept)
            assert depth.readings == sum(kept.pack.readings for kept in self.kept.values())
            assert len(self.safe & set(self.kept)) <= depth.stored <= depth.packs

    def teardown(self) -> None:
        """In the end every pack that was kept comes out once, from this life and from the next."""
        if self.lives:
            self.link_breaks("link")
            self.end()
            self.safe = set(self.kept)
            self.open()
            in_order = sorted(self.kept, key=lambda each: each[0] != self.urgent)
            assert [key(held.pack) for held in self.take_all()] == in_order
            self.end()
            self.runner.close()
        shutil.rmtree(self.folder)


TestBufferLife = BufferLife.TestCase
TestBufferLife.settings = examples(300, steps=40)

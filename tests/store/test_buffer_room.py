"""Who gives way when the file is full: history first, then by priority and rule; and every one that did is told of."""

import asyncio
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store.buffer import Buffer
from gateway.store.level import HISTORY
from gateway.store.pack_file import MOST_LOSSES, PackFile
from gateway.store.pack_room import ONE_IN, Terms
from gateway.store.pack_sql import Loss, Row
from gateway.words.reading import Pack
from tests.examples import examples
from tests.store.buffer_bench import ROOMY, WAL_BYTES, live, pack

CAP = WAL_BYTES + 400 * 1024
DAY_NS = 86_400_000_000_000


async def fill(buffer: Buffer, *datasets: str, first: int = 1, count: int) -> None:
    """Put packs of all datasets in turn, a few in a commit."""
    for n in range(first, first + count):
        for dataset in datasets:
            buffer.put(pack(n, dataset, size=2000), 10.0)
        await buffer.barrier()


async def left(buffer: Buffer) -> dict[str, list[int]]:
    """Take all there is: dataset to the numbers of its packs."""
    found: dict[str, list[int]] = {}
    taken = 0
    while taken < buffer.depth.packs:
        for held in await asyncio.wait_for(buffer.take(50), 1):
            found.setdefault(held.pack.dataset, []).append(held.pack.n)
            taken += 1
    return {dataset: sorted(numbers) for dataset, numbers in found.items()}


def test_the_least_important_dataset_gives_way_first_and_whole(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "low", count=100)
        await fill(buffer, "high", count=100)
        there = await left(buffer)
        assert there["high"] == list(range(1, 101))
        assert 0 < len(there["low"]) < 100
        assert there["low"] == list(range(101 - len(there["low"]), 101))
        await fill(buffer, "high", first=101, count=200)
        there = await left_after_release(buffer)
        assert "low" not in there
        assert there["high"][-1] == 300

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, terms={"low": Terms(1), "high": Terms(9)})


async def left_after_release(buffer: Buffer) -> dict[str, list[int]]:
    """Look once more at a buffer whose packs were all taken."""
    await buffer.barrier()
    for held in list(buffer._outgoing.out.values()):  # noqa: SLF001  # nobody else gives them back here
        buffer.release(held)
    return await left(buffer)


def test_equally_important_datasets_give_way_by_age(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "air", "noise", count=200)
        there = await left(buffer)
        assert abs(len(there["air"]) - len(there["noise"])) <= 16
        assert there["air"][-1] == there["noise"][-1] == 200

    live(tmp_path / "buffer.db", scene, max_bytes=CAP)


def test_a_less_important_pack_takes_no_place_from_more_important_ones(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "high", count=300)
        before = buffer.depth.dropped
        assert before > 0
        await fill(buffer, "low", count=100)
        there = await left(buffer)
        assert there["high"] == list(range(before + 1, 301))
        assert len(there.get("low", [])) < 16  # what fits beside them
        _, losses = await buffer.losses()
        lost = Counter({loss.dataset: loss.packs for loss in losses})
        assert lost == {"high": before, "low": 100 - len(there.get("low", []))}

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, terms={"low": Terms(1), "high": Terms(9)})


def test_a_new_pack_is_refused_where_all_that_is_stored_is_to_be_kept(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "alarm", count=300)
        _, losses = await buffer.losses()
        assert {(loss.reason, loss.last) for loss in losses} == {("refused", 300)}
        await fill(buffer, "air", count=5)
        assert list(await left(buffer)) == ["alarm"]

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, terms={"alarm": Terms(1, "keep"), "air": Terms(9)})


def test_thinning_keeps_one_in_ten_of_the_oldest_and_then_of_those(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "air", count=400)
        there = (await left(buffer))["air"]
        old = [n for n in there if n <= 200]
        assert old == list(range(1, 201, ONE_IN))
        assert there[-50:] == list(range(351, 401))
        await fill(buffer, "air", first=401, count=1500)
        there = (await left_after_release(buffer))["air"]
        gaps = Counter(after - before for before, after in pairwise(there))
        assert set(gaps) <= {1, ONE_IN, ONE_IN**2, ONE_IN**3} | set(range(1, ONE_IN**2, ONE_IN))
        assert there[0] == 1  # a week ago is still seen, coarsely
        assert there[-1] == 1900

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, terms={"air": Terms(5, "thin")})


def test_what_is_to_be_kept_is_kept_and_the_rest_gives_way_whatever_its_priority(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "alarm", count=50)
        await fill(buffer, "air", count=300)
        there = await left(buffer)
        assert there["alarm"] == list(range(1, 51))
        await fill(buffer, "alarm", first=51, count=300)
        there = await left_after_release(buffer)
        assert "air" not in there
        assert there["alarm"] == list(range(1, len(there["alarm"]) + 1)), "the newest are refused"
        assert buffer.depth.dropped == 650 - len(there["alarm"])

    live(tmp_path / "buffer.db", scene, max_bytes=CAP, terms={"alarm": Terms(0, "keep"), "air": Terms(9)})


def test_a_buffer_that_was_full_recovers_when_the_broker_is_back(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "air", count=500)
        while buffer.depth.packs:
            for held in await asyncio.wait_for(buffer.take(20), 1):
                buffer.acknowledge(held)
        await asyncio.sleep(120)
        dropped = buffer.depth.dropped
        await fill(buffer, "air", first=501, count=50)
        assert buffer.depth.dropped == dropped
        assert (await left(buffer))["air"] == list(range(501, 551))

    live(tmp_path / "buffer.db", scene, max_bytes=CAP)


def test_history_gives_way_before_anything_that_waits(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "high", count=100)
        for held in await buffer.take(100):
            buffer.acknowledge(held)
        await fill(buffer, "low", count=100)
        assert len(await buffer.held("high", 1, 1, 100, 1000)) == 100 - len(await gone(buffer))
        await fill(buffer, "low", first=101, count=40)
        assert (await left(buffer))["low"] == list(range(1, 141))
        assert buffer.depth.dropped == 0
        assert (await buffer.losses())[1] == [], "who has it misses nothing"
        assert len(await buffer.held("high", 1, 1, 100, 1000)) < 100

    async def gone(buffer: Buffer) -> list[int]:
        held = {row.pack.n for row in await buffer.held("high", 1, 1, 100, 1000)}
        return [n for n in range(1, 101) if n not in held]

    terms = {"low": Terms(1), "high": Terms(9)}
    live(tmp_path / "buffer.db", scene, max_bytes=CAP, terms=terms, forget_before=lambda: 0)


def test_history_is_forgotten_when_it_is_old(tmp_path: Path) -> None:
    now = 0

    async def scene(buffer: Buffer) -> None:
        nonlocal now
        for day in range(1, 21):
            now = day * DAY_NS
            buffer.put(Pack("air", buffer.epoch, day, 1, now, b"x" * 300), 10.0)
            (held,) = await buffer.take(1)
            buffer.acknowledge(held)
            await asyncio.sleep(120)
        assert [row.pack.n for row in await buffer.held("air", 1, 1, 99, 1000)] == list(range(13, 21))

    live(tmp_path / "buffer.db", scene, forget_before=lambda: now - 7 * DAY_NS)


@examples(60)
@given(
    rules=st.fixed_dictionaries(
        {name: st.builds(Terms, st.integers(0, 3), st.sampled_from(("drop-oldest", "thin", "keep"))) for name in "abc"}
    ),
    puts=st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(100, 6000)), max_size=8), max_size=60),
    acknowledged=st.sets(st.integers(1, 200)),
)
def test_whatever_the_rules_nothing_leaves_uncounted_and_the_cap_holds(
    tmp_path_factory: pytest.TempPathFactory,
    rules: dict[str, Terms],
    puts: list[list[tuple[str, int]]],
    acknowledged: set[int],
) -> None:
    cap = 150
    file = PackFile(tmp_path_factory.mktemp("room") / "b.db", WAL_BYTES + cap * 1024, rules, history=True)
    file.open("boot")
    numbers: Counter[str] = Counter()
    put: dict[int, Pack] = {}
    dropped: set[int] = set()
    gone: set[int] = set()
    for some in puts:
        rows = []
        for dataset, size in some:
            numbers[dataset] += 1
            new = pack(numbers[dataset], dataset, size=size)
            put[len(put) + 1] = new
            rows.append(Row(len(put), new))
        leaving = {number for number in acknowledged if number in put and number not in dropped} - gone
        leaving -= {row.id for row in rows}
        gone |= leaving
        written = file.write(rows, leaving)
        dropped |= {each.id for each in written.dropped}
        assert file.used_bytes() <= cap * 1024
        assert not dropped & gone
    there, _, _ = file.read(0, 1000)
    assert {row.id for row in there} == set(put) - dropped - gone
    assert all(put[row.id].blob == row.pack.blob and row.level > HISTORY for row in there)
    _, losses = file.losses()
    lost = Counter(put[number].dataset for number in dropped)
    assert sum(loss.packs for loss in losses) == len(dropped)
    assert {name: sum(loss.packs for loss in losses if loss.dataset == name) for name in lost} == lost
    file.close()


def test_losses_of_many_runs_are_told_in_several_messages_each_until_the_receiver_knows(tmp_path: Path) -> None:
    file = PackFile(tmp_path / "buffer.db", ROOMY)
    file.open("boot")
    lost = {(name, epoch) for name in ("air", "noise") for epoch in range(1, MOST_LOSSES + 20)}
    file.write([], [], [Loss(name, epoch, "evicted", 3, 30, 1, 3, 10, 20) for name, epoch in lost])
    told: list[tuple[str, int]] = []
    for size in (MOST_LOSSES, MOST_LOSSES, 38, 1):
        batch, losses = file.losses()
        assert len(losses) == size
        file.write([], [], [Loss("later", 1, "evicted", 1, 10, 1, 1, 10, 20)])
        assert file.losses() == (batch, losses), "the same until it is known"
        told += [(loss.dataset, loss.epoch) for loss in losses]
        file.told(batch)
    assert sorted(told) == sorted([*lost, ("later", 1)])
    file.close()


def test_disk_first_sends_nothing_that_is_not_on_the_disk(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        for n in range(1, 21):
            buffer.put(pack(n), 10.0)
            (held,) = await asyncio.wait_for(buffer.take(5), 1)
            assert held.stored
            buffer.acknowledge(held)
        assert buffer.depth.packs == 0

    live(tmp_path / "buffer.db", scene, disk_first=True, max_bytes=ROOMY)


def test_who_gives_way_changes_with_the_terms_while_the_buffer_runs(tmp_path: Path) -> None:
    async def scene(buffer: Buffer) -> None:
        await fill(buffer, "a", "b", count=100)
        a = len((await left(buffer))["a"])
        assert 0 < a < 100
        buffer.change({"a": Terms(9), "b": Terms(1)})
        await fill(buffer, "a", first=101, count=30)
        there = await left_after_release(buffer)
        assert len(there["a"]) == a + 30
        assert len(there["b"]) < 100
        before = len(there["b"])
        buffer.change({"a": Terms(1), "b": Terms(9)})
        await fill(buffer, "b", first=101, count=20)
        there = await left_after_release(buffer)
        assert len(there["b"]) == before + 20
        assert len(there["a"]) < a + 30

    live(tmp_path / "buffer.db", scene, max_bytes=CAP)

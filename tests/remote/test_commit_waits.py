"""What waits: a second document, a confirmation, a command, what it requires, its share, its window, a newer agent."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from gateway.remote.settings_layers import Configuration
from gateway.remote.verdict import Code
from tests.remote.operator import NOW, command, root
from tests.remote.scene import (
    BAD_BROKER,
    BETTER,
    FIRST_BROKER,
    GOOD,
    MINE,
    SERVER,
    UNFIT,
    Pole,
    play,
    sha,
    wanted,
)


@pytest.mark.parametrize("restart", [False, True])
def test_a_second_document_waits_and_is_tried_after_the_first(tmp_path: Path, *, restart: bool) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(BAD_BROKER))
        await pole.run(5)
        assert await pole.hear(wanted(BETTER, seq=2)) is Code.BUSY
        assert await pole.hear(wanted(BETTER, seq=2)) is Code.BUSY
        if restart:
            await pole.start()
            assert "nobody" in pole.broker  # the trial goes on with its own document
        await pole.run(70)
        assert (pole.broker, pole.priority) == (FIRST_BROKER, 8)
        await pole.run(20)
        assert pole.codes == [Code.OK, Code.BUSY, Code.RB_UPSTREAM, Code.COMMITTED]
        assert await pole.hear(wanted(BAD_BROKER)) is Code.STALE

    play(scene())


def test_a_newer_document_does_not_undo_a_trial_that_ends_well(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted())
        await pole.run(5)
        await pole.hear(wanted(UNFIT, seq=2))
        await pole.run(60)
        assert pole.codes == [Code.OK, Code.BUSY, Code.COMMITTED, Code.PROBE]
        assert pole.priority == 7
        assert pole.commit.state.of(MINE).active_seq == 1

    play(scene())


@pytest.mark.parametrize("first", [GOOD, UNFIT])
def test_newer_documents_come_while_one_is_probed(tmp_path: Path, first: str) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()

        newer = [wanted(GOOD + f"# {seq}", seq=seq) for seq in range(2, 6)] + [wanted(BETTER, seq=6)]
        coming: list[asyncio.Future[Code]] = []

        def come(_: Configuration) -> None:
            pole.plant.on_probe = lambda _: None
            coming.extend(asyncio.ensure_future(pole.hear(raw)) for raw in newer)

        pole.plant.on_probe = come
        await pole.hear(wanted(first))
        await pole.run(1)
        assert set(await asyncio.gather(*coming)) == {Code.BUSY if first == GOOD else Code.OK}
        await pole.run(60)
        assert (pole.priority, pole.commit.state.of(MINE).seq) == (8, 6)
        in_force = [verdict.seq for verdict in pole.plant.told if verdict.code is Code.COMMITTED]
        assert in_force == ([1, 6] if first == GOOD else [6])
        assert Code.STORAGE not in pole.codes
        assert await pole.hear(wanted(GOOD, seq=5)) is Code.STALE

    play(scene())


def test_one_change_at_a_time_though_applying_takes_a_while(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        applying: list[str] = []
        apply = pole.plant.apply

        async def slowly(wanted: Configuration) -> None:
            applying.append("begin")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await apply(wanted)
            applying.append("end")

        pole.plant.apply = slowly  # type: ignore[method-assign]
        await pole.hear(wanted())
        begun = asyncio.ensure_future(pole.run(2))
        await asyncio.sleep(0)
        assert await pole.commit.command(command("cancel", sha(wanted())), retained=False) is Code.OK
        await begun
        assert applying == ["begin", "end", "begin", "end"]
        assert pole.priority == 5

    play(scene())


# --- an operator's word ---


def test_a_trial_that_wants_confirmation_stays_with_it_and_goes_without(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(trial=SERVER))
        await pole.run(30)
        assert pole.codes == [Code.OK]
        assert await pole.commit.command(command("confirm", sha(wanted(trial=SERVER))), retained=False) is Code.OK
        await pole.start()  # it is remembered
        await pole.run(20)
        assert pole.codes == [Code.OK, Code.COMMITTED]
        await pole.hear(wanted(BETTER, seq=2, trial=SERVER))
        await pole.run(70)
        assert pole.codes[2:] == [Code.OK, Code.RB_NO_CONFIRM]

    play(scene())


def test_a_confirmation_does_not_stand_for_the_gates(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(BAD_BROKER, trial=SERVER))
        await pole.run(5)
        await pole.commit.command(command("confirm", sha(wanted(BAD_BROKER, trial=SERVER))), retained=False)
        await pole.run(70)
        assert pole.codes == [Code.OK, Code.RB_UPSTREAM]

    play(scene())


def test_a_cancelled_trial_is_taken_back_at_once_and_once(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted())
        await pole.run(3)
        cancel = command("cancel", sha(wanted()))
        assert await pole.commit.command(cancel, retained=False) is Code.OK
        assert (pole.codes, pole.priority) == ([Code.OK, Code.RB_CANCELLED], 5)
        await pole.hear(wanted(BETTER, seq=2))
        await pole.run(3)
        assert await pole.commit.command(cancel, retained=False) is Code.STALE
        assert pole.commit.state.trial

    play(scene())


@pytest.mark.parametrize(
    ("changes", "retained", "code"),
    [
        ({}, True, Code.RETAINED),
        ({"trial": "0" * 64}, False, Code.STALE),
        ({"pole": "pole-2"}, False, Code.TARGET),
        ({"expires": NOW}, False, Code.EXPIRED),
        ({"epoch": 2}, False, Code.EPOCH),
        ({"signers": ["c1", "c2"]}, False, Code.SIG),
        ({"do": "reboot"}, False, Code.PARSE),
    ],
)
def test_a_command_that_is_not_obeyed(tmp_path: Path, changes: dict[str, Any], *, retained: bool, code: Code) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(trial=SERVER))
        await pole.run(5)
        for do in ("confirm", "cancel"):
            raw = command(**{"do": do, "trial": sha(wanted(trial=SERVER)), **changes})
            assert await pole.commit.command(raw, retained=retained) is code
        trial = pole.commit.state.trial
        assert trial
        assert not trial.confirmed

    play(scene())


def test_a_command_waits_for_the_clock_and_for_a_trial(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        cancel = command("cancel", sha(wanted()))
        assert await pole.commit.command(cancel, retained=False) is Code.STALE
        pole.plant.clock = None
        assert await pole.commit.command(cancel, retained=False) is Code.WAIT_TIME

    play(scene())


# --- staging ---


def test_one_that_requires_another_waits_for_it(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(BETTER, requires={"fleet": 3}))
        await pole.run(30)
        assert pole.codes == [Code.OK, Code.DEFERRED_REQUIRES]
        await pole.hear(wanted(GOOD, stream="fleet", seq=3), "fleet")
        await pole.run(60)
        assert pole.codes[2:] == [Code.OK, Code.COMMITTED, Code.COMMITTED]
        assert pole.priority == 8

    play(scene())


def test_what_is_required_is_a_number_of_the_same_epoch(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(GOOD, stream="fleet", seq=3), "fleet")
        await pole.run(30)
        assert await pole.incoming.hear_root(root(version=2, epoch=2)) is Code.COMMITTED
        await pole.hear(wanted(BETTER, epoch=2, requires={"fleet": 3}))
        await pole.run(30)
        assert pole.codes[-1] is Code.DEFERRED_REQUIRES
        await pole.hear(wanted(GOOD + "# again", stream="fleet", seq=3, epoch=2), "fleet")
        await pole.run(60)
        assert pole.priority == 8

    play(scene())


def test_a_canary_is_widened_by_a_new_number_and_who_has_it_takes_it_without_a_trial(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(rollout={"salt": "r", "permyriad": 0}))
        await pole.run(30)
        assert pole.codes == [Code.OK, Code.DEFERRED_COHORT]
        await pole.hear(wanted(seq=2, rollout={"salt": "r", "permyriad": 10_000}))
        await pole.run(30)
        applied = len(pole.plant.applied)
        await pole.hear(wanted(seq=3))
        await pole.run(30)
        assert pole.codes[2:] == [Code.OK, Code.COMMITTED, Code.OK, Code.NOOP]
        assert len(pole.plant.applied) == applied
        assert pole.commit.state.of(MINE).active_seq == 3

    play(scene())


def test_it_waits_for_its_window_and_not_beyond_its_expiry(tmp_path: Path) -> None:
    begin = dt.datetime.fromtimestamp(NOW + 300, dt.UTC)
    window = {"from": f"{begin:%H:%M}", "to": f"{begin + dt.timedelta(minutes=10):%H:%M}"}

    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(window=window))
        await pole.run(200)
        assert pole.codes == [Code.OK, Code.DEFERRED_WINDOW]
        await pole.run(200)
        assert pole.codes == [Code.OK, Code.DEFERRED_WINDOW, Code.COMMITTED]
        await pole.hear(wanted(BETTER, seq=2, expires=NOW + 500, rollout={"salt": "r", "permyriad": 0}))
        await pole.run(200)
        assert pole.codes[3:] == [Code.OK, Code.DEFERRED_COHORT, Code.EXPIRED]
        assert not pole.commit.state.of(MINE).waits

    play(scene())


def test_one_for_a_newer_agent_waits_for_it(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(min_agent="1.5"))
        await pole.run(30)
        assert pole.codes == [Code.OK, Code.DEFERRED_REQUIRES]
        await pole.hear(wanted(seq=2, min_agent="1.4.2"))
        await pole.run(30)
        assert pole.priority == 7

    play(scene())

"""A change proves itself, or is taken back: what is tried, for how long, how often, and what ends it."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from gateway.remote.document import digest
from gateway.remote.envelope import read
from gateway.remote.override import Override
from gateway.remote.plant import Unfit
from gateway.remote.settings_layers import Configuration
from gateway.remote.verdict import Code
from tests.remote.operator import NOW, command, document, root
from tests.remote.scene import (
    BAD_BAUD,
    BAD_BROKER,
    BETTER,
    GOOD,
    LOCAL,
    MINE,
    TERMS,
    UNFIT,
    Pole,
    play,
)


def wanted(settings: str = GOOD, **changes: Any) -> bytes:  # noqa: ANN401  # any JSON
    return document(settings, **{"trial": TERMS, **changes})


def sha(raw: bytes) -> str:
    return digest(read(raw).payload)


SERVER = {**TERMS, "confirm": "server"}
FIRST_BROKER = "mqtts://broker.example"


@pytest.mark.parametrize(
    ("settings", "code", "text"),
    [
        (BAD_BROKER, Code.RB_UPSTREAM, "the uplink did not prove itself since it was applied: no broker"),
        (BAD_BAUD, Code.RB_SENSORS, "from meter"),
    ],
)
def test_what_does_not_prove_itself_is_taken_back_and_never_tried_again(
    tmp_path: Path, settings: str, code: Code, text: str
) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(settings))
        await pole.run(60)
        assert pole.codes == [Code.OK]
        await pole.run(10)
        assert pole.codes == [Code.OK, code]
        assert text in pole.plant.told[-1].text
        assert (pole.broker, len(pole.plant.applied)) == (FIRST_BROKER, 3)
        for n in range(10):
            assert await pole.hear(wanted(settings)) is Code.TOMBSTONED
            await pole.reboot(f"boot {n}")
            await pole.run(30)
        assert pole.broker == FIRST_BROKER
        assert not any("nobody" in str(each.settings.root.uplink.url) for each in pole.plant.applied[2:])
        assert await pole.hear(wanted(GOOD, seq=2)) is Code.OK
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


def test_the_same_settings_under_a_new_number_are_tried_again(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(BAD_BROKER))
        await pole.run(70)
        assert await pole.hear(wanted(BAD_BROKER, seq=2)) is Code.OK
        await pole.run(5)
        assert pole.commit.state.trial

    play(scene())


def test_what_cannot_run_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(UNFIT))
        await pole.run(5)
        assert pole.codes == [Code.OK, Code.PROBE]
        await pole.hear(wanted('[[device]]\nid = "meter"\nevery = 0\n', seq=2))
        await pole.run(5)
        assert pole.codes[2:] == [Code.OK, Code.SEMANTIC]
        assert f'{MINE} seq 2:3: [[device]] "meter": "every" must be more than 0, not 0' in pole.plant.told[-1].text
        assert len(pole.plant.applied) == 1
        assert await pole.hear(wanted(UNFIT)) is Code.STALE

    play(scene())


def test_what_cannot_be_applied_is_taken_back_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()

        def refuse(to: Configuration) -> None:
            if "dataset" in to.merged.content:
                raise Unfit("the port is taken")

        pole.plant.on_apply = refuse
        await pole.hear(wanted())
        await pole.run(1)
        assert pole.codes == [Code.OK, Code.APPLY]
        assert pole.priority == 5

    play(scene())


def test_a_way_back_that_fails_is_tried_until_it_works(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(BAD_BROKER))
        await pole.run(5)

        def refuse(_: Configuration) -> None:
            raise Unfit("not now")

        pole.plant.on_apply = refuse
        await pole.run(80)
        assert pole.codes == [Code.OK, Code.RB_UPSTREAM, Code.APPLY]
        pole.plant.on_apply = lambda _: None
        await pole.run(2)
        assert pole.broker == FIRST_BROKER
        await pole.hear(wanted(GOOD, seq=2))
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


def test_a_link_that_flaps_never_holds(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(trial={"window_s": 300, "hold_s": 60}))
        for _ in range(6):
            await pole.run(50)
            pole.plant.cut = True
            await pole.run(5)
            pole.plant.cut = False
        assert pole.codes == [Code.OK, Code.RB_UPSTREAM]

    play(scene())


def test_a_link_that_is_anew_between_two_looks_begins_its_hold_anew(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(trial={"window_s": 300, "hold_s": 60}))
        for _ in range(320):
            await pole.run(1)
            if pole.plant.time % 50 == 0:
                pole.plant.link_since = pole.plant.time
        assert pole.codes == [Code.OK, Code.RB_UPSTREAM]

    play(scene())


def test_what_was_proven_before_it_was_applied_proves_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        before = pole.plant.link_since
        await pole.hear(wanted())
        for _ in range(70):
            await pole.run(1)
            pole.plant.link_since = before  # nothing was read back since
        assert pole.codes == [Code.OK, Code.RB_UPSTREAM]

    play(scene())


def test_what_was_dead_before_is_not_held_against_it(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = Pole(tmp_path)
        pole.plant.silent = {"meter"}
        await pole.started()
        await pole.hear(wanted())
        await pole.run(50)
        assert pole.commit.state.trial is None  # it is not known yet that it is dead
        await pole.run(50)
        assert pole.codes == [Code.OK, Code.COMMITTED]

    play(scene())


def test_a_device_that_is_taken_out_is_not_waited_for_and_a_slow_one_has_its_time(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted('[[device]]\nid = "new"\ndriver = "ruuvi"\naddress = "CB:B8:33:4C:88:4E"\n'))
        await pole.run(30)
        await pole.hear(wanted(GOOD + '[[device]]\nid = "meter"\nevery = 100\n', seq=2))
        await pole.run(1)
        assert pole.commit.state.trial
        assert pole.commit.state.trial.sensors == ["meter", "tag"]
        assert pole.commit.state.trial.window_s == 3 * 100 + TERMS["hold_s"]
        await pole.run(30)
        assert pole.codes[-1] is Code.COMMITTED

    play(scene())


def test_with_the_broker_away_before_and_after_nothing_is_proved_and_it_is_tried_three_times(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        pole.plant.cut = True
        await pole.run(5)
        await pole.hear(wanted())
        await pole.run(600)
        assert pole.codes == [Code.OK, Code.RB_INCONCLUSIVE]
        assert pole.commit.state.of(MINE).fate is Code.RB_INCONCLUSIVE
        tried = [each for each in pole.plant.applied if each.settings.dataset("air").priority == 7]
        assert len(tried) == 3

    play(scene())


def test_with_the_broker_away_it_is_tried_again_and_then_works(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        pole.plant.cut = True
        await pole.run(5)
        await pole.hear(wanted())
        await pole.run(130)
        assert pole.codes == [Code.OK, Code.RB_INCONCLUSIVE]
        assert pole.priority == 5
        pole.plant.cut = False
        await pole.run(100)
        assert pole.codes == [Code.OK, Code.RB_INCONCLUSIVE, Code.COMMITTED]

    play(scene())


# --- starts and stops ---


def test_an_override_that_is_looked_at_while_the_file_is_impossible_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        profiles = tmp_path / "profiles"
        profiles.mkdir()
        (profiles / "eastron-sdm630.toml").write_text("damaged =")
        pole.overrides = [override("1")]
        await pole.commit.refresh()
        assert pole.codes == [Code.APPLY]
        (profiles / "eastron-sdm630.toml").unlink()
        await pole.run(2)
        assert pole.priority == 1

    play(scene())


def test_a_second_power_cut_in_the_trial_ends_it(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(trial=SERVER))
        await pole.run(5)
        await pole.reboot("second")
        assert pole.priority == 7
        assert pole.commit.state.trial
        assert pole.commit.state.trial.started == 0.0  # the window begins anew with the boot
        await pole.reboot("third")
        assert pole.priority == 5
        assert pole.codes == [Code.OK, Code.RB_POWER]
        assert await pole.hear(wanted(trial=SERVER)) is Code.TOMBSTONED

    play(scene())


def test_a_crash_loop_ends_the_trial(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(BAD_BROKER))
        await pole.run(5)
        await pole.start()
        await pole.start()
        assert pole.codes == [Code.OK, Code.RB_CRASHLOOP]
        assert pole.broker == FIRST_BROKER

    play(scene())


def test_a_restart_keeps_the_deadline(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(BAD_BROKER))
        await pole.run(40)
        await pole.start()
        await pole.run(15)
        assert pole.codes == [Code.OK]
        await pole.run(10)
        assert pole.codes == [Code.OK, Code.RB_UPSTREAM]

    play(scene())


def test_restarts_in_order_are_not_held_against_it(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted())
        for _ in range(6):
            await pole.run(5)
            await pole.commit.stop()
            await pole.start()
        await pole.run(30)
        assert pole.codes == [Code.OK, Code.COMMITTED]

    play(scene())


def test_a_stop_in_order_in_every_state(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = Pole(tmp_path)
        sent = wanted(), wanted(BAD_BROKER, seq=2), wanted(UNFIT, seq=3), wanted(BETTER, seq=4)
        await pole.started()
        for raw in sent:
            await pole.hear(raw)
            for _ in range(5):
                await pole.commit.stop()
                await pole.start()
                await pole.run(15)
        assert pole.priority == 8
        assert pole.codes.count(Code.COMMITTED) == 2
        assert Code.RB_CRASHLOOP not in pole.codes

    play(scene())


def test_only_the_clock_that_counts_is_asked_how_long_it_has_run(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(BAD_BROKER))
        for jump in (3600, -7200, 3600):
            await pole.run(15)
            assert pole.plant.clock
            pole.plant.clock += jump
        assert pole.codes == [Code.OK]
        await pole.run(20)
        assert pole.codes == [Code.OK, Code.RB_UPSTREAM]

    play(scene())


# --- one at a time ---


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


def test_three_layers_lie_over_one_another(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        for stream, settings in ((MINE, BETTER), ("group/harbour", GOOD), ("fleet", "[dataset.air]\npriority = 1\n")):
            await pole.hear(wanted(settings, stream=stream), stream)
            await pole.run(30)
        assert pole.priority == 8
        await pole.hear(wanted("", seq=2))
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


# --- groups and overrides ---


def test_a_group_that_is_left_takes_its_document_along(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(GOOD, stream="group/harbour"), "group/harbour")
        await pole.run(30)
        assert pole.priority == 7
        await pole.commit.edited(LOCAL.replace('groups = ["harbour"]', "groups = []"))
        await pole.run(90)
        assert pole.priority == 5
        assert await pole.hear(wanted(GOOD, stream="group/harbour", seq=2), "group/harbour") is Code.STREAM

    play(scene())


def override(value: str) -> Override:
    return Override(key="dataset.air.priority", value=value, why="a test", boot="", until_boottime=0, until=0)


def test_an_override_begins_and_ends_during_a_trial(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(GOOD + '[[device]]\nid = "tag"\nevery = 2\n', trial={"window_s": 60, "hold_s": 30}))
        await pole.run(10)
        pole.overrides = [override("1")]
        await pole.commit.refresh()
        assert pole.priority == 1
        await pole.run(10)
        pole.overrides = []
        await pole.commit.refresh()
        applied = len(pole.plant.applied)
        await pole.commit.refresh()
        assert len(pole.plant.applied) == applied
        assert pole.commit.state.trial
        await pole.run(35)
        assert (pole.priority, pole.codes) == (7, [Code.OK, Code.COMMITTED])

    play(scene())

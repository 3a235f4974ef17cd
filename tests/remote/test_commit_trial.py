"""A change proves itself, or is taken back: what is tried, for how long, how often, and what ends it."""

from pathlib import Path

import pytest

from gateway.remote.override import Override
from gateway.remote.plant import Unfit
from gateway.remote.settings_layers import Configuration
from gateway.remote.verdict import Code
from tests.remote.scene import (
    BAD_BAUD,
    BAD_BROKER,
    BETTER,
    FIRST_BROKER,
    GOOD,
    LOCAL,
    MINE,
    TERMS,
    UNFIT,
    Pole,
    play,
    wanted,
)


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
        assert f'{MINE} seq 2:3: [[device]] "meter": "every" must be 0.001 or more, not 0' in pole.plant.told[-1].text
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

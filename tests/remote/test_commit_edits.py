"""The pole's own file is edited: it takes the road of a document, whether operators may configure the pole or not."""

import errno
from pathlib import Path

import pytest

from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import LOCAL as OWN
from gateway.remote.plant import NeedsRestart, Unfit
from gateway.remote.settings_layers import Configuration
from gateway.remote.verdict import Code
from tests.remote.disk_fault import Disk, disk
from tests.remote.operator import document
from tests.remote.scene import BAD_BROKER, BETTER, FIRST_BROKER, GOOD, LOCAL, MINE, TERMS, Pole, play

__all__ = ["disk"]

ALONE = LOCAL.replace('[remote]\nenabled = true\ngroups = ["harbour"]\n', "")
WITHIN_S, HOLD_S = 120, 10  # the defaults of [reload]
LOST = ALONE.replace("broker.example", "nobody.example")
SILENT = ALONE.replace('driver = "modbus"\n', 'driver = "modbus"\nunit = 99\n', 1)
PROFILE = Path("config/profiles/eastron-sdm630.toml").read_text()
MOVED = ALONE.replace("[uplink]\n", '[uplink]\nprefix = "pole/2"\n')


@pytest.fixture(params=[ALONE, LOCAL], ids=["alone", "with [remote]"])
def own(request: pytest.FixtureRequest) -> str:
    """The file: of a pole that nobody may configure over the air, and of one that somebody may."""
    text: str = request.param
    return text


def test_an_edit_of_the_pole_s_own_file_takes_the_same_road(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        pole.own = LOCAL + GOOD
        await pole.commit.edited(pole.own)
        await pole.run(90)
        assert (pole.codes, pole.priority) == ([Code.COMMITTED], 7)
        pole.own = LOCAL.replace("broker.example", "nobody.example")
        await pole.start()  # also where it was edited while the gateway did not run
        await pole.run(5)
        assert "nobody" in pole.broker
        await pole.run(310)
        assert (pole.codes[1:], pole.broker, pole.priority) == ([Code.RB_UPSTREAM], FIRST_BROKER, 7)
        await pole.start()
        assert pole.codes[2:] == [Code.TOMBSTONED]
        await pole.run(400)
        assert (pole.broker, pole.priority) == (FIRST_BROKER, 7)

    play(scene())


def test_an_edit_with_faults_changes_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        for broken in ("[pole", LOCAL.replace("every", "evry"), ""):
            pole.own = broken
            await pole.start()
            await pole.run(5)
            assert pole.broker == FIRST_BROKER
            assert pole.codes[-1] is Code.SEMANTIC
        assert "pole.toml" in pole.plant.told[0].text
        pole.own = LOCAL
        await pole.start()
        await pole.run(100)
        assert pole.codes[3:] == [Code.NOOP]

    play(scene())


def test_an_edit_without_a_broker_before_stands_where_the_sensors_are_well(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = Pole(tmp_path)
        pole.plant.cut = True
        await pole.started()
        await pole.commit.edited(LOCAL + GOOD)
        await pole.run(150)
        assert pole.codes == [Code.COMMITTED]

    play(scene())


def test_an_edit_during_a_trial_waits_for_its_end(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(document(BAD_BROKER, trial=TERMS))
        await pole.run(5)
        pole.own = LOCAL + GOOD
        await pole.commit.edited(pole.own)
        await pole.run(30)
        assert ("nobody" in pole.broker, pole.priority) == (True, 5)
        await pole.run(120)
        assert (pole.broker, pole.priority) == (FIRST_BROKER, 7)

    play(scene())


def test_what_works_is_in_force_once_all_was_well_for_a_while(tmp_path: Path, own: str) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, own).started()
        pole.own = own + GOOD
        await pole.commit.edited(pole.own)
        await pole.run(5)
        assert pole.commit.state.trial
        assert pole.commit.left_s == pytest.approx(WITHIN_S, abs=6)
        gates = pole.commit.gates
        assert gates
        assert (gates.upstream, gates.downlink, gates.silent) == (True, True, [])
        await pole.run(HOLD_S)
        assert (pole.codes, pole.priority, pole.commit.left_s, pole.commit.gates) == ([Code.COMMITTED], 7, None, None)
        await pole.start()
        await pole.run(5)
        assert (pole.codes, pole.priority) == ([Code.COMMITTED], 7)  # the file of now is the one in force

    play(scene())


def test_the_same_file_again_changes_nothing_and_neither_does_a_comment(tmp_path: Path, own: str) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, own).started()
        await pole.commit.edited(own)
        assert pole.codes == [Code.NOOP]
        pole.plant.cut = True  # nothing is asked of the broker for that
        await pole.commit.edited(own + "# a comment\n")
        assert pole.codes == [Code.NOOP, Code.NOOP]
        await pole.run(100)
        assert (len(pole.plant.applied), pole.commit.state.trial, len(pole.codes)) == (1, None, 2)

    play(scene())


def test_a_file_with_faults_is_refused_at_once_with_the_line_and_is_looked_at_again(tmp_path: Path, own: str) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, own).started()
        pole.plant.cut = True
        broken = own.replace("every = 1.0", "every = 0", 1) + '[[device]]\nid = "x"\n'
        await pole.commit.edited(broken)
        assert pole.codes == [Code.SEMANTIC]
        assert '[[device]] "meter": "every" must be 0.001 or more, not 0' in pole.plant.told[-1].text
        assert 'key "driver" is missing' in pole.plant.told[-1].text
        assert pole.commit.state.of(OWN).fate is Code.SEMANTIC
        (tmp_path / "profiles").mkdir()
        await pole.commit.edited(own.replace("eastron-sdm630", "mine", 1))
        assert "profile" in pole.plant.told[-1].text
        (tmp_path / "profiles" / "mine.toml").write_text(PROFILE)
        await pole.commit.edited(own.replace("eastron-sdm630", "mine", 1))  # nothing in the file has changed
        assert pole.commit.state.of(OWN).fate is None
        await pole.commit.edited(own)
        assert pole.codes[-1] is Code.NOOP
        assert len(pole.plant.applied) == 1

    play(scene())


def test_what_was_rolled_back_is_told_and_not_tried_again_until_it_changes(tmp_path: Path, own: str) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, own).started()
        pole.own = own.replace("broker.example", "nobody.example")
        await pole.commit.edited(pole.own)
        await pole.run(WITHIN_S + 5)
        assert (pole.codes, pole.broker) == ([Code.RB_UPSTREAM], FIRST_BROKER)
        for n in range(3):
            await pole.commit.edited(pole.own)
            await pole.reboot(f"boot {n}")
            await pole.run(100)
            assert pole.commit.state.of(OWN).fate is Code.RB_UPSTREAM
        assert set(pole.codes[1:]) == {Code.TOMBSTONED}
        assert "this edit was tried and ended with RB_UPSTREAM: the uplink did not" in pole.plant.told[-1].text
        assert (pole.broker, pole.commit.state.trial) == (FIRST_BROKER, None)
        await pole.commit.edited(own)
        assert (pole.codes[-1], pole.commit.state.of(OWN).fate) == (Code.NOOP, None)
        pole.own += GOOD
        await pole.commit.edited(pole.own)
        await pole.run(5)
        assert "nobody" in pole.broker

    play(scene())


def test_the_one_in_force_says_how_long_a_trial_takes(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()
        await pole.commit.edited(LOST + "[reload]\nuplink_within = 3600.0\nhold = 600.0\n")
        await pole.run(WITHIN_S + 5)
        assert pole.codes == [Code.RB_UPSTREAM]

    play(scene())


def test_what_is_taken_and_does_not_come_back_is_no_uplink_where_it_came_back_before(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()
        await pole.commit.edited(ALONE + GOOD)
        await pole.run(2)
        pole.plant.deaf = True
        await pole.run(WITHIN_S)
        assert pole.codes == [Code.RB_UPSTREAM]
        await pole.commit.edited(ALONE + BETTER)  # the broker does not let the pole read it now, before the change
        await pole.run(30)
        assert (pole.codes, pole.priority) == ([Code.RB_UPSTREAM, Code.COMMITTED], 8)
        await pole.commit.edited(LOST)
        await pole.run(WITHIN_S + 5)
        assert pole.codes[2:] == [Code.RB_UPSTREAM]  # and an acknowledgement is asked for still

    play(scene())


def test_an_acknowledgement_from_before_proves_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = Pole(tmp_path, ALONE)
        pole.plant.deaf = True
        await pole.started()
        before = pole.plant.link_since
        await pole.commit.edited(ALONE + GOOD)
        for _ in range(WITHIN_S + 5):
            await pole.run(1)
            pole.plant.link_since = before
        assert pole.codes == [Code.RB_UPSTREAM]

    play(scene())


def test_a_document_at_a_broker_that_gives_nothing_back_needs_its_acknowledgement(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = Pole(tmp_path)
        pole.plant.deaf = True
        await pole.started()
        await pole.run(60)
        await pole.hear(document(GOOD, trial=TERMS))
        await pole.run(30)
        await pole.hear(document(BAD_BROKER, seq=2, trial=TERMS))
        await pole.run(80)
        assert pole.codes == [Code.OK, Code.COMMITTED, Code.OK, Code.RB_UPSTREAM]

    play(scene())


def test_a_silent_device_brings_the_old_one_back(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()
        await pole.commit.edited(SILENT)
        await pole.run(WITHIN_S + 5)
        assert pole.codes == [Code.RB_SENSORS]
        assert pole.plant.told[-1].text == "no values since it was applied from meter, and before"
        assert len(pole.plant.applied) == 3

    play(scene())


def test_what_was_dead_before_is_asked_for_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = Pole(tmp_path, ALONE)
        pole.plant.silent, pole.plant.cut = {"meter"}, True
        await pole.started()
        await pole.commit.edited(SILENT.replace("broker.example", "nobody.example"))
        await pole.run(100)
        assert pole.codes == [Code.COMMITTED]

    play(scene())


def test_what_cannot_be_applied_is_taken_back_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()

        def refuse(to: Configuration) -> None:
            if "dataset" in to.merged.content:
                raise Unfit("no such adapter")

        pole.plant.on_apply = refuse
        await pole.commit.edited(ALONE + GOOD)
        await pole.run(1)
        assert (pole.codes, pole.priority) == ([Code.APPLY], 5)

    play(scene())


def test_another_edit_during_the_trial_of_one_takes_its_place(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()
        await pole.commit.edited(LOST)
        await pole.run(5)
        await pole.commit.edited(SILENT)
        await pole.run(2)
        assert pole.broker == FIRST_BROKER
        await pole.run(WITHIN_S + 5)
        assert pole.codes == [Code.RB_CANCELLED, Code.RB_SENSORS]
        running = pole.commit.running.settings.devices[0]
        assert getattr(running, "unit", 0) == 1  # what comes back is the one that was accepted last

    play(scene())


def test_the_old_file_during_the_trial_of_an_edit_ends_it(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()
        await pole.commit.edited(LOST)
        await pole.run(5)
        await pole.commit.edited(ALONE)
        await pole.run(1)
        assert (pole.broker, pole.commit.state.trial) == (FIRST_BROKER, None)
        await pole.run(WITHIN_S)
        assert pole.codes == [Code.NOOP, Code.RB_CANCELLED]
        assert len(pole.plant.applied) == 3

    play(scene())


@pytest.mark.parametrize("second", [LOST, "[pole", MOVED])
def test_the_same_again_or_what_is_refused_does_not_touch_a_trial(tmp_path: Path, second: str) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()
        await pole.commit.edited(LOST)
        await pole.run(20)
        await pole.commit.edited(second)
        await pole.run(WITHIN_S - 25)
        assert "nobody" in pole.broker
        await pole.run(10)
        assert pole.broker == FIRST_BROKER
        assert pole.codes[-1] is Code.RB_UPSTREAM
        assert len(pole.plant.applied) == 3

    play(scene())


def test_what_comes_while_the_old_is_being_ended_proves_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()

        def take_a_while(_: Configuration) -> None:
            pole.plant.on_apply = lambda _: None
            for _second in range(3):
                pole.plant.live()

        pole.plant.on_apply = take_a_while
        await pole.commit.edited(SILENT)
        await pole.run(WITHIN_S + 5)
        assert pole.codes == [Code.RB_SENSORS]

    play(scene())


# --- starts ---


def test_what_needs_a_restart_is_refused_while_it_runs_and_comes_into_force_by_one(tmp_path: Path, own: str) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, own).started()
        pole.own = own.replace("[uplink]\n", '[uplink]\nprefix = "pole/2"\n')
        await pole.commit.edited(pole.own)
        await pole.run(200)
        assert pole.codes == [Code.PROBE]
        assert (pole.plant.told[-1].text, len(pole.plant.applied)) == ("the prefix needs a restart", 1)
        for n in range(3):  # whatever ends it
            await pole.reboot(f"boot {n}")
        await pole.run(4)
        assert pole.commit.state.trial
        await pole.start()  # which the plant asks for
        assert pole.commit.running.settings.root.uplink.prefix == "pole/2"
        await pole.run(20)
        assert pole.codes == [Code.PROBE, Code.COMMITTED]
        await pole.start()
        assert pole.commit.running.settings.root.uplink.prefix == "pole/2"

    play(scene())


def test_what_needs_a_restart_and_does_not_work_goes_back_too(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()
        pole.own = MOVED.replace("broker.example", "nobody.example")
        await pole.start()
        await pole.run(4)
        await pole.start()
        await pole.run(WITHIN_S)
        assert (pole.codes, pole.commit.running.settings.root.uplink.prefix) == ([Code.RB_UPSTREAM], "pole/1")
        await pole.start()
        await pole.run(200)
        assert pole.codes[1:] == [Code.TOMBSTONED]
        assert (pole.broker, pole.commit.running.settings.root.uplink.prefix) == (FIRST_BROKER, "pole/1")

    play(scene())


def test_a_document_that_needs_a_restart_is_refused_whenever_it_comes(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()

        def refuse(to: Configuration) -> None:
            if "dataset" in to.merged.content:
                raise NeedsRestart("it needs one")

        pole.plant.on_probe = refuse
        await pole.hear(document(GOOD, trial=TERMS))
        await pole.run(5)
        assert (pole.codes, pole.commit.state.of(MINE).fate) == ([Code.OK, Code.PROBE], Code.PROBE)

    play(scene())


def test_two_power_cuts_in_the_trial_of_an_edit_end_it(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path, ALONE).started()
        pole.own = LOST
        await pole.commit.edited(pole.own)
        await pole.run(5)
        for n in range(2):
            await pole.reboot(f"boot {n}")
        assert pole.codes == [Code.RB_POWER]
        assert pole.broker == FIRST_BROKER

    play(scene())


# --- what lies beside the file ---


@pytest.mark.parametrize("works", [True, False])
def test_a_profile_that_changed_is_tried_and_what_ran_before_comes_back(tmp_path: Path, *, works: bool) -> None:
    profile = tmp_path / "profiles" / "mine.toml"
    profile.parent.mkdir()
    profile.write_text(PROFILE)
    own = ALONE.replace("eastron-sdm630", "mine", 1)

    async def scene() -> None:
        pole = await Pole(tmp_path, own).started()
        first = pole.commit.running.fingerprint
        profile.write_text(PROFILE.replace("address = 0x0000\n", "address = 0x0100\n", 1))
        await pole.commit.edited(own)
        await pole.run(2)
        changed = pole.commit.running.fingerprint
        assert (changed != first, pole.commit.state.trial is None) == (True, False)
        pole.plant.cut = not works
        await pole.run(WITHIN_S)
        assert pole.codes == [Code.COMMITTED if works else Code.RB_UPSTREAM]
        assert pole.commit.running.fingerprint == (changed if works else first)

    play(scene())


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_where_nothing_can_be_written_down_the_pole_runs_and_an_edit_is_refused(
    tmp_path: Path, disk: Disk, error: int
) -> None:
    async def scene() -> None:
        disk.error = error
        pole = await Pole(tmp_path, ALONE).started()
        assert (pole.codes, len(pole.plant.applied)) == ([Code.STORAGE], 1)
        pole.own = ALONE + GOOD
        await pole.commit.edited(pole.own)
        await pole.commit.refresh()
        await pole.run(100)
        assert (pole.priority, set(pole.codes)) == (5, {Code.STORAGE})
        assert "no edit of it is tried while the gateway runs" in pole.plant.told[-1].text
        disk.error = 0
        await pole.commit.edited(pole.own)
        await pole.run(30)
        assert (pole.priority, pole.codes[-1]) == (7, Code.COMMITTED)

    play(scene())


def test_a_folder_of_today_is_read_by_the_polegate_of_before(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(document(GOOD, trial=TERMS))
        await pole.run(3)
        assert pole.commit.state.trial
        left = ConfigFolder(tmp_path / "config")
        assert left.load() == pole.commit.state
        for slot in (tmp_path / "config").glob("state.?"):
            assert b"one_way" not in slot.read_bytes()  # which that one does not know, and would not take

    play(scene())

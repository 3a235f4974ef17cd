"""A trial outlives the gateway: power cuts and crashes count against it, restarts in order do not."""

from pathlib import Path

from gateway.remote.verdict import Code
from tests.remote.scene import (
    BAD_BROKER,
    BETTER,
    FIRST_BROKER,
    SERVER,
    UNFIT,
    Pole,
    play,
    wanted,
)


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

"""The disk under a change: full, read-only, rotten, from another version; nothing acts that is not written down."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.remote.config_folder import SLOTS, ConfigFolder, NewerState
from gateway.remote.config_state import LOCAL, Standing, State
from gateway.remote.verdict import Code
from tests.remote.disk_fault import Disk, disk
from tests.remote.operator import NOW, document
from tests.remote.scene import BAD_BROKER, BETTER, GOOD, MINE, TERMS, Pole, play

__all__ = ["disk"]


def wanted(settings: str = GOOD, **changes: Any) -> bytes:  # noqa: ANN401  # any JSON
    return document(settings, **{"trial": TERMS, **changes})


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_what_cannot_be_written_down_is_not_believed_and_works_later(tmp_path: Path, disk: Disk, error: int) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        disk.error = error
        assert await pole.hear(wanted()) is Code.STORAGE
        await pole.run(30)
        assert pole.priority == 5
        assert pole.commit.state.of(MINE).seq == 0
        disk.error = 0
        assert await pole.hear(wanted()) is Code.OK
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


def test_a_trial_that_cannot_be_written_down_does_not_begin(tmp_path: Path, disk: Disk) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted())
        disk.error = errno.ENOSPC
        await pole.run(60)
        assert len(pole.plant.applied) == 1
        assert pole.codes == [Code.OK, Code.STORAGE]
        disk.error = 0
        await pole.run(60)
        assert pole.priority == 7

    play(scene())


def test_what_proved_itself_and_cannot_be_written_down_goes(tmp_path: Path, disk: Disk) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted())
        await pole.run(5)
        disk.error = errno.EROFS
        await pole.run(70)
        assert pole.priority == 5
        assert "it proved itself, and that cannot be written down" in pole.plant.told[-1].text
        await pole.start()  # the disk still says that it is tried, and cannot count
        assert pole.priority == 5
        disk.error = 0
        await pole.run(2)
        assert pole.commit.state.of(MINE).fate is Code.STORAGE

    play(scene())


def test_a_trial_that_proves_itself_when_the_disk_is_back_stays(tmp_path: Path, disk: Disk) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted())
        await pole.run(5)
        disk.error = errno.ENOSPC
        await pole.run(30)
        disk.error = 0
        await pole.run(5)
        assert pole.codes == [Code.OK, Code.COMMITTED]

    play(scene())


def test_a_way_back_is_gone_though_it_cannot_be_written_down_and_is_written_later(tmp_path: Path, disk: Disk) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted(BAD_BROKER))
        await pole.run(5)
        disk.error = errno.EROFS
        await pole.run(80)
        assert "nobody" not in pole.broker
        disk.error = 0
        await pole.run(2)
        await pole.start()
        assert await pole.hear(wanted(BAD_BROKER)) is Code.TOMBSTONED
        assert "nobody" not in pole.broker

    play(scene())


def test_a_pole_starts_on_a_disk_that_takes_nothing(tmp_path: Path, disk: Disk) -> None:
    async def scene() -> None:
        disk.error = errno.EROFS
        pole = await Pole(tmp_path).started()
        await pole.run(100)
        assert len(pole.plant.applied) == 1
        assert pole.codes == [Code.STORAGE]
        assert await pole.hear(wanted()) is Code.STORAGE

    play(scene())


@pytest.mark.parametrize("at", [0, 10, 70, 200, -1])
@pytest.mark.parametrize("slot", SLOTS)
def test_a_slot_that_rots_costs_a_generation_at_most(tmp_path: Path, slot: str, at: int) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted())
        await pole.run(30)
        await pole.hear(wanted(BETTER, seq=2))
        await pole.run(30)
        path = tmp_path / "config" / slot
        rotten = bytearray(path.read_bytes())
        rotten[at] ^= 1
        path.write_bytes(rotten)
        await pole.start()
        assert pole.priority == 8
        assert await pole.hear(wanted()) is Code.STALE
        await pole.run(100)
        assert pole.priority == 8
        await pole.start()
        assert (pole.priority, pole.commit.state.trial) == (8, None)

    play(scene())


def test_a_document_that_rots_is_left_out_told_and_comes_again(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted())
        await pole.run(30)
        active = pole.commit.state.of(MINE).active
        (tmp_path / "config" / f"obj-{active}").write_bytes(b"rot")
        await pole.start()
        assert pole.priority == 5
        assert pole.codes[-1] is Code.STORAGE
        assert await pole.hear(wanted()) is Code.OK
        await pole.run(30)
        assert pole.priority == 7
        await pole.start()
        assert pole.priority == 7

    play(scene())


def test_a_document_that_rots_while_it_waits_comes_again(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(wanted())
        waiting = tmp_path / "config" / f"obj-{pole.commit.state.of(MINE).sha}"
        waiting.unlink()
        await pole.run(30)
        assert pole.priority == 5
        assert await pole.hear(wanted()) is Code.OK
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


def test_the_state_of_a_newer_polegate_is_not_touched(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        folder = ConfigFolder(tmp_path / "config")
        folder.load()
        folder.save(State().but(layout=2))
        before = {path.name: path.read_bytes() for path in (tmp_path / "config").iterdir()}
        with pytest.raises(NewerState, match="newer polegate"):
            await pole.start()
        assert {path.name: path.read_bytes() for path in (tmp_path / "config").iterdir()} == before

    play(scene())


def test_what_is_not_needed_any_more_is_removed(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        folder = tmp_path / "config"
        (folder / "overrides.new").write_bytes(b"another program is at it")
        (folder / "state.a.new").write_bytes(b"left by a cut")
        for seq in range(1, 12):
            await pole.hear(wanted(f"[dataset.air]\npriority = {seq % 9}\n", seq=seq))
            await pole.run(30)
        names = sorted(path.name for path in folder.iterdir())
        assert len([name for name in names if name.startswith("obj-")]) <= 3
        assert [name for name in names if not name.startswith("obj-")] == ["overrides.new", "state.a", "state.b"]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert all((folder / name).stat().st_mode & 0o777 == 0o600 for name in names if name != "overrides.new")

    play(scene())


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = ConfigFolder(tmp_path / "new" / "config")
    assert folder.load() == State()
    ended = Standing(seq=3, epoch=1, sha="a", fate=Code.RB_SENSORS, why="x", active="b", active_seq=2)
    state = State(floor=NOW, root=2, streams={LOCAL: Standing(sha="c", active="c"), MINE: ended})
    for n in range(3):
        state = state.but(floor=NOW + n)
        folder.save(state)
        assert ConfigFolder(tmp_path / "new" / "config").load() == state
    slots = [json.loads((tmp_path / "new" / "config" / slot).read_bytes().split(b"\n")[1]) for slot in SLOTS]
    assert sorted(slot["generation"] for slot in slots) == [2, 3]

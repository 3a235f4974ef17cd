"""What was committed survives a power cut at any moment: against the real SQLite, and a model of what a disk keeps.

The controls are part of the proof: a buffer that does not wait for the disk must be caught by the same cuts.
"""

import random
from pathlib import Path

import pytest

from tests.store.power_cut import SECTOR, Disk, Fate, Tally, cut_again_and_again
from tests.store.power_cut_victim import Create, PtraceRefused, Rename, Sync, Write

CUTS = 60
MANY = 300


def cut(folder: Path, cuts: int, seed: int, *, safe: bool = True, level: str = "OFF") -> Tally:
    """Cut the power that often, where this machine allows it."""
    try:
        tally = cut_again_and_again(folder, cuts, seed, safe=safe, level=level)
    except PtraceRefused as refused:
        pytest.skip(f"ptrace is not permitted here: {refused}")
    assert tally.cuts == cuts
    return tally


def assert_nothing_lost(tally: Tally) -> None:
    """Nothing went wrong, and much could have."""
    assert not tally.lost
    assert not tally.invented
    assert not tally.unopenable
    assert tally.safe > 20 * tally.cuts
    assert tally.evicted > tally.cuts
    assert tally.restarts > tally.cuts // 30  # the log was used again, over older commits


def test_no_power_cut_loses_what_was_committed(tmp_path: Path) -> None:
    assert_nothing_lost(cut(tmp_path, CUTS, seed=1))


def test_a_buffer_that_does_not_wait_for_the_disk_is_caught(tmp_path: Path) -> None:
    assert cut(tmp_path, CUTS, seed=1, safe=False).caught >= 0.8 * CUTS


@pytest.mark.soak
def test_no_power_cut_of_many_loses_what_was_committed(tmp_path: Path) -> None:
    assert_nothing_lost(cut(tmp_path, MANY, seed=2))


@pytest.mark.soak
@pytest.mark.parametrize(("level", "least"), [("OFF", 0.8), ("NORMAL", 0.4)])
def test_weaker_buffers_are_caught_by_many_cuts(tmp_path: Path, level: str, least: float) -> None:
    assert cut(tmp_path, MANY, seed=2, safe=False, level=level).caught >= least * MANY


def images(disk: Disk) -> list[dict[str, bytes | None]]:
    """Return many of the ways in which a power cut may leave a disk."""
    source = random.Random(1)  # noqa: S311  # it picks fates
    return [disk.after_cut(Fate("chance", source)) for _ in range(200)]


def test_the_model_keeps_what_was_synced_and_tears_what_was_not() -> None:
    disk = Disk(Path("/disk"), {"file": b"a" * 2 * SECTOR})
    disk.apply(Write("/disk/file", SECTOR, b"b" * SECTOR))
    disk.apply(Sync("/disk/file"))
    disk.apply(Write("/disk/file", SECTOR // 2, b"c" * SECTOR))
    old, new = b"a" * SECTOR, b"b" * SECTOR
    first, second = b"a" * 256 + b"c" * 256, b"c" * 256 + b"b" * 256
    assert {image["file"] for image in images(disk)} == {old + new, old + second, first + new, first + second}


def test_the_model_lets_a_length_arrive_without_the_bytes() -> None:
    disk = Disk(Path("/disk"), {"file": b""})
    disk.apply(Write("/disk/file", 0, b"new"))
    assert {image["file"] for image in images(disk)} == {b"", b"new", bytes(3)}


def test_the_model_is_only_sure_of_a_name_whose_folder_was_synced() -> None:
    disk = Disk(Path("/disk"), {"file": b"old"})
    disk.apply(Create("/disk/folder", folder=True))
    disk.apply(Create("/disk/folder/new"))
    disk.apply(Write("/disk/folder/new", 0, b"new"))
    disk.apply(Sync("/disk/folder/new"))
    disk.apply(Sync("/disk/folder"))
    lost, kept = {"file": b"old"}, {"file": b"old", "folder": None, "folder/new": b"new"}
    assert all(image in (lost, kept) for image in images(disk))
    assert lost in images(disk)
    disk.apply(Sync("/disk"))
    assert all(image == kept for image in images(disk))
    disk.apply(Rename("/disk/folder/new", "/disk/file"))
    assert all(image in (kept, {"file": b"new", "folder": None}) for image in images(disk))

"""The power is cut at every point of a life of several documents, and again while the pole comes up."""

from pathlib import Path

import pytest

from tests.remote.cut_scene import END, cuts, ended_before, lived, must_come_up, must_hold
from tests.remote.disk_model import images


def test_the_model_of_a_disk_loses_tears_and_keeps() -> None:
    written = [("name", "a.new", 1), ("write", 1, b"12345678")]
    left = images(written)
    assert {} in left
    assert {image.get("a.new") for image in left} == {None, b"", b"1234", b"1234\0\0\0\0", b"12345678"}
    renamed = [*written, ("rename", "a.new", "a", 1)]
    assert {image.get("a") for image in images(renamed)} == {None, b"", b"1234", b"1234\0\0\0\0", b"12345678"}
    assert images([*written, ("sync", 1), ("rename", "a.new", "a", 1), ("folder",)]) == [{"a": b"12345678"}]
    twice = [*written, ("sync", 1), ("rename", "a.new", "a", 1), ("folder",), ("name", "a.new", 2), ("write", 2, b"x")]
    assert {image["a"] for image in images([*twice, ("rename", "a.new", "a", 2)])} == {b"12345678", b"", b"\0", b"x"}


def test_a_life_without_a_cut(tmp_path: Path) -> None:
    life = lived(tmp_path / "life")
    assert life.applied[-1].fingerprint == END
    codes = [verdict.code.name for _, verdict in life.told]
    assert codes == [
        "OK", "COMMITTED", "OK", "COMMITTED", "OK", "BUSY", "RB_UPSTREAM", "COMMITTED",
        "COMMITTED", "COMMITTED", "OK", "COMMITTED",
    ]  # fmt: skip


def test_every_cut_leaves_a_whole_state(tmp_path: Path) -> None:
    life = lived(tmp_path / "life")
    count = 0
    for cut, image in cuts(life):
        must_hold(life, cut, image, tmp_path / "left")
        count += 1
    assert count > 500


def come_up(tmp_path: Path, every: int) -> int:
    """Cut a life, and let the pole come up; return how often."""
    life = lived(tmp_path / "life")
    chosen = list(cuts(life))[::every]
    for cut, image in chosen:
        must_come_up(lived(tmp_path / "again", image, "second"), ended_before(life, cut))
    return len(chosen)


def come_up_twice(tmp_path: Path, every: int, every_second: int) -> int:
    """Cut it again while it comes up."""
    life = lived(tmp_path / "life")
    count = 0
    for number, (cut, image) in enumerate(list(cuts(life))[::every]):
        second_life = lived(tmp_path / "again", image, "second")
        for second_cut, second in list(cuts(second_life))[number % every_second :: every_second]:
            ended = ended_before(life, cut) | ended_before(second_life, second_cut)
            must_hold(second_life, second_cut, second, tmp_path / "left", image)
            must_come_up(lived(tmp_path / "third", second, "third"), ended, cuts=2)
            count += 1
    return count


def test_the_pole_comes_up_after_a_cut(tmp_path: Path) -> None:
    assert come_up(tmp_path, 11) > 100


def test_the_pole_comes_up_after_two_cuts(tmp_path: Path) -> None:
    assert come_up_twice(tmp_path, 101, 97) > 40


@pytest.mark.soak
def test_the_pole_comes_up_after_every_cut(tmp_path: Path) -> None:
    assert come_up(tmp_path, 1) > 1000


@pytest.mark.soak
def test_the_pole_comes_up_after_many_pairs_of_cuts(tmp_path: Path) -> None:
    assert come_up_twice(tmp_path, 7, 41) > 1600

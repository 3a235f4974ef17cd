"""Which packs a receiver holds for missing: against sets of numbers, and against the receiver of the bench."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.words.completeness import GRACE_S, Arrival, Hole, Label, Span, Track, Watch, label_of, spans
from hil.receiver import Heard
from tests.examples import examples

MOST = 12


def numbers(holes: Iterable[Hole]) -> set[Span]:
    return {(hole.epoch, seq) for hole in holes for seq in range(hole.first, hole.last + 1)}


@st.composite
def runs(draw: st.DrawFn) -> list[Label]:
    """Make the packs of some runs of a gateway, in order."""
    packs = []
    last: Span | None = None
    for epoch in sorted(draw(st.sets(st.integers(1, 6), min_size=1, max_size=4))):
        count = draw(st.integers(1, MOST))
        packs += [Label(epoch, seq, last if seq == 1 else None) for seq in range(1, count + 1)]
        last = epoch, count
    return packs


@st.composite
def streams(draw: st.DrawFn) -> list[Label]:
    """Make what comes of that: packs are lost, come twice, come late and are marked so, or are not."""
    packs = draw(runs())
    kept = draw(st.lists(st.sampled_from(packs), max_size=3 * MOST))
    ordered = draw(st.booleans())
    marked = draw(st.booleans())
    came: list[Label] = []
    for pack in sorted(kept) if ordered else kept:
        late = marked and any((pack.epoch, pack.seq) < (other.epoch, other.seq) for other in came)
        came.append(pack._replace(backfill=late or (marked and not came and draw(st.booleans()))))
    return came


@examples(400)
@given(streams())
def test_what_is_missing_is_what_sets_of_numbers_say(packs: list[Label]) -> None:
    track = Track()
    came: set[Span] = set()
    begin: Span | None = None
    passed: set[Span] = set()
    repeats = 0
    for at, pack in enumerate(packs):
        repeats += (pack.epoch, pack.seq) in came
        is_new = (pack.epoch, pack.seq) not in came
        came.add((pack.epoch, pack.seq))
        if begin is not None and is_new:
            for epoch, last in ((pack.epoch, pack.seq), *([pack.after] if pack.after else [])):
                passed |= {(epoch, seq) for seq in range(1, last + 1) if (epoch, seq) > begin}
        if begin is None and is_new and not pack.backfill:
            begin = pack.epoch, pack.seq
        track.take(pack, float(at))
        assert numbers(track.holes) == passed - came
        assert [(hole.epoch, hole.first) for hole in track.holes] == sorted(
            (hole.epoch, hole.first) for hole in track.holes
        )
    assert (track.packs, track.repeats) == (len(packs), repeats)


@examples(200)
@given(streams())
def test_who_hears_all_from_the_first_pack_on_misses_what_the_receiver_of_the_bench_does(packs: list[Label]) -> None:
    track, heard = Track(), Heard()
    for pack in (Label(1, 1), *packs):
        labels = {"epoch": pack.epoch, "seq": pack.seq} | (
            {"after": f"{pack.after[0]}:{pack.after[1]}"} if pack.after else {}
        )
        heard.take("data/air", json.dumps([{"n": "a", "bt": 2e9, "v": 1} | labels]).encode())
        told = label_of(labels)
        assert told is not None
        track.take(told, 0.0)
    assert sorted(numbers(track.holes)) == sorted(heard.holes().get("air", []))
    assert track.repeats == heard.repeats()


@examples(200)
@given(streams(), st.lists(st.tuples(st.integers(1, 6), st.integers(1, MOST), st.integers(1, MOST))))
def test_holes_that_are_gone_are_exactly_those_that_were_named(
    packs: list[Label], gone: list[tuple[int, int, int]]
) -> None:
    track = Track()
    for pack in packs:
        track.take(pack, 0.0)
    missing = numbers(track.holes)
    lost: set[Span] = set()
    for epoch, first, last in gone:
        named = {(epoch, seq) for seq in range(first, last + 1)} & missing
        assert track.lose(epoch, (first, last)) == bool(named)
        lost |= named
    assert numbers(track.holes) == missing
    assert numbers(hole for hole in track.holes if hole.gone) == lost


def heard(watch: Watch, *packs: Label, now: float = 0.0, pole: str = "pole-7", dataset: str = "air") -> list[Arrival]:
    return [watch.take(pole, dataset, pack, now) for pack in packs]


def due(watch: Watch, now: float) -> list[tuple[str, str, dict[int, list[Span]]]]:
    return [(pole, dataset, spans(holes)) for pole, dataset, holes in watch.due(now)]


def test_the_watch_begins_with_the_first_pack_and_what_was_before_is_nobodys_hole() -> None:
    watch = Watch()
    assert heard(watch, Label(5, 900), Label(5, 901), Label(5, 899), Label(4, 3)) == ["next", "next", "late", "late"]
    assert due(watch, 1e6) == []


def test_a_hole_is_told_once_and_only_after_the_grace_time() -> None:
    watch = Watch()
    heard(watch, Label(5, 1), Label(5, 4), Label(5, 6), now=10.0)
    assert due(watch, 9.0 + GRACE_S) == []
    assert due(watch, 10.0 + GRACE_S) == [("pole-7", "air", {5: [(2, 3), (5, 5)]})]
    assert due(watch, 1e6) == []


@pytest.mark.parametrize("marked", [True, False])
def test_backlog_behind_newer_packs_is_no_hole_for_as_long_as_it_comes(*, marked: bool) -> None:
    watch = Watch()
    heard(watch, Label(5, 1), Label(5, 1000))
    for seq in range(2, 1000):
        now = seq * 60.0  # slower than the grace time in all, never slower in one
        assert heard(watch, Label(5, seq, backfill=marked), now=now) == ["late"]
        assert due(watch, now) == []
    assert due(watch, 1e9) == []


def test_backlog_of_one_dataset_excuses_the_others_of_that_pole_and_no_other_pole() -> None:
    watch = Watch()
    for pole in ("pole-7", "pole-8"):
        heard(watch, Label(1, 1), Label(1, 9), pole=pole, dataset="noise")
    heard(watch, Label(1, 5), now=GRACE_S - 1)
    heard(watch, Label(1, 2, backfill=True), now=GRACE_S - 1)
    assert due(watch, GRACE_S) == [("pole-8", "noise", {1: [(2, 8)]})]
    assert due(watch, 2 * GRACE_S) == [("pole-7", "noise", {1: [(2, 8)]})]


def test_a_pack_that_was_said_to_be_missing_comes_after_all() -> None:
    watch = Watch()
    heard(watch, Label(5, 1), Label(5, 4))
    assert heard(watch, Label(5, 3)) == ["late"]
    assert due(watch, GRACE_S) == [("pole-7", "air", {5: [(2, 2)]})]
    assert heard(watch, Label(5, 2), Label(5, 2)) == ["mended", "repeat"]


def test_backlog_that_is_marked_and_comes_first_does_not_begin_the_watch() -> None:
    watch = Watch()
    heard(watch, Label(3, 17, backfill=True), Label(5, 900), Label(3, 18, backfill=True))
    assert due(watch, 1e6) == []


def test_a_run_that_began_while_we_listened_is_whole_from_its_first_pack() -> None:
    watch = Watch()
    assert heard(watch, Label(5, 900), Label(6, 3)) == ["next", "restart"]
    assert due(watch, GRACE_S) == [("pole-7", "air", {6: [(1, 2)]})]


def test_a_run_before_is_whole_up_to_where_the_next_says_it_ended() -> None:
    watch = Watch()
    heard(watch, Label(5, 900), Label(6, 1, after=(5, 903)), Label(8, 1, after=(7, 2)))
    assert due(watch, GRACE_S) == [("pole-7", "air", {5: [(901, 903)], 7: [(1, 2)]})]


def test_what_ended_before_the_watch_began_is_not_missed() -> None:
    watch = Watch()
    heard(watch, Label(6, 1, after=(5, 903)), Label(6, 2), Label(7, 1, after=(4, 2)), Label(7, 2, after=(9, 9)))
    assert due(watch, 1e6) == []


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"epoch": 1},
        {"epoch": True, "seq": 1},
        {"epoch": 1, "seq": 0},
        {"epoch": 1.0, "seq": 1},
        {"epoch": 1, "seq": "1"},
    ],
)
def test_what_is_no_number_is_none(labels: dict[str, object]) -> None:
    assert label_of(labels) is None


def test_labels_are_read() -> None:
    assert label_of({"epoch": 3, "seq": 1, "after": "2:17", "backfill": True}) == Label(3, 1, (2, 17), backfill=True)
    assert label_of({"epoch": 3, "seq": 2, "after": "2:x", "cat": "0123abcd"}) == Label(3, 2)


def test_a_pack_in_parts_has_come_when_its_last_part_has() -> None:
    watch = Watch()
    parts = [Label(5, 2, part=(n, 3)) for n in (1, 3)]
    assert heard(watch, Label(5, 1), *parts, parts[0], Label(5, 3)) == ["next", "part", "part", "part", "next"]
    assert due(watch, GRACE_S) == [("pole-7", "air", {5: [(2, 2)]})]
    assert heard(watch, Label(5, 2, part=(2, 3))) == ["mended"]
    assert heard(watch, Label(5, 2)) == ["repeat"]


@pytest.mark.parametrize(
    ("told", "part"), [("2/3", (2, 3)), ("0/3", (1, 1)), ("1/2/3", (1, 1)), (3, (1, 1)), (None, (1, 1))]
)
def test_a_part_is_read_from_its_label(told: object, part: Span) -> None:
    label = label_of({"epoch": 1, "seq": 2, "part": told})
    assert label is not None
    assert label.part == part

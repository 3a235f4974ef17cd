"""The buffer survives kill -9 at any moment. A power cut is another test: this one could not see a missing fsync."""

from pathlib import Path

import pytest

from tests.store.buffer_kill import Promise, Tally, kill_again_and_again

KILLS = 50
MANY_KILLS = 300


def proves(tally: Tally, kills: int) -> None:
    """See that the run was worth something, and that nothing was lost in it."""
    assert tally.kills == kills
    assert tally.accepted > 100 * kills
    assert tally.safe > 2 * kills
    assert not tally.lost
    assert not tally.invented


def test_with_the_journal_nothing_accepted_is_lost_by_kill_9_and_nothing_is_invented(tmp_path: Path) -> None:
    proves(kill_again_and_again(tmp_path, KILLS, seed=1, journal=True, promise="accepted"), KILLS)


def test_without_it_nothing_committed_is_lost_by_kill_9_and_nothing_is_invented(tmp_path: Path) -> None:
    proves(kill_again_and_again(tmp_path, KILLS, seed=2, journal=False, promise="committed"), KILLS)


def test_it_would_be_seen_if_accepted_readings_were_lost(tmp_path: Path) -> None:
    tally = kill_again_and_again(tmp_path, 5, seed=3, journal=False, promise="accepted")
    assert tally.lost
    assert not tally.invented


@pytest.mark.soak
@pytest.mark.parametrize(("journal", "promise"), [(True, "accepted"), (False, "committed")])
def test_the_same_holds_for_many_kills_with_eviction_going_on(
    tmp_path: Path,
    journal: bool,  # noqa: FBT001  # pytest passes by name
    promise: Promise,
) -> None:
    tally = kill_again_and_again(tmp_path, MANY_KILLS, seed=4, journal=journal, promise=promise)
    proves(tally, MANY_KILLS)
    assert tally.evicted > MANY_KILLS

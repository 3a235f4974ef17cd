"""The buffer survives kill -9 at any moment. A power cut is another test: this one could not see a missing fsync."""

from pathlib import Path

from tests.buffer_kill import kill_again_and_again

KILLS = 25


def test_nothing_committed_is_lost_by_kill_9_and_nothing_is_invented(tmp_path: Path) -> None:
    tally = kill_again_and_again(tmp_path, KILLS, seed=1)
    assert tally.kills == KILLS
    assert tally.safe > 10 * KILLS
    assert not tally.lost
    assert not tally.invented

"""The machine's clocks: what counts since boot, and whether the time of day is believed."""

import time
from pathlib import Path

import pytest

from gateway.host.clock import Clock


def test_a_stamp_counts_from_boot_and_never_runs_back() -> None:
    clock = Clock()
    stamps = [clock.now() for _ in range(1000)]
    assert stamps == sorted(stamps)
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert stamps[-1] / 1e9 == pytest.approx(since_boot, abs=1)


def test_a_stamp_and_the_offset_make_the_time_of_day() -> None:
    clock = Clock()
    assert (clock.now() + clock.utc_offset()) / 1e9 == pytest.approx(time.time(), abs=0.1)


def test_the_boot_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Clock().boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    monkeypatch.setattr("gateway.host.clock.BOOT_ID", tmp_path / "hidden")
    assert Clock().boot == ""


@pytest.mark.parametrize(
    ("state", "believed"),
    [
        (0, True),  # TIME_OK
        (1, True),  # a leap second comes
        (4, True),  # it was
        (5, False),  # TIME_ERROR: nobody set the clock
        (-1, False),  # the call is forbidden: nobody knows
    ],
)
def test_the_time_of_day_is_believed_only_where_the_kernel_vouches_for_it(
    monkeypatch: pytest.MonkeyPatch,
    state: int,
    believed: bool,  # noqa: FBT001  # a parameter of the table
) -> None:
    monkeypatch.setattr("gateway.host.clock._adjtimex", lambda _buffer: state)
    assert Clock().synchronised() is believed


def test_where_the_call_is_forbidden_the_file_of_the_other_service_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gateway.host.clock.SYNCHRONISED", tmp_path / "synchronised")
    (tmp_path / "synchronised").touch()
    for state, believed in ((-1, True), (0, True), (5, False)):  # what the kernel says itself counts for more
        monkeypatch.setattr("gateway.host.clock._adjtimex", lambda _buffer, state=state: state)
        assert Clock().synchronised() is believed


def test_asking_the_kernel_changes_nothing() -> None:
    assert Clock().synchronised() in {True, False}
    before = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    Clock().synchronised()
    assert Clock().utc_offset() == pytest.approx(before, abs=100_000_000)

"""The job that polls: its grid, its back-off, and that nothing a driver does ends it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import PrivateAttr
from structlog.testing import capture_logs

from drivers.contract import Asked, BadFrame, Channel, DeviceError, NoReply, NotReady, Port, PortGone, Seek, Values
from gateway.sensors.poll import LONGEST_PAUSE_S, next_poll, pause, poll
from hil.vclock import run
from tests.examples import examples
from tests.sensors.stage import Shelf, now

Act = Callable[[], Coroutine[Any, Any, Values]]


class Actor(Asked):
    """A device that does what the test says at each poll, and notes when that was."""

    driver: Literal["actor"]
    DATASET: ClassVar = "air"
    MAKE: ClassVar = "nobody's"
    CHANNELS: ClassVar = {"level": Channel("level", "m")}

    _act: Act = PrivateAttr()
    _polled_at: list[float] = PrivateAttr(default_factory=list)

    def decode(self, frame: bytes) -> Values:
        """Nobody calls it."""
        raise BadFrame(f"no frames here: {frame.hex()}")

    async def poll(self, port: Port) -> Values:
        """Do what the test says."""
        del port
        self._polled_at.append(now())
        return await self._act()


class NoPort:
    """A port that nobody asks."""

    transport: Literal["serial", "tcp"] = "serial"

    async def ask(self, request: bytes, seek: Seek, *, size: int, tagged: bool = False) -> bytes:
        """Tell that there is nothing."""
        raise PortGone(f"{request!r} {seek} {size} {tagged}")

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)


def polls(act: Act, *, seconds: float, every: float = 10.0) -> tuple[list[float], Shelf]:
    """Poll a device that does this each time, and return when it was polled and what came of it."""

    async def main() -> tuple[list[float], Shelf]:
        device = Actor(id="actor", driver="actor", port="bus", every=every)
        device._act = act  # noqa: SLF001  # ours
        shelf = Shelf(device)
        job = asyncio.create_task(poll(device, NoPort(), shelf.account))
        await asyncio.sleep(seconds)
        assert not job.done()
        job.cancel()
        await asyncio.wait([job])
        return device._polled_at, shelf  # noqa: SLF001  # ours

    return run(main())


def failing(error: Exception) -> Act:
    """Fail each time."""

    async def act() -> Values:
        raise error

    return act


def test_polls_lie_on_a_grid_whatever_each_of_them_takes() -> None:
    takes = iter([0.0, 3.0, 9.9, 0.5, 23.0, 10.5, 0.0])

    async def act() -> Values:
        await asyncio.sleep(next(takes, 0.0))
        return {"level": 1}

    polled_at, shelf = polls(act, seconds=95)
    assert polled_at == pytest.approx([0, 10, 20, 30, 40, 70, 90])
    assert shelf.times("level") == pytest.approx([0, 13, 29.9, 30.5, 63, 80.5, 90])


LOST: list[DeviceError] = [NoReply("nothing"), BadFrame("rubbish")]


@pytest.mark.parametrize("error", LOST)
def test_a_device_that_gives_nothing_is_asked_less_and_less_down_to_once_a_minute(error: DeviceError) -> None:
    polled_at, shelf = polls(failing(error), seconds=300, every=2.0)
    assert polled_at == pytest.approx([0, 2, 6, 14, 30, 62, 122, 182, 242])
    assert shelf.health.lost == {error.word: 9}


NOT_ITS_FAULT: list[DeviceError] = [NotReady("warming up"), PortGone("pulled")]


@pytest.mark.parametrize("error", NOT_ITS_FAULT)
def test_a_device_that_is_not_to_blame_is_asked_at_its_interval(error: DeviceError) -> None:
    polled_at, shelf = polls(failing(error), seconds=99)
    assert polled_at == pytest.approx(list(range(0, 100, 10)))
    assert shelf.health.lost == {error.word: 10}


@pytest.mark.parametrize("error", [PortGone("pulled"), ValueError("a bug")])
def test_what_fails_at_once_is_tried_once_a_second_however_short_the_interval(error: Exception) -> None:
    polled_at, _ = polls(failing(error), seconds=9.5, every=0.001)
    assert polled_at == pytest.approx(list(range(10)), abs=0.01)  # of the grid of milliseconds


def test_an_interval_longer_than_the_longest_pause_stays_as_it_is() -> None:
    polled_at, _ = polls(failing(NoReply("nothing")), seconds=3000, every=300.0)
    assert polled_at == pytest.approx(list(range(0, 3000, 300)))


def test_one_good_answer_ends_the_patience_that_was_lost() -> None:
    good = iter([False, False, True, False, True, False, False])

    async def act() -> Values:
        if next(good, True):
            return {"level": 1}
        raise NoReply("nothing")

    polled_at, _ = polls(act, seconds=19.5, every=1.0)
    assert polled_at == pytest.approx([0, 1, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 18, 19])


BUGS = [
    ValueError("cannot convert"),
    KeyError("mising"),
    AttributeError("None has no"),
    ZeroDivisionError(),
    RecursionError(),
    AssertionError(),
    TimeoutError(),
    OSError(5, "it opened something"),
    ExceptionGroup("many", [ValueError(), KeyError()]),
    StopAsyncIteration(),
    MemoryError(),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
def test_whatever_a_driver_raises_is_a_bug_that_is_counted_logged_and_survived(bug: Exception) -> None:
    with capture_logs() as lines:
        polled_at, shelf = polls(failing(bug), seconds=35)
    assert polled_at == pytest.approx([0, 10, 20, 30])
    assert shelf.health.lost == {"bug": 4}
    assert shelf.lapses() == [(0.0, "", "bug")]
    assert len(lines) == 1  # once a minute
    assert lines[0]["log_level"] == "error"
    assert lines[0]["exc_info"] is bug  # the traceback
    assert lines[0]["event"].startswith("the driver actor failed: ")


def test_a_driver_that_gives_no_mapping_is_a_bug_too() -> None:
    async def act() -> Values:
        return [1, 2, 3]  # type: ignore[return-value]  # that is the bug

    _, shelf = polls(act, seconds=25)
    assert shelf.health.lost == {"bug": 3}


@examples(300)
@given(
    due=st.floats(0, 1e7),
    late=st.floats(0, 1e4),
    every=st.floats(0.05, 86_400),
    failures=st.integers(0, 2000),
)
def test_the_next_poll_is_ahead_on_the_grid_and_never_further_than_asked(
    due: float, late: float, every: float, failures: int
) -> None:
    leave_out = pause(failures)
    after = next_poll(due, due + late, every, leave_out)
    steps = (after - due) / every
    assert steps == pytest.approx(round(steps), rel=1e-6)
    assert after > due + late - 1e-6
    assert after <= max(due + late + every, due + leave_out) + 1e-6
    assert leave_out <= LONGEST_PAUSE_S

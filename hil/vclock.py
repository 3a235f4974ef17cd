"""An event loop on real file descriptors whose clock jumps: hours of operation in seconds, the same each time.

The loop sleeps only while bytes are under way. When nothing is ready it would have to wait for its next timer;
instead it moves its clock to that timer. What makes that safe:

* The loop looks with ``poll(2)``, not epoll. The kernel moves the bytes of a pty by a worker, and ``poll`` on a tty
  waits for that worker (``n_tty_poll`` flushes it); epoll does not, and of 200 polls some 150 came out different the
  second time.
* What takes the road through another process has a *canary*: before each jump it sends something behind the data and
  waits until it is through; the data has then arrived too, and the loop looks again. A grace time ("2 ms of quiet")
  was measured not to be deterministic on a busy machine.
* Work given to an executor runs on the spot. A thread would be invisible to the clock.

Rules for what runs here: emulator and code under test share this one loop; time is ``loop.time()``, never
``time.monotonic()``; no subprocess is waited for.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STUCK_S = 20.0
"""Real seconds without an event or a timer after which a run is called deadlocked."""


class Canary(Protocol):
    """Something sent behind the data: when it is through, so is the data."""

    def sing(self) -> None:
        """Send and wait, blocking, until it arrived."""

    def close(self) -> None:
        """Give back the file descriptors."""


class _JumpingSelector(selectors.PollSelector):
    """Waits by moving the loop's clock instead of by waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.canaries: list[Canary] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; else jump ``timeout`` seconds ahead, else (no timer at all) really wait."""
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        for canary in self.canaries:
            canary.sing()
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            ready = super().select(STUCK_S)
            if not ready:
                raise RuntimeError(f"nothing to do and nothing to wait for during {STUCK_S:.0f} s: deadlock")
            return ready
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A selector loop with its own clock, which starts at 0 and has no relation to the time of day."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # Timers closer than the resolution fire together; the default comes from a clock that is not ours.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Return the virtual seconds since this loop was made."""
        return self._jumping.now

    def add_canary(self, canary: Canary) -> None:
        """Sing this one before each jump; it is closed with the loop."""
        self._jumping.canaries.append(canary)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run the function now, on this thread."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # it belongs to whoever awaits the future
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Close the loop and its canaries."""
        super().close()
        for canary in self._jumping.canaries:
            canary.close()
        self._jumping.canaries.clear()


def run(main: Coroutine[Any, Any, T], *canaries: Canary) -> T:
    """Run ``main`` to its end on a fresh virtual loop.

    Args:
        main: what to run.
        canaries: one for each kind of road the data takes; none are needed where all is in memory.

    Returns:
        What ``main`` returned.
    """

    def make_loop() -> VirtualLoop:
        loop = VirtualLoop()
        for canary in canaries:
            loop.add_canary(canary)
        return loop

    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main)

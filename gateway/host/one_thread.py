"""A door: a thread of its own for what may have to wait for the disk, so that the event loop never does.

What was begun comes to its end, and who asked for it takes what it gave: a disk would not know that somebody was
cancelled, and what it did must not be done again. Who is cancelled meanwhile goes on to the next place where he waits
for something else, as if the work had taken no time.

The loop hears of what is done by a descriptor of ours, an eventfd. By ``call_soon_threadsafe`` a commit of the buffer
costs a twentieth more.

Source: eventfd(2).
"""

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


class Certain(asyncio.Future[T]):
    """What will come whoever is cancelled. A shield around each would cost more than the way to the thread."""

    def cancel(self, msg: object = None) -> bool:
        """Refuse; the task that waits is cancelled when this is there."""
        del msg
        return False


class OneThread(Executor):
    """One thread: what it does it does in turn. A pool of one would cost half as much again for each piece of work."""

    def __init__(self, name: str) -> None:
        """Begin it, within a running loop. It does not keep the process from ending."""
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Certain[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._jobs = queue.SimpleQueue()
        self._done: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loop.add_reader(self._bell, self._hear)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[], T]) -> T:
        """Have it done, and return or raise what it gave."""
        done = self._loop.run_in_executor(self, work)
        try:
            return await done
        except asyncio.CancelledError:
            if task := asyncio.current_task(self._loop):
                task.uncancel()  # it was asked for once
                task.cancel()
            return done.result()

    def submit(self, fn: Callable[..., T], /, *args: Any) -> Certain[T]:  # type: ignore[override]  # noqa: ANN401
        """Have it done; ``run_in_executor`` takes a future of its own loop as it is. Raises RuntimeError at its end."""
        if self._bell < 0:
            raise RuntimeError("the thread has ended")
        future: Certain[T] = Certain(loop=self._loop)
        self._jobs.put((future, fn, args))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # Executor's
        """End the thread, once all is done that it was given."""
        del wait, cancel_futures
        self._jobs.put(None)
        self._thread.join()
        if not self._loop.is_closed():  # else nobody waits any more
            self._settle()
        if self._bell >= 0:
            self._loop.remove_reader(self._bell)
            os.close(self._bell)
            self._bell = -1

    def _run(self) -> None:
        while job := self._jobs.get():
            future, work, args = job
            try:
                settle, outcome = future.set_result, work(*args)
            except BaseException as error:  # noqa: BLE001  # it belongs to whoever awaits the future
                settle, outcome = future.set_exception, error
            self._done.append((settle, outcome))
            os.eventfd_write(self._bell, 1)
            del job, future, settle, outcome  # they would live until the next

    def _hear(self) -> None:
        os.eventfd_read(self._bell)
        self._settle()

    def _settle(self) -> None:
        while self._done:
            settle, outcome = self._done.popleft()
            settle(outcome)

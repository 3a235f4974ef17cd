"""The thread that waits for the disk: what it does, and who is cancelled meanwhile."""

import asyncio
import threading
from collections.abc import Callable, Coroutine

import pytest

from gateway.host.one_thread import OneThread


class Work:
    """What is done on the thread, when it may."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self._may = threading.Semaphore(0)

    def do(self, number: int) -> int:
        """Do it; the third goes wrong."""
        assert self._may.acquire(timeout=10)
        self.done.append(number)
        if number == 3:
            raise OSError("the disk")
        return number

    def let(self, times: int) -> None:
        """Let it be done so many times."""
        self._may.release(times)

    def of(self, number: int) -> Callable[[], int]:
        """Return one."""
        return lambda: self.do(number)


def played(scene: Callable[[OneThread, Work], Coroutine[object, object, None]]) -> None:
    """Play a scene, and see that nothing goes wrong behind it."""
    wrong: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context["message"]))
        thread = OneThread("test")
        await scene(thread, Work())
        thread.shutdown()

    asyncio.run(main())
    assert not wrong


async def come_as_far_as_they_can() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_it_does_one_after_the_other_to_its_end_and_gives_the_errors_too() -> None:
    async def scene(thread: OneThread, work: Work) -> None:
        jobs = [asyncio.create_task(thread.do(work.of(number))) for number in range(1, 5)]
        await come_as_far_as_they_can()
        work.let(5)
        assert await asyncio.gather(*jobs, return_exceptions=True) == [1, 2, jobs[2].exception(), 4]
        with pytest.raises(OSError, match="the disk"):
            await jobs[2]
        last = thread.submit(work.do, 5)
        thread.shutdown()
        assert work.done == [1, 2, 3, 4, 5]
        assert await last == 5

    played(scene)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("times", [1, 2])
def test_who_is_cancelled_takes_what_it_gave_and_is_cancelled_where_he_waits_next(number: int, times: int) -> None:
    async def scene(thread: OneThread, work: Work) -> None:
        took: list[int] = []
        one_is_done = asyncio.Event()

        async def all_of_them() -> None:
            try:
                took.append(await thread.do(work.of(1)))
                one_is_done.set()
                took.append(await thread.do(work.of(2)))
            finally:
                task = asyncio.current_task()
                assert task is not None
                took.append(-task.cancelling())
            await asyncio.Future()
            took.append(99)

        job = asyncio.create_task(all_of_them())
        await come_as_far_as_they_can()
        if number == 2:
            work.let(1)
            await one_is_done.wait()
        for _ in range(times):
            job.cancel()
            await come_as_far_as_they_can()
        work.let(2)
        await asyncio.wait([job])
        assert (job.cancelled(), took) == (True, [1, 2, -times])

    played(scene)


def test_who_is_cancelled_is_told_what_went_wrong() -> None:
    async def scene(thread: OneThread, work: Work) -> None:
        told: list[str] = []

        async def try_it() -> None:
            try:
                await thread.do(work.of(3))
            except OSError as error:
                told.append(str(error))
            await asyncio.Future()

        job = asyncio.create_task(try_it())
        await come_as_far_as_they_can()
        job.cancel()
        work.let(1)
        await asyncio.wait([job])
        assert (job.cancelled(), told) == (True, ["the disk"])

    played(scene)


def test_whose_time_is_over_is_told_that_when_he_waits_next() -> None:
    async def scene(thread: OneThread, work: Work) -> None:
        async def impatient() -> None:
            async with asyncio.timeout(0):
                assert await thread.do(work.of(1)) == 1
                await asyncio.Future()

        asyncio.get_running_loop().call_later(0.01, work.let, 1)
        with pytest.raises(TimeoutError):
            await impatient()

    played(scene)


def test_what_is_asked_for_after_its_end_is_refused() -> None:
    async def scene(thread: OneThread, work: Work) -> None:
        thread.shutdown()
        with pytest.raises(RuntimeError, match="has ended"):
            await thread.do(work.of(1))

    played(scene)


def test_a_loop_that_is_gone_is_no_harm() -> None:
    work = Work()
    threads: list[OneThread] = []

    async def main() -> None:
        threads.append(OneThread("test"))
        threads[0].submit(work.do, 1)

    asyncio.run(main())
    work.let(1)
    threads[0].shutdown()
    assert work.done == [1]

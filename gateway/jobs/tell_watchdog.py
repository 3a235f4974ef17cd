"""A job: feed systemd's watchdog while every job makes progress, and no longer.

The progress of a job is a count that grows: the looks at a device that came to an end, whatever they gave; the rounds
of the uplink, be the broker there or not; the answers of the buffer's thread. So a dead device or a broker that is
away for weeks is no reason to start anew, and a job that waits for what never comes is one. Each has a bound of its
own, well above what it may take when all else is slow.

The event loop is watched by feeding from it: where it hangs nothing is fed, and the signal of systemd's watchdog makes
Python write to the log where it hung. What is stuck beside it is named in the log and in STATUS before that.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

FEEDS = 3  # in the time that systemd gives: one that comes late is no reason to start anew

log = structlog.get_logger()


class Watched(NamedTuple):
    """A job that must make progress.

    Attributes:
        name: what it is called in the log.
        progress: a count that grows with it.
        within: seconds in which it must have grown.
    """

    name: str
    progress: int
    within: float


async def tell_watchdog(watched: Callable[[], Iterable[Watched]], tell: Callable[[str], None], period: float) -> None:
    """Feed for ever.

    Args:
        watched: tells how far each job is; the jobs may change from look to look.
        tell: tells systemd.
        period: the seconds after which systemd ends the process if it is not fed.
    """
    loop = asyncio.get_running_loop()
    grown: dict[str, tuple[int, float]] = {}  # the count of each, and when it was first seen so
    stuck: list[str] = []
    while True:
        now = loop.time()
        jobs = list(watched())
        grown = {job.name: _last(grown.get(job.name), job.progress, now) for job in jobs}
        was, stuck = stuck, [job.name for job in jobs if now - grown[job.name][1] > job.within]
        if stuck != was:
            _say(stuck, tell)
        if not stuck:
            tell("WATCHDOG=1")
        await asyncio.sleep(period / FEEDS)


def _last(before: tuple[int, float] | None, count: int, now: float) -> tuple[int, float]:
    return before if before and before[0] == count else (count, now)


def _say(stuck: list[str], tell: Callable[[str], None]) -> None:
    names = ", ".join(stuck)
    if stuck:
        log.critical("stuck; systemd is going to start the gateway anew", stuck=names)
        tell(f"STATUS=stuck: {names}; starting anew soon")
    else:
        log.info("nothing is stuck any more")
        tell("STATUS=running")

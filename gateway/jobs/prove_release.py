"""A job: note once that this release of polegate is healthy, so that it is not given up any more.

Healthy is one that ran for some minutes and in which every job has come on at least once: each device was looked at,
whatever it gave; the uplink has tried its brokers, be one there or not; the buffer answers. So neither a dead device
nor a broker that is away sends a pole back to the release before. What hangs or crashes is not healthy.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from gateway.jobs.tell_watchdog import Watched

PROVED_S = 300.0
LOOK_S = 5.0

log = structlog.get_logger()


async def prove_release(watched: Callable[[], Iterable[Watched]], prove: Callable[[], None]) -> None:
    """End once it is noted.

    Args:
        watched: tells how far each job is.
        prove: notes it on the disk; it may raise OSError, and is tried again.
    """
    await asyncio.sleep(PROVED_S)
    trouble = ""
    while True:
        if all(job.progress for job in watched()):
            try:
                await asyncio.to_thread(prove)
            except OSError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    log.warning("it cannot be noted that this release is healthy", why=trouble)
            else:
                log.info("this release is healthy")
                return
        await asyncio.sleep(LOOK_S)

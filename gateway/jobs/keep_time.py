"""A job: notice when the kernel first holds the time of day for right in this boot, and have it stored, once.

From then on packs that were sealed before go out with the right time (:mod:`gateway.words.timeline`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from gateway.store.pack_sql import SqlError

LOOK_S = 5.0

log = structlog.get_logger()


class Clock(Protocol):
    """The clocks it looks at; see :class:`gateway.host.clock.Clock`."""

    @property
    def boot(self) -> str:
        """Return the id of this boot."""

    def utc_offset(self) -> int:
        """Return what to add to stamps for nanoseconds since 1970."""

    def synchronised(self) -> bool:
        """Tell whether that is right."""


async def keep_time(clock: Clock, know_utc: Callable[[str, int], Awaitable[None]]) -> None:
    """Look until it is so, and until it is stored.

    Args:
        clock: the machine's.
        know_utc: stores, for a boot, what to add to its stamps for nanoseconds since 1970.
    """
    while True:
        if clock.synchronised():
            try:
                await know_utc(clock.boot, clock.utc_offset())
            except (SqlError, OSError) as error:
                log.warning("the time of this boot could not be stored yet", why=str(error))
            else:
                return
        await asyncio.sleep(LOOK_S)

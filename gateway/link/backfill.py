"""How much of the backlog may be sent beside what is live: a share of what is under way, or so many bytes a second.

A share leaves the rest of the window to live packs, so none of them ever waits for more than a slot. A rate is for an
uplink that costs by the byte, or that others share: what was sent is paid off before the next pack may go.

Who takes packs uses up what is allowed, and nothing but this room renews it. So each pack of the backlog that was taken
must be told of in the end: by ``sends`` and ``sent``, or by ``gave_back`` where it never was under way. Else its place
is gone until the next link, and with the last place the whole backlog lies there.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple


class Pace(NamedTuple):
    """What is allowed; one of the two.

    Attributes:
        share: of the packs that may be under way, 0 to 1.
        bytes_per_s: of payload.
    """

    share: float = 1.0
    bytes_per_s: float | None = None


class Backfill:
    """Says how many packs of the backlog may be taken now."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._window = 0
        self._loop = asyncio.get_running_loop()
        self._allow: Callable[[int], None] = lambda _: None
        self._most = self._going = 0
        self._free_at = 0.0
        self._waiting: asyncio.TimerHandle | None = None

    def begin(self, window: int, allow: Callable[[int], None]) -> None:
        """A link is up.

        Args:
            window: packs that may be under way on it.
            allow: takes how many packs of the backlog may be taken until it is called again.
        """
        self._allow = allow
        self._window = window
        self._allow_most()

    def change(self, pace: Pace) -> None:
        """Allow that much from now on. What is not paid off yet of what was sent at another pace is let off."""
        if pace != self._pace:
            self._free_at = 0.0
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None
        self._pace = pace
        self._allow_most()

    def _allow_most(self) -> None:
        share, rate = self._pace
        self._most = max(1, int(self._window * share)) if rate is None else 1
        self._tell()

    def sends(self, size: int) -> None:
        """A pack of the backlog is under way."""
        self._going += 1
        if self._pace.bytes_per_s is not None:
            self._free_at = max(self._free_at, self._loop.time()) + size / self._pace.bytes_per_s

    def sent(self) -> None:
        """It is not under way any more, whatever became of it."""
        self._going -= 1
        self._tell()

    def gave_back(self) -> None:
        """A pack of the backlog that was taken waits again, and never was under way."""
        self._tell()

    def _tell(self) -> None:
        wait = self._free_at - self._loop.time()
        if wait <= 0:
            self._allow(max(0, self._most - self._going))
        elif self._waiting is None:
            self._waiting = self._loop.call_later(wait, self._paid_off)

    def _paid_off(self) -> None:
        self._waiting = None
        self._tell()

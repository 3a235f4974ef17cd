"""The rows that wait in the file, the oldest first, read some at a time: to ask the thread costs more than to read one.

A place in the file is where to read on. It moves back when a row is to be given again; what was read ahead is then
forgotten, and read again in its turn.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Collection

from gateway.pack_sql import Dropped, Row

AHEAD = 50  # rows that are read at a time


class Ahead:
    """Gives rows.

    Attributes:
        more: there may be rows that were not read yet.
    """

    def __init__(self, read: Callable[[int, int], Awaitable[tuple[list[Row], int, list[Dropped]]]]) -> None:
        """Begin at the first; ``read`` is :meth:`gateway.pack_file.PackFile.read`."""
        self._read = read
        self._rows: deque[Row] = deque()
        self._after = 0
        self.more = False

    @property
    def has_some(self) -> bool:
        """Tell whether there may be rows to give."""
        return self.more or bool(self._rows)

    async def take(self, limit: int, passes: Callable[[int], bool]) -> tuple[list[Row], list[Dropped]]:
        """Give up to ``limit`` rows whose number ``passes``, and what was found damaged on the way."""
        damaged: list[Dropped] = []
        if not self._rows:
            damaged = await self._read_some(limit, passes)
        return [self._rows.popleft() for _ in range(min(limit, len(self._rows)))], damaged

    def again_from(self, number: int) -> None:
        """Read on from a row, whatever was read ahead."""
        first = min([number, *(row.id for row in self._rows)])
        self._after = min(self._after, first - 1)
        self._rows.clear()
        self.more = True

    def drop(self, numbers: Collection[int]) -> None:
        """These rows have left the file."""
        if self._rows:
            self._rows = deque(row for row in self._rows if row.id not in numbers)

    async def _read_some(self, limit: int, passes: Callable[[int], bool]) -> list[Dropped]:
        start, wanted = self._after, max(limit, AHEAD)
        rows, end, damaged = await self._read(start, wanted)
        waiting = [row for row in rows if passes(row.id)]
        if self._after == start:
            self._after = end
            self.more = len(rows) + len(damaged) == wanted
        else:  # it moved back meanwhile: from there all is read again that is not given now
            waiting = waiting[:limit]
        self._rows = deque(waiting)
        return damaged

"""The rows that wait in the file, and the order in which they are to be sent.

First those of urgent datasets, then what was stored since the link came up, then the backlog: what lay there already.
Each of the three is the oldest first, and is read some rows at a time: to ask the thread costs more than to read one.

A place in the file is where to read on. It moves back when a row is to be given again; what was read ahead is then
forgotten, and read again in its turn. Datasets that rest are passed over, and the place moves back when they go on.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Collection

from gateway.store.pack_sql import Dropped, Row, Which

AHEAD = 50  # rows that are read at a time

Read = Callable[[int, int, Which], Awaitable[tuple[list[Row], int, list[Dropped]]]]


class Ahead:
    """Gives rows of one kind.

    Attributes:
        more: there may be rows that were not read yet.
    """

    def __init__(self, read: Read, which: Callable[[], Which]) -> None:
        """Begin at the first.

        Args:
            read: :meth:`gateway.store.pack_rows.Rows.read`.
            which: tells what it is to read.
        """
        self._read = read
        self._which = which
        self._rows: deque[Row] = deque()
        self._first = 1
        self._after = 0
        self._turns = 0
        self.more = False

    @property
    def has_some(self) -> bool:
        """Tell whether there may be rows to give."""
        return self.more or bool(self._rows)

    @property
    def next(self) -> int:
        """The lowest number that it may give."""
        return min(self._after + 1, self._rows[0].id if self._rows else self._after + 1)

    async def take(self, limit: int, passes: Callable[[int], bool]) -> tuple[list[Row], list[Dropped]]:
        """Give up to ``limit`` rows whose number ``passes``, and what was found damaged on the way."""
        damaged: list[Dropped] = []
        if not self._rows:
            damaged = await self._read_some(limit, passes)
        return [self._rows.popleft() for _ in range(min(limit, len(self._rows)))], damaged

    def again_from(self, number: int) -> None:
        """Read on from a row, whatever was read ahead."""
        self._after = max(min(self.next, number), self._first) - 1
        self._turn()

    def came(self, number: int) -> None:
        """There is a new row."""
        self.more = True
        if number <= self._after:  # it was written before, and a file that was mended lacked it
            self.again_from(number)

    def begin_at(self, number: int) -> None:
        """Give no rows below."""
        self._first = number
        self._after = number - 1
        self._turn()

    def drop(self, numbers: Collection[int]) -> None:
        """These rows have left the file."""
        if self._rows:
            self._rows = deque(row for row in self._rows if row.id not in numbers)

    def _turn(self) -> None:
        self._rows.clear()
        self._turns += 1
        self.more = True

    async def _read_some(self, limit: int, passes: Callable[[int], bool]) -> list[Dropped]:
        turn, wanted = self._turns, max(limit, AHEAD)
        rows, end, damaged = await self._read(self._after, wanted, self._which())
        waiting = [row for row in rows if passes(row.id)]
        if self._turns == turn:
            self._after = end
            self.more = len(rows) + len(damaged) == wanted
        else:  # it moved back meanwhile: from there all is read again that is not given now
            waiting = waiting[:limit]
        self._rows = deque(waiting)
        return damaged


class Waiting:
    """All rows that wait.

    Attributes:
        urgent: of datasets that go before all.
        live: stored since the link came up.
        backlog: lay there already.
        resting: datasets that nobody wants now, and from where on they are to be read again.
    """

    def __init__(self, read: Read, urgent: frozenset[str]) -> None:
        """Make it; all rows are live until a link comes up."""
        self._urgent = urgent
        self._newest_old = 0
        self.resting: dict[str, int] = {}
        self.urgent = Ahead(read, lambda: Which(only=self._urgent - self.resting.keys()))
        self.live = Ahead(read, lambda: Which(without=self._urgent | self.resting.keys()))
        self.backlog = Ahead(read, lambda: Which(up_to=self._newest_old, without=self._urgent | self.resting.keys()))

    def hurry(self, urgent: frozenset[str]) -> None:
        """Give rows of these datasets before all from now on."""
        self._urgent = urgent
        self.again_all()

    def begin_backlog(self, newest: int) -> None:
        """A link came up: all rows up to that one are backlog from now on."""
        self._newest_old = newest
        self.live.begin_at(newest + 1)
        self.backlog.again_from(self.backlog.next)  # what is being read was not asked for up to there

    def came(self, number: int, dataset: str) -> None:
        """A row was written."""
        self._of(number, dataset).came(number)
        self._not_beyond(number, dataset)

    def again(self, number: int, dataset: str) -> None:
        """A row is to be given again."""
        self._of(number, dataset).again_from(number)
        self._not_beyond(number, dataset)

    def again_all(self) -> None:
        """Read all again."""
        for each in self._each():
            each.again_from(1)

    def opened(self, datasets: frozenset[str]) -> None:
        """Read all of a file that has rows of these datasets."""
        self.again_all()
        self.urgent.more = bool(datasets & self._urgent)  # else it would look through the whole file for one

    def rest(self, dataset: str) -> None:
        """Give no rows of a dataset."""
        self.resting[dataset] = min(each.next for each in self._each())
        for each in self._each():
            each.again_from(each.next)

    def resume(self, dataset: str) -> None:
        """Give them again."""
        number = self.resting.pop(dataset)
        for each in self._each():
            each.again_from(number)

    def drop(self, numbers: Collection[int]) -> None:
        """These rows have left the file."""
        for each in self._each():
            each.drop(numbers)

    def _each(self) -> tuple[Ahead, Ahead, Ahead]:
        return self.urgent, self.live, self.backlog

    def _not_beyond(self, number: int, dataset: str) -> None:
        """If its dataset rests, a row is read when it goes on."""
        if dataset in self.resting:
            self.resting[dataset] = min(self.resting[dataset], number)

    def _of(self, number: int, dataset: str) -> Ahead:
        if dataset in self._urgent:
            return self.urgent
        return self.backlog if number <= self._newest_old else self.live

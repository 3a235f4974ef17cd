"""Who gives way when the file is full.

Acknowledged packs that are only kept as history go first, then packs that were set aside because no broker takes them.
Then it is the turn of the least important datasets that have something to give; of equally important ones whose turn it
is tells the oldest pack. Each gives by its own rule:

* ``drop-oldest``: its oldest packs go.
* ``thin``: of its oldest packs one in ten stays; when all are thinned they are thinned again, and in the end they go.
* ``keep``: nothing goes. When there is nothing else left, new packs are refused.

History also goes when it is certainly too old (:func:`gateway.store.pack_epochs.taken_before`); what cannot be dated
stays until its room is wanted.

A new pack that is less important than all that is stored is refused; at equal importance the older one goes.

The packs are found by cursors that only move forward, so that a large file is walked through once, not once a commit.
That holds because numbers grow: a row of some level never appears behind one that was already thinned to that level.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, Self

from pydantic_core import to_json

from gateway.store.frame import EPOCH_SHIFT
from gateway.store.level import FRESH, HISTORY, SET_ASIDE, THINNEST, level_of, stored

WhenFull = Literal["drop-oldest", "thin", "keep"]

HISTORY_RANK, SET_ASIDE_RANK = -2, -1
GIVE_WAY = 16  # rows that leave at once when room is wanted
EXPIRE = 64  # rows of history that leave in one commit at the most
ONE_IN = 10
PLAIN, URGENT = 5, 9


class Terms(NamedTuple):
    """How a dataset fares when the file is full; ``priority``: the higher, the longer it stays."""

    priority: int = PLAIN
    when_full: WhenFull = "drop-oldest"

    @property
    def rank(self) -> int:
        """Order what gives way: the smallest first."""
        return self.priority + 1000 * (self.when_full == "keep")


class Victim(NamedTuple):
    """A row that gives way; ``level``: see :mod:`gateway.store.level`."""

    id: int
    dataset: str
    n: int
    readings: int
    taken: int
    level: int

    @classmethod
    def of_row(cls, number: int, dataset: str, n: int, readings: int, taken: int, found: int) -> Self:
        """Return it as its row has it."""
        return cls(number, dataset, n, readings, taken, level_of(found))


Place = tuple[tuple[str, ...], int | None]
"""Where a search goes on: the datasets it looks for, () for all, and the level, None for all that wait."""


Group = tuple[str, int, int, int]
"""Rows alike: their dataset and level, how many they are, and the readings in them."""

Ends = dict[str, tuple[int, int]]
"""By dataset, the (epoch, n) of the last of some packs."""


class _Choice(NamedTuple):
    """Rows that may give way together, and where they were found."""

    rows: list[Victim]
    place: Place
    thin: bool


class Room:
    """Knows how many rows of which dataset and level there are, and where to find the oldest.

    Attributes:
        last: the packs that were ever committed end there.
        only_grew: since it was noted how many rows there are, there came only more of what waited already.
    """

    def __init__(self, terms: Mapping[str, Terms]) -> None:
        self._terms = terms
        self._counts: dict[str, defaultdict[int, int]] = {}
        self._readings: defaultdict[str, int] = defaultdict(int)
        self._after: dict[Place, int] = {}
        self._changed: set[str] = set()
        self.last: Ends = {}
        self.only_grew = True

    def count(self, rows: Iterable[Group]) -> None:
        """Begin anew with what the file holds."""
        self._counts.clear()
        self._readings.clear()
        self._after.clear()
        for dataset, level, number, readings in rows:
            self._counts.setdefault(dataset, defaultdict(int))[level] += number
            if level >= FRESH:
                self._readings[dataset] += readings
        self._changed.update(self._counts)
        self.only_grew = False

    def reached(self, dataset: str, place: tuple[int, int]) -> None:
        """A pack with this (epoch, n) is in the file, or was; what is salvaged comes in no order."""
        self.last[dataset] = max(place, self.last.get(dataset, place))
        self._changed.add(dataset)

    def changed(self) -> Iterator[tuple[str, int, int, str, int]]:
        """Give, of datasets whose rows changed since the last time, the row of ``mark``: levels are those stored."""
        for dataset in self._changed:
            levels = {str(stored(level)): rows for level, rows in self._counts.get(dataset, {}).items() if rows}
            yield dataset, *self.last.get(dataset, (0, 0)), to_json(levels).decode(), self._readings[dataset]
        self._changed.clear()
        self.only_grew = True

    def came(self, dataset: str, level: int, readings: int) -> None:
        """A row was inserted."""
        self._count(dataset, level, 1, readings)

    def left(self, dataset: str, level: int, readings: int) -> None:
        """A row was deleted."""
        self._count(dataset, level, -1, -readings)

    def _count(self, dataset: str, level: int, rows: int, readings: int) -> None:
        counts = self._counts.setdefault(dataset, defaultdict(int))
        if rows < 0 or not counts[level]:  # of what none was noted, an older gateway would see none
            self.only_grew = False
        counts[level] += rows
        if level >= FRESH:
            self._readings[dataset] += readings
        self._changed.add(dataset)

    def moved(self, row: tuple[int, str, int, int], to: int) -> None:
        """A row stands otherwise from now on: id, dataset, level, readings. The search may be beyond it already."""
        number, dataset, level, readings = row
        self.left(dataset, level, readings)
        self.came(dataset, to, readings)
        place = (), max(to, SET_ASIDE)
        self._after[place] = min(self._after.get(place, 0), number - 1)

    def waiting(self) -> frozenset[str]:
        """Return the datasets of which there are rows that wait."""
        return frozenset(
            name
            for name, counts in self._counts.items()
            if any(rows > 0 for level, rows in counts.items() if level >= FRESH)
        )

    def set_aside(self) -> int:
        """Return how many rows no broker takes."""
        return sum(rows for counts in self._counts.values() for level, rows in counts.items() if level <= SET_ASIDE)

    def rank(self, dataset: str) -> int:
        """Tell how long it stays."""
        return self._terms.get(dataset, Terms()).rank

    def rule(self, dataset: str) -> WhenFull:
        """Tell how it gives way."""
        return self._terms.get(dataset, Terms()).when_full

    def least(self) -> int | None:
        """Return the rank of what gives way next; None: there is nothing."""
        if any(counts.get(HISTORY) for counts in self._counts.values()):
            return HISTORY_RANK
        if self.set_aside():
            return SET_ASIDE_RANK
        return min((self.rank(dataset) for dataset in self._giving()), default=None)

    def give_way(self, sql: sqlite3.Connection, rank: int) -> list[Victim]:
        """Delete the next few rows of a rank, by the rule of their dataset.

        There are none where a row's level has become another, by itself: all must be counted anew.
        """
        choices = [choice for choice in self._choices(sql, rank) if choice.rows]
        if not choices:
            return []
        choice = min(choices, key=lambda choice: choice.rows[0].id)
        self._after[choice.place] = choice.rows[-1].id
        victims = choice.rows
        if choice.thin:
            stays, *victims = choice.rows
            thinner = min(stays.level + 1, THINNEST)
            sql.execute("UPDATE pack SET level = ? WHERE id = ?", (stored(thinner), stays.id))
            self.left(stays.dataset, stays.level, stays.readings)
            self.came(stays.dataset, thinner, stays.readings)
        self._delete(sql, victims)
        return victims

    def forget(self, sql: sqlite3.Connection, is_old: Callable[[int, int], bool]) -> None:
        """Delete the oldest rows of history that are old by epoch and the stamp they were taken at, a few at a time."""
        found = self._find(sql, (), HISTORY, EXPIRE)
        self._delete(sql, [row for row in found.rows if is_old(row.id >> EPOCH_SHIFT, row.taken)])

    def _giving(self) -> list[str]:
        return [name for name, counts in self._counts.items() if any(counts.values()) and self.rule(name) != "keep"]

    def _choices(self, sql: sqlite3.Connection, rank: int) -> Iterator[_Choice]:
        """Give what may go next: of all datasets that drop their oldest together, of each that is thinned apart."""
        if rank < 0:
            yield self._find(sql, (), HISTORY if rank == HISTORY_RANK else SET_ASIDE, GIVE_WAY)
            return
        giving = [name for name in self._giving() if self.rank(name) == rank]
        if any(self.rule(name) == "drop-oldest" for name in giving):  # empty ones as well: so it stays one search
            of_rank = (name for name in self._counts if (self.rank(name), self.rule(name)) == (rank, "drop-oldest"))
            yield self._find(sql, tuple(sorted(of_rank)), None, GIVE_WAY)
        for name in giving:
            if self.rule(name) == "thin":
                levels = sorted(level for level, rows in self._counts[name].items() if rows >= ONE_IN)
                yield self._find(sql, (name,), levels[0] if levels else None, ONE_IN)

    def _find(self, sql: sqlite3.Connection, names: tuple[str, ...], level: int | None, limit: int) -> _Choice:
        """Find the oldest rows of some datasets, () for all, at one level, None for all that wait."""
        which = "level >= 0" if level is None else f"level = {stored(level)}"
        if level == SET_ASIDE:
            which = f"level <= {SET_ASIDE}"
        if names:
            which += f" AND dataset IN ({', '.join('?' * len(names))})"
        query = f"SELECT id, dataset, n, readings, taken, level FROM pack WHERE id > ? AND {which} ORDER BY id LIMIT ?"  # noqa: S608  # our own words
        place = names, level
        rows = [Victim.of_row(*row) for row in sql.execute(query, (self._after.get(place, 0), *names, limit))]
        return _Choice(rows, place, thin=level is not None and level >= FRESH)

    def _delete(self, sql: sqlite3.Connection, victims: Iterable[Victim]) -> None:
        for victim in victims:
            sql.execute("DELETE FROM pack WHERE id = ?", (victim.id,))
            self.left(victim.dataset, victim.level, victim.readings)

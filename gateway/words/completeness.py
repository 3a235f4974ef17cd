"""What came of the packs of a pole's dataset, and what must have been sent and did not come.

A pack is numbered: ``epoch`` is the run of the gateway, ``seq`` counts 1, 2, 3 ... in its dataset and epoch. The watch
begins with the first pack that comes; what was before it is nobody's hole. From then on a number that is passed over
must still come, of a new epoch all from 1, and of an epoch before all up to the number that the first pack of the next
one gives as ``after``.

A number that is passed over is not missing yet: what waited in the pole while its uplink was away comes behind what is
new, for hours maybe. So it counts as a hole when for ``GRACE_S`` nothing late came of that pole. Late is a pack with
the label ``backfill``, or with a number that others have passed.
"""

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, TypeGuard

GRACE_S = 90.0
"""A pack that was refused is sent again after 60 s, one in flight on a broken link after up to 60 s."""
MOST_NUMBER = 1 << 53  # a larger one is no JSON number for many
PART = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})", re.ASCII)
AFTER = re.compile(r"(\d{1,16}):(\d{1,16})", re.ASCII)

Span = tuple[int, int]
"""First and last of numbers without a gap."""


class Arrival(StrEnum):
    """What a pack is to those that came before it."""

    NEXT = "next"
    LATE = "late"
    MENDED = "mended"  # late, and it was said to be missing
    REPEAT = "repeat"
    PART = "part"  # one of several, and there are more to come
    RESTART = "restart"  # the first that comes of a new epoch


class Label(NamedTuple):
    """What the first record of a pack says of it.

    Attributes:
        epoch: run of the gateway.
        seq: number in it.
        after: epoch and seq of the last pack before this epoch; None where it says nothing.
        backfill: it waited while newer ones went.
        part: which part of a pack this is, and of how many; (1, 1) is a whole one.
    """

    epoch: int
    seq: int
    after: Span | None = None
    backfill: bool = False
    part: Span = (1, 1)


@dataclass(slots=True)
class Hole:
    """Numbers that must come and did not.

    Attributes:
        epoch: theirs.
        first: of them.
        last: of them.
        since: when that was noticed, seconds of the caller's clock.
        told: it was given as due.
        asked: when they were asked for; None: not yet.
        gone: the pole does not have them any more.
    """

    epoch: int
    first: int
    last: int
    since: float
    told: bool = False
    asked: float | None = None
    gone: bool = False


class Track:
    """One dataset of one pole.

    Attributes:
        packs: that came, repeats too.
        repeats: among them.
        holes: in order.
    """

    def __init__(self) -> None:
        self.packs = 0
        self.repeats = 0
        self.holes: list[Hole] = []
        self._came: dict[int, _Numbers] = {}
        self._parts: dict[tuple[int, int, int], set[int]] = {}  # by epoch, seq and how many those that came
        self._passed: dict[int, int] = {}  # by epoch the highest number that must be there; nothing before the watch

    def take(self, label: Label, now: float) -> Arrival:
        """Count a pack."""
        if not self._is_whole(label):
            return Arrival.PART
        newest = max(self._passed.items(), default=None)
        self.packs += 1
        if not self._came.setdefault(label.epoch, _Numbers()).add(label.seq):
            self.repeats += 1
            return Arrival.REPEAT
        mended = self._fill(label)
        if newest is None:
            if not label.backfill:
                self._passed[label.epoch] = label.seq
        else:
            self._expect(label.epoch, label.seq, now)
            if label.after and label.after[0] < label.epoch:
                self._expect(*label.after, now)
        if label.backfill or (newest and (label.epoch, label.seq) < newest):
            return Arrival.MENDED if mended else Arrival.LATE
        return Arrival.RESTART if newest and label.epoch > newest[0] else Arrival.NEXT

    def lose(self, epoch: int, span: Span) -> bool:
        """Take it that the pole does not have these any more; tell whether one of them is missing."""
        holes = self.within(epoch, span)
        for hole in holes:
            hole.gone = True
        return bool(holes)

    def within(self, epoch: int, span: Span) -> list[Hole]:
        """Return the holes among these numbers; one that reaches beyond them becomes two."""
        first, last = span
        self._split(epoch, first)
        self._split(epoch, last + 1)
        begin = bisect_left(self.holes, (epoch, first), key=_place)
        return self.holes[begin : bisect_right(self.holes, (epoch, last), key=_place)]

    def _is_whole(self, label: Label) -> bool:
        """Tell whether all parts of a pack have come."""
        part, number = label.part
        if number == 1:
            return True
        parts = self._parts.setdefault((label.epoch, label.seq, number), set())
        parts.add(part)
        if len(parts) < number:
            return False
        del self._parts[label.epoch, label.seq, number]
        return True

    def _fill(self, label: Label) -> bool:
        """Close the hole that a pack was, if it was one; tell whether that had been told."""
        found = self.within(label.epoch, (label.seq, label.seq))
        for hole in found:
            self.holes.remove(hole)
        return any(hole.told for hole in found)

    def _expect(self, epoch: int, last: int, now: float) -> None:
        """Take it that all numbers of an epoch up to this one were sent."""
        if epoch < min(self._passed):
            return
        passed = self._passed.get(epoch, 0)
        if last > passed:
            self._passed[epoch] = last
            came = self._came.get(epoch, _Numbers())
            for gap in came.gaps(passed + 1, last):
                insort(self.holes, Hole(epoch, *gap, since=now), key=_place)

    def _split(self, epoch: int, at: int) -> None:
        """Let no hole reach over the border before this number."""
        index = bisect_right(self.holes, (epoch, at), key=_place) - 1
        if index < 0:
            return
        hole = self.holes[index]
        if hole.epoch == epoch and hole.first < at <= hole.last:
            self.holes.insert(index + 1, replace(hole, first=at))
            hole.last = at - 1


class Watch:
    """All datasets of all poles that are heard.

    Attributes:
        tracks: by pole and dataset.
    """

    def __init__(self) -> None:
        self.tracks: dict[tuple[str, str], Track] = {}
        self._late: dict[str, float] = {}  # by pole

    def take(self, pole: str, dataset: str, label: Label, now: float) -> Arrival:
        """Count a pack."""
        arrival = self.tracks.setdefault((pole, dataset), Track()).take(label, now)
        if arrival in {Arrival.LATE, Arrival.MENDED}:
            self._late[pole] = now
        return arrival

    def due(self, now: float, grace_s: float = GRACE_S) -> Iterator[tuple[str, str, list[Hole]]]:
        """Give, once, the holes that have become old, by pole and dataset."""
        for (pole, dataset), track in self.tracks.items():
            late = self._late.get(pole, 0.0)
            holes = [hole for hole in track.holes if not hole.told and now - max(hole.since, late) >= grace_s]
            for hole in holes:
                hole.told = True
            if holes:
                yield pole, dataset, holes


def label_of(labels: Mapping[str, Any]) -> Label | None:
    """Read the labels of a pack's first record; None where it has no number."""
    epoch, seq, after = labels.get("epoch"), labels.get("seq"), labels.get("after")
    if not (_is_number(epoch) and _is_number(seq)):
        return None
    found = AFTER.fullmatch(after) if isinstance(after, str) else None
    parted = PART.fullmatch(part) if isinstance(part := labels.get("part"), str) else None
    return Label(
        epoch,
        seq,
        (int(found[1]), int(found[2])) if found else None,
        backfill=bool(labels.get("backfill")),
        part=(int(parted[1]), int(parted[2])) if parted else (1, 1),
    )


def spans(holes: Iterable[Hole]) -> dict[int, list[Span]]:
    """Return, by epoch, the numbers in holes."""
    found: dict[int, list[Span]] = {}
    for hole in holes:
        of_epoch = found.setdefault(hole.epoch, [])
        if of_epoch and of_epoch[-1][1] == hole.first - 1:
            of_epoch[-1] = of_epoch[-1][0], hole.last
        else:
            of_epoch.append((hole.first, hole.last))
    return found


class _Numbers:
    """A set of whole numbers, as spans: it stays small where few are missing."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def add(self, number: int) -> bool:
        """Add one; tell whether it is new."""
        index = bisect_right(self._spans, number, key=_first)
        first, last = number, number
        if index:
            before = self._spans[index - 1]
            if before[1] >= number:
                return False
            if before[1] == number - 1:
                index, first = index - 1, before[0]
                del self._spans[index]
        if index < len(self._spans) and self._spans[index][0] == number + 1:
            last = self._spans.pop(index)[1]
        self._spans.insert(index, (first, last))
        return True

    def gaps(self, first: int, last: int) -> Iterator[Span]:
        """Give what is not in it from ``first`` to ``last``."""
        for begin, end in self._spans[max(bisect_right(self._spans, first, key=_first) - 1, 0) :]:
            if begin > last:
                break
            if begin > first:
                yield first, begin - 1
            first = max(first, end + 1)
        if first <= last:
            yield first, last


def _first(span: Span) -> int:
    return span[0]


def _place(hole: Hole) -> Span:
    return hole.epoch, hole.first


def _is_number(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < MOST_NUMBER

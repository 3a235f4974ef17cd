"""A pack while it is in the buffer, and how full that is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.words.reading import Pack


@dataclass(slots=True)
class Depth:
    """How full the buffer is.

    Attributes:
        packs: not acknowledged, in RAM and on disk.
        readings: in them.
        stored: packs of them on disk.
        set_aside: packs on disk that no broker takes; they do not wait.
        dropped: packs that had to give way since the start.
        dropped_readings: in them.
        commits: transactions since the start, each with one fsync.
    """

    packs: int = 0
    readings: int = 0
    stored: int = 0
    set_aside: int = 0
    dropped: int = 0
    dropped_readings: int = 0
    commits: int = 0


@dataclass(slots=True, eq=False)
class Held:
    """A pack and where it stands; whoever took it gives it back to ``acknowledge``, ``release`` or ``set_aside``."""

    number: int
    pack: Pack
    due: float = math.inf
    stored: bool = False
    taken: bool = False
    old: bool = False
    left: bool = False


def up_to(size: int, packs: Iterable[Held]) -> list[Held]:
    """Return the oldest of some packs: as many as have so many bytes together, and one at least."""
    some: list[Held] = []
    for held in sorted(packs, key=lambda each: each.number):
        size -= len(held.pack.blob)
        if some and size < 0:
            break
        some.append(held)
    return some

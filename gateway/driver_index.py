"""Which drivers there are: the entry points of ``polegate.drivers``, ours and anybody else's.

A driver is imported when the first device names it; what it needs is then imported with it, and not before.
"""

import importlib.metadata
from functools import cache

from drivers.contract import Driver

GROUP = "polegate.drivers"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all drivers."""
    return tuple(sorted(importlib.metadata.entry_points(group=GROUP).names))


def driver(name: str) -> type[Driver]:
    """Import a driver. Raises KeyError where there is none of that name."""
    (entry,) = importlib.metadata.entry_points(group=GROUP, name=name) or [None]
    if entry is None:
        raise KeyError(name)
    loaded: type[Driver] = entry.load()
    return loaded

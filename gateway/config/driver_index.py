"""Which drivers there are: the entry points of ``polegate.drivers``, ours and anybody else's.

A driver is imported when the first device names it; what it needs is then imported with it, and not before.
"""

import importlib.metadata
from functools import cache

from drivers.contract import Driver

GROUP = "polegate.drivers"


@cache  # it reads a file of every package there is
def _entries() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=GROUP)


@cache
def names() -> tuple[str, ...]:
    """Return the names of all drivers."""
    return tuple(sorted(_entries().names))


def driver(name: str) -> type[Driver]:
    """Import a driver. Raises KeyError where there is none of that name."""
    if name not in names():
        raise KeyError(name)
    loaded: type[Driver] = _entries()[name].load()
    return loaded

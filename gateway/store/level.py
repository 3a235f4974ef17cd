"""How a pack stands: it waits, was thinned, is history, or no broker takes it; and how that lies in the file.

A level changes after its pack was framed, so the frame's checksum cannot cover it. A level is stored as what differs
from all others in six bits at least: multiplied, as an AN code. What takes no byte of its own in SQLite's record, or
one that no other has, stays as it is: it cannot become another without the frame behind it being moved, which its
checksum tells. So what is stored most often costs nothing. What no level is stored as is taken for one that waits: a
receiver knows a pack that comes twice.

Older gateways stored levels as they are. They read ours by sign alone, which is what they need; they would not know
the broker's reason.

Source: Forin, "Vital coded microprocessor principles and application for various transit systems", 1989, for AN codes.
"""

FRESH, HISTORY = 0, -1  # levels: of a pack that nobody thinned, and of one that was acknowledged
SET_ASIDE = -2  # this level and below: no broker takes it; below -127 it is the broker's reason code with a minus
REFUSAL, LOWEST = 0x80, -0xFF
THINNEST = 30  # one in ten stays each time: none ever comes so far
FACTOR = 16739  # the smallest that keeps all levels six bits apart, in the same three bytes
PLAIN = FRESH, FRESH + 1, HISTORY
_CODED = (*range(FRESH + 2, THINNEST + 1), SET_ASIDE, *range(LOWEST, -REFUSAL + 1))
_STORED: dict[object, int] = {level: level for level in PLAIN} | {level * FACTOR: level for level in _CODED}
STORED = f"({', '.join(map(str, _STORED))})"
"""All that levels are stored as, for SQL."""
OF_OLDER = f"({', '.join(map(str, _CODED))})"
"""What an older gateway stored, for SQL."""


def stored(level: int) -> int:
    """Return what a level is stored as."""
    return level if level in PLAIN else level * FACTOR


def is_sound(found: object) -> bool:
    """Tell whether a level is stored so."""
    return found in _STORED


def level_of(found: object) -> int:
    """Return the level of what was found in a column, FRESH where none is stored so."""
    return _STORED.get(found, FRESH)


def level_in(found: int) -> int:
    """Return the level of what was found in a file that an older gateway may have written."""
    return found if found in _CODED else level_of(found)

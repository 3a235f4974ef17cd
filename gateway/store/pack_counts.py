"""How many rows the file has, noted beside the last pack of each dataset so that nobody needs to count them.

A commit that only adds rows behind all others need not change the note: they are found again, and counted, from the end
of the file. So while nothing leaves, most commits write a page less to the flash. What leaves, or stands otherwise than
before, is noted in the same transaction.

An older gateway changes the note with each commit and knows nothing of rows that are not in it. So what it has noted
counts for nothing here: a note of ours ends with a blank, which it does not write.
"""

import json
import sqlite3
from collections.abc import Iterator

from gateway.store import frame
from gateway.store.level import FACTOR, FRESH, OF_OLDER, STORED, level_of
from gateway.store.pack_room import Ends, Group, Room
from gateway.store.pack_sql import transaction

NOTED_EVERY = 16  # commits: so many are counted at a start at the most
OURS = " "
NOTE = """
INSERT INTO mark(dataset, epoch, n, levels, readings) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    epoch = excluded.epoch, n = excluded.n, levels = excluded.levels, readings = excluded.readings
"""


def recall(sql: sqlite3.Connection, room: Room) -> tuple[int, int]:
    """Tell the room what was noted and what came since; return the packs and readings that wait."""
    noted = sql.execute("SELECT dataset, epoch, n, levels, readings FROM mark").fetchall()
    last = {dataset: (epoch, n) for dataset, epoch, n, *_ in noted}
    since = list(_since(sql, last))
    room.last = last
    for place, (dataset, *_) in since:
        if place:
            room.reached(dataset, place)
    groups = [group for _, group in since]
    for dataset, *_, levels, readings in noted:
        if not levels.endswith(OURS):
            return _adopt(sql, room)
        rows = {int(level): packs for level, packs in json.loads(levels).items()}
        groups += [(dataset, level_of(level), packs, 0) for level, packs in rows.items()]
        groups.append((dataset, FRESH, 0, readings))
    room.count(groups)
    return _waiting(groups)


def count(sql: sqlite3.Connection, room: Room) -> tuple[int, int]:
    """Count row by row, and note it; return the packs and readings that wait."""
    with transaction(sql):
        groups = count_rows(sql, room)
        sql.execute("UPDATE mark SET levels = ?, readings = 0", ("{}" + OURS,))
        note(sql, room)
    return _waiting(groups)


def count_rows(sql: sqlite3.Connection, room: Room) -> list[Group]:
    """Let what has no sound level wait, and tell the room what there is."""
    sql.execute(f"UPDATE pack SET level = {FRESH} WHERE coalesce(level NOT IN {STORED}, TRUE)")  # noqa: S608  # our own words
    found = sql.execute("SELECT dataset, level, count(*), sum(readings) FROM pack GROUP BY dataset, level")
    groups = [(dataset, level_of(level), packs, readings) for dataset, level, packs, readings in found]
    room.count(groups)
    return groups


def note(sql: sqlite3.Connection, room: Room) -> None:
    """Note how many rows there are where that changed, and the (epoch, n) of the last one of a dataset."""
    sql.executemany(
        NOTE, ((dataset, epoch, n, levels + OURS, readings) for dataset, epoch, n, levels, readings in room.changed())
    )


def _since(sql: sqlite3.Connection, noted: Ends) -> Iterator[tuple[tuple[int, int] | None, Group]]:
    """Give the rows that came after the note, the newest first: (epoch, n) if that is certain, and what counts."""
    rows = sql.execute("SELECT id, dataset, n, level, readings, frame FROM pack ORDER BY id DESC")
    for number, dataset, n, level, readings, framed in rows:
        try:
            _, pack = frame.unseal(framed)
        except frame.Damaged:  # it is told where it is read, and counts until then
            if (number >> frame.EPOCH_SHIFT, n) <= noted.get(dataset, (0, 0)):
                return
            yield None, (dataset, level_of(level), 1, readings)
        else:
            if (place := (pack.epoch, pack.n)) <= noted.get(pack.dataset, (0, 0)):
                return
            yield place, (pack.dataset, level_of(level), 1, pack.readings)


def _waiting(groups: list[Group]) -> tuple[int, int]:
    waiting = [(packs, readings) for _, level, packs, readings in groups if level >= FRESH]
    return sum(packs for packs, _ in waiting), sum(readings for _, readings in waiting)


def _adopt(sql: sqlite3.Connection, room: Room) -> tuple[int, int]:
    """Store levels that an older gateway has stored as ours are, and count."""
    sql.execute(f"UPDATE pack SET level = level * {FACTOR} WHERE level IN {OF_OLDER}")  # noqa: S608  # our own words
    return count(sql, room)

"""How many rows the file has, noted beside the last pack of each dataset so that nobody needs to count them."""

import json
import sqlite3
from collections.abc import Mapping

from gateway.store.level import FACTOR, FRESH, OF_OLDER, STORED, is_of_older, level_of
from gateway.store.pack_room import Room
from gateway.store.pack_sql import transaction

MARK = """
INSERT INTO mark(dataset, epoch, n, levels, readings) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    epoch = max(epoch, excluded.epoch),
    n = CASE WHEN (excluded.epoch, excluded.n) > (epoch, n) THEN excluded.n ELSE n END,
    levels = excluded.levels, readings = excluded.readings
"""  # what is salvaged comes in no order
NO_PLACE: Mapping[str, tuple[int, int]] = {}


def recall(sql: sqlite3.Connection, room: Room) -> tuple[int, int]:
    """Tell the room what the last commit noted; return the packs and readings that wait."""
    marks = sql.execute("SELECT dataset, levels, readings FROM mark").fetchall()
    groups = []
    for dataset, levels, readings in marks:
        rows = {int(level): packs for level, packs in json.loads(levels).items()}
        if any(map(is_of_older, rows)):
            return _adopt(sql, room)
        groups += [(dataset, level_of(level), packs, 0) for level, packs in rows.items()]
        groups.append((dataset, FRESH, 0, readings))
    room.count(groups)
    waiting = sum(packs for _, level, packs, _ in groups if level >= FRESH)
    return waiting, sum(readings for *_, readings in marks)


def count(sql: sqlite3.Connection, room: Room) -> tuple[int, int]:
    """Count row by row, and note it; return the packs and readings that wait."""
    with transaction(sql):
        groups = count_rows(sql, room)
        sql.execute("UPDATE mark SET levels = '{}', readings = 0")
        note(sql, room)
    waiting = [(packs, readings) for _, level, packs, readings in groups if level >= FRESH]
    return sum(packs for packs, _ in waiting), sum(readings for _, readings in waiting)


def count_rows(sql: sqlite3.Connection, room: Room) -> list[tuple[str, int, int, int]]:
    """Let what has no sound level wait, and tell the room what there is: dataset, level, rows, readings."""
    sql.execute(f"UPDATE pack SET level = {FRESH} WHERE coalesce(level NOT IN {STORED}, TRUE)")  # noqa: S608  # our own words
    found = sql.execute("SELECT dataset, level, count(*), sum(readings) FROM pack GROUP BY dataset, level")
    groups = [(dataset, level_of(level), packs, readings) for dataset, level, packs, readings in found]
    room.count(groups)
    return groups


def note(sql: sqlite3.Connection, room: Room, last: Mapping[str, tuple[int, int]] = NO_PLACE) -> None:
    """Note how many rows there are where that changed, and the (epoch, n) of the last one of a dataset."""
    sql.executemany(MARK, [(dataset, *last.get(dataset, (0, 0)), *counts) for dataset, *counts in room.changed()])


def _adopt(sql: sqlite3.Connection, room: Room) -> tuple[int, int]:
    """Store the levels of an older gateway as ours, and count."""
    sql.execute(f"UPDATE pack SET level = level * {FACTOR} WHERE level IN {OF_OLDER}")  # noqa: S608  # our own words
    return count(sql, room)

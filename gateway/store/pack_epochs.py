"""The runs of the gateway as they stand in the buffer's file: boot, and what to add to its stamps.

Packs that were sealed before the time of day was certain are nothing without them. So each row of ``epoch`` stands once
more in ``sealed_epoch``, framed (:mod:`gateway.store.frame`): a flipped bit is noticed, and a damaged file still tells.
Where the two differ the sealed one counts. ``epoch`` stays as it is for a gateway that does not know of the other; what
such a one has added or let go is made up for at the next start.
"""

import sqlite3
from collections.abc import Callable, Iterable

from gateway.store import frame
from gateway.words.timeline import Epoch

KEPT = 100  # runs that stay though they have no packs: neighbours tell when a boot must have been
SEALED = "CREATE TABLE IF NOT EXISTS sealed_epoch(id INTEGER PRIMARY KEY, frame BLOB NOT NULL) STRICT"
ADD = """
INSERT INTO epoch(id, boot, started, utc) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET utc = excluded.utc WHERE utc IS NULL AND boot = excluded.boot
"""


def known(sql: sqlite3.Connection) -> list[Epoch]:
    """Return all, oldest first."""
    return [Epoch(*row) for row in sql.execute("SELECT id, boot, started, utc FROM epoch ORDER BY id")]


def add(sql: sqlite3.Connection, epochs: Iterable[Epoch]) -> None:
    """Note runs; of one that is known the time, where that was not."""
    sql.executemany(ADD, epochs)
    _seal(sql)


def know_utc(sql: sqlite3.Connection, boot: str, utc: int) -> None:
    """Note what to add to the stamps of a boot."""
    sql.execute("UPDATE epoch SET utc = ? WHERE boot = ? AND utc IS NULL", (utc, boot))
    _seal(sql)


def taken_before(sql: sqlite3.Connection, boot: str, moment: int) -> Callable[[int, int], bool]:
    """Return what tells, by run and stamp, that a reading was certainly taken before a moment of this boot.

    Within one boot that is certain whatever the date is, and between two boots if the time of both is known. Else the
    order of the runs tells: what was taken in one was taken before a later one began. If no later one is known to have
    begun before that moment, the reading is not held for that old.

    Args:
        sql: the file.
        boot: this boot.
        moment: nanoseconds of CLOCK_BOOTTIME; below zero, it was before this boot.
    """
    runs = known(sql)
    utc = next((run.utc for run in runs if run.boot == boot and run.utc is not None), None)
    limits = {run.id: moment + utc - run.utc for run in runs if utc is not None and run.utc is not None}
    limits |= {run.id: moment for run in runs if run.boot == boot}
    newest = max((run.id for run in runs if run.id in limits and run.started < limits[run.id]), default=0)

    def is_before(run: int, stamp: int) -> bool:
        return stamp < limits[run] if run in limits else run < newest

    return is_before


def forget(sql: sqlite3.Connection, now: int) -> None:
    """Let the runs go that nothing depends on: none of their packs is there, and there were many since."""
    oldest: int | None = sql.execute("SELECT min(id) FROM pack").fetchone()[0]
    before = now if oldest is None else oldest >> frame.EPOCH_SHIFT
    sql.execute("DELETE FROM epoch WHERE id < ? AND id < ?", (before, now - KEPT))


def put_right(sql: sqlite3.Connection) -> None:
    """Put right what differs from what was sealed."""
    sealed = _sealed(sql)
    for found in known(sql):
        right = sealed.get(found.id, found)
        if right._replace(utc=found.utc) != found or right.utc not in {None, found.utc}:
            sql.execute("INSERT OR REPLACE INTO epoch(id, boot, started, utc) VALUES (?, ?, ?, ?)", right)


def _sealed(sql: sqlite3.Connection) -> dict[int, Epoch]:
    sound = {}
    for number, framed in sql.execute("SELECT id, frame FROM sealed_epoch"):
        try:
            sound[number] = frame.unseal_epoch(framed)
        except frame.Damaged:
            continue  # it is sealed anew
    return sound


def _seal(sql: sqlite3.Connection) -> None:
    """Seal what was not, or is another now."""
    there = dict(sql.execute("SELECT id, frame FROM sealed_epoch").fetchall())
    right = {epoch.id: frame.seal_epoch(epoch) for epoch in known(sql)}
    changed = [(number, framed) for number, framed in right.items() if there.get(number) != framed]
    sql.executemany("INSERT OR REPLACE INTO sealed_epoch(id, frame) VALUES (?, ?)", changed)
    sql.executemany("DELETE FROM sealed_epoch WHERE id = ?", ((number,) for number in there.keys() - right.keys()))

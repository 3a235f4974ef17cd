"""What the buffer is measured against, and with: the readings of a pole, and two stores with one row per reading.

**The readings.** 24 devices, 204 channels of 13 kinds, 50 values a second, in windows of ten seconds: what is committed
together. They belong to one dataset, or to four, as on a pole; the values are the same. A value wanders and trembles in
its last digits, as sensors do; nothing is stored ready, and the same seed gives the same readings.

**The rows.** A row holds what a receiver must be told of one value: dataset, device, channel, time, value. Control A
commits each by itself, with a rollback journal: SQLite as it comes, and as ThingsBoard Gateway uses it. Control B
commits a window at once, with a WAL. Both encode when they send: for each dataset a list of flat records with the unit,
in JSON of the standard library, not compressed. SQLite's other settings are left as they come.
"""

import itertools
import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from drivers.modbus import Modbus
from gateway.words.reading import Reading
from hil.truth import Wander

NS = 1_000_000_000
SEED = 8
WINDOW_S = 10
POLE = "pole-17"
ONE = "pole"  # the dataset, where all are in one
BATCH = 500  # what B sends first; a window holds as many
UTC_OFFSET = 1_790_000_000 * NS  # a row is stamped with the time of day: it knows of no boot
SCHEMA = "CREATE TABLE reading(id INTEGER PRIMARY KEY, dataset TEXT, device TEXT, channel TEXT, at INTEGER, value)"
INSERT = "INSERT INTO reading(dataset, device, channel, at, value) VALUES (?, ?, ?, ?, ?)"
OLDEST = "SELECT * FROM reading ORDER BY id LIMIT ?"

Value = int | float | bool


class Kind(NamedTuple):
    """A kind of channel: its unit, where its values lie, and how they end.

    Attributes:
        unit: of SenML.
        mean: about which it wanders.
        swing: how far.
        trembles: standard deviation of what one look differs from the next.
        digits: behind the point; 0: it counts.
    """

    unit: str
    mean: float
    swing: float
    trembles: float
    digits: int


KINDS = {
    "voltage": Kind("V", 230.0, 4.0, 0.1, 1),
    "current": Kind("A", 4.0, 3.0, 0.01, 3),
    "power": Kind("W", 900.0, 600.0, 2.0, 1),
    "factor": Kind("/", 0.9, 0.08, 0.002, 3),
    "frequency": Kind("Hz", 50.0, 0.04, 0.005, 2),
    "energy": Kind("kWh", 5000.0, 0.0, 0.0, 2),  # it only grows
    "temperature": Kind("Cel", 14.0, 6.0, 0.02, 2),
    "humidity": Kind("%RH", 60.0, 20.0, 0.05, 2),
    "pressure": Kind("Pa", 101_300.0, 300.0, 3.0, 0),
    "dust": Kind("ug/m3", 14.0, 9.0, 0.4, 1),
    "particles": Kind("1/cm3", 80.0, 60.0, 3.0, 2),
    "sound": Kind("dB", 58.0, 9.0, 1.5, 1),
    "on": Kind("", 0.0, 1.0, 0.0, 0),  # a flag
}
PHASES = ("l1", "l2", "l3")


class Sort(NamedTuple):
    """A sort of device: its name, how many there are, seconds between two looks, and channels with their kinds."""

    name: str
    devices: int
    every_s: int
    channels: dict[str, str]

    def dataset(self, datasets: int) -> str:
        """Return its dataset, where there are so many: its own, or the one of all."""
        return ONE if datasets == 1 else self.name


SORTS = (
    Sort(
        "energy",
        8,
        8,
        {f"{kind}_{phase}": kind for kind in ("voltage", "current", "power") for phase in PHASES}
        | {"power_factor": "factor", "frequency": "frequency", "energy_imported": "energy"},
    ),
    Sort(
        "air",
        8,
        4,
        {"temperature": "temperature", "humidity": "humidity", "pressure": "pressure"}
        | {f"pm{size}": "dust" for size in ("1", "2_5", "4", "10")}
        | {"n2_5": "particles"},
    ),
    Sort("noise", 4, 2, {f"la_{which}": "sound" for which in ("eq", "max", "min", "10", "50", "90")}),
    Sort(
        "light",
        4,
        2,
        {"on": "on", "power": "power", "energy": "energy", "driver_temperature": "temperature", "voltage": "voltage"},
    ),
)


class Source:
    """A channel whose value can be asked for at any second."""

    def __init__(self, dice: random.Random, kind: str) -> None:
        self._dice = dice
        self._name = kind
        self._kind = KINDS[kind]
        self._wander = Wander(dice, self._kind.mean, self._kind.swing)
        self._watts, self._kwh = dice.uniform(50, 2000), dice.uniform(0, 2 * self._kind.mean)

    def at(self, time_s: float) -> Value:
        """Return what the sensor says then."""
        kind = self._kind
        if self._name == "energy":
            return round(self._kwh + self._watts * time_s / 3.6e6, kind.digits)
        value = self._wander.at(time_s)
        if self._name == "on":
            return value > 0
        value = max(0.0, value + self._dice.gauss(0.0, kind.trembles))
        return round(value, kind.digits) if kind.digits else round(value)


def devices(datasets: int) -> list[Modbus]:
    """Return the devices in so many datasets, as the catalogue wants to know them."""
    return [
        Modbus.model_validate(
            {"id": f"{sort.name}-{n}", "driver": "modbus", "port": "bus", "profile": _map(sort, datasets)}
        )
        for sort in SORTS
        for n in range(1, sort.devices + 1)
    ]


def windows(count: int, datasets: int) -> list[list[Reading]]:
    """Return the readings of so many windows in so many datasets, each in the order in which they were taken."""
    dice = random.Random(SEED)  # noqa: S311  # it moves values
    looks = sorted(_looks(dice, count * WINDOW_S, datasets), key=lambda look: look.at)
    by_window = itertools.groupby(looks, lambda look: look.at // (WINDOW_S * NS))
    return [list(readings) for _, readings in by_window]


def _looks(dice: random.Random, seconds: int, datasets: int) -> Iterator[Reading]:
    for sort in SORTS:
        for n in range(1, sort.devices + 1):
            sources = {channel: Source(dice, kind) for channel, kind in sort.channels.items()}
            phase = dice.uniform(0, sort.every_s)
            for look in range(seconds // sort.every_s):
                time_s = min(look * sort.every_s + phase + dice.uniform(0, 0.02), seconds - 0.001)
                values = {channel: source.at(time_s) for channel, source in sources.items()}
                yield Reading(f"{sort.name}-{n}", sort.dataset(datasets), int(time_s * NS), values)


def _map(sort: Sort, datasets: int) -> dict[str, object]:
    registers = [
        {"channel": channel, "address": place, "unit": KINDS[kind].unit, "title": channel}
        for place, (channel, kind) in enumerate(sort.channels.items())
    ]
    return {"maker": "x", "model": "x", "source": "x", "dataset": sort.dataset(datasets), "register": registers}


def values_in(readings: Sequence[Reading]) -> int:
    """Count the values; one is a row of the controls, and what the figures call a reading."""
    return sum(len(reading.values) for reading in readings)


class Rows:
    """One row per reading.

    Attributes:
        singly: each is committed by itself.
    """

    def __init__(self, path: Path, datasets: int, *, singly: bool) -> None:
        self._path = path
        self._units = {
            (sort.dataset(datasets), channel): KINDS[kind].unit
            for sort in SORTS
            for channel, kind in sort.channels.items()
        }
        self._sql: sqlite3.Connection
        self.singly = singly

    async def open(self) -> None:
        """Open the file and count its rows, as one must who wants to tell how full the buffer is."""
        self._sql = sqlite3.connect(self._path, isolation_level=None)
        for setting in ("page_size=4096", f"journal_mode={'DELETE' if self.singly else 'WAL'}", "synchronous=FULL"):
            self._sql.execute(f"PRAGMA {setting}")
        if not self._sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self._sql.execute(SCHEMA)
        self._sql.execute("SELECT count(*) FROM reading").fetchone()

    async def fill(self, readings: Sequence[Reading]) -> None:
        """Store them, with one commit or with one each."""
        rows = [
            (look.dataset, look.device, channel, look.at + UTC_OFFSET, value)
            for look in readings
            for channel, value in look.values.items()
        ]
        if self.singly:
            for row in rows:
                self._sql.execute(INSERT, row)
            return
        self._sql.execute("BEGIN IMMEDIATE")
        self._sql.executemany(INSERT, rows)
        self._sql.execute("COMMIT")

    async def pile(self, filled: Sequence[Sequence[Reading]], times: int) -> None:
        """Store some windows again and again."""
        for window in itertools.chain(*[filled] * times):
            await self.fill(window)

    async def first(self) -> None:
        """Take what is to be sent first."""
        self._encode(self._sql.execute(OLDEST, (BATCH,)).fetchall())

    async def drain(self, limit: int) -> int:
        """Read the oldest, encode them, delete them, and tell how many they were."""
        rows = self._sql.execute(OLDEST, (limit,)).fetchall()
        if rows:
            self._encode(rows)
            self._sql.execute("DELETE FROM reading WHERE id <= ?", (rows[-1][0],))
        return len(rows)

    def _encode(self, rows: Sequence[tuple[int, str, str, str, int, Value]]) -> None:
        records: dict[str, list[dict[str, Value | str]]] = {}
        for _, dataset, device, channel, at, value in rows:
            unit = self._units[dataset, channel]
            record: dict[str, Value | str] = {"n": f"{POLE}/{device}/{channel}", "u": unit, "t": at / NS, "v": value}
            records.setdefault(dataset, []).append(record)
        for of_dataset in records.values():
            json.dumps(of_dataset, separators=(",", ":"), ensure_ascii=False).encode()

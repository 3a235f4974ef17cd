"""Reads ``tests/vectors/*.toml``: frames, and what a right reader makes of them.

One file a driver, named as the driver. A frame is hex, with X for half a byte of which the source says that any value
must read the same; or text, for protocols that are text. ``shdlc.toml`` and ``strangers.toml`` are read apart.
"""

import functools
import itertools
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from drivers.contract import Driver

VECTORS = Path(__file__).parents[1] / "vectors"
PROFILES = Path(__file__).parents[2] / "config" / "profiles"

Kind = Literal[
    "captured-real-device",
    "vendor-spec",
    "vendor-code-test",
    "independent-library-test",
    "vendor-spec+captured",
    "own-construction",
]


class Table(BaseModel):
    """A table of the file: every key must be known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(Table):
    """Who says so. ``rounded``: the step to which the source rounds a channel that the frame gives finer."""

    kind: Kind
    repo: str | None = None
    debian_source: str | None = None
    commit: str | None = None
    url: str | None = None
    path: str | None = None
    licence: str | None = None
    note: str | None = None
    rounded: dict[str, float] = Field(default_factory=dict)


class Frame(Table):
    """Anything that holds a frame."""

    id: str
    source: str
    device: str = ""
    frame: str = ""
    text: str = ""
    note: str | None = None

    def frames(self) -> Iterator[bytes]:
        """Give the frame, with everything that X can stand for tried a few times."""
        if self.text:
            yield self.text.encode()
            return
        for fill in "0f5a" if "X" in self.frame else "0":
            yield bytes.fromhex(self.frame.replace("X", fill))


class Good(Frame):
    """A frame and its values. ``no_reading``: channels that are there and say None; ``partial``: there are more."""

    values: dict[str, int | float | bool | str] = Field(default_factory=dict)
    no_reading: tuple[str, ...] = Field((), strict=False)
    partial: bool = False

    def wanted(self) -> dict[str, Any]:
        """Return what a right reader gives."""
        return {**self.values, **dict.fromkeys(self.no_reading)}


class Bad(Frame):
    """A frame that gives no values, the error's class, and words of its message."""

    error: Literal["BadFrame", "NotReady"] = "BadFrame"
    says: str


class Asks(Table):
    """What one poll sends, in order, if it is answered so; without answers, what it sends first."""

    id: str
    source: str
    device: str = ""
    frames: tuple[str, ...] = Field(strict=False)
    answers: tuple[str, ...] = Field((), strict=False)


class Raw(Table):
    """An advertising report as it was on the air, and the Ruuvi data format that is in it."""

    id: str
    source: str
    report: str
    format: str
    payload: str = ""


class NoAdvert(Table):
    """The first bytes of an advert that no reader of format 5 may take."""

    id: str
    source: str
    begins: str
    note: str


class Log(Table):
    """A receiver's log, in a file of that name, and what gpsd made of it."""

    id: str
    source: str
    sentences: int
    bad_checksums: int
    tpv_count: int
    tpv_with_fix: int
    first_fix: dict[str, Any] | None = None
    last_fix: dict[str, Any] | None = None

    def read(self) -> bytes:
        """Return its bytes."""
        return (VECTORS / "nmea0183" / f"{self.id}.log").read_bytes()


class File(Table):
    """The vectors of one driver."""

    sources: dict[str, Source]
    devices: dict[str, dict[str, Any]] = Field(default_factory=dict)
    good: tuple[Good, ...] = Field((), strict=False)
    bad: tuple[Bad, ...] = Field((), strict=False)
    asks: tuple[Asks, ...] = Field((), strict=False)
    advert: tuple[Raw, ...] = Field((), strict=False)
    no_advert: tuple[NoAdvert, ...] = Field((), strict=False)
    log: tuple[Log, ...] = Field((), strict=False)

    def named(self) -> Iterator[Frame | Asks | Raw | NoAdvert | Log]:
        """Give all that has an id and a source."""
        return itertools.chain(self.good, self.bad, self.asks, self.advert, self.no_advert, self.log)


class Shdlc(Table):
    """A frame of Sensirion's SHDLC, and what is in it; ``state`` only from a sensor."""

    id: str
    source: str
    address: int
    command: int
    state: int = 0
    data: str = ""
    frame: str


class ShdlcFile(Table):
    """Frames from a sensor and to one."""

    sources: dict[str, Source]
    answer: tuple[Shdlc, ...] = Field(strict=False)
    request: tuple[Shdlc, ...] = Field(strict=False)


class Stranger(Table):
    """A frame of a sensor that has no driver here."""

    id: str
    source: str
    sensor: str
    frame: str


class StrangerFile(Table):
    """Such frames."""

    sources: dict[str, Source]
    frame: tuple[Stranger, ...] = Field(strict=False)


def load(name: str) -> dict[str, Any]:
    """Read one file as it stands."""
    return tomllib.loads((VECTORS / f"{name}.toml").read_text(encoding="utf-8"))


@functools.cache
def vectors(driver: str) -> File:
    """Read the vectors of a driver."""
    return File.model_validate(load(driver))


@functools.cache
def our_drivers() -> dict[str, EntryPoint]:
    """Return the entry points of this project's drivers; other installed packages may add theirs."""
    found = sorted(entry_points(group="polegate.drivers"), key=lambda entry: entry.name)
    return {entry.name: entry for entry in found if entry.value.startswith("drivers.")}


def profile(name: str) -> dict[str, Any]:
    """Read a register map of ``config/profiles``."""
    return tomllib.loads((PROFILES / f"{name}.toml").read_text(encoding="utf-8"))


def device(driver: str, name: str = "", **fields: Any) -> Driver:  # noqa: ANN401  # fields of any driver
    """Make a device: one of ``[devices.NAME]`` of its vectors, or one with nothing set."""
    model: type[Driver] = our_drivers()[driver].load()
    places = {"port": "line", "address": "CB:B8:33:4C:88:4F"}
    needed: Mapping[str, Any] = {key: value for key, value in places.items() if key in model.model_fields}
    given = {**vectors(driver).devices.get(name or first_device(driver), {}), **fields}
    if isinstance(given.get("profile"), str):
        given["profile"] = profile(given["profile"])
    return model.model_validate({"id": "device", "driver": driver, **needed, **given})


def first_device(driver: str) -> str:
    """Name the device of vectors that name none."""
    return next(iter(vectors(driver).devices), "")


def each(kind: Literal["good", "bad", "asks", "advert", "no_advert", "log"], driver: str | None = None) -> list[Any]:
    """Return the vectors of a kind, as parameters of a test: the driver's name and the vector."""
    names = [driver] if driver else list(our_drivers())
    return [
        pytest.param(name, vector, id=f"{name}-{vector.id}")
        for name in names
        for vector in getattr(vectors(name), kind)
    ]

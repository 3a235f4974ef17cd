"""A door: a file on the RAM file system that outlives the process, so that a crash loses nothing accepted.

What was accepted and is neither acknowledged nor in the database stands here: readings of packs that are still open,
then the packs themselves. The flash sees nothing of it; a power cut takes it, which is what ``commit_within`` bounds.

A record is a kind, the length of its body, the CRC-32 of kind and body, the body::

    H  boot, format             heads the file; one of another boot is no use, its stamps mean nothing
    U  units of a device        what its channels are measured in
    R  a reading                accepted
    P  a framed pack            sealed: the readings of its dataset before it are in it
    G  numbers of packs         settled: acknowledged, in the database, or given way

A reading is written by ``marshal``, which is eight times as quick as JSON: no file of another program, machine or boot
is ever read, and a checksum stands before it.

A release that is no good goes back to the one before while the machine runs, and that one reads this. So a later
release may add kinds, which are passed over here, and values behind the four of a reading; all else stays.

What one ``write`` put into the page cache survives the process, whatever kills it. A torn record at the end is one
that was not accepted yet. When most of the file is settled it is written anew without that.
"""

import errno
import marshal
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from gateway.store import frame
from gateway.words.reading import Pack, Quality, Reading

NAME = "journal"
NEW = f"{NAME}.new"
REWRITE_BYTES = 1024 * 1024
RETRY_BYTES = 64 * 1024  # where it could not be written anew, it may grow so much before the next try
MOST_BYTES = 48 * 1024 * 1024  # more than the buffer holds in RAM
IN_RAM = {"tmpfs", "ramfs"}
MOUNTS = Path("/proc/self/mountinfo")
ESCAPES = ("\\040", " "), ("\\011", "\t"), ("\\134", "\\")
HEAD = struct.Struct(">cII")
NUMBER = struct.Struct(">Q")

log = structlog.get_logger()


@dataclass(slots=True)
class Left:
    """What the run before left.

    Attributes:
        packs: by number, those that were not settled.
        readings: those that were in no pack yet.
        units: device to what its channels are measured in, also of one that is not in the file any more.
        last: dataset to the (epoch, n) of the last pack that is known of, settled or not.
    """

    packs: dict[int, Pack] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    units: dict[str, dict[str, str]] = field(default_factory=dict)
    last: dict[str, tuple[int, int]] = field(default_factory=dict)


class Journal:
    """The file.

    Attributes:
        folder: where it lies; None: nowhere, there is no RAM file system.
        trouble: why it keeps nothing, in words; "" while it does.
    """

    def __init__(self, folder: Path | None, boot: str) -> None:
        """Set it; ``open`` opens it.

        Args:
            folder: of this gateway alone, on a RAM file system; None: there is none.
            boot: id of this boot of the machine.
        """
        self.folder = folder if folder and is_in_ram(folder) else None
        self._boot = boot
        self._file = -1
        self._size = 0
        self._live = 0
        self._rewrite_above = 0
        self._readings: dict[str, list[tuple[int, int]]] = {}  # dataset to where its records lie
        self._packs: dict[int, tuple[int, int]] = {}
        self._units: dict[str, Mapping[str, str]] = {}
        self._described: dict[str, tuple[int, int]] = {}  # device to where its units lie
        self.trouble = "there is no folder in RAM; systemd gives one to the service"

    def open(self) -> Left:
        """Open or make it, and return what the run before left."""
        left = Left()
        if self.folder is None:
            return left
        try:
            self._file = os.open(self.folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            (self.folder / NEW).unlink(missing_ok=True)  # of a run that was killed while it wrote it
            self._recover(left)
        except OSError as error:
            self._fail(error)
        else:
            self.trouble = ""
        return left

    def close(self) -> None:
        """Close it; what is in it stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def describe(self, device: str, units: Mapping[str, str]) -> None:
        """Keep what the channels of a device are measured in, for as long as its readings may need it."""
        self._units[device] = units
        self._live -= self._described.pop(device, (0, 0))[1]

    def accept(self, reading: Reading) -> None:
        """Keep a reading until its pack is sealed."""
        if self._file < 0:
            return
        if reading.device not in self._described and (units := self._units.get(reading.device)):
            self._keep_units(reading.device, units)
        if place := self._append(b"R", _body(reading)):
            self._readings.setdefault(reading.dataset, []).append(place)
            self._live += place[1]

    def sealed(self, number: int, pack: Pack) -> None:
        """Keep a pack until it is settled; its readings need not be kept any more."""
        if self._file < 0:
            return
        if place := self._append(b"P", frame.seal(number, pack)):
            self._live += place[1] - sum(size for _, size in self._readings.pop(pack.dataset, ()))
            self._packs[number] = place

    def settled(self, numbers: Iterable[int]) -> None:
        """Let packs go."""
        gone = [number for number in numbers if number in self._packs]
        if self._file < 0 or not gone:
            return
        if self._append(b"G", b"".join(map(NUMBER.pack, gone))):
            self._live -= sum(self._packs.pop(number)[1] for number in gone)
            if self._size > max(REWRITE_BYTES, 2 * self._live, self._rewrite_above):
                self._rewrite()

    def _keep_units(self, device: str, units: Mapping[str, str]) -> None:
        if place := self._append(b"U", marshal.dumps((device, dict(units)))):
            self._described[device] = place
            self._live += place[1]

    def _append(self, kind: bytes, body: bytes) -> tuple[int, int] | None:
        """Append a record and return where it lies; None where it could not be kept."""
        head = b"" if self._size else self._head()
        record = head + _record(kind, body)
        try:
            _write(self._file, record, self._size)
        except OSError as error:
            self._fail(error)
            return None
        self.trouble = ""
        place = self._size + len(head), len(record) - len(head)
        self._size += len(record)
        return place

    def _fail(self, error: OSError) -> None:
        """Begin anew with an empty file, without even a head: one that lacks a record would tell a wrong story."""
        if not self.trouble:
            log.warning("the journal in RAM keeps nothing: a crash now loses what is not on the disk", why=str(error))
        self.trouble = str(error)
        self._readings.clear()
        self._packs.clear()
        self._described.clear()
        self._size = self._live = self._rewrite_above = 0
        if self._file >= 0:
            os.ftruncate(self._file, 0)

    def _head(self) -> bytes:
        return _record(b"H", f"{self._boot} {marshal.version}".encode())

    def _recover(self, left: Left) -> None:
        """Read what is there up to the first record that is not whole, and go on behind it."""
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        packs: dict[int, Pack] = {}
        readings: dict[str, list[Reading]] = {}
        head = self._head()
        if not data.startswith(head):
            data = b""
        at = len(head)
        while whole := _whole(data, at):
            kind, body, end = whole
            if kind == b"R":
                reading = _reading(body)
                readings.setdefault(reading.dataset, []).append(reading)
                self._readings.setdefault(reading.dataset, []).append((at, end - at))
            elif kind == b"U":
                device, left.units[device] = _units(body)
                self._described[device] = at, end - at
            elif kind == b"P":
                number, pack = frame.unseal(body)
                packs[number] = pack
                left.last[pack.dataset] = pack.epoch, pack.n
                self._packs[number] = at, end - at
                readings.pop(pack.dataset, None)
                self._readings.pop(pack.dataset, None)
            elif kind == b"G":
                for (number,) in NUMBER.iter_unpack(body):
                    packs.pop(number, None)
                    self._packs.pop(number, None)
            at = end
        left.packs = packs
        left.readings = sorted((each for some in readings.values() for each in some), key=lambda each: each.at)
        self._size = at if data else 0
        os.ftruncate(self._file, self._size)
        self._live = sum(size for _, size in self._places())

    def _places(self) -> list[tuple[int, int]]:
        kept = *self._described.values(), *self._packs.values()
        return sorted([*kept, *(place for places in self._readings.values() for place in places)])

    def _rewrite(self) -> None:
        """Write the file anew with what is still wanted, beside it, and put it in its place."""
        assert self.folder is not None  # noqa: S101  # it is open
        new = self.folder / NEW
        try:
            file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                moved, size = self._copy_to(file)
                new.rename(self.folder / NAME)
            except OSError:
                os.close(file)
                new.unlink(missing_ok=True)  # it took the last room, which the journal itself needs
                raise
        except OSError as error:
            if not self._rewrite_above:
                log.warning("the journal in RAM could not be written anew", why=str(error))
            self._rewrite_above = self._size + RETRY_BYTES
            return
        os.close(self._file)
        self._file, self._size, self._rewrite_above = file, size, 0
        self._described = {device: (moved[at], length) for device, (at, length) in self._described.items()}
        self._packs = {number: (moved[at], length) for number, (at, length) in self._packs.items()}
        for dataset, places in self._readings.items():
            self._readings[dataset] = [(moved[at], length) for at, length in places]

    def _copy_to(self, file: int) -> tuple[dict[int, int], int]:
        """Write what is still wanted into a new file; return where it came from and lies there, and where that ends."""
        head = self._head()
        _write(file, head, 0)
        moved, size = {}, len(head)
        for at, length in self._places():
            _write(file, os.pread(self._file, length, at), size)
            moved[at] = size
            size += length
        return moved, size


def _write(file: int, record: bytes, at: int) -> None:
    """Write all of a record. Raises OSError, also where there is room for a part of it alone."""
    if at + len(record) > MOST_BYTES or os.pwrite(file, record, at) < len(record):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def is_in_ram(folder: Path) -> bool:
    """Tell whether a folder lies on a RAM file system."""
    path = folder.resolve()
    best, kind = "", ""
    for line in MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4]
        for escape, plain in ESCAPES:
            point = point.replace(escape, plain)
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind in IN_RAM


def _record(kind: bytes, body: bytes) -> bytes:
    return HEAD.pack(kind, len(body), zlib.crc32(body, zlib.crc32(kind))) + body


def _whole(data: bytes, at: int) -> tuple[bytes, bytes, int] | None:
    """Return the record at a place: kind, body, where the next one begins; None where it is not whole."""
    if at + HEAD.size > len(data):
        return None
    kind, length, crc = HEAD.unpack_from(data, at)
    end = at + HEAD.size + length
    body = data[at + HEAD.size : end]
    return (kind, body, end) if len(body) == length and zlib.crc32(body, zlib.crc32(kind)) == crc else None


def _body(reading: Reading) -> bytes:
    values: Any = reading.values
    try:
        return marshal.dumps((reading.dataset, reading.device, reading.at, values))
    except ValueError:  # there is a quality in it, of a class that is ours
        values = {name: tuple(value) if isinstance(value, Quality) else value for name, value in values.items()}
        return marshal.dumps((reading.dataset, reading.device, reading.at, values))


def _units(body: bytes) -> tuple[str, dict[str, str]]:
    device, units = marshal.loads(body)  # noqa: S302  # as below
    return device, units


def _reading(body: bytes) -> Reading:
    dataset, device, at, values, *_ = marshal.loads(body)  # noqa: S302  # written by us, on this machine, in this boot
    known = {name: Quality(*value) if isinstance(value, tuple) else value for name, value in values.items()}
    return Reading(device, dataset, at, known)

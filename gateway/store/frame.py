"""How a pack lies in a file: framed, so that it can be found and proved sound without the rest of the file.

::

    "PLG1" | length of what follows | CRC-32 of it | head | dataset | payload

The head holds all that a pack is. A frame is found again in a damaged database, in a torn journal, and in a row whose
bytes the flash has changed: SQLite notices none of the last. What is known of a run of the gateway is framed the same
way, with "PLE1" before it.

This form stays: the release before reads what a newer one left, also in the journal, and files of years ago are
salvaged. Another form gets another magic, and is written a release after it is read.
"""

import struct
import zlib

from gateway.words.reading import Pack
from gateway.words.timeline import Epoch

MAGIC = b"PLG1"
EPOCH_MAGIC = b"PLE1"
_ENVELOPE = struct.Struct(">4sII")
_HEAD = struct.Struct(">QIIqq?B")  # number, n, readings, taken, offset, certain, length of the dataset's name
_EPOCH = struct.Struct(">Qq?q")  # number, started, whether its time is certain, what to add; then the boot
EPOCH_SHIFT = 32  # a pack's number is its epoch and a count: it never comes twice
LARGEST_COUNT = (1 << EPOCH_SHIFT) - 1
LAST_EPOCH = (1 << 31) - 1  # SQLite's numbers have 63 bits
LARGEST = 16 * 1024 * 1024


class Damaged(Exception):
    """The bytes are not what was written."""


def number_of(epoch: int, count: int) -> int:
    """Return the number of a pack; numbers only grow."""
    return epoch << EPOCH_SHIFT | count


def seal(number: int, pack: Pack) -> bytes:
    """Return the frame of a pack."""
    dataset = pack.dataset.encode()
    head = _HEAD.pack(number, pack.n, pack.readings, pack.taken, pack.offset, pack.certain, len(dataset))
    return _framed(MAGIC, b"".join((head, dataset, pack.blob)))


def unseal(frame: bytes) -> tuple[int, Pack]:
    """Return the number and the pack in a whole frame. Raises Damaged."""
    body = _body(MAGIC, frame, _HEAD.size)
    number, n, readings, taken, offset, certain, size = _HEAD.unpack_from(body)
    end = _ENVELOPE.size + _HEAD.size + size
    dataset = frame[end - size : end].decode()
    return number, Pack(dataset, number >> EPOCH_SHIFT, n, readings, taken, frame[end:], offset, certain)


def seal_epoch(epoch: Epoch) -> bytes:
    """Return the frame of what is known of a run."""
    head = _EPOCH.pack(epoch.id, epoch.started, epoch.utc is not None, epoch.utc or 0)
    return _framed(EPOCH_MAGIC, head + epoch.boot.encode())


def unseal_epoch(frame: bytes) -> Epoch:
    """Return the run in a whole frame. Raises Damaged."""
    body = _body(EPOCH_MAGIC, frame, _EPOCH.size)
    number, started, certain, utc = _EPOCH.unpack_from(body)
    return Epoch(number, str(body[_EPOCH.size :], "utf-8"), started, utc if certain else None)


def _framed(magic: bytes, body: bytes) -> bytes:
    return _ENVELOPE.pack(magic, len(body), zlib.crc32(body)) + body


def _body(magic: bytes, frame: bytes, least: int) -> memoryview:
    """Return what is in a frame, not copied: all that is sent passes here. Raises Damaged."""
    if len(frame) < _ENVELOPE.size + least:
        raise Damaged(f"{len(frame)} bytes are no frame")
    found, length, crc = _ENVELOPE.unpack_from(frame)
    body = memoryview(frame)[_ENVELOPE.size :]
    if found != magic or length != len(body) or zlib.crc32(body) != crc:
        raise Damaged("its checksum is wrong")
    return body

"""A pack as it goes on the wire: SenML JSON, compressed above a small size.

Readers of MQTT 5 are told; others look at the first four bytes, which no JSON begins with.
"""

import zstandard

SMALL_BYTES = 200  # below, compression makes it longer
LEVEL = 6  # a fifth less on the wire and the flash than 3, for a quarter of a microsecond a value
MAGIC = zstandard.FRAME_HEADER
_compressor = zstandard.ZstdCompressor(level=LEVEL)


def packed(raw: bytes) -> bytes:
    """Compress it where that is worth it."""
    return _compressor.compress(raw) if len(raw) >= SMALL_BYTES else raw


def packed_once(raw: bytes) -> bytes:
    """Compress what is long and seldom sent; the room that takes, most of a megabyte, is given back."""
    return zstandard.compress(raw, LEVEL)


def is_packed(payload: bytes) -> bool:
    """Tell whether it is compressed."""
    return payload.startswith(MAGIC)


def unpacked(payload: bytes) -> bytes:
    """Return the SenML."""
    return zstandard.decompress(payload) if is_packed(payload) else payload

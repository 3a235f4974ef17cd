"""A pack as it goes on the wire: SenML JSON, compressed above a small size.

Readers of MQTT 5 are told; others look at the first four bytes, which no JSON begins with.

Packs repeat themselves from look to look, which the lowest level finds as well: level 6 takes four times the CPU for a
twelfth fewer bytes.
"""

import zstandard

SMALL_BYTES = 200  # below, compression makes it longer
LEVEL, ONCE_LEVEL = 1, 6
MAGIC = zstandard.FRAME_HEADER  # MAGIC_NUMBER is negative on 32 bit
_compressor = zstandard.ZstdCompressor(level=LEVEL)


def packed(raw: bytes) -> bytes:
    """Compress it where that is worth it."""
    return _compressor.compress(raw) if len(raw) >= SMALL_BYTES else raw


def packed_once(raw: bytes) -> bytes:
    """Compress what is long and seldom sent; the room that takes, most of a megabyte, is given back."""
    return zstandard.compress(raw, ONCE_LEVEL)


def is_packed(payload: bytes) -> bool:
    """Tell whether it is compressed."""
    return payload.startswith(MAGIC)


def unpacked(payload: bytes) -> bytes:
    """Return the SenML."""
    return zstandard.decompress(payload) if is_packed(payload) else payload

"""Numbers as the device sent them: never a digit more.

A sensor that sends 2302 tenths means 230.2, not 230.20000000000002, and a float32 of 230.2 means 230.2, not
230.1999969482422. Noise digits cost bytes in every pack and pretend a precision that is not there.
"""

import math
import struct

_FLOAT32 = struct.Struct(">f")
_FRACTION_BITS = 24
_DIGITS = range(6, 10)  # a float32 has at least 6 sound digits, and 9 tell any two apart


def float32(raw: bytes) -> float | None:
    """Return the shortest decimal within one last bit of an IEEE 754 single (4 bytes, big-endian).

    One bit is what the sensor's own arithmetic leaves undecided: a maker's manual shows 43 66 33 34, which is
    230.20001, and calls it 230.2. None for NaN and infinity.
    """
    value: float = _FLOAT32.unpack(raw)[0]
    if not math.isfinite(value):
        return None
    last_bit = math.ldexp(1, math.frexp(value)[1] - _FRACTION_BITS)
    candidates = (float(f"{value:.{digits}g}") for digits in _DIGITS)
    return next(short for short in candidates if abs(short - value) <= last_bit)


def places(step: float) -> int:
    """Return how many decimals a step like 0.1 or 0.005 has; 0 for whole steps.

    ``round(raw * step, places(step))`` is then the decimal that is meant.
    """
    _, _, decimals = f"{step:.12f}".rstrip("0").partition(".")
    return len(decimals)

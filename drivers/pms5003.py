"""Plantower PMS5003: fine dust by laser, on a 3.3 V UART at 9600 baud.

It sends a frame of 32 bytes about once a second by itself (active mode, how it leaves the factory)::

    42 4d | length 00 1c | 13 words, big-endian | sum of all before, one word

Words 1-3 are for factory air (CF=1) and are not reported; 4-6 are ug/m3 in the atmosphere; 7-12 count particles
larger than 0.3 ... 10 um in 0.1 L, so none can be more than the one before; word 13 is version and error code.

Source: Plantower, "Digital universal particle concentration sensor PMS5003 series data manual" V2.3, appendix I.
"""

import struct
from typing import ClassVar, Literal

from drivers.contract import BadFrame, NotReady, Span, Streamed, Values
from drivers.quantities import PM1, PM2_5, PM10, larger_than

FRAME = struct.Struct(">2sH13HH")  # head, length, words, checksum
HEAD = b"BM\x00\x1c"
PM = ("pm1", "pm2_5", "pm10")
COUNTS = ("n0_3", "n0_5", "n1", "n2_5", "n5", "n10")
PER_CM3 = 100  # 0.1 L is 100 cm3


class Pms5003(Streamed):
    """A ``[[device]]`` with ``driver = "pms5003"``."""

    driver: Literal["pms5003"]

    MAKE = "Plantower PMS5003"
    DATASET = "air"
    CHANNELS: ClassVar = {
        "pm1": PM1,
        "pm2_5": PM2_5,
        "pm10": PM10,
        **{name: larger_than(name[1:].replace("_", ".")) for name in COUNTS},
    }
    RECORDED = True
    LONGEST = FRAME.size
    SILENT_AFTER_S = 10.0

    def seek(self, buffer: bytes) -> Span | None:
        """Find 32 bytes that begin with the head and the only length there is."""
        start = buffer.find(HEAD)
        return (start, start + FRAME.size) if 0 <= start <= len(buffer) - FRAME.size else None

    def decode(self, frame: bytes) -> Values:
        """Read 32 bytes: ug/m3, and particles per cm3."""
        if not frame.startswith(HEAD):
            raise BadFrame(f"a PMS5003 frame begins 42 4d 00 1c, this with {frame[:4].hex(' ')}")
        if len(frame) != FRAME.size:
            raise BadFrame(f"a PMS5003 frame has {FRAME.size} bytes, this has {len(frame)}")
        _, _, *words, checksum = FRAME.unpack(frame)
        if checksum != sum(frame[:-2]):
            raise BadFrame(f"checksum is {checksum:04x}, the bytes give {sum(frame[:-2]):04x}")
        if error := words[12] & 0xFF:
            raise NotReady(f"the sensor reports error {error:02x}", hint="Replace it if that stays after a restart.")
        if not any(words[:12]):  # no air outdoors is without one particle in 0.1 L; the last word has a version always
            raise NotReady("all values are zero: the sensor is warming up")
        counts = words[6:12]
        if counts != sorted(counts, reverse=True):
            raise BadFrame("it counts more large particles than small ones", hint=NO_PMS5003)
        per_cm3 = (count / PER_CM3 for count in counts)
        return dict(zip(PM, words[3:6], strict=True)) | dict(zip(COUNTS, per_cm3, strict=True))


NO_PMS5003 = "A PMS5003T looks the same and sends temperature and humidity in the place of the two largest sizes."

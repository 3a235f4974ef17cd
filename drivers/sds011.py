"""Nova SDS011: fine dust by laser, on a 3.3 V UART.

It sends one frame a second by itself (active mode, how it leaves the factory)::

    aa c0 | PM2.5 lo hi | PM10 lo hi | id lo hi | sum of the six | ab

Source: Nova Fitness, "Laser Dust Sensor Control Protocol V1.3" (2015), section "sensor data".
"""

import struct
from typing import ClassVar, Literal

from drivers.contract import BadFrame, NotReady, Span, Streamed, Values
from drivers.quantities import PM2_5, PM10

FRAME = struct.Struct("<HHHHBB")  # head, PM2.5, PM10, id, checksum, tail
HEAD, TAIL = b"\xaa\xc0", 0xAB


class Sds011(Streamed):
    """A ``[[device]]`` with ``driver = "sds011"``."""

    driver: Literal["sds011"]

    MAKE = "Nova SDS011"
    DATASET = "air"
    CHANNELS: ClassVar = {"pm2_5": PM2_5, "pm10": PM10}
    RECORDED = True
    LONGEST = FRAME.size
    SILENT_AFTER_S = 10.0

    def seek(self, buffer: bytes) -> Span | None:
        """Find ten bytes that begin like a frame."""
        start = buffer.find(HEAD)
        return (start, start + FRAME.size) if 0 <= start <= len(buffer) - FRAME.size else None

    def decode(self, frame: bytes) -> Values:
        """Read ten bytes; values come in 0.1 ug/m3."""
        if len(frame) != FRAME.size:
            raise BadFrame(f"an SDS011 frame has {FRAME.size} bytes, this has {len(frame)}")
        _, pm2_5, pm10, _, checksum, tail = FRAME.unpack(frame)
        if not frame.startswith(HEAD) or tail != TAIL:
            raise BadFrame(f"an SDS011 frame is aa c0 .. ab, this is {frame[:2].hex(' ')} .. {frame[-1:].hex()}")
        if checksum != sum(frame[2:8]) % 256:
            raise BadFrame(f"checksum is {checksum:02x}, the bytes give {sum(frame[2:8]) % 256:02x}")
        if pm2_5 == pm10 == 0:
            raise NotReady("all values are zero: the sensor is warming up")
        return {"pm2_5": pm2_5 / 10, "pm10": pm10 / 10}

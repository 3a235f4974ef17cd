"""Sensirion SPS30: particulate matter, on a UART at 115200 baud, in SHDLC frames.

A frame on the wire stands between two ``7e``; inside, ``7e 7d 11 13`` are sent as ``7d`` and the byte xor ``20``::

    to the sensor    7e | address | command | length | data | checksum | 7e
    from the sensor  7e | address | command | state | length | data | checksum | 7e

The checksum is the inverted sum of all between the ``7e``, before stuffing. The sensor measures only after it was
told to, and forgets that when its power goes; it then answers a read with state 43 ("not allowed in this state"),
which is the sign to start it again. A read between two samples (one a second) is answered with no data.

Source: Sensirion, "Datasheet SPS30" version 1.0 (2020), sections 4 (timing) and 5 (UART interface).
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from drivers.contract import Asked, BadFrame, Channel, LineSettings, NotReady, Port, Seek, Span, Values
from drivers.decimals import float32
from drivers.quantities import PM1, PM2_5, PM4, PM10, up_to

EDGE, ESCAPE, FLIP = 0x7E, 0x7D, 0x20
START, READ = 0x00, 0x03
START_FLOATS = bytes([0x01, 0x03])
ERROR, FAULT = 0x7F, 0x80  # of the state: a command was not done; the device status register has an error flag
NOT_MEASURING = 0x43
CLEAN = "Look whether something blocks its inlet or fan; if it stays so after a restart, replace the sensor."
FLOATS = 10
LONGEST_REPLY = 2 * (5 + 4 * FLOATS) + 2  # every byte stuffed, and the edges
STATES = {
    0x01: "wrong data length",
    0x02: "unknown command",
    0x03: "no access right",
    0x04: "illegal parameter",
    0x28: "internal function argument out of range",
    NOT_MEASURING: "command not allowed in this state: it is not measuring",
}


class Sps30(Asked):
    """A ``[[device]]`` with ``driver = "sps30"``."""

    driver: Literal["sps30"]
    warm_up: float = Field(
        30.0, ge=0, le=300, description="Seconds its fan runs before the first sample counts; up to 30 in clean air."
    )

    MAKE = "Sensirion SPS30"
    DATASET = "air"
    CHANNELS: ClassVar = {
        "pm1": PM1,
        "pm2_5": PM2_5,
        "pm4": PM4,
        "pm10": PM10,
        "n0_5": up_to("0.5"),
        "n1": up_to("1"),
        "n2_5": up_to("2.5"),
        "n4": up_to("4"),
        "n10": up_to("10"),
        "typical_size": Channel("typical particle size", "um"),
    }
    RECORDED = True

    def line(self) -> LineSettings:
        """115200 8N1."""
        return LineSettings(baud=115_200)

    async def poll(self, port: Port) -> Values:
        """Read the last sample; start the sensor first where it does not measure."""
        reply = await port.ask(request(READ), seek_answer(READ), size=LONGEST_REPLY)
        _, state, _ = unpack(reply)
        if state & ERROR == NOT_MEASURING:
            started = await port.ask(request(START, START_FLOATS), seek_answer(START), size=LONGEST_REPLY)
            _must_be_done(unpack(started)[1])
            await port.wait(self.warm_up)
            reply = await port.ask(request(READ), seek_answer(READ), size=LONGEST_REPLY)
        return self.decode(reply)

    def decode(self, frame: bytes) -> Values:
        """Read the answer to "read measured values", edges included: ug/m3, particles per cm3, um."""
        command, state, data = unpack(frame)
        _must_be_done(state)
        if command != READ:
            raise BadFrame(f"an answer to command {command:02x}, not to a read (03)")
        if not data:
            raise NotReady("no new sample since the last read")
        if len(data) != 4 * FLOATS:
            raise BadFrame(f"a sample has {4 * FLOATS} bytes, this has {len(data)}")
        if state & FAULT:
            raise NotReady("the sensor reports a fault of its fan or laser", hint=CLEAN)
        if not any(data):
            raise NotReady("all values are zero: the sensor is warming up")
        return {name: float32(data[4 * i : 4 * i + 4]) for i, name in enumerate(self.CHANNELS)}


def _must_be_done(state: int) -> None:
    """Raise BadFrame where the sensor did not do what it was told."""
    if error := state & ERROR:
        raise BadFrame(f"the sensor refuses: {STATES.get(error, f'state {error:02x}')}")


def request(command: int, data: bytes = b"") -> bytes:
    """Build a frame to the sensor (address 0), stuffed and edged."""
    body = bytes([0, command, len(data)]) + data
    body += bytes([~sum(body) & 0xFF])
    stuffed = b"".join(bytes([ESCAPE, b ^ FLIP]) if b in (EDGE, ESCAPE, 0x11, 0x13) else bytes([b]) for b in body)
    return bytes([EDGE]) + stuffed + bytes([EDGE])


def seek_answer(command: int) -> Seek:
    """Look for a sound answer to a command, between any two edges that follow each other."""

    def seek(buffer: bytes) -> Span | None:
        return next((span for span in between_edges(buffer) if _answers(command, buffer[slice(*span)])), None)

    return seek


def _answers(command: int, frame: bytes) -> bool:
    try:
        return unpack(frame)[0] == command
    except BadFrame:
        return False


def between_edges(buffer: bytes) -> Iterator[Span]:
    """Find all runs of bytes between two edges; an edge may be the end of one and the start of the next."""
    start = buffer.find(EDGE)
    while (end := buffer.find(EDGE, start + 1)) > start >= 0:
        yield start, end + 1
        start = end


def unpack(frame: bytes) -> tuple[int, int, bytes]:
    """Take a frame from the sensor apart: command, state, data. Raises BadFrame."""
    if len(frame) < 2 or frame[0] != EDGE or frame[-1] != EDGE:  # noqa: PLR2004  # the two edges
        raise BadFrame("an SHDLC frame stands between two 7e")
    body = unstuff(frame[1:-1])
    if len(body) < 5:  # noqa: PLR2004  # address, command, state, length, checksum
        raise BadFrame(f"an SHDLC answer has at least 5 bytes between its edges, this has {len(body)}")
    _, command, state, length = body[:4]
    data, checksum = body[4:-1], body[-1]
    if checksum != ~sum(body[:-1]) & 0xFF:
        raise BadFrame(f"checksum is {checksum:02x}, the bytes give {~sum(body[:-1]) & 0xFF:02x}")
    if length != len(data):
        raise BadFrame(f"the frame says {length} bytes of data and carries {len(data)}")
    return command, state, data


def unstuff(stuffed: bytes) -> bytes:
    """Undo the byte stuffing. Raises BadFrame."""
    first, *rest = stuffed.split(bytes([ESCAPE]))
    if any(not part for part in rest) or EDGE in stuffed:
        raise BadFrame("an escape (7d) without its byte, or an edge inside the frame")
    return first + b"".join(bytes([part[0] ^ FLIP]) + part[1:] for part in rest)

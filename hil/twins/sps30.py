"""Sensirion SPS30: fine dust, asked over a UART in SHDLC frames (115200 8N1).

Request ``7E adr cmd len data chk 7E``, answer ``7E adr cmd state len data chk 7E``. The checksum is the inverse of
the low byte of the sum; 7E 7D 11 13 are sent as 7D and the byte with bit 5 inverted. A frame that is damaged or for
another address gets no answer.

Source: Sensirion, SPS30 datasheet, section 5 (UART). Only the float output format is there, no sleep, no fan
cleaning; those commands and what else is unknown get state 0x02.
"""

import struct

from hil.faults import seeded
from hil.truth import Said, Truth, Wander, now, shortest

START, STOP, READ, DEVICE_INFO, VERSION, RESET = 0x00, 0x01, 0x03, 0xD0, 0xD1, 0xD3
DONE = 0x00
WRONG_LENGTH = 0x01
UNKNOWN_COMMAND = 0x02
ILLEGAL_PARAMETER = 0x04
NOT_IN_THIS_STATE = 0x43

_FLAG, _ESCAPE = 0x7E, 0x7D
_STUFFED = (0x7E, 0x7D, 0x11, 0x13)
_ADDRESS = 0
_CYCLE_S = 1.0
_FLOAT_FORMAT = b"\x01\x03"
_INFO = {b"\x00": b"00080000\0", b"\x03": b"7D0B2C46A9E1F358\0"}
_VERSIONS = bytes((2, 2, 0, 7, 0, 2, 0))  # firmware 2.2, hardware 7, SHDLC 2.0

_COMMANDS: dict[int, tuple[tuple[bytes, ...], bool | None]] = {
    START: ((_FLOAT_FORMAT,), False),
    STOP: ((b"",), True),
    READ: ((b"",), True),
    DEVICE_INFO: (tuple(_INFO), None),
    VERSION: ((b"",), None),
    RESET: ((b"",), None),
}
"""Command to the data it may come with, and to whether it is for a sensor that measures, for one that does not, or
for both (None)."""

_CHANNELS = ("pm1", "pm2_5", "pm4", "pm10", "n0_5", "n1", "n2_5", "n4", "n10", "typical_size")
"""In the order of the answer. ug/m3, particles per cm3, um."""


class Sps30:
    """The sensor. It measures nothing until it is started, as after power-up."""

    turnaround_s = 0.005

    def __init__(self, *, seed: int = 0) -> None:
        dice = seeded(seed, "sps30")
        self._dust = Wander(dice, 9.0, 5.0)
        self._size = Wander(dice, 0.7, 0.2)
        self._received = bytearray()
        self._measuring_since: float | None = None
        self._samples_read = 0
        self._said = Said()

    def truth(self, at: float | None = None) -> Truth:
        """Return the sample read last at a time (s of the loop; None is now); nothing if none was."""
        return self._said.at(at)

    def reset(self) -> None:
        """Restart, as on command or when the power returns."""
        self._measuring_since = None

    def hear(self, data: bytes) -> bytes:
        """Take bytes, answer the frames that are complete."""
        answers = b""
        for byte in data:
            self._received.append(byte)
            if byte == _FLAG:
                # A flag ends a frame and may begin the next: what is too short to be a frame was the space between.
                answers += self._answer(bytes(self._received[:-1]))
                self._received.clear()
        return answers

    def _answer(self, stuffed: bytes) -> bytes:
        content = _unstuff(stuffed)
        if len(content) < 4 or _checksum(content[:-1]) != content[-1]:  # noqa: PLR2004  # address to checksum
            return b""
        address, command, length = content[:3]
        data = content[3:-1]
        if address != _ADDRESS or length != len(data):
            return b""
        state, answer = self._obey(command, data)
        return frame(_ADDRESS, command, state, answer)

    def _obey(self, command: int, data: bytes) -> tuple[int, bytes]:
        """Carry out a command: the state byte and the data of its answer."""
        state = self._refusal(command, data)
        answer = b""
        if state != DONE:
            return state, answer
        if command == START:
            self._measuring_since, self._samples_read = now(), 0
        elif command == READ:
            answer = self._read()
        elif command == DEVICE_INFO:
            answer = _INFO[data]
        elif command == VERSION:
            answer = _VERSIONS
        else:
            self.reset()  # STOP ends in the idle state too
        return state, answer

    def _refusal(self, command: int, data: bytes) -> int:
        """Return why a command is not carried out, or DONE."""
        if command not in _COMMANDS:
            return UNKNOWN_COMMAND
        parameters, only_if_measuring = _COMMANDS[command]
        if len(data) != len(parameters[0]):
            return WRONG_LENGTH
        if data not in parameters:
            return ILLEGAL_PARAMETER
        if only_if_measuring not in (None, self._measuring_since is not None):
            return NOT_IN_THIS_STATE
        return DONE

    def _read(self) -> bytes:
        """Return the newest sample, or nothing if it has been read."""
        assert self._measuring_since is not None  # noqa: S101  # _COMMANDS says so
        made = int((now() - self._measuring_since) / _CYCLE_S)
        if made == self._samples_read:
            return b""
        self._samples_read = made
        values = self._sample(self._measuring_since + made * _CYCLE_S)
        self._said.note({channel: shortest(value) for channel, value in zip(_CHANNELS, values, strict=True)})
        return struct.pack(">10f", *values)

    def _sample(self, at: float) -> tuple[float, ...]:
        """Return the measured values: each size class holds the smaller ones too."""
        dust = self._dust.at(at)
        mass = [dust * share for share in (0.72, 1.0, 1.13, 1.17)]
        number = [dust * share for share in (4.3, 5.3, 5.55, 5.6, 5.61)]
        return (*mass, *number, self._size.at(at))


def frame(address: int, command: int, state: int, data: bytes) -> bytes:
    """Return an answer as it is on the wire."""
    body = bytes((address, command, state, len(data))) + data
    return bytes((_FLAG,)) + _stuff(body + bytes((_checksum(body),))) + bytes((_FLAG,))


def _checksum(content: bytes) -> int:
    return ~sum(content) & 0xFF


def _stuff(content: bytes) -> bytes:
    return b"".join(bytes((_ESCAPE, byte ^ 0x20)) if byte in _STUFFED else bytes((byte,)) for byte in content)


def _unstuff(stuffed: bytes) -> bytes:
    content = bytearray()
    escaped = False
    for byte in stuffed:
        if escaped:
            content.append(byte ^ 0x20)
        elif byte != _ESCAPE:
            content.append(byte)
        escaped = byte == _ESCAPE and not escaped
    return bytes(content)

"""Nova SDS011: fine dust by laser, on a UART (9600 8N1).

In active mode, as after power-up, it sends a frame every second; in query mode, and in active mode besides, when
asked. Answer ``AA C0 pm2.5 pm10 id sum AB``, values low byte first in 0.1 ug/m3; the sum is of the six bytes
between. A command is nineteen bytes, ``AA B4`` to ``AB``.

Source: Nova, Laser Dust Sensor Control Protocol V1.3, commands 2 (reporting mode) and 4 (query data).
"""

from hil.faults import seeded
from hil.truth import Said, Truth, Wander, now

_COMMAND_HEAD = b"\xaa\xb4"
_COMMAND_SIZE = 19
_REPORTING, _QUERY = 2, 4
_TAIL = b"\xab"
_ID = b"\xa1\x60"
_ANY_ID = b"\xff\xff"


class Sds011:
    """The sensor."""

    period = 1.0
    turnaround_s = 0.010

    def __init__(self, *, seed: int = 0) -> None:
        self._dust = Wander(seeded(seed, "sds011"), 11.0, 7.0)
        self._active = True
        self._received = b""
        self._said = Said()

    def truth(self, at: float | None = None) -> Truth:
        """Return what was sent last at a time (s of the loop; None is now): ug/m3."""
        return self._said.at(at)

    def speak(self) -> bytes:
        """Return a frame in active mode."""
        return self._data() if self._active else b""

    def hear(self, data: bytes) -> bytes:
        """Take bytes, carry out the commands in them."""
        self._received += data
        answers = b""
        while (start := self._received.find(_COMMAND_HEAD)) >= 0 and len(self._received) - start >= _COMMAND_SIZE:
            command = self._received[start : start + _COMMAND_SIZE]
            if command[-1:] == _TAIL and command[17] == sum(command[2:17]) % 256:
                answers += self._obey(command)
                self._received = self._received[start + _COMMAND_SIZE :]
            else:
                self._received = self._received[start + 1 :]
        return answers

    def _obey(self, command: bytes) -> bytes:
        if command[15:17] not in (_ANY_ID, _ID):
            return b""
        if command[2] == _QUERY:
            return self._data()
        if command[2] == _REPORTING:
            is_setting = command[3] == 1
            if is_setting:
                self._active = command[4] == 0
            return frame(0xC5, bytes((_REPORTING, is_setting, not self._active, 0)))
        return b""

    def _data(self) -> bytes:
        dust = self._dust.at(now())
        pm2_5, pm10 = round(10 * dust), round(16 * dust)
        self._said.note({"pm2_5": pm2_5 / 10, "pm10": pm10 / 10})
        return frame(0xC0, pm2_5.to_bytes(2, "little") + pm10.to_bytes(2, "little"))


def frame(kind: int, data: bytes, unit: bytes = _ID) -> bytes:
    """Return an answer as it is on the wire: kind C0 (dust) or C5 (settings), four bytes of data, the unit's id."""
    body = data + unit
    return bytes((0xAA, kind)) + body + bytes((sum(body) % 256,)) + _TAIL

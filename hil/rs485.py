"""One RS-485 pair with Modbus RTU slaves on it.

A slave takes a request for complete after 3.5 characters of silence (above 19200 baud: 1.75 ms; MODBUS over Serial
Line V1.02, 2.5.1.1), because it does not know all function codes' lengths. Then its turnaround time runs, then it
answers, whatever else is on the wires by then. It stays silent when the checksum is wrong, when the request is for
another unit, and when it is for all (unit 0). A slave that is late answers its requests one after the other.
"""

from collections.abc import Iterable

from hil.faults import BYTE_KINDS, Kind
from hil.line import Line, Mode
from hil.timer import Timer
from hil.twins.modbus import ModbusSlave, crc16
from hil.wire import Wire

KINDS: frozenset[Kind] = BYTE_KINDS | {"silent", "late", "dup", "wrong_id", "wrong_fc", "exception"}
"""The faults that have a meaning here."""

_BROADCAST = 0
_SHORTEST = 4  # unit, function, checksum
_FAST_BAUD = 19200
_FAST_SILENCE_S = 0.00175


def silence_s(baud: int, char_s: float) -> float:
    """Return the seconds of silence that end a frame."""
    return 3.5 * char_s if baud <= _FAST_BAUD else _FAST_SILENCE_S


class Rs485(Line):
    """The pair, its slaves and the gateway's adapter.

    Args:
        wire: the adapter, unplugged.
        slaves: who is on the pair; each unit id once.
        seed: for noise and collisions.
        mode: how received characters reach the gateway, see ``hil.line``.
        echo: whether the adapter hears itself.
        baud: how the slaves are set: at another speed they understand nothing. None: as the gateway speaks.

    Attributes:
        slaves: by unit id. One more may be put in at any time.
        counts: ``requests`` heard on the pair; of these ``unreadable`` (checksum, or speed), ``broadcast``, and
            ``unknown`` (no such unit, or it is dead). Those that reached a slave are counted in its own ``counts`` and
            ``faults.counts``. ``garbled``: characters that collided.
    """

    def __init__(
        self,
        wire: Wire,
        slaves: Iterable[ModbusSlave],
        *,
        seed: int = 0,
        mode: Mode = "uart",
        echo: bool = False,
        baud: int | None = None,
    ) -> None:
        super().__init__(wire, seed=seed, mode=mode, half_duplex=True, echo=echo)
        self.slaves = {slave.unit: slave for slave in slaves}
        self._baud = baud
        self._request = bytearray()
        self._free_at: dict[int, float] = {}
        self._silence = Timer(self._frame_over)

    def unplug(self) -> None:
        """Pull the adapter out; a request under way is never finished."""
        super().unplug()
        self._silence.set(None)
        self._request.clear()

    def close(self) -> None:
        """Pull the adapter and stop all that is planned."""
        super().close()
        self._silence.close()

    def _host_talks(self, data: bytes) -> None:
        super()._host_talks(data)
        self._silence.set(self._frame_over_at())

    def _frame_over_at(self) -> float:
        return self._host_end + silence_s(self.wire.baud, self.wire.char_s)

    def _heard(self, data: bytes, at: float) -> None:
        del at
        self._request += data

    def _frame_over(self) -> None:
        self._advance()
        frame = bytes(self._request)
        self._request.clear()
        self.counts["requests"] += 1
        if (
            self._baud not in {None, self.wire.baud}
            or len(frame) < _SHORTEST
            or crc16(frame[:-2]).to_bytes(2, "little") != frame[-2:]
        ):
            self.counts["unreadable"] += 1
            return
        if frame[0] == _BROADCAST:
            self.counts["broadcast"] += 1
            return
        slave = self.slaves.get(frame[0])
        if slave is None or not slave.alive:
            self.counts["unknown"] += 1
            return
        self._answer(slave, frame[1:-2])

    def _answer(self, slave: ModbusSlave, request: bytes) -> None:
        slave.counts["seen"] += 1
        struck = slave.faults.strike(KINDS)
        if "silent" in struck:
            return
        unit = slave.unit % 247 + 1 if "wrong_id" in struck else slave.unit
        body = bytes((unit,)) + slave.reply(request, struck)
        message = slave.faults.damage(body + crc16(body).to_bytes(2, "little"), struck)
        start = self._frame_over_at() + slave.turnaround_s + struck.get("late", 0.0)
        end = self._talk(max(start, self._free_at.get(slave.unit, 0.0)), message)
        gap = silence_s(self.wire.baud, self.wire.char_s)
        if "dup" in struck:
            end = self._talk(end + gap, message)
        self._free_at[slave.unit] = end + gap
        slave.counts["answered"] += 1

"""Modbus slaves: an Eastron SDM630 energy meter and a noise meter, as registers behind functions 3 and 4.

A slave here is what stands behind the transport: it takes a request's PDU (function code and data) and returns the
answer's. ``hil.rs485`` and ``hil.modbus_tcp`` put the frame around it.

Sources: MODBUS Application Protocol V1.1b3; Eastron, SDM630-Modbus protocol; mrslm class manual of RS-485 noise
meters. Registers the SDM630 leaves unused within its map read as zero; a read beyond the map is exception 2.
"""

import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping

from hil.faults import Faults, Kind, seeded
from hil.truth import Truth, Wander, now, shortest

HOLDING, INPUT = 3, 4
"""Function codes: read holding registers, read input registers."""

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3

Registers = Mapping[int, int]
"""Register address to its 16 bits."""


def crc16(frame: bytes) -> int:
    """Compute the checksum of a Modbus RTU frame, given without its own two bytes.

    Source: MODBUS over Serial Line V1.02, 6.2.2. It goes on the wire low byte first.
    """
    crc = 0xFFFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


class ModbusSlave:
    """One unit id and the registers behind it.

    Args:
        unit: its id, 1 to 247.
        faults: where tests arm its faults.
        registers: for each function code it knows, the registers at a time (s of the loop).
        truth: what a right reader must report at a time.
        most: how many registers it gives in one answer.

    Attributes:
        alive: a dead slave hears nothing.
        turnaround_s: from the end of a request (the silence after it included) to the answer's first bit.
        counts: requests ``seen`` and ``answered``.
    """

    def __init__(
        self,
        *,
        unit: int,
        faults: Faults,
        registers: Mapping[int, Callable[[float], Registers]],
        truth: Callable[[float], Truth],
        most: int = 125,
        turnaround_s: float = 0.004,
    ) -> None:
        self.unit = unit
        self.faults = faults
        self.turnaround_s = turnaround_s
        self.alive = True
        self.counts: Counter[str] = Counter()
        self._registers = registers
        self._truth = truth
        self._most = most

    def truth(self, at: float | None = None) -> Truth:
        """Return what a right reader reports of this slave at a time (s of the loop; None is now).

        Values step at whole seconds.
        """
        return self._truth(math.floor(now() if at is None else at))

    def reply(self, request: bytes, struck: Mapping[Kind, float]) -> bytes:
        """Return the answer's PDU, with the faults ``exception`` and ``wrong_fc`` if they struck."""
        if "exception" in struck:
            return bytes((request[0] | 0x80, int(struck["exception"])))
        answer = self.answer(request)
        if "wrong_fc" in struck:
            return bytes((answer[0] ^ HOLDING ^ INPUT,)) + answer[1:]
        return answer

    def answer(self, request: bytes) -> bytes:
        """Return the answer's PDU. The checks and their order are V1.1b3's figures 13 and 14."""
        function = request[0]
        refusal = bytes((function | 0x80,))
        if function not in self._registers:
            return refusal + bytes((ILLEGAL_FUNCTION,))
        if len(request) != 5:  # noqa: PLR2004  # function, start, count
            return refusal + bytes((ILLEGAL_VALUE,))
        start, count = struct.unpack(">HH", request[1:])
        if not 1 <= count <= self._most:
            return refusal + bytes((ILLEGAL_VALUE,))
        registers = self._registers[function](math.floor(now()))
        if any(address not in registers for address in range(start, start + count)):
            return refusal + bytes((ILLEGAL_ADDRESS,))
        words = [registers[address] for address in range(start, start + count)]
        return struct.pack(f">BB{count}H", function, 2 * count, *words)


def noise(unit: int, *, seed: int = 0, turnaround_s: float = 0.004) -> ModbusSlave:
    """Make a noise meter of the RS-485 class: holding register 0 is the level in 0.1 dB."""
    name = f"noise {unit}"
    street = Wander(seeded(seed, name), mean=58.0, swing=11.0)

    def tenths(at: float) -> int:
        return round(10 * street.at(at))

    return ModbusSlave(
        unit=unit,
        faults=Faults(seed, name),
        registers={HOLDING: lambda at: {0: tenths(at)}},
        truth=lambda at: {"sound_level": tenths(at) / 10},
        turnaround_s=turnaround_s,
    )


def sdm630(unit: int, *, seed: int = 0, turnaround_s: float = 0.004) -> ModbusSlave:
    """Make an SDM630 in a light pole: luminaire on phase 1, electronics on 2, a small cell on 3.

    It gives at most 30 parameters (60 registers) in one answer.
    """
    name = f"sdm630 {unit}"
    pole = _Pole(seed, name)
    setup = _floats({0x000C: 100.0, 0x0014: float(unit)})  # relay pulse (ms), unit id
    unused = dict.fromkeys(range(_SDM_END), 0)
    return ModbusSlave(
        unit=unit,
        faults=Faults(seed, name),
        registers={
            INPUT: lambda at: unused | _floats({_SDM_INPUTS[channel]: value for channel, value in pole.at(at).items()}),
            HOLDING: lambda _: setup,
        },
        truth=lambda at: {channel: shortest(value) for channel, value in pole.at(at).items()},
        most=60,
        turnaround_s=turnaround_s,
    )


_SDM_INPUTS = {
    "voltage_l1": 0x0000,
    "voltage_l2": 0x0002,
    "voltage_l3": 0x0004,
    "current_l1": 0x0006,
    "current_l2": 0x0008,
    "current_l3": 0x000A,
    "active_power_l1": 0x000C,
    "active_power_l2": 0x000E,
    "active_power_l3": 0x0010,
    "apparent_power_l1": 0x0012,
    "apparent_power_l2": 0x0014,
    "apparent_power_l3": 0x0016,
    "reactive_power_l1": 0x0018,
    "reactive_power_l2": 0x001A,
    "reactive_power_l3": 0x001C,
    "power_factor_l1": 0x001E,
    "power_factor_l2": 0x0020,
    "power_factor_l3": 0x0022,
    "active_power": 0x0034,
    "frequency": 0x0046,
    "energy_import": 0x0048,
    "energy_export": 0x004A,
    "energy_total": 0x0156,
}
_SDM_END = 0x017C  # the map's last parameter is L3 total kvarh, 0x017A

_IMPORTED_BEFORE_KWH = 1234.5
_EXPORTED_KWH = 3.2  # solar panels stood here once


class _Pole:
    """What the meter measures: each phase has a voltage, a load and a power factor of its own."""

    def __init__(self, seed: int, name: str) -> None:
        dice = seeded(seed, name)
        self._frequency = Wander(dice, 50.0, 0.05)
        self._voltage = [Wander(dice, 230.0, 4.0) for _ in range(3)]
        self._power = [Wander(dice, mean, mean / 4) for mean in (64.0, 18.0, 135.0)]
        self._factor = [Wander(dice, mean, 0.03) for mean in (0.95, 0.61, 0.88)]

    def at(self, at: float) -> dict[str, float]:
        """Return every channel: V, A, W, VA, var, Hz, kWh."""
        values: dict[str, float] = {}
        for phase in range(3):
            volts, watts, factor = (wander[phase].at(at) for wander in (self._voltage, self._power, self._factor))
            apparent = watts / factor
            values |= {
                f"voltage_l{phase + 1}": volts,
                f"current_l{phase + 1}": apparent / volts,
                f"active_power_l{phase + 1}": watts,
                f"apparent_power_l{phase + 1}": apparent,
                f"reactive_power_l{phase + 1}": math.sqrt(apparent**2 - watts**2),
                f"power_factor_l{phase + 1}": factor,
            }
        imported = _IMPORTED_BEFORE_KWH + sum(power.integral(at) for power in self._power) / 3.6e6
        imported = round(imported, 3)
        return values | {
            "active_power": sum(power.at(at) for power in self._power),
            "frequency": self._frequency.at(at),
            "energy_import": imported,
            "energy_export": _EXPORTED_KWH,
            "energy_total": round(imported + _EXPORTED_KWH, 3),
        }


def _floats(values: Mapping[int, float]) -> dict[int, int]:
    """Lay out float32 values as pairs of registers, high word first (Eastron's order)."""
    registers = {}
    for address, value in values.items():
        registers[address], registers[address + 1] = struct.unpack(">HH", struct.pack(">f", value))
    return registers

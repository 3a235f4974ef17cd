"""Faults of one device: armed by a test or by hand, taking effect on the device's next messages.

Each fault may strike only some of the time. The dice are the device's own and seeded, so the same seed gives the
same faults at the same messages.
"""

import math
import random
import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "silent",
    "late",
    "flip",
    "truncate",
    "pre_noise",
    "pre_zero",
    "post_noise",
    "dup",
    "garbage",
    "wrong_id",
    "wrong_fc",
    "exception",
    "wrong_transaction",
    "close",
]

BYTE_KINDS: frozenset[Kind] = frozenset({"flip", "truncate", "pre_noise", "pre_zero", "post_noise", "garbage"})
"""What ``Faults.damage`` can do to any message."""


def seeded(seed: int, name: str) -> random.Random:
    """Return dice that are the device's own: same seed and name, same throws."""
    return random.Random(seed ^ zlib.crc32(name.encode()))  # noqa: S311  # nothing secret: a bench must repeat itself


@dataclass(frozen=True)
class SerialFault:
    """What goes wrong with a message, how often and how likely.

    =====================  =============================================================
    ``silent``             no message
    ``late``               ``arg`` seconds later
    ``flip``               ``arg`` bits are inverted
    ``truncate``           the last ``arg`` bytes are missing
    ``pre_noise``          ``arg`` random bytes before it
    ``pre_zero``           ``arg`` zero bytes before it
    ``post_noise``         ``arg`` random bytes after it
    ``dup``                it comes twice
    ``garbage``            random bytes instead of it
    ``wrong_id``           Modbus RTU: another unit's id, checksum good
    ``wrong_fc``           Modbus: another function code, checksum good
    ``exception``          Modbus: exception ``arg``
    ``wrong_transaction``  Modbus TCP: another transaction id
    ``close``              Modbus TCP: the connection is closed instead
    =====================  =============================================================

    Attributes:
        kind: one of the above. A line passes over kinds it has no meaning for; they stay armed and uncounted.
        arg: how much of it, see above.
        times: how often it strikes before it is spent; None is for ever.
        p: how likely it strikes each message, 0 to 1.
    """

    kind: Kind
    arg: float = 1
    times: int | None = 1
    p: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"{self.kind!r} is not a fault; there are {', '.join(get_args(Kind))}")


@dataclass
class _Armed:
    fault: SerialFault
    left: float


class Faults:
    """The faults armed for one device, and how often each kind has struck (``counts``)."""

    def __init__(self, seed: int, name: str) -> None:
        self.counts: Counter[str] = Counter()
        self._dice = seeded(seed, f"{name} faults")
        self._armed: list[_Armed] = []

    def arm(self, fault: SerialFault) -> None:
        """Let it strike from the next message on."""
        self._armed.append(_Armed(fault, math.inf if fault.times is None else fault.times))

    def clear(self) -> None:
        """Disarm all. What has struck stays counted."""
        self._armed.clear()

    def strike(self, kinds: Collection[Kind]) -> dict[Kind, float]:
        """Throw the dice for one message.

        Args:
            kinds: the kinds that can happen to it.

        Returns:
            The kinds that strike it and how much of each.
        """
        struck: dict[Kind, float] = {}
        for armed in self._armed:
            kind = armed.fault.kind
            if kind in kinds and kind not in struck and self._dice.random() < armed.fault.p:
                armed.left -= 1
                self.counts[kind] += 1
                struck[kind] = armed.fault.arg
        self._armed = [armed for armed in self._armed if armed.left > 0]
        return struck

    def damage(self, message: bytes, struck: Mapping[Kind, float]) -> bytes:
        """Return the message as the struck kinds among ``BYTE_KINDS`` leave it."""
        amount = {kind: int(arg) for kind, arg in struck.items() if kind in BYTE_KINDS}
        if "garbage" in amount:
            message = self._dice.randbytes(len(message))
        places = range(8 * len(message))
        bits = int.from_bytes(message, "big")
        for place in self._dice.sample(places, min(amount.get("flip", 0), len(places))):
            bits ^= 1 << place
        message = bits.to_bytes(len(message), "big")
        message = message[: max(0, len(message) - amount.get("truncate", 0))]
        before = bytes(amount.get("pre_zero", 0)) + self._dice.randbytes(amount.get("pre_noise", 0))
        return before + message + self._dice.randbytes(amount.get("post_noise", 0))

"""What became of a document or a command: a code, and the reason in words."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Result = Literal["accepted", "refused", "rolled-back"]


class Code(IntEnum):
    """How it ended, or what it waits for. The numbers are part of the interface."""

    OK = 0
    COMMITTED = 1
    NOOP = 2
    DEFERRED_COHORT = 10
    DEFERRED_WINDOW = 11
    DEFERRED_REQUIRES = 12
    WAIT_TIME = 13
    BUSY = 14
    TOO_BIG = 100
    PARSE = 101
    TYPE = 102
    SIG = 103
    THRESHOLD = 104
    TARGET = 105
    EPOCH = 106
    STALE = 107
    EQUIVOCATION = 108
    EXPIRED = 109
    NOT_YET = 110
    TOMBSTONED = 111
    STREAM = 112
    RETAINED = 113
    SCHEMA = 200
    OWNERSHIP = 201
    SEMANTIC = 202
    PROBE = 210
    STORAGE = 220
    APPLY = 300
    RB_UPSTREAM = 301
    RB_SENSORS = 302
    RB_CRASHLOOP = 303
    RB_POWER = 304
    RB_CANCELLED = 305
    RB_NO_CONFIRM = 306
    RB_INCONCLUSIVE = 310

    @property
    def waits(self) -> bool:
        """Tell whether it is looked at again."""
        return Code.DEFERRED_COHORT <= self <= Code.BUSY or self is Code.NOT_YET

    @property
    def result(self) -> Result | None:
        """What it comes to; None: nothing yet, or what was told before."""
        if self in (Code.COMMITTED, Code.NOOP):
            return "accepted"
        if self is Code.OK or self is Code.TOMBSTONED or self.waits:
            return None
        return "refused" if self < Code.APPLY else "rolled-back"


class Rejected(Exception):
    """A document or command that is not obeyed, or not yet.

    Attributes:
        code: why.
        text: the same in words, with the next step where there is one.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a document.

    Attributes:
        stream: whose document; "local" is the pole's own file.
        seq: its number; 0: none, or not believed.
        sha: what it is known by; "" where it was not believed.
        code: how it ended, or what it waits for.
        text: the same in words.
    """

    stream: str
    seq: int
    sha: str
    code: Code
    text: str

"""Which configuration runs, what became of a change, and what came of a message that the pole sent to itself."""

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Echo(NamedTuple):
    """What came of the pole's own state that it published, to read it back.

    Attributes:
        taken: the broker acknowledged it with success. On MQTT 3.1.1 that proves nothing.
        came_back: it came back by a subscription. It never does where the broker does not let the pole read it.
        why: what did not, in words.
    """

    taken: bool
    came_back: bool
    why: str = ""

    def falls_short_of(self, before: "Echo") -> bool:
        """Tell whether the uplink worked better before."""
        return self.taken < before.taken or self.came_back < before.came_back


NOTHING = Echo(taken=False, came_back=False)


class Verdict(NamedTuple):
    """What came of a document, or of an edit of the pole's own file.

    Attributes:
        result: ``refused``: it was not tried. ``rolled-back``: it was tried and did not work.
        stream: whose document; "local" is the pole's own file.
        seq: its number; 0: none, or not believed.
        digest: first digits of the SHA-256 of it; "" where it was not believed, or could not be read.
        why: in words; "" for ``accepted``.
        at: nanoseconds of CLOCK_BOOTTIME.
    """

    result: Literal["accepted", "refused", "rolled-back"]
    stream: str
    seq: int
    digest: str
    why: str
    at: int


class Standing(NamedTuple):
    """Which configuration runs.

    Attributes:
        digest: stands for its content.
        since: nanoseconds of CLOCK_BOOTTIME.
        streams: number of the document that is in force, by stream.
        trial: whose document or edit is on trial; "": none is.
        left_s: seconds that the trial may still take.
        last: the last verdict, where there was one since the start.
    """

    digest: str
    since: int
    streams: Mapping[str, int]
    trial: str = ""
    left_s: float = 0.0
    last: Verdict | None = None

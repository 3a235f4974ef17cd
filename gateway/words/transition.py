"""What became of a change of the configuration, as a reading: one look at a device that the pole has in itself.

So it is sealed, numbered, stored, sent and asked for again as any reading is, in a dataset of its own, and the
catalogue describes it. The values of one transition have the same time, and no two transitions do.
"""

from collections.abc import Mapping

from drivers.contract import Channel
from gateway.words.reading import Reading

DATASET = "configuration"
DEVICE = "_configuration"  # no device in the file can have that id
CHANNELS: Mapping[str, Channel] = {
    "stream": Channel("stream of the document; local: the pole's own file; empty: none", kind="string"),
    "seq": Channel("number of the document; 0: none, or not believed"),
    "sha": Channel("SHA-256 of its payload; empty: not believed", kind="string"),
    "code": Channel("what became of it: number of the code"),
    "verdict": Channel("what became of it: name of the code", kind="string"),
    "text": Channel("the same in words", kind="string"),
}


class Transitions:
    """Who they are from, as the catalogue describes it."""

    id = DEVICE
    driver = "polegate"
    home = DATASET

    def __eq__(self, other: object) -> bool:
        """Tell that one is as good as another."""
        return isinstance(other, Transitions)

    def __hash__(self) -> int:
        """Go with that."""
        return hash(DEVICE)

    def make(self) -> str:
        """Name who makes them."""
        return "polegate"

    def expected(self) -> tuple[str, ...]:
        """Name the channels."""
        return tuple(CHANNELS)

    def channel(self, name: str) -> Channel:
        """Describe one."""
        return CHANNELS[name]


def reading(at: int, *, stream: str, seq: int, sha: str, code: int, verdict: str, text: str) -> Reading:
    """Return a transition; ``at`` is nanoseconds of CLOCK_BOOTTIME, the rest are the values of its channels."""
    return Reading(
        DEVICE,
        DATASET,
        at,
        {"stream": stream, "seq": seq, "sha": sha, "code": code, "verdict": verdict, "text": text},
    )

"""What a pole must not forget of its configuration: what was seen, what is in force, and what is being tried.

A release that is no good goes back to the one before, which then has the newer one's state. So a later release adds
fields with a default, and ``layout`` stays: what is not known here is passed over, and lost at the next save. A code of
a fate that is not known counts as one that tells nothing, and is not tried again. What cannot be added like that takes
two releases: the first reads both layouts and writes the old one. The state of a newer layout is not touched.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.remote.verdict import Code

LOCAL = "local"
"""The stream of the pole's own file: nobody signs it, and it has no numbers."""
ROOT, COMMAND = "root", "command"
"""What verdicts on these name instead of a stream."""


def _code(code: int | None) -> Code | None:
    return code if code is None else Code(code) if code in list(Code) else Code.RB_INCONCLUSIVE


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True)

    def but(self, **changes: object) -> Self:
        """Return the same with some changes."""
        return self.model_copy(update=changes)


class Standing(_Kept):
    """A stream.

    Attributes:
        epoch: of the newest document that was believed.
        seq: of it; a document that is not newer is refused.
        sha: what that document is known by.
        waits: it is to be tried.
        fate: how it ended, where it did not come into force; it is not tried again.
        why: the same in words.
        tries: trials of it that told nothing.
        active: the document that is in force; "": none.
        active_epoch: its epoch.
        active_seq: its number.
    """

    epoch: int = 0
    seq: int = 0
    sha: str = ""
    waits: bool = False
    fate: Annotated[Code | None, BeforeValidator(_code)] = None
    why: str = ""
    tries: int = 0
    active: str = ""
    active_epoch: int = 0
    active_seq: int = 0

    def with_active(self, sha: str, epoch: int, seq: int) -> Self:
        """Return the same with that in force."""
        waits = self.waits and self.sha != sha  # a newer one came meanwhile
        return self.but(active=sha, active_epoch=epoch, active_seq=seq, waits=waits, tries=0)

    def ended(self, code: Code, why: str) -> Self:
        """Return the same with the newest one ended; nothing tries it again."""
        return self.but(waits=False, fate=code, why=why)


class Trial(_Kept):
    """A document, or an edit, that is being tried.

    Attributes:
        stream: its stream.
        epoch: its epoch.
        seq: its number.
        sha: what it is known by.
        attempts: starts that tried it; one that ended in order is taken back.
        boot: of the machine, in which the window began.
        started: when, seconds since that boot.
        window_s: how long it has.
        hold_s: how long all must be well in one go.
        by_server: an operator must confirm it.
        confirmed: one has.
        upstream: the way to the broker and back worked before.
        one_way: the broker took what the pole published, and did not give it back.
        sensors: devices that gave values before.
    """

    stream: str
    epoch: int
    seq: int
    sha: str
    attempts: int = 1
    boot: str
    started: float
    window_s: float
    hold_s: float
    by_server: bool = False
    confirmed: bool = False
    upstream: bool
    one_way: bool = False
    sensors: list[str]


class State(_Kept):
    """All of it.

    Attributes:
        layout: of this file.
        floor: seconds since 1970; it is not earlier.
        root: version of the root of trust in force.
        streams: by name.
        trial: what is being tried.
    """

    layout: Literal[1] = 1
    floor: int = 0
    root: int = 0
    streams: dict[str, Standing] = Field({})
    trial: Trial | None = None

    def of(self, stream: str) -> Standing:
        """Return how a stream stands."""
        return self.streams.get(stream, Standing())

    def with_stream(self, stream: str, standing: Standing) -> Self:
        """Return the same with one stream changed."""
        return self.but(streams={**self.streams, stream: standing})

    @property
    def documents(self) -> set[str]:
        """What is needed of the documents: by what they are known."""
        found = {sha for each in self.streams.values() for sha in (each.active, each.sha if each.waits else "")}
        return (found | {self.trial.sha if self.trial else ""}) - {""}

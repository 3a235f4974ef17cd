"""Who may come in: a document is believed when it is signed, meant for this pole, newer than the last one and in time.

Time. A pole without a clock chip may wake up in 1970, and a false time server may say 2040. So the time is that of the
machine only once its clock is set, and never before ``floor``: the latest time that a signed document says it was
signed at. No clock raises the floor, so a false one refuses documents for as long as it is false, and no longer.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.remote import document, envelope
from gateway.remote.config_state import Standing
from gateway.remote.document import Command, Document
from gateway.remote.envelope import COMMAND_TYPE, CONFIG_TYPE
from gateway.remote.trust_root import Root
from gateway.remote.verdict import Code, Rejected


@dataclass(frozen=True, slots=True)
class Now:
    """The time, as far as it is known.

    Attributes:
        clock: seconds since 1970, by the machine; None while its clock is not set.
        floor: it is not earlier.
    """

    clock: int | None
    floor: int

    def known(self) -> int:
        """Return it. Raises Rejected, WAIT_TIME, while it is not known."""
        if self.clock is None:
            raise Rejected(Code.WAIT_TIME, "the pole's clock is not set yet")
        return max(self.clock, self.floor)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A document that is believed.

    Attributes:
        document: what it says.
        sha: what it is known by.
        payload: as it was signed.
    """

    document: Document
    sha: str
    payload: bytes


def admit(raw: bytes, stream: str, root: Root, standing: Standing, now: Now) -> Admitted:
    """Believe a document, or raise Rejected.

    Args:
        raw: as it came.
        stream: the one whose topic it came on.
        root: says whose signatures count.
        standing: of that stream.
        now: the time.
    """
    sealed = envelope.read(raw, CONFIG_TYPE)
    root.must_sign(sealed, document.role_of(stream))
    found = document.parsed(sealed.payload)
    if found.stream != stream:
        raise Rejected(Code.TARGET, f"it is for {found.stream} and came to {stream}")
    must_be_of_epoch(found.epoch, root)
    sha = document.digest(sealed.payload)
    if (found.epoch, found.seq) < (standing.epoch, standing.seq):
        raise Rejected(Code.STALE, f"seq {found.seq} is not newer than {standing.seq}, which was seen already")
    if (found.epoch, found.seq) == (standing.epoch, standing.seq):
        if sha != standing.sha:
            raise Rejected(Code.EQUIVOCATION, f"seq {found.seq} was used for another document already")
        if standing.fate:
            raise Rejected(Code.TOMBSTONED, f"it was tried and ended with {standing.fate.name}: {standing.why}")
    if now.floor >= found.expires:
        found.must_be_timely(now.floor)
    found.must_be_timely(now.known())
    if found.issued > now.known():
        raise Rejected(Code.NOT_YET, "it says that it was signed later than now; is a clock wrong?")
    return Admitted(found, sha, sealed.payload)


def admit_command(raw: bytes, root: Root, pole: str, now: Now, *, retained: bool) -> Command:
    """Believe a command, or raise Rejected. A retained one would be obeyed again at each connect."""
    if retained:
        raise Rejected(Code.RETAINED, "a retained command is not obeyed; publish it without retain")
    sealed = envelope.read(raw, COMMAND_TYPE)
    root.must_sign(sealed, "command")
    found = document.parsed_command(sealed.payload)
    if found.pole != pole:
        raise Rejected(Code.TARGET, f"it is for pole {found.pole}")
    must_be_of_epoch(found.epoch, root)
    if now.known() >= found.expires:
        raise Rejected(Code.EXPIRED, "it has expired; send a new one")
    return found


def must_be_of_epoch(epoch: int, root: Root) -> None:
    """Raise Rejected, EPOCH, for what was signed before keys were called back, or for after that."""
    if epoch != root.epoch:
        raise Rejected(Code.EPOCH, f"its epoch is {epoch}; that of the root of trust is {root.epoch}")


def must_be_due(found: Document, now: int, *, agent: str, pole: str, in_force: Callable[[str], int]) -> None:
    """Raise Rejected where a document is not to be tried now, or not any more.

    Args:
        found: the document.
        now: seconds since 1970.
        agent: version of polegate.
        pole: id of the pole.
        in_force: tells which number of a stream is in force.
    """
    found.must_be_timely(now)
    if not found.fits_agent(agent):
        raise Rejected(Code.DEFERRED_REQUIRES, f"it needs polegate {found.min_agent}; this is {agent}")
    for stream, seq in found.requires.items():
        if in_force(stream) < seq:
            raise Rejected(Code.DEFERRED_REQUIRES, f"it needs {stream} seq {seq} in force")
    if found.rollout and not found.rollout.takes(pole):
        raise Rejected(Code.DEFERRED_COHORT, "this pole is not in the share that takes it")
    if found.window and not found.window.is_open(now, pole):
        raise Rejected(Code.DEFERRED_WINDOW, "its window is not open")

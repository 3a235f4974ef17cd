"""What is in force: told by the state alone, composed of what lies in the folder, and applied to the pole.

It is the active document of each stream, with the one that is tried in its place. So there is nothing to undo: to take
a trial back is to end it in the state, and to apply what the state says then.
"""

from typing import Generic

from gateway.config.faults import SettingsError
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_ledger import Ledger
from gateway.remote.config_state import LOCAL, Standing, State
from gateway.remote.plant import Compose, Plant, Unfit, Wanted
from gateway.remote.verdict import Code, Rejected, Verdict

TOLD = 3  # faults of a document that are told


class InForce(Generic[Wanted]):
    """What is in force.

    Attributes:
        folder: where state and documents are.
        ledger: the state, and the way to tell.
        is_applied: whether the pole runs so; else it could not.
        applied_at: since when, seconds since the boot.
    """

    def __init__(self, plant: Plant[Wanted], folder: ConfigFolder, compose: Compose[Wanted]) -> None:
        """Make it; ``begin`` comes first.

        Args:
            plant: what is configured.
            folder: where state and documents are.
            compose: makes a configuration of its layers.
        """
        self._plant = plant
        self.folder = folder
        self._compose = compose
        self.ledger = Ledger(folder, plant.tell, plant.now)
        self._own = ""  # the pole's own file at the start, for where it cannot be kept
        self._running: Wanted | None = None
        self.is_applied = True
        self.applied_at = 0.0

    @property
    def state(self) -> State:
        """What is in force and what is tried."""
        return self.ledger.state

    @property
    def running(self) -> Wanted:
        """What is applied."""
        assert self._running is not None, "start comes first"  # noqa: S101  # the wiring's
        return self._running

    def begin(self, own: str) -> None:
        """Read the state; ``own`` is the pole's own file. Raises NewerState."""
        self._own = own
        self.ledger.load()

    async def take_own(self, own: str, *, again: bool) -> Standing:
        """Keep the pole's own file as it is now, and tell how its stream stands by that.

        Args:
            own: its text.
            again: have it tried though it is the one in force: a file that it names has changed.

        Raises:
            OSError: it cannot be kept.
        """
        sha, standing = await self.ledger.keep(own.encode()), self.state.of(LOCAL)
        if self.folder.document(standing.active) is None:  # the first, or the one from before is damaged
            active = await self.ledger.keep(self._own.encode())
            standing = Standing(sha=active, active=active)
        if sha == standing.active:
            standing = Standing(sha=sha, active=sha, waits=again)
        elif sha != standing.sha or (standing.fate and standing.fate < Code.APPLY):  # refused: it was never tried
            standing = standing.but(sha=sha, waits=True, fate=None, why="", tries=0)
        if standing != self.state.of(LOCAL):
            await self.ledger.save(self.state.with_stream(LOCAL, standing))
        return standing

    def is_as_composed(self) -> bool:
        """Tell whether what runs is what would be composed now: no file that it names, and no override, has changed."""
        try:
            return self.as_it_is().fingerprint == self.running.fingerprint
        except (SettingsError, Rejected):
            return False  # why is told where it is applied

    async def apply(self, wanted: Wanted) -> None:
        """Run so. Raises Unfit."""
        self._running = wanted
        self.is_applied = False  # until it is: who is cancelled in between leaves that to the next tick
        self.applied_at = self._plant.now()
        await self._plant.apply(wanted)
        self.applied_at = self._plant.now()  # what came while the old was being ended does not count
        self.is_applied = True

    async def reapply(self, before: Wanted | None = None) -> None:
        """Apply what is in force; where that fails, it is to be tried again: there is nothing better.

        Args:
            before: what ran before a trial. It is taken where what is composed now is what was tried, because a file
                that both name has changed.
        """
        try:
            wanted = self.as_it_is()
            is_tried = before is not None and wanted.fingerprint == self.running.fingerprint
            await self.apply(before if before is not None and is_tried else wanted)
        except (SettingsError, Rejected, Unfit) as error:
            self.is_applied = False
            self.tell(Verdict(LOCAL, 0, "", Code.APPLY, f"what is in force cannot run: {text_of(error)}"))

    async def apply_own(self) -> None:
        """Run what the pole's own file said at the start, without any document. Raises SettingsError, Unfit."""
        await self.apply(self._compose(self._own, {}))

    def replace(self, wanted: Wanted) -> None:
        """Let that be what runs, though nothing differs but its layers."""
        self._running = wanted

    def as_it_is(self) -> Wanted:
        """Compose what is in force, or what is tried. Raises SettingsError, Rejected."""
        trial = self.state.trial
        return self.with_(trial.stream, trial.sha) if trial else self.with_(LOCAL, self.state.of(LOCAL).active)

    def with_(self, stream: str, sha: str) -> Wanted:
        """Compose what is in force, with a document in the place of the one of its stream.

        Raises:
            SettingsError: it has faults.
            Rejected: a document sets what is the pole's own, or cannot be read.
        """
        state = self.state.with_stream(stream, self.state.of(stream).but(active=sha))
        own, documents = self.folder.layers(state)
        for name, standing in state.streams.items():
            if name not in (LOCAL, *documents) and standing.active:
                text = "it is damaged on the disk, and left out; it is taken when it comes again"
                self.tell(Verdict(name, standing.active_seq, standing.active, Code.STORAGE, text))
        return self._compose(self._own if own is None else own, documents)

    def tell(self, verdict: Verdict) -> Code:
        """Tell what became of a document, or of an edit."""
        return self.ledger.tell(verdict)


def code_of(error: SettingsError | Rejected | Unfit) -> Code:
    """Tell with which code a configuration ends that cannot be."""
    if isinstance(error, Rejected):
        return error.code
    return Code.PROBE if isinstance(error, Unfit) else Code.SEMANTIC


def text_of(error: SettingsError | Rejected | Unfit) -> str:
    """Put in words why a configuration cannot be."""
    if isinstance(error, SettingsError):
        more = len(error.faults) - TOLD
        return "; ".join(map(str, error.faults[:TOLD])) + (f"; and {more} more" if more > 0 else "")
    return str(error)

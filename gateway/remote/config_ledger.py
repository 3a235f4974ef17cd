"""A door: the state of the configuration, which is true once it is on the disk, and what was told of it."""

from collections.abc import Callable

from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import LOCAL, State
from gateway.remote.verdict import Code, Verdict

PAUSE_S = 60.0  # between two of a kind that anybody could provoke


class Ledger:
    """The state, and the way to tell.

    Attributes:
        state: what is in force and what is tried.
        last: what was told last.
    """

    def __init__(self, folder: ConfigFolder, tell: Callable[[Verdict], None], now: Callable[[], float]) -> None:
        """Make it.

        Args:
            folder: where the state is kept.
            tell: tells upstream.
            now: seconds that only count.
        """
        self._folder = folder
        self._tell = tell
        self._now = now
        self._of_stream: dict[str, Verdict] = {}
        self._refused_at: dict[tuple[str, Code], float] = {}
        self.state = self._saved = State()
        self.last: Verdict | None = None

    def load(self) -> None:
        """Read the state. Raises NewerState."""
        self.state = self._saved = self._folder.load()

    def save(self, state: State) -> None:
        """Bring a state to the disk; only then it is true. Raises OSError."""
        self._folder.save(state)
        self.state = self._saved = state
        self._folder.clean()

    def go_on(self, state: State) -> None:
        """Go on with a state though the disk may not take it; ``save_late`` tries again."""
        self.state = state
        self.save_late()

    def save_late(self) -> None:
        """Bring to the disk what it did not take before."""
        if self.state != self._saved:
            try:
                self.save(self.state)
            except OSError as error:
                self.tell(Verdict(LOCAL, 0, "", Code.STORAGE, f"the state cannot be written down: {error}"))

    def tell(self, verdict: Verdict) -> Code:
        """Tell what is new; what anybody could send again and again is told once a minute."""
        is_new = self._of_stream.get(verdict.stream) != verdict
        if Code.TOO_BIG <= verdict.code <= Code.RETAINED and is_new:
            kind, now = (verdict.stream, verdict.code), self._now()
            is_new = kind not in self._refused_at or now - self._refused_at[kind] >= PAUSE_S
            if is_new:
                self._refused_at[kind] = now
        if is_new:
            self._of_stream[verdict.stream] = self.last = verdict
            self._tell(verdict)
        return verdict.code

"""A door: the state of the configuration, which is true once it is on the disk, and what was told of it.

A disk that is busy takes seconds to write, and the pole's devices are polled meanwhile: so it is written on a thread,
and whoever writes waits for that. Others come on in that time. So whoever changes the state takes the turn before he
reads what he changes, and has it until what he wrote is true: there is one change at a time, and one write.

A write is no place to be cancelled at; see :mod:`gateway.host.one_thread`.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from gateway.host.one_thread import OneThread
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import LOCAL, State
from gateway.remote.verdict import Code, Verdict

PAUSE_S = 60.0  # between two of a kind that anybody could provoke

T = TypeVar("T")


class Ledger:
    """The state, and the way to tell.

    Attributes:
        turn: of whoever changes the state.
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
        self.turn = asyncio.Lock()
        self.state = self._saved = State()
        self.last: Verdict | None = None

    def load(self) -> None:
        """Read the state. Raises NewerState."""
        self.state = self._saved = self._folder.load()

    async def keep(self, payload: bytes) -> str:
        """Bring a document to the disk, and return what it is known by. Raises OSError."""
        return await _on_thread(lambda: self._folder.keep(payload))

    async def keep_root(self, version: int, raw: bytes) -> None:
        """Bring a root of trust to the disk. Raises OSError."""
        await _on_thread(lambda: self._folder.keep_root(version, raw))

    async def save(self, state: State) -> None:
        """Bring a state to the disk; only then it is true. Raises OSError."""
        await _on_thread(lambda: self._write(state))
        self.state = self._saved = state

    async def go_on(self, state: State) -> None:
        """Go on with a state though the disk may not take it; ``save_late`` tries again."""
        try:
            await self.save(state)
        except OSError as error:
            self.state = state
            self.tell(Verdict(LOCAL, 0, "", Code.STORAGE, f"the state cannot be written down: {error}"))

    async def save_late(self) -> None:
        """Bring to the disk what it did not take before."""
        if self.state != self._saved:
            await self.go_on(self.state)

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

    def _write(self, state: State) -> None:
        self._folder.save(state)
        self._folder.clean()


async def _on_thread(work: Callable[[], T]) -> T:
    thread = OneThread("state")  # one for each: it is written once in a long while
    try:
        return await thread.do(work)
    finally:
        thread.shutdown()

"""What operators send: documents, roots of trust and commands, believed or refused, and on the disk before they count.

Each has the turn of the ledger from the look at what was before until it counts: what comes meanwhile comes after it.

A document that comes before its time, or before the clock is set, is kept in RAM and looked at again.
"""

from dataclasses import replace
from typing import Generic

from gateway.remote import admission
from gateway.remote.admission import Admitted, Now
from gateway.remote.config_state import LOCAL, ROOT
from gateway.remote.document import Command, Document
from gateway.remote.in_force import InForce
from gateway.remote.plant import Plant, Wanted
from gateway.remote.trust_chain import TrustChain
from gateway.remote.verdict import Code, Rejected, Verdict

LOOK_S = 10.0  # between two looks at what came early


class Incoming(Generic[Wanted]):
    """Takes what operators send.

    Attributes:
        fresh: streams of which something came since they were looked at last.
    """

    def __init__(self, plant: Plant[Wanted], in_force: InForce[Wanted], trust: TrustChain, *, agent: str) -> None:
        """Make it; ``load`` comes first.

        Args:
            plant: what is configured.
            in_force: what is in force; what comes is put beside it.
            trust: whose signatures count.
            agent: version of polegate.
        """
        self._plant = plant
        self._in_force = in_force
        self._ledger = in_force.ledger
        self._folder = in_force.folder
        self._trust = trust
        self._agent = agent
        self._early: dict[str, tuple[bytes, float]] = {}  # documents by stream, and when to look at them again
        self.fresh: set[str] = set()

    def load(self) -> None:
        """Read whose signatures count."""
        self._trust.load(self._folder, self._ledger.state.root)

    async def hear(self, stream: str, raw: bytes) -> Code:
        """Take a document that came; what is done with it, a trial does."""
        async with self._ledger.turn:
            return await self._hear(stream, raw)

    async def hear_root(self, raw: bytes) -> Code:
        """Take a root of trust that came. What waits was signed by the keys of before: it must come again."""
        async with self._ledger.turn:
            return await self._hear_root(raw)

    async def _hear(self, stream: str, raw: bytes) -> Code:
        if stream not in self._in_force.running.streams:
            text = "a document of a stream that this pole does not take"
            return self._ledger.tell(Verdict("", 0, "", Code.STREAM, text))
        try:
            found = admission.admit(raw, stream, self._trust.root, self._ledger.state.of(stream), self._now())
            self._early.pop(stream, None)
            return await self._take(found)
        except Rejected as error:
            if error.code in (Code.WAIT_TIME, Code.NOT_YET):
                self._early[stream] = raw, self._plant.now() + LOOK_S
            return self._ledger.tell(Verdict(stream, 0, "", error.code, error.text))

    async def _hear_root(self, raw: bytes) -> Code:
        state = self._ledger.state
        try:
            root, is_new_epoch = self._trust.follow(raw)
            floor = root.issued if is_new_epoch else max(state.floor, root.issued)
            streams = {name: each.but(waits=each.waits and name == LOCAL) for name, each in state.streams.items()}
            await self._ledger.keep_root(root.version, raw)
            await self._ledger.save(state.but(root=max(state.root, root.version), floor=floor, streams=streams))
        except Rejected as error:
            return self._ledger.tell(Verdict(ROOT, 0, "", error.code, error.text))
        except OSError as error:
            return self._ledger.tell(Verdict(ROOT, 0, "", Code.STORAGE, f"it cannot be written down: {error}"))
        self._trust.take(root)
        self._early.clear()
        return self._ledger.tell(Verdict(ROOT, root.version, "", Code.COMMITTED, "it is in force"))

    def command(self, raw: bytes, *, retained: bool) -> Command:
        """Believe a command. Raises Rejected."""
        pole = self._in_force.running.pole
        return admission.admit_command(raw, self._trust.root, pole, self._now(), retained=retained)

    def must_be_due(self, found: Document) -> None:
        """Raise Rejected where a document is not to be tried now, or not any more."""
        admission.must_be_due(
            found,
            self._now().known(),
            agent=self._agent,
            pole=self._in_force.running.pole,
            in_force=self._number_in_force,
        )

    async def look_at_early(self) -> None:
        """Look again at what came early; who calls has the turn."""
        if self._plant.utc() is not None:
            for stream, (raw, at) in list(self._early.items()):
                if self._plant.now() >= at:
                    del self._early[stream]
                    await self._hear(stream, raw)

    async def _take(self, found: Admitted) -> Code:
        """Bring a document to the disk, then its number; nothing acts on it before."""
        stream, state = found.document.stream, self._ledger.state
        standing = state.of(stream)
        verdict = Verdict(stream, found.document.seq, found.sha, Code.OK, "it is believed, and waits")
        if self._folder.document(found.sha) is not None and found.sha == standing.sha:
            if found.sha == standing.active:
                return self._ledger.tell(replace(verdict, code=Code.NOOP, text="it is in force"))
            if standing.waits:
                return Code.BUSY if state.trial else Code.OK
        tries = standing.tries if found.sha == standing.sha else 0
        active = "" if found.sha == standing.active else standing.active  # it was damaged
        seq, epoch = found.document.seq, found.document.epoch
        new = standing.but(
            epoch=epoch, seq=seq, sha=found.sha, waits=True, fate=None, why="", tries=tries, active=active
        )
        try:
            await self._ledger.keep(found.payload)
            floor = max(state.floor, found.document.issued)
            await self._ledger.save(state.with_stream(stream, new).but(floor=floor))
        except OSError as error:
            text = f"it cannot be written down: {error}"
            return self._ledger.tell(replace(verdict, code=Code.STORAGE, text=text))
        self.fresh.add(stream)
        if state.trial:
            return self._ledger.tell(replace(verdict, code=Code.BUSY, text="another one is being tried"))
        return self._ledger.tell(verdict)

    def _number_in_force(self, stream: str) -> int:
        standing = self._ledger.state.of(stream)
        return standing.active_seq if standing.active_epoch == self._trust.root.epoch else 0

    def _now(self) -> Now:
        return Now(self._plant.utc(), max(self._ledger.state.floor, self._trust.floor))

"""A change of the configuration proves itself, or is taken back by itself.

::

    hear ──▶ admitted? ──▶ [1 document, then number and time on the disk] ──▶ waits
    tick ──▶ staged? ──▶ valid? probed? ──▶ [2 trial on the disk] ──▶ apply ──▶ gates
                  gates green for hold_s ──▶ [3 in force on the disk]
                  window over, cancelled, crashed twice ──▶ [3' trial gone, fate told, in one write] ──▶ apply the old

The gates. **Upstream**: since it was applied, the broker has taken a message and given back a retained document; an
acknowledgement alone proves nothing on MQTT 3.1.1. **Sensors**: every device that gave values before has given one
since. What was dead before is not held against the change; where the way to the broker was dead before and is dead
after, a document was not proved either way and is tried again later, and an edit of the pole's own file stands.

What is in force is told by the state alone: the active document of each stream, with the one that is tried in its
place. So there is nothing to undo, and a start after a cut at any point is the same as any other start. A start counts
as an attempt unless the run before ended in order; what cannot be counted is not tried. Only the clock that counts is
asked how long a trial has run.
"""

import asyncio
from dataclasses import replace
from typing import Generic

from gateway.config.faults import SettingsError
from gateway.remote import admission, document
from gateway.remote.admission import Admitted, Now
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_ledger import Ledger
from gateway.remote.config_state import LOCAL, Standing, State, Trial
from gateway.remote.document import Command, Document, TrialTerms
from gateway.remote.gates import lacks
from gateway.remote.plant import Compose, Plant, Unfit, Wanted
from gateway.remote.trust_chain import TrustChain
from gateway.remote.verdict import Code, Rejected, Verdict

LOOK_S = 10.0  # between two looks at what waits
SETTLE_S, LONGEST_SETTLE_S = 60.0, 300.0  # until what is not well counts as dead
MOST_ATTEMPTS = 2
MOST_TRIES = 3
TOLD = 3  # faults of a document that are told
ROOT, COMMAND = "root", "command"


class ConfirmedCommit(Generic[Wanted]):
    """Drives all changes of one pole's configuration, one at a time."""

    def __init__(
        self,
        plant: Plant[Wanted],
        folder: ConfigFolder,
        trust: TrustChain,
        compose: Compose[Wanted],
        *,
        pole: str,
        agent: str,
    ) -> None:
        """Make it; ``start`` comes first, then ``tick`` each second.

        Args:
            plant: what is configured.
            folder: where state and documents are.
            trust: whose signatures count.
            compose: makes a configuration of its layers.
            pole: id of the pole.
            agent: version of polegate.
        """
        self._plant = plant
        self._folder = folder
        self._trust = trust
        self._compose = compose
        self._pole = pole
        self._agent = agent
        self._ledger = Ledger(folder, plant.tell, plant.now)
        self._turn = asyncio.Lock()  # one change at a time, though applying takes a while
        self._own = ""  # the pole's own file, for where it cannot be kept
        self._running: Wanted | None = None
        self._is_applied = True
        self._applied_at = 0.0
        self._well_since: float | None = None
        self._early: dict[str, bytes] = {}  # signed documents that come before their time, or before ours
        self._look_at: dict[str, float] = {}  # a stream is not looked at before

    @property
    def state(self) -> State:
        """What is in force and what is tried."""
        return self._ledger.state

    @property
    def last(self) -> Verdict | None:
        """What was told last."""
        return self._ledger.last

    @property
    def running(self) -> Wanted:
        """What is applied."""
        assert self._running is not None, "start comes first"  # noqa: S101  # the wiring's
        return self._running

    async def start(self, own: str) -> None:
        """Apply what was in force, or is being tried, with the pole's own file as it is now.

        Raises:
            NewerState: a newer polegate was here.
            SettingsError: the pole's own file has faults, and there is none from before.
            Unfit: the pole cannot run so.
        """
        self._ledger.load()
        self._trust.load(self._folder, self.state.root)
        self.edited(own)
        self._count_start()
        if self.state.trial:
            try:
                await self._apply(self._as_it_is())
            except (SettingsError, Rejected, Unfit) as error:
                self._end_trial(Code.APPLY, _text(error))
            else:
                return
        try:
            await self._apply(self._as_it_is())
        except (SettingsError, Rejected, Unfit) as error:
            self._tell(Verdict(LOCAL, 0, "", Code.APPLY, f"what was in force cannot run: {_text(error)}"))
            await self._apply(self._compose(own, {}))

    async def tick(self) -> None:
        """Go on; once a second."""
        async with self._turn:
            self._ledger.save_late()
            self._look_at_early()
            if not self._is_applied:
                await self._reapply()
            if self.state.trial:
                await self._judge(self.state.trial)
            elif self._is_applied and self._has_settled():
                await self._stage_first()

    def stop(self) -> None:
        """End in order: this start does not count as an attempt."""
        if trial := self.state.trial:
            self._ledger.go_on(self.state.but(trial=trial.but(attempts=trial.attempts - 1)))

    async def refresh(self) -> None:
        """Apply what is in force where that has changed by itself: an override began or ended."""
        async with self._turn:
            try:
                is_same = self._as_it_is().fingerprint == self.running.fingerprint
            except (SettingsError, Rejected):
                is_same = False  # why is told where it is applied
            if not is_same:
                await self._reapply()

    # --- what comes ---

    def hear(self, stream: str, raw: bytes) -> Code:
        """Take a document that came; what is done with it, ``tick`` does."""
        if stream not in self.running.streams:
            return self._tell(Verdict("", 0, "", Code.STREAM, "a document of a stream that this pole does not take"))
        try:
            found = admission.admit(raw, stream, self._trust.root, self.state.of(stream), self._now())
            self._early.pop(stream, None)
            return self._take(found)
        except Rejected as error:
            if error.code in (Code.WAIT_TIME, Code.NOT_YET):
                self._early[stream] = raw
                self._look_at[stream] = self._plant.now() + LOOK_S
            return self._tell(Verdict(stream, 0, "", error.code, error.text))

    def hear_root(self, raw: bytes) -> Code:
        """Take a root of trust that came. What waits was signed by the keys of before: it must come again."""
        try:
            root, is_new_epoch = self._trust.follow(raw)
            floor = root.issued if is_new_epoch else max(self.state.floor, root.issued)
            streams = {name: each.but(waits=each.waits and name == LOCAL) for name, each in self.state.streams.items()}
            self._folder.keep_root(root.version, raw)
            self._ledger.save(self.state.but(root=max(self.state.root, root.version), floor=floor, streams=streams))
        except Rejected as error:
            return self._tell(Verdict(ROOT, 0, "", error.code, error.text))
        except OSError as error:
            return self._tell(Verdict(ROOT, 0, "", Code.STORAGE, f"it cannot be written down: {error}"))
        self._trust.take(root)
        self._early.clear()
        return self._tell(Verdict(ROOT, root.version, "", Code.COMMITTED, "it is in force"))

    async def command(self, raw: bytes, *, retained: bool) -> Code:
        """Obey a command for the trial that runs."""
        try:
            found = admission.admit_command(raw, self._trust.root, self._pole, self._now(), retained=retained)
            async with self._turn:
                await self._obey(found)
        except Rejected as error:
            return self._tell(Verdict(COMMAND, 0, "", error.code, error.text))
        except OSError as error:
            return self._tell(Verdict(COMMAND, 0, "", Code.STORAGE, f"it cannot be written down: {error}"))
        return Code.OK

    def edited(self, own: str) -> None:
        """Take the pole's own file as it is now; a new text of it is tried like a document."""
        self._own = own
        standing = self.state.of(LOCAL)
        try:
            sha = self._folder.keep(own.encode())
            if sha == standing.active or self._folder.document(standing.active) is None:
                standing = Standing(sha=sha, active=sha)  # the first, or the one from before is damaged
            elif sha != standing.sha:
                standing = standing.but(sha=sha, waits=True, fate=None, why="", tries=0)
            elif standing.fate:
                text = f"this edit was tried and ended with {standing.fate.name}: {standing.why}"
                self._tell(Verdict(LOCAL, 0, sha, Code.TOMBSTONED, text))
            if standing != self.state.of(LOCAL):
                self._ledger.save(self.state.with_stream(LOCAL, standing))
        except OSError as error:
            self._tell(Verdict(LOCAL, 0, "", Code.STORAGE, f"the pole's own file cannot be kept: {error}"))

    async def _obey(self, found: Command) -> None:
        trial = self.state.trial
        if trial is None or found.trial != trial.sha:
            raise Rejected(Code.STALE, "what it names is not being tried")
        if found.do == "confirm":
            self._ledger.save(self.state.but(trial=trial.but(confirmed=True)))
        else:
            await self._roll_back(Code.RB_CANCELLED, "an operator cancelled it")

    def _take(self, found: Admitted) -> Code:
        """Bring a document to the disk, then its number; nothing acts on it before."""
        stream = found.document.stream
        standing = self.state.of(stream)
        verdict = Verdict(stream, found.document.seq, found.sha, Code.OK, "it is believed, and waits")
        if self._folder.document(found.sha) is not None and found.sha == standing.sha:
            if found.sha == standing.active:
                return self._tell(replace(verdict, code=Code.NOOP, text="it is in force"))
            if standing.waits:
                return Code.BUSY if self.state.trial else Code.OK
        tries = standing.tries if found.sha == standing.sha else 0
        active = "" if found.sha == standing.active else standing.active  # it was damaged
        seq, epoch = found.document.seq, found.document.epoch
        new = standing.but(
            epoch=epoch, seq=seq, sha=found.sha, waits=True, fate=None, why="", tries=tries, active=active
        )
        try:
            self._folder.keep(found.payload)
            floor = max(self.state.floor, found.document.issued)
            self._ledger.save(self.state.with_stream(stream, new).but(floor=floor))
        except OSError as error:
            return self._tell(replace(verdict, code=Code.STORAGE, text=f"it cannot be written down: {error}"))
        self._look_at.pop(stream, None)
        if self.state.trial:
            return self._tell(replace(verdict, code=Code.BUSY, text="another one is being tried"))
        return self._tell(verdict)

    def _look_at_early(self) -> None:
        if self._plant.utc() is not None:
            for stream, raw in list(self._early.items()):
                if self._plant.now() >= self._look_at.get(stream, 0.0):
                    del self._early[stream]
                    self.hear(stream, raw)

    # --- before a trial ---

    def _has_settled(self) -> bool:
        """Tell whether it is known what is well: a trial that began before would ask for nothing."""
        patience = self.running.patience_s
        if self._plant.proven_since() is not None and set(patience) <= set(self._plant.healthy()):
            return True
        longest = min(max([SETTLE_S, *patience.values()]), LONGEST_SETTLE_S)
        return self._plant.now() - self._applied_at >= longest

    async def _stage_first(self) -> None:
        for stream in (*self.running.streams, LOCAL):
            if self._is_to_be_looked_at(stream) and await self._stage(stream):
                return

    def _is_to_be_looked_at(self, stream: str) -> bool:
        return self.state.of(stream).waits and self._plant.now() >= self._look_at.get(stream, 0.0)

    async def _stage(self, stream: str) -> bool:
        """Begin the trial of what waits, where nothing speaks against it; tell whether anything changed."""
        self._look_at[stream] = self._plant.now() + LOOK_S
        standing = self.state.of(stream)
        terms = TrialTerms()
        try:
            if stream != LOCAL:
                if (found := self._document(standing.sha)) is None:
                    return False  # it is damaged, and must come again
                admission.must_be_due(
                    found,
                    self._now().known(),
                    agent=self._agent,
                    pole=self._pole,
                    in_force=self._number_in_force,
                )
                terms = found.trial
            return await self._begin(stream, terms)
        except OSError as error:
            code, text = Code.STORAGE, f"it cannot be written down, so it is not tried: {error}"
        except (SettingsError, Rejected, Unfit) as error:
            code, text = _code(error), _text(error)
            if not code.waits and self.state.of(stream) == standing:
                self._ledger.go_on(self.state.with_stream(stream, _ended(standing, code, text)))
        self._tell(Verdict(stream, standing.seq, standing.sha, code, text))
        return False

    def _number_in_force(self, stream: str) -> int:
        standing = self.state.of(stream)
        return standing.active_seq if standing.active_epoch == self._trust.root.epoch else 0

    async def _begin(self, stream: str, terms: TrialTerms) -> bool:
        """Validate, probe, write down, apply."""
        standing = self.state.of(stream)
        wanted = self._with(stream, standing.sha)
        if wanted.fingerprint == self.running.fingerprint:
            self._ledger.save(
                self.state.with_stream(stream, _active(standing, standing.sha, standing.epoch, standing.seq))
            )
            self._running = wanted
            self._tell(Verdict(stream, standing.seq, standing.sha, Code.NOOP, "nothing changes; it is in force"))
            return True
        await self._plant.probe(wanted)
        if self.state.of(stream) != standing:
            return True  # something newer came meanwhile
        self._ledger.save(self.state.but(trial=self._trial(stream, standing, terms, wanted)))
        try:
            await self._apply(wanted)
        except Unfit as error:
            await self._roll_back(Code.APPLY, _text(error))
        return True

    def _trial(self, stream: str, standing: Standing, terms: TrialTerms, wanted: Wanted) -> Trial:
        sensors = sorted(set(self._plant.healthy()) & set(wanted.patience_s))
        return Trial(
            stream=stream,
            epoch=standing.epoch,
            seq=standing.seq,
            sha=standing.sha,
            boot=self._plant.boot,
            started=self._plant.now(),
            window_s=max([terms.window_s, *(wanted.patience_s[name] + terms.hold_s for name in sensors)]),
            hold_s=terms.hold_s,
            by_server=terms.confirm == "server",
            upstream=self._plant.proven_since() is not None,
            sensors=sensors,
        )

    # --- the trial and its end ---

    async def _judge(self, trial: Trial) -> None:
        now = self._plant.now()
        code, text = lacks(trial, self._plant, self._applied_at)
        if not code:
            well_since = now if self._well_since is None else self._well_since
            self._well_since = max(well_since, self._plant.proven_since() or 0.0)  # the link may have been anew since
            if now - self._well_since < trial.hold_s:
                code, text = Code.RB_UPSTREAM, "all was well at times, and never for long enough"
            elif trial.by_server and not trial.confirmed:
                code, text = Code.RB_NO_CONFIRM, "all was well, and no operator confirmed it"
            else:
                code, text = self._commit(trial)
        if code and now - trial.started >= trial.window_s:
            await self._roll_back(code, text)

    def _commit(self, trial: Trial) -> tuple[Code, str]:
        standing = _active(self.state.of(trial.stream), trial.sha, trial.epoch, trial.seq)
        try:
            self._ledger.save(self.state.with_stream(trial.stream, standing).but(trial=None))
        except OSError as error:
            return Code.STORAGE, f"it proved itself, and that cannot be written down: {error}"
        self._tell(Verdict(trial.stream, trial.seq, trial.sha, Code.COMMITTED, "it proved itself"))
        return Code.OK, ""

    async def _roll_back(self, code: Code, text: str) -> None:
        self._end_trial(code, text)
        await self._reapply()

    def _end_trial(self, code: Code, text: str) -> None:
        """End the trial on the disk, with its fate, in one write; then nothing tries it again."""
        trial = self.state.trial
        assert trial is not None  # noqa: S101  # who calls has one
        standing = self.state.of(trial.stream)
        if standing.sha == trial.sha:  # else a newer one waits, and this one is stale
            if code is Code.RB_INCONCLUSIVE and standing.tries + 1 < MOST_TRIES:
                standing = standing.but(tries=standing.tries + 1)
                self._look_at[trial.stream] = self._plant.now() + trial.window_s
            else:
                standing = _ended(standing, code, text)
        self._ledger.go_on(self.state.with_stream(trial.stream, standing).but(trial=None))
        self._tell(Verdict(trial.stream, trial.seq, trial.sha, code, text))

    def _count_start(self) -> None:
        trial = self.state.trial
        if trial is None:
            return
        same_boot = trial.boot == self._plant.boot
        if trial.attempts >= MOST_ATTEMPTS:
            code = Code.RB_CRASHLOOP if same_boot else Code.RB_POWER
            self._end_trial(code, f"the gateway ended without order {trial.attempts} times while it was tried")
            return
        again = trial.but(attempts=trial.attempts + 1)
        if not same_boot:
            again = again.but(boot=self._plant.boot, started=self._plant.now())
        try:
            self._ledger.save(self.state.but(trial=again))
        except OSError as error:
            self._end_trial(Code.STORAGE, f"its attempts cannot be counted, so it is not tried: {error}")

    # --- what is in force ---

    async def _apply(self, wanted: Wanted) -> None:
        self._running = wanted
        self._well_since = None
        self._applied_at = self._plant.now()
        await self._plant.apply(wanted)
        self._is_applied = True

    async def _reapply(self) -> None:
        """Apply what is in force; where that fails, ``tick`` tries again: there is nothing better."""
        try:
            await self._apply(self._as_it_is())
        except (SettingsError, Rejected, Unfit) as error:
            self._is_applied = False
            self._tell(Verdict(LOCAL, 0, "", Code.APPLY, f"what is in force cannot run: {_text(error)}"))

    def _as_it_is(self) -> Wanted:
        """Compose what is in force, or what is tried."""
        trial = self.state.trial
        return self._with(trial.stream, trial.sha) if trial else self._with(LOCAL, self.state.of(LOCAL).active)

    def _with(self, stream: str, sha: str) -> Wanted:
        """Compose what is in force, with a document in the place of the one of its stream."""
        state = self.state.with_stream(stream, self.state.of(stream).but(active=sha))
        own, documents = self._folder.layers(state)
        for name, standing in state.streams.items():
            if name not in (LOCAL, *documents) and standing.active:
                text = "it is damaged on the disk, and left out; it is taken when it comes again"
                self._tell(Verdict(name, standing.active_seq, standing.active, Code.STORAGE, text))
        return self._compose(self._own if own is None else own, documents)

    def _document(self, sha: str) -> Document | None:
        payload = self._folder.document(sha)
        return None if payload is None else document.parsed(payload)

    def _now(self) -> Now:
        return Now(self._plant.utc(), max(self.state.floor, self._trust.floor))

    def _tell(self, verdict: Verdict) -> Code:
        return self._ledger.tell(verdict)


def _active(standing: Standing, sha: str, epoch: int, seq: int) -> Standing:
    waits = standing.waits and standing.sha != sha  # a newer one came meanwhile
    return standing.but(active=sha, active_epoch=epoch, active_seq=seq, waits=waits, tries=0)


def _ended(standing: Standing, code: Code, text: str) -> Standing:
    return standing.but(waits=False, fate=code, why=text)


def _code(error: SettingsError | Rejected | Unfit) -> Code:
    if isinstance(error, Rejected):
        return error.code
    return Code.PROBE if isinstance(error, Unfit) else Code.SEMANTIC


def _text(error: SettingsError | Rejected | Unfit) -> str:
    if isinstance(error, SettingsError):
        more = len(error.faults) - TOLD
        return "; ".join(map(str, error.faults[:TOLD])) + (f"; and {more} more" if more > 0 else "")
    return str(error)

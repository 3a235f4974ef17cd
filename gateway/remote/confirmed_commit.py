"""A change of the configuration, an edit or a document, proves itself, or is taken back by itself.

::

    hear ──▶ admitted? ──▶ [1 document, then number and time on the disk] ──▶ waits
    edited ──▶ sound? ──▶ [1 the file, then that it waits, on the disk] ──▶ waits
    tick ──▶ staged? ──▶ valid? probed? ──▶ [2 trial on the disk] ──▶ apply ──▶ gates
                  gates green for hold_s ──▶ [3 in force on the disk]
                  window over, cancelled, crashed twice ──▶ [3' trial gone, fate told, in one write] ──▶ apply the old

The gates. **Upstream and downlink**: since it was applied, the broker has taken a message and given it back; an
acknowledgement alone proves nothing on MQTT 3.1.1, and counts only where the broker gave nothing back before either.
**Sensors**: every device that gave values before has given one since. What was dead before is not held against the
change; where the way to the broker was dead before and is dead after, a document was not proved either way and is tried
again later, and an edit of the pole's own file stands.

Ticks, documents, roots, commands, edits and the end come from several tasks, and each of them waits for the disk in
its midst. Each takes the turn of the :class:`gateway.remote.config_ledger.Ledger` first, so that one is over before
the next one looks.

A trial outlives the gateway: a start after a cut at any point is the same as any other start. A start counts as an
attempt unless the run before ended in order; what cannot be counted is not tried. Only the clock that counts is asked
how long a trial has run.

An edit that is found at a start is tried like any other, once it is known what works. What it changes that holds from
the start of the gateway to its end is part of that trial, and the gateway is started anew for it, and for its way back:
whoever restarts it asked for that. While the gateway runs such an edit is refused, and kept for the next start.
"""

from typing import TYPE_CHECKING, Generic

from gateway.config.faults import SettingsError
from gateway.remote import document, gates
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import COMMAND, LOCAL, Standing, State, Trial
from gateway.remote.document import Command
from gateway.remote.gates import Gates, Terms
from gateway.remote.in_force import InForce, code_of, text_of
from gateway.remote.plant import Compose, NeedsRestart, Plant, Unfit, Wanted
from gateway.remote.verdict import Code, Rejected, Verdict

if TYPE_CHECKING:
    from gateway.remote.incoming import Incoming

LOOK_S = 10.0  # between two looks at what waits
SETTLE_S, LONGEST_SETTLE_S = 60.0, 300.0  # until what is not well counts as dead
MOST_ATTEMPTS = 2
MOST_TRIES = 3


class ConfirmedCommit(Generic[Wanted]):
    """Drives all changes of one pole's configuration, one at a time: each has the turn of the ledger.

    Attributes:
        in_force: what is in force.
        incoming: what operators send; None: nobody can send anything.
    """

    def __init__(self, plant: Plant[Wanted], folder: ConfigFolder, compose: Compose[Wanted]) -> None:
        """Make it; ``start`` comes first, then ``tick`` each second.

        Args:
            plant: what is configured.
            folder: where state and documents are.
            compose: makes a configuration of its layers.
        """
        self._plant = plant
        self._folder = folder
        self.in_force = InForce(plant, folder, compose)
        self.incoming: Incoming[Wanted] | None = None
        self._ledger = self.in_force.ledger
        self._may_restart = False
        self._well_since: float | None = None
        self._before: Wanted | None = None  # what ran before the trial, where that began in this run
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
        return self.in_force.running

    @property
    def gates(self) -> Gates | None:
        """How the gates of the trial are; None: nothing is tried."""
        trial = self.state.trial
        return gates.look(trial, self._plant, self.in_force.applied_at) if trial else None

    @property
    def left_s(self) -> float | None:
        """Seconds that the trial may still take; None: nothing is tried."""
        trial = self.state.trial
        return None if trial is None else max(0.0, trial.started + trial.window_s - self._plant.now())

    async def start(self, own: str) -> None:
        """Apply what was in force, or is being tried. The pole's own file as it is now is tried like any edit.

        Raises:
            NewerState: a newer polegate was here.
            SettingsError: the pole's own file has faults, and there is none from before.
            Unfit: the pole cannot run so.
        """
        self.in_force.begin(own)
        self._may_restart = True
        await self._take_own(own)
        await self._count_start()
        if self.state.trial:
            try:
                await self.in_force.apply(self.in_force.as_it_is())
            except (SettingsError, Rejected, Unfit) as error:
                await self._end_trial(Code.APPLY, text_of(error))
            else:
                return
        try:
            await self.in_force.apply(self.in_force.as_it_is())
        except (SettingsError, Rejected, Unfit) as error:
            text = f"what was in force cannot run: {text_of(error)}"
            self._tell(Verdict(LOCAL, 0, "", Code.APPLY, text))
            await self.in_force.apply_own()
        await self._check_own()

    async def tick(self) -> None:
        """Go on; once a second, or more often."""
        async with self._ledger.turn:
            await self._ledger.save_late()
            if self.incoming:
                await self.incoming.look_at_early()
            if not self.in_force.is_applied:
                await self._reapply()
            if trial := self.state.trial:
                if self._is_superseded(trial):
                    await self._roll_back(Code.RB_CANCELLED, "the file was edited again while it was tried")
                else:
                    await self._judge(trial)
            elif self.in_force.is_applied and self._something_waits() and self._has_settled():
                await self._stage_first()

    async def stop(self) -> None:
        """End in order: this start does not count as an attempt."""
        async with self._ledger.turn:
            if trial := self.state.trial:
                await self._ledger.go_on(self.state.but(trial=trial.but(attempts=trial.attempts - 1)))

    async def refresh(self) -> None:
        """Apply what is in force where that has changed by itself: an override began or ended."""
        async with self._ledger.turn:
            if not self.in_force.is_as_composed():
                await self._reapply()

    async def edited(self, own: str) -> None:
        """Take the pole's own file as it is now: a new text of it is tried like a document, faults are told at once."""
        async with self._ledger.turn:
            self._may_restart = False
            if await self._take_own(own):
                await self._check_own()

    async def command(self, raw: bytes, *, retained: bool) -> Code:
        """Obey a command for the trial that runs."""
        assert self.incoming is not None, "who hears commands has one"  # noqa: S101  # the wiring's
        try:
            async with self._ledger.turn:
                await self._obey(self.incoming.command(raw, retained=retained))
        except Rejected as error:
            return self._tell(Verdict(COMMAND, 0, "", error.code, error.text))
        except OSError as error:
            return self._tell(Verdict(COMMAND, 0, "", Code.STORAGE, f"it cannot be written down: {error}"))
        return Code.OK

    async def _obey(self, found: Command) -> None:
        trial = self.state.trial
        if trial is None or found.trial != trial.sha:
            raise Rejected(Code.STALE, "what it names is not being tried")
        if found.do == "confirm":
            await self._ledger.save(self.state.but(trial=trial.but(confirmed=True)))
        else:
            await self._roll_back(Code.RB_CANCELLED, "an operator cancelled it")

    # --- the pole's own file ---

    async def _take_own(self, own: str) -> bool:
        """Keep it; tell whether it waits."""
        before = self.state.of(LOCAL)
        is_running = not self._may_restart and self.state.trial is None
        try:
            standing = await self.in_force.take_own(own, again=is_running and not self.in_force.is_as_composed())
        except OSError as error:
            text = f"the pole's own file cannot be kept, so no edit of it is tried while the gateway runs: {error}"
            self._tell(Verdict(LOCAL, 0, document.digest(own.encode()), Code.STORAGE, text))
            return False
        if standing.waits:
            self._look_at.pop(LOCAL, None)
        elif standing.fate:
            text = f"this edit was tried and ended with {standing.fate.name}: {standing.why}"
            self._tell(Verdict(LOCAL, 0, standing.sha, Code.TOMBSTONED, text))
        elif not self._may_restart or (before.sha and before != standing):
            self._tell(Verdict(LOCAL, 0, standing.sha, Code.NOOP, "nothing changes; it is in force"))
        return standing.waits

    async def _check_own(self) -> None:
        """Tell faults of an edit that waits, or that it changes nothing, before it is known what works."""
        standing = self.state.of(LOCAL)
        if not standing.waits:
            return
        try:
            wanted = self.in_force.with_(LOCAL, standing.sha)
            if self.state.trial or not await self._is_nothing_new(LOCAL, wanted):
                await self._must_fit(LOCAL, wanted)
        except OSError as error:
            code, text = Code.STORAGE, f"it cannot be written down: {error}"
            self._tell(Verdict(LOCAL, 0, standing.sha, code, text))
        except (SettingsError, Rejected, Unfit) as error:
            await self._refuse(LOCAL, standing, error)

    def _is_superseded(self, trial: Trial) -> bool:
        own = self.state.of(LOCAL)
        return trial.stream == LOCAL and own.sha != trial.sha and not own.fate

    # --- before a trial ---

    def _something_waits(self) -> bool:
        return any(standing.waits for standing in self.state.streams.values())

    def _has_settled(self) -> bool:
        """Tell whether it is known what is well: a trial that began before would ask for nothing."""
        patience = self.running.patience_s
        longest = min(max([SETTLE_S, *patience.values()]), LONGEST_SETTLE_S)
        if self._plant.now() - self.in_force.applied_at >= longest:
            return True
        return set(patience) <= set(self._plant.healthy()) and self._plant.way().taken is not None

    async def _stage_first(self) -> None:
        if self.incoming:
            for stream in self.incoming.fresh:
                self._look_at.pop(stream, None)
            self.incoming.fresh.clear()
        for stream in (*self.running.streams, LOCAL):
            if self._is_to_be_looked_at(stream) and await self._stage(stream):
                return

    def _is_to_be_looked_at(self, stream: str) -> bool:
        return self.state.of(stream).waits and self._plant.now() >= self._look_at.get(stream, 0.0)

    async def _stage(self, stream: str) -> bool:
        """Begin the trial of what waits, where nothing speaks against it; tell whether anything changed."""
        self._look_at[stream] = self._plant.now() + LOOK_S
        standing = self.state.of(stream)
        try:
            terms = self._terms_of_an_edit() if stream == LOCAL else self._terms(standing.sha)
            return terms is not None and await self._begin(stream, terms)
        except OSError as error:
            text = f"it cannot be written down, so it is not tried: {error}"
            self._tell(Verdict(stream, standing.seq, standing.sha, Code.STORAGE, text))
        except (SettingsError, Rejected, Unfit) as error:
            await self._refuse(stream, standing, error)
        return False

    def _terms_of_an_edit(self) -> Terms:
        """Say them as the configuration does that is in force, not the one that is to be."""
        return Terms(self.running.window_s, self.running.hold_s)

    def _terms(self, sha: str) -> Terms | None:
        """Return those of a document; None: it is damaged, and must come again. Raises Rejected: it is not due."""
        payload = self._folder.document(sha)
        if payload is None or self.incoming is None:
            return None
        found = document.parsed(payload)
        self.incoming.must_be_due(found)
        return Terms(found.trial.window_s, found.trial.hold_s, found.trial.confirm == "server")

    async def _begin(self, stream: str, terms: Terms) -> bool:
        """Validate, probe, write down, apply."""
        standing = self.state.of(stream)
        wanted = self.in_force.with_(stream, standing.sha)
        if await self._is_nothing_new(stream, wanted):
            return True
        await self._must_fit(stream, wanted)
        await self._plant.find_way()
        trial = gates.begin(stream, standing, terms, wanted, self._plant)
        await self._ledger.save(self.state.but(trial=trial))
        self._before = self.running
        try:
            await self._apply(wanted)
        except Unfit as error:
            await self._roll_back(Code.APPLY, text_of(error))
        return True

    async def _is_nothing_new(self, stream: str, wanted: Wanted) -> bool:
        """Tell whether nothing would change; then it is in force. Raises OSError."""
        if wanted.fingerprint != self.running.fingerprint:
            return False
        standing = self.state.of(stream)
        in_force = standing.with_active(standing.sha, standing.epoch, standing.seq)
        await self._ledger.save(self.state.with_stream(stream, in_force))
        self.in_force.replace(wanted)
        self._tell(Verdict(stream, standing.seq, standing.sha, Code.NOOP, "nothing changes; it is in force"))
        return True

    async def _must_fit(self, stream: str, wanted: Wanted) -> None:
        """Raise Unfit where the pole cannot run so; an edit that was found at a start may start the gateway anew."""
        try:
            await self._plant.probe(wanted)
        except NeedsRestart:
            if stream != LOCAL or not self._may_restart:
                raise

    async def _refuse(self, stream: str, standing: Standing, error: SettingsError | Rejected | Unfit) -> None:
        code, text = code_of(error), text_of(error)
        if not code.waits:
            await self._ledger.go_on(self.state.with_stream(stream, standing.ended(code, text)))
        self._tell(Verdict(stream, standing.seq, standing.sha, code, text))

    # --- the trial and its end ---

    async def _judge(self, trial: Trial) -> None:
        now = self._plant.now()
        seen = gates.look(trial, self._plant, self.in_force.applied_at)
        code, text = gates.lacks(trial, seen)
        if not code:
            well_since = now if self._well_since is None else self._well_since
            self._well_since = max(well_since, seen.since)  # the link may have been anew since
            if now - self._well_since < trial.hold_s:
                code, text = Code.RB_UPSTREAM, "all was well at times, and never for long enough"
            elif trial.by_server and not trial.confirmed:
                code, text = Code.RB_NO_CONFIRM, "all was well, and no operator confirmed it"
            else:
                code, text = await self._commit(trial)
        if code and now - trial.started >= trial.window_s:
            await self._roll_back(code, text)

    async def _commit(self, trial: Trial) -> tuple[Code, str]:
        standing = self.state.of(trial.stream).with_active(trial.sha, trial.epoch, trial.seq)
        try:
            await self._ledger.save(self.state.with_stream(trial.stream, standing).but(trial=None))
        except OSError as error:
            return Code.STORAGE, f"it proved itself, and that cannot be written down: {error}"
        self._before = None
        self._tell(Verdict(trial.stream, trial.seq, trial.sha, Code.COMMITTED, "it proved itself"))
        return Code.OK, ""

    async def _roll_back(self, code: Code, text: str) -> None:
        before, self._before = self._before, None
        await self._end_trial(code, text)
        await self._reapply(before)

    async def _end_trial(self, code: Code, text: str) -> None:
        """End the trial on the disk, with its fate, in one write; then nothing tries it again."""
        trial = self.state.trial
        assert trial is not None  # noqa: S101  # who calls has one
        standing = self.state.of(trial.stream)
        if standing.sha == trial.sha:  # else a newer one waits, and this one is stale
            if code is Code.RB_INCONCLUSIVE and standing.tries + 1 < MOST_TRIES:
                standing = standing.but(tries=standing.tries + 1)
                self._look_at[trial.stream] = self._plant.now() + trial.window_s
            else:
                standing = standing.ended(code, text)
        await self._ledger.go_on(self.state.with_stream(trial.stream, standing).but(trial=None))
        self._tell(Verdict(trial.stream, trial.seq, trial.sha, code, text))

    async def _count_start(self) -> None:
        trial = self.state.trial
        if trial is None:
            return
        same_boot = trial.boot == self._plant.boot
        if trial.attempts >= MOST_ATTEMPTS:
            code = Code.RB_CRASHLOOP if same_boot else Code.RB_POWER
            await self._end_trial(code, f"the gateway ended without order {trial.attempts} times while it was tried")
            return
        again = trial.but(attempts=trial.attempts + 1)
        if not same_boot:
            again = again.but(boot=self._plant.boot, started=self._plant.now())
        try:
            await self._ledger.save(self.state.but(trial=again))
        except OSError as error:
            await self._end_trial(Code.STORAGE, f"its attempts cannot be counted, so it is not tried: {error}")

    async def _apply(self, wanted: Wanted) -> None:
        self._well_since = None
        await self.in_force.apply(wanted)

    async def _reapply(self, before: Wanted | None = None) -> None:
        self._well_since = None
        await self.in_force.reapply(before)

    def _tell(self, verdict: Verdict) -> Code:
        return self._ledger.tell(verdict)

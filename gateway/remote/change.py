"""A job: change the configuration of the running pole, by an edit of its own file or over the air, on trial.

It is the pole as a change sees it: what is to be in force is applied to it, and the gates look at it. Upon a signal it
takes the pole's own file; where ``[remote]`` is enabled, documents come beside it. Both are driven by one
:class:`gateway.remote.confirmed_commit.ConfirmedCommit`. Every verdict passes :meth:`Change.tell`: from there it goes
to the log, into ``state``, to ``systemctl status``, into the alarm and, as a reading, into the buffer.

The way to the broker counts as proven only on a link that belongs to what is applied: while another broker is still
being tried beside the old link, nothing is.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from gateway import shares
from gateway.config.faults import SettingsError
from gateway.config.settings import Settings
from gateway.config.toml_file import read
from gateway.host.clock import Clock
from gateway.host.notify import notify, notify_reloading
from gateway.jobs.pole_state import VERSION
from gateway.link.mqtt_link import Link
from gateway.link.uplink import Uplink
from gateway.remote import drift
from gateway.remote.beside import live
from gateway.remote.config_folder import ConfigFolder, NewerState
from gateway.remote.config_state import COMMAND, LOCAL, ROOT
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import Document, digest
from gateway.remote.override import Override
from gateway.remote.plant import NeedsRestart, Unfit, Way
from gateway.remote.prove_way import ProveWay
from gateway.remote.reported import reported
from gateway.remote.settings_layers import Configuration, compose
from gateway.remote.verdict import Code, Result, Verdict
from gateway.words import transition
from gateway.words.health import DeviceHealth
from gateway.words.messages import Reported
from gateway.words.reading import Reading
from gateway.words.standing import NOTHING, Echo, Standing
from gateway.words.standing import Verdict as Outcome

if TYPE_CHECKING:
    from gateway.remote.remote import Remote

NS = 1_000_000_000
NS_PER_MS = 1_000_000  # packs tell times to the millisecond
TICK_S = 1.0
BUSY_TICK_S = 0.25  # while something waits or is tried
SHA_DIGITS = 12
NO_STREAM = "", ROOT, COMMAND

log = structlog.get_logger()


class Changeable(Protocol):
    """The running pole. :class:`gateway.app.Pole` is one."""

    async def apply(self, configuration: Settings, before: Echo) -> None:
        """Run that configuration from now on. What is equal in it and the one that ran is not touched.

        Args:
            configuration: what is to run.
            before: what came of the uplink before. A link to another broker is used when it does as well; until then
                the one there is goes on.
        """

    def healthy(self) -> frozenset[str]:
        """Name the devices whose last look gave values."""


class Change:
    """A :class:`gateway.remote.plant.Plant`, and who drives the change of it.

    Attributes:
        boot: id of this boot of the machine.
        again: is set where the gateway is to end, and to begin anew.
    """

    def __init__(self, path: Path, settings: Settings, clock: Clock) -> None:
        """Make it; ``start`` comes first.

        Args:
            path: the pole's own file.
            settings: what that file alone says.
            clock: the machine's.
        """
        self._path = path
        self._clock = clock
        self._settings, self._digest = settings, shares.digest(settings)
        self._folder = ConfigFolder(settings.root.state)
        self._since = clock.now()
        self._pole: Changeable | None = None
        self._uplink: Uplink
        self._health: Mapping[str, DeviceHealth] = {}
        self._prover: ProveWay
        self._remote: Remote[Configuration] | None = None
        self._set: list[Override] = []
        self._closed = ""  # why nothing can be changed
        self._outcomes: dict[str, Outcome] = {}
        self._last: Outcome | None = None
        self._told_at = 0
        self._early: list[Reading] = []  # what was told before there was a pole to keep it
        self._keep: Callable[[Reading], None] = self._early.append
        self.again = asyncio.Event()
        self.boot = clock.boot
        self._commit = ConfirmedCommit(self, self._folder, self._compose)

    async def start(self) -> Settings:
        """Return what is in force, or on trial still. The pole's own file as it is now is tried like any edit.

        Raises:
            SettingsError: the pole's own file has faults, and there is none from before.
        """
        own, fault = self._own()
        self._set = self._overrides()
        try:
            await self._commit.start(own)
        except NewerState as error:
            self._closed = str(error)
            self._tell_closed(own)
            return self._settings
        if self._settings.root.remote.enabled:
            self._take_documents(self._settings.root.remote.trust)
        for stream, each in self._commit.state.streams.items():
            if each.fate and each.fate.result:
                self._note(stream, each.seq, each.sha, each.fate.result, f"{each.fate.name}: {each.why}")
        if fault:
            self._tell_unread(fault)
        return self._settings

    def lead(
        self,
        pole: Changeable,
        uplink: Uplink,
        health: Mapping[str, DeviceHealth],
        *,
        topic: str,
        echo: Callable[[Link], Awaitable[Echo]],
        keep: Callable[[Reading], None],
    ) -> None:
        """Change this pole from now on.

        Args:
            pole: runs what ``start`` returned.
            uplink: its way to the broker.
            health: of each of its devices.
            topic: what its topics begin with.
            echo: publishes its state on a link, and reads it back.
            keep: takes what became of a change, once the pole runs.
        """
        self._pole, self._uplink, self._health, self._take = pole, uplink, health, keep
        self._prover = ProveWay(uplink, echo, self.now)
        if self._commit.incoming:
            from gateway.remote.remote import Remote  # noqa: PLC0415  # as for documents

            self._remote = Remote(uplink, self._commit, self._commit.incoming, topic=topic)

    async def run(self, asked: asyncio.Event) -> None:
        """Change it for ever; take the pole's own file whenever that is set."""
        self._keep = self._take
        for reading in self._early:
            self._keep(reading)
        said = self._runs()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._prover.run())
                if self._remote:
                    group.create_task(self._remote.run())
                while True:
                    if asked.is_set():
                        asked.clear()
                        said = await self._reload()
                    await self._go_on()
                    if (status := self._status()) != said:
                        notify(f"STATUS={status}")
                        said = status
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pause()):
                            await asked.wait()
        finally:
            await self._commit.stop()

    def standing(self) -> Standing:
        """Tell which configuration runs, and why."""
        state, left_s = self._commit.state, self._commit.left_s
        in_force = {name: each.active_seq for name, each in state.streams.items() if each.active_seq}
        trial = state.trial.stream if state.trial else ""
        return Standing(self._digest, self._since, in_force, trial, left_s or 0.0, self._last)

    def reported(self) -> Reported | None:
        """Tell the same of each stream; None where nothing can be changed."""
        return None if self._closed else reported(self._commit)

    def drift(self) -> list[str]:
        """Tell what of the pole's own file has no effect."""
        return [] if self._closed else [str(fault) for fault in drift.told(self._commit.running, self._overrides())]

    @property
    def verdict(self) -> Outcome | None:
        """The last one on what is not in force and should be; where all is, the last one. None: there was none."""
        taken = (LOCAL, *self._commit.running.streams) if not self._closed else (LOCAL,)
        bad = [each for name, each in self._outcomes.items() if name in taken and each.result != "accepted"]
        return bad[-1] if bad else self._last

    # --- the plant ---

    def now(self) -> float:
        """Return seconds since the boot of the machine."""
        return self._clock.now() / NS

    def utc(self) -> int | None:
        """Return seconds since 1970; None while the clock is not set."""
        return (self._clock.now() + self._clock.utc_offset()) // NS if self._clock.synchronised() else None

    async def probe(self, wanted: Configuration) -> None:
        """Look whether the pole could run so. Raises NeedsRestart."""
        if why := shares.needs_restart(self._settings, wanted.settings):
            raise NeedsRestart(why)

    async def apply(self, wanted: Configuration) -> None:
        """Run so. Raises Unfit."""
        before, self._settings, self._since = self._settings, wanted.settings, self._clock.now()
        self._digest = shares.digest(wanted.settings)
        if self._pole is None:
            return
        if why := shares.needs_restart(before, wanted.settings):
            log.warning("the gateway is started anew for another configuration", why=why)
            self.again.set()
            return
        try:
            await self._pole.apply(wanted.settings, self._proof())
        except Exception as error:
            log.exception("the configuration cannot be applied")
            raise Unfit(f"it cannot be applied: {error!r}") from error
        finally:
            self._prover.renew()
            if self._remote:
                self._remote.renew()

    def way(self) -> Way:
        """Tell how the way to the broker is. It is a way back only where documents can come on it, too."""
        if self._pole is None:
            return Way(None, None)
        way = self._prover.way()
        return way._replace(back=None, why=self._remote.refused) if self._remote and self._remote.refused else way

    async def find_way(self) -> None:
        """Have it proven, and wait for what comes of that."""
        await self._prover.find()

    def healthy(self) -> frozenset[str]:
        """Name the devices that give values."""
        return self._pole.healthy() if self._pole else frozenset()

    def well_in(self, wanted: Configuration) -> frozenset[str]:
        """Name the devices of a configuration that give values now; one that is only renamed by its new name."""
        names = shares.renamed(self._settings, wanted.settings)
        return frozenset(names.get(name, name) for name in self.healthy()) & wanted.patience_s.keys()

    def good_since(self, at: float) -> frozenset[str]:
        """Name the devices that have given a value since."""
        return frozenset(
            name
            for name, health in self._health.items()
            if health.last_good is not None and health.last_good >= at * NS and not health.lapse
        )

    def tell(self, verdict: Verdict) -> None:
        """Tell what became of a document, or of an edit."""
        told = log.info if verdict.code < Code.TOO_BIG else log.error if verdict.stream == LOCAL else log.warning
        told(verdict.text, configuration=verdict.stream, seq=verdict.seq, verdict=verdict.code.name)
        self._told_at = max(self._clock.now(), self._told_at + NS_PER_MS)
        self._keep(
            transition.reading(
                self._told_at,
                stream=verdict.stream,
                seq=verdict.seq,
                sha=verdict.sha,
                code=verdict.code.value,
                verdict=verdict.code.name,
                text=verdict.text,
            )
        )
        result = verdict.code.result
        # Trouble with what is in force is no outcome of a change, and ends by itself
        is_of_a_change = verdict.stream != LOCAL or verdict.sha or verdict.code < Code.STORAGE
        if result and is_of_a_change and verdict.stream not in NO_STREAM:
            why = "" if result == "accepted" else f"{verdict.code.name}: {verdict.text}"
            self._note(verdict.stream, verdict.seq, verdict.sha, result, why)

    def _note(self, stream: str, seq: int, sha: str, result: Result, why: str) -> None:
        outcome = Outcome(result, stream, seq, sha[:SHA_DIGITS], why, self._clock.now())
        self._outcomes.pop(stream, None)  # the last one stands last
        self._outcomes[stream] = self._last = outcome

    # --- the drive ---

    def _take_documents(self, trust: Path) -> None:
        # They take memory that a pole which nobody configures over the air keeps
        from gateway.remote.incoming import Incoming  # noqa: PLC0415
        from gateway.remote.trust_chain import TrustChain  # noqa: PLC0415

        self._commit.incoming = Incoming(self, self._commit.in_force, TrustChain(trust), agent=VERSION)
        self._commit.incoming.load()

    async def _go_on(self) -> None:
        if self._closed:
            return
        if (now_set := self._overrides()) != self._set:
            self._set = now_set
            await self._commit.refresh()
        await self._commit.tick()

    def _pause(self) -> float:
        state = self._commit.state
        is_busy = state.trial or any(each.waits for each in state.streams.values())
        return BUSY_TICK_S if is_busy else TICK_S

    async def _reload(self) -> str:
        """Take the pole's own file as it is now, and return what systemd was told."""
        notify_reloading()
        try:
            own = read(self._path)
        except SettingsError as error:
            self._tell_unread(error)
        else:
            if self._closed:
                self._tell_closed(own)
            else:
                await self._commit.edited(own)
        status = self._status()
        notify(f"READY=1\nSTATUS={status}")
        return status

    def _own(self) -> tuple[str, SettingsError | None]:
        """Return the pole's own file; what it said in force where it cannot be read, and why. Raises SettingsError."""
        try:
            return read(self._path), None
        except SettingsError as error:
            with contextlib.suppress(NewerState):
                if (own := self._folder.own()) is not None:
                    return own, error
            raise

    def _tell_unread(self, error: SettingsError) -> None:
        self.tell(Verdict(LOCAL, 0, "", Code.SEMANTIC, f"{error}; what is in force goes on"))

    def _tell_closed(self, own: str) -> None:
        text = f"no change of the configuration is tried: {self._closed}"
        self.tell(Verdict(LOCAL, 0, digest(own.encode()), Code.STORAGE, text))

    def _runs(self) -> str:
        return f"configuration {self._digest} runs"

    def _status(self) -> str:
        """Put it for systemctl status."""
        runs, state = self._runs(), self._commit.state
        if state.trial:
            return f"{runs}, on trial"
        waits = "; a change waits until it is known what works" if any(s.waits for s in state.streams.values()) else ""
        verdict = self.verdict
        if verdict is None or verdict.result == "accepted":
            return runs + waits
        return f"{runs}{waits}; the last change: {verdict.result}, {verdict.why}"

    def _proof(self) -> Echo:
        """Return what another broker must do as well: only for a trial, since going back must work whatever it does."""
        trial = self._commit.state.trial
        if trial is None:
            return NOTHING
        return Echo(taken=trial.upstream or trial.one_way, came_back=trial.upstream)

    def _compose(self, own: str, documents: Mapping[str, Document]) -> Configuration:
        return compose(self._path, own, documents, self._overrides())

    def _overrides(self) -> list[Override]:
        try:
            return live(self._folder, self._clock)
        except ValueError as error:
            log.warning(str(error))
            return []

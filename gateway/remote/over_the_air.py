"""The running pole as a change over the air sees it: what is to be in force is applied to it, and the gates look at it.

It stands in the place of :class:`gateway.remote.reload.Reload` where ``[remote]`` is enabled: an edit of the pole's
own file then takes the same road as a document, with the same trial.

The way to the broker counts as proven only on a link that belongs to what is applied: while another broker is still
being tried beside the old link, nothing is.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from gateway import shares
from gateway.config.settings import Settings
from gateway.host.clock import Clock
from gateway.jobs.pole_state import VERSION
from gateway.link.uplink import Uplink
from gateway.remote import drift
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import Document
from gateway.remote.in_force import live
from gateway.remote.override import Override
from gateway.remote.plant import Unfit
from gateway.remote.remote import Remote, Way
from gateway.remote.settings_layers import Configuration, compose
from gateway.remote.trust_chain import TrustChain
from gateway.remote.verdict import Code, Verdict
from gateway.words import transition
from gateway.words.health import DeviceHealth
from gateway.words.messages import Reported
from gateway.words.reading import Reading
from gateway.words.standing import NOTHING, Changeable, Echo, Standing
from gateway.words.standing import Verdict as Outcome

NS = 1_000_000_000
NS_PER_MS = 1_000_000  # packs tell times to the millisecond

log = structlog.get_logger()


class OverTheAir:
    """A :class:`gateway.remote.plant.Plant`, and who drives the change of it.

    Attributes:
        boot: id of this boot of the machine.
        verdict: none; what became of documents is told by itself, in ``config/reported``.
    """

    verdict: Outcome | None = None

    def __init__(self, path: Path, settings: Settings, clock: Clock) -> None:
        """Make it; ``start`` comes first.

        Args:
            path: the pole's own file.
            settings: what that file alone says.
            clock: the machine's.
        """
        remote = settings.root.remote
        self._path = path
        self._clock = clock
        self._folder = ConfigFolder(remote.state)
        self._way = Way(self.now)
        self._settings = settings
        self._since = clock.now()
        self._pole: Changeable[Settings] | None = None
        self._uplink: Uplink
        self._health: Mapping[str, DeviceHealth] = {}
        self._told_at = 0
        self._early: list[Reading] = []  # what was told before there was a pole to keep it
        self._keep: Callable[[Reading], None] = self._early.append
        self.boot = clock.boot
        self._commit = ConfirmedCommit(
            self, self._folder, TrustChain(remote.trust), self._compose, pole=settings.root.pole.id, agent=VERSION
        )

    async def start(self) -> Settings:
        """Return what is in force, or on trial still, with the pole's own file as it is now.

        Raises:
            NewerState: a newer polegate was here.
            SettingsError: the pole's own file has faults, and there is none from before.
        """
        await self._commit.start(self._path.read_text())
        return self._settings

    def lead(
        self,
        pole: Changeable[Settings],
        uplink: Uplink,
        health: Mapping[str, DeviceHealth],
        topic: str,
        *,
        keep: Callable[[Reading], None],
    ) -> None:
        """Change this pole from now on.

        Args:
            pole: runs what ``start`` returned.
            uplink: its way to the broker.
            health: of each of its devices.
            topic: what its topics begin with.
            keep: takes what became of documents, once the pole runs.
        """
        self._pole, self._uplink, self._health, self._take = pole, uplink, health, keep
        self._remote = Remote(uplink, self._commit, self._way, topic=topic, overrides=self._overrides)

    async def run(self, asked: asyncio.Event) -> None:
        """Hear documents, and take the pole's own file whenever it is asked for."""
        self._keep = self._take
        for reading in self._early:
            self._keep(reading)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._remote.run())
                while True:
                    await asked.wait()
                    asked.clear()
                    self._reread()
        finally:
            self._commit.stop()

    def _reread(self) -> None:
        try:
            own = self._path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            log.warning("the configuration cannot be read; what is in force goes on", why=str(error))
        else:
            self._commit.edited(own)

    def standing(self) -> Standing:
        """Tell which configuration runs."""
        trial = self._commit.state.trial
        left = None if trial is None else max(0.0, trial.started + trial.window_s - self.now())
        return Standing(shares.digest(self._settings), self._since, left)

    def reported(self) -> Reported:
        """Tell which configuration is in force, and why."""
        return self._remote.reported()

    def drift(self) -> list[str]:
        """Tell what of the pole's own file has no effect."""
        return [str(fault) for fault in drift.told(self._commit.running, self._overrides())]

    def now(self) -> float:
        """Return seconds since the boot of the machine."""
        return self._clock.now() / NS

    def utc(self) -> int | None:
        """Return seconds since 1970; None while the clock is not set."""
        return (self._clock.now() + self._clock.utc_offset()) // NS if self._clock.synchronised() else None

    async def probe(self, wanted: Configuration) -> None:
        """Look whether the pole could run so. Raises Unfit."""
        if why := shares.needs_restart(self._settings, wanted.settings):
            raise Unfit(why)

    async def apply(self, wanted: Configuration) -> None:
        """Run so. Raises Unfit."""
        before, self._settings, self._since = self._way.since, wanted.settings, self._clock.now()
        self._way.renew()
        if self._pole is None:
            return
        try:
            await self._pole.apply(wanted.settings, NOTHING if before is None else Echo(taken=True, came_back=True))
        except Exception as error:
            log.exception("the configuration cannot be applied")
            raise Unfit(f"it cannot be applied: {error!r}") from error

    def proven_since(self) -> float | None:
        """Return since when the way to the broker and back is proven; None: it is not."""
        return None if self._pole is None or self._uplink.astray else self._way.since

    def healthy(self) -> frozenset[str]:
        """Name the devices that give values."""
        return self._pole.healthy() if self._pole else frozenset()

    def good_since(self, at: float) -> frozenset[str]:
        """Name the devices that have given a value since."""
        return frozenset(
            name
            for name, health in self._health.items()
            if health.last_good is not None and health.last_good >= at * NS and not health.lapse
        )

    def tell(self, verdict: Verdict) -> None:
        """Log what became of a document, and tell it upstream: the report the last, and a dataset all of it."""
        told = log.info if verdict.code < Code.TOO_BIG else log.warning
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

    def _compose(self, own: str, documents: Mapping[str, Document]) -> Configuration:
        return compose(self._path, own, documents, self._overrides())

    def _overrides(self) -> list[Override]:
        try:
            return live(self._folder, self._clock)
        except ValueError as error:
            log.warning(str(error))
            return []

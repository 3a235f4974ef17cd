"""The wiring: the one file that knows all the others. Settings in, one task group, out again in order.

The end has an order too: those who collect stop first, then open packs are sealed, then what the uplink takes at
once is sent, and what is left is on the disk before the process ends.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import structlog

from drivers.contract import Driver
from gateway import shares
from gateway.config.settings import DatasetSettings, Settings
from gateway.host import release, status_socket
from gateway.host.clock import Clock
from gateway.host.notify import notify, notify_reloading, runtime_folder, watchdog_s
from gateway.jobs.forward import Forward
from gateway.jobs.keep_time import keep_time
from gateway.jobs.pack import Packer
from gateway.jobs.pole_state import VERSION, PoleState
from gateway.jobs.progress import progress_of
from gateway.jobs.prove_release import prove_release
from gateway.jobs.replay import Replay
from gateway.jobs.report import Report, last_will
from gateway.jobs.signs import Certificate, Signs
from gateway.jobs.tell_alarms import tell_alarms
from gateway.jobs.tell_losses import tell_losses
from gateway.jobs.tell_watchdog import Watched, tell_watchdog
from gateway.link.backfill import Backfill, Pace
from gateway.link.broker import Refused, UplinkDown
from gateway.link.mqtt_link import Link
from gateway.link.uplink import Uplink
from gateway.remote.change import Change
from gateway.remote.config_folder import kept_from_others
from gateway.sensors.account import Account
from gateway.sensors.crew import Crew
from gateway.store.buffer import Buffer
from gateway.store.journal import Journal
from gateway.store.pack_sql import SqlError
from gateway.words.catalogue import Catalogue
from gateway.words.health import DeviceHealth
from gateway.words.messages import Details
from gateway.words.reading import Pack, Reading
from gateway.words.standing import Echo
from gateway.words.timeline import Timeline

# The end takes 5 s at the most, whatever the broker and bluetoothd do; radio and mqtt_link take 1 s each
LAST_SENDS_S = 1.5
GOODBYE_S = 0.5
NS = 1_000_000_000

Job = Coroutine[Any, Any, None]
log = structlog.get_logger()


async def run(path: Path, settings: Settings) -> None:
    """Run the gateway until SIGTERM or SIGINT. Raises BufferUnusable, InUse.

    Args:
        path: the pole's own file, which is read anew upon SIGHUP.
        settings: what it says.
    """
    stop, reload = asyncio.Event(), asyncio.Event()
    # In a terminal a SIGHUP says that it is gone
    meaning = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: stop if os.isatty(0) else reload}
    for number, event in meaning.items():
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    clock = Clock()
    while not stop.is_set():
        with kept_from_others(settings.root.state):
            await _run_until(stop, reload, path, settings, clock)


async def _run_until(stop: asyncio.Event, reload: asyncio.Event, path: Path, settings: Settings, clock: Clock) -> None:
    """Run until ``stop``, or until a change of the configuration asks for a start anew."""
    change = Change(path, settings, clock)
    settings = await change.start()
    journal = Journal(runtime_folder(), clock.boot)
    buffer = _buffer(settings, clock, journal)
    await buffer.open(clock.boot, clock.now(), clock.utc_offset() if clock.synchronised() else None)
    pole = Pole(settings, clock, buffer, journal, change)
    await pole.go_on()  # to its end, before anything is sealed: a pack ends the readings before it in the journal
    try:
        await pole.run(stop, reload)
    finally:
        pole.packer.seal_all()
        try:
            await (buffer.close() if change.again.is_set() else buffer.end())
        except (SqlError, OSError) as error:
            log.critical("the buffer cannot be written: packs are lost", why=str(error), packs=buffer.depth.packs)
        else:
            log.info("stopped", packs_kept=buffer.depth.packs)
        journal.close()


class Pole:
    """All the parts of one run, wired. Another configuration is tried on it while it runs.

    A device keeps its health for as long as the gateway runs, also where its section changes: its counts are since the
    start, and what was wrong with it is wrong until it gives values again.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        buffer: Buffer,
        journal: Journal,
        change: Change,
    ) -> None:
        """Make the parts; nothing runs yet."""
        root = settings.root
        topic = f"{root.uplink.prefix}/{root.pole.id}"
        self._settings = settings
        self._clock = clock
        self._buffer = buffer
        self._journal = journal
        self._ever: dict[str, DeviceHealth] = {}
        self._health: dict[str, DeviceHealth] = {}
        self._take_health()
        self._given_up = release.look().given_up
        self._changes = change
        best, *others = shares.brokers(settings)
        self._uplink = Uplink(best, last_will(topic), others)
        self._backfill = Backfill(Pace(*root.uplink.pace))
        self._forward = Forward(
            buffer,
            self._uplink,
            topic=lambda dataset: f"{topic}/data/{dataset}",
            payload=Timeline(lambda: buffer.epochs).payload,
            backfill=self._backfill,
        )
        self._replay = Replay(buffer, self._uplink, topic=topic, send=self._forward.send_once)
        self._topic = topic
        self._catalogue = Catalogue(
            root.pole.id,
            shares.sources(settings),
            shares.licences(settings),
            site=shares.site(settings),
            prefix=root.uplink.prefix,
        )
        self._state = PoleState(
            clock=clock,
            uplink=self._uplink,
            buffer=buffer,
            journal=journal,
            health=self._health,
            refused=self._refused,
            standing=self._changes.standing,
            given_up=self._given_up,
        )
        self._signs = Signs(
            clock,
            self._health,
            lambda: buffer.trouble,
            lambda: buffer.mended,
            dead=lambda: buffer.depth.set_aside,
            refused=lambda: self._forward.refused,
            certificate=self._certificate,
            verdict=lambda: self._changes.verdict,
        )
        self._report = Report(
            self._uplink, self._catalogue, topic=topic, state=self._state.now, matters=self._state.what_matters
        )
        self.packer = Packer(
            root.pole.id,
            epoch=buffer.epoch,
            after=buffer.after,
            rhythm=self._rhythm,
            catalogue=self._catalogue,
            clock=clock,
            put=buffer.put,
            may_wait=lambda: not self._uplink.up,
        )
        buffer.before_commit = self._seal_for_commit
        change.lead(self, self._uplink, self._health, topic=topic, echo=self._report.echo, keep=self._accept)

    async def go_on(self) -> None:
        """Take up what the run before had accepted, where a journal kept it."""
        left = self._journal.open()
        await self._buffer.restore(left, self._within)
        for reading in left.readings:
            self._catalogue.remember(reading.device, reading.channels, left.units.get(reading.device, {}))
            self.packer.keep(reading)
        if self._journal.trouble:
            log.info("a crash may lose what is not on the disk yet", why=self._journal.trouble)
        elif left.packs or left.readings:
            log.info("the run before was not ended in order", packs=len(left.packs), readings=len(left.readings))

    async def run(self, stop: asyncio.Event, reload: asyncio.Event) -> None:
        """Run all jobs until ``stop``, then end them in order; read the settings anew whenever ``reload`` is set."""
        async with asyncio.TaskGroup() as group:
            carriers = [group.create_task(job) for job in self._carriers()]
            self._crew = Crew(group.create_task, self._account)
            self._crew.enlist(shares.roster(self._settings))
            reloading = group.create_task(self._changes.run(reload))
            log.info("started", version=VERSION, epoch=self._buffer.epoch, devices=len(self._settings.devices))
            notify(f"READY=1\nSTATUS=running{self._warned_of_release()}")
            await _first_of(stop, self._changes.again)
            if stop.is_set():
                notify("STOPPING=1")
            else:
                notify_reloading()
            await _end([reloading])
            await self._crew.end()
            self.packer.seal_all()
            await self._last_sends()
            with contextlib.suppress(SqlError, OSError):  # it is tried again, and told, at the end
                await self._buffer.barrier()
            await _end(carriers)
        await self._say_goodbye()

    async def apply(self, configuration: Settings, before: Echo) -> None:
        """Run that from now on; what is equal is not touched. See :class:`gateway.remote.change.Changeable`."""
        old, new = self._settings, configuration
        roster = shares.roster(new)
        await self._crew.dismiss(roster)
        self.packer.seal_those(shares.touched(old, new))  # while the catalogue still knows what they hold
        self._settings = new
        self._catalogue.change(shares.sources(new), shares.licences(new), shares.site(new))
        self._buffer.change(shares.terms(new))
        self._take_health()
        self._backfill.change(Pace(*new.root.uplink.pace))
        if shares.brokers(new) != shares.brokers(old):
            self._uplink.change(shares.brokers(new), self._proof(before) if before.taken else None)
        self._crew.enlist(roster)

    def healthy(self) -> frozenset[str]:
        """Name the devices whose last look gave values."""
        return frozenset(name for name, health in self._health.items() if health.good and not health.lapse)

    def _proof(self, before: Echo) -> Callable[[Link], Awaitable[str]]:
        async def lacks(link: Link) -> str:
            echo = await self._report.echo(link)
            return echo.why if echo.falls_short_of(before) else ""

        return lacks

    def _take_health(self) -> None:
        for device in self._settings.devices:
            self._ever.setdefault(device.id, DeviceHealth())
        self._health.clear()
        self._health.update((device.id, self._ever[device.id]) for device in self._settings.devices)

    def _account(self, device: Driver) -> Account:
        health = self._health[device.id]
        health.latest.clear()  # it may be another kind of device by now
        return Account(device, health=health, now=self._clock.now, note=self._note, keep=self._accept)

    def _note(self, device: str, channels: Iterable[str]) -> None:
        self._catalogue.note(device, channels)
        self._journal.describe(device, self._catalogue.units(device))

    def _carriers(self) -> list[Job]:
        jobs = [self._buffer.run(), self._uplink.run(), self._forward.run(), self._report.run()]
        jobs += [
            self._buffer.verify(),
            self._replay.run(),
            tell_losses(self._buffer, self._uplink, f"{self._topic}/event/lost"),
            tell_alarms(
                self._uplink,
                f"{self._topic}/event",
                look=self._signs.look,
                clock=self._clock,
                epoch=self._buffer.epoch,
            ),
            keep_time(self._clock, self._buffer.know_utc),
        ]
        if folder := runtime_folder():
            jobs.append(status_socket.serve(folder, self._told_at_the_pole))
        period, unproved = watchdog_s(), release.is_proved() is False
        if period or unproved:
            jobs.append(self._buffer.answer())
        if period:
            jobs.append(tell_watchdog(self._progress, notify, period))
        if unproved:
            jobs.append(prove_release(self._progress, release.prove))
        return jobs

    def _warned_of_release(self) -> str:
        """Log that a newer release went back to this one, and return the same for the status."""
        if (newer := self._given_up) is None:
            return ""
        log.error("a newer release was given up; this is the one before", given_up=newer.name, why=newer.why)
        return f"; release {newer.name} was given up: polegate version"

    def _progress(self) -> list[Watched]:
        return progress_of(self._settings.devices, self._health, self._buffer, self._uplink, self._crew.radio)

    def _told_at_the_pole(self) -> dict[str, Any]:
        changes = self._changes
        details = Details(
            pole=self._settings.root.pole.id,
            units={name: self._catalogue.units(name) for name in self._health},
            signs=self._signs.told(),
            reported=changes.reported(),
            drift=changes.drift(),
        )
        return self._state.detailed(details)

    def _refused(self) -> dict[str, str]:
        return {dataset: refusal.text for dataset, refusal in self._forward.refused.items()}

    def _certificate(self) -> Certificate:
        return Certificate(self._uplink.state["certificate_expires"], self._uplink.certificate_trouble)

    def _rhythm(self, dataset: str) -> DatasetSettings:
        return self._settings.dataset(dataset)

    def _seal_for_commit(self) -> None:
        if not self._uplink.up:  # all that waits goes to the disk in one commit, not soon after in another
            self.packer.seal_all()

    def _accept(self, reading: Reading) -> None:
        self._journal.accept(reading)
        self.packer.keep(reading)

    def _within(self, pack: Pack) -> float:
        age = (self._clock.now() - pack.taken) / NS
        return max(0.0, self._settings.dataset(pack.dataset).commit_within - age)

    async def _last_sends(self) -> None:
        if not self._uplink.up:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_SENDS_S):
                await self._buffer.empty()

    async def _say_goodbye(self) -> None:
        if not self._uplink.up:
            return
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._report.tell_state(await self._uplink.link(), "stopped")
        except (TimeoutError, UplinkDown, Refused) as error:
            log.warning("could not tell the broker that the gateway stops", why=str(error))
        await self._uplink.close()


def _buffer(settings: Settings, clock: Clock, journal: Journal) -> Buffer:
    options = settings.root.buffer
    history_ns = options.history_s * NS
    return Buffer(
        options.path,
        options.max_bytes,
        terms=shares.terms(settings),
        journal=journal,
        disk_first=options.durability == "disk-first",
        forget_before=(lambda: clock.now() - history_ns) if history_ns else None,
    )


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

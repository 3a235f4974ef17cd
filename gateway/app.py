"""The wiring: the one file that knows all the others. Settings in, one task group, out again in order.

The end has an order too: those who collect stop first, then open packs are sealed, then what the uplink takes at
once is sent, and what is left is on the disk before the process ends.
"""

import asyncio
import contextlib
import math
import os
import signal
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import structlog

from drivers.contract import Advertised, Asked, Driver, OnPort, Streamed
from gateway import status_socket
from gateway.account import QUALITY, Account
from gateway.backfill import Backfill, Pace
from gateway.buffer import LONGEST_ANSWER_S, Buffer
from gateway.catalogue import Catalogue, Site
from gateway.clock import Clock
from gateway.forward import Forward
from gateway.health import DeviceHealth
from gateway.journal import Journal
from gateway.keep_time import keep_time
from gateway.line import Line, LinePort, Tap, Wire
from gateway.listen import Ear
from gateway.mqtt_link import Broker, Refused, UplinkDown
from gateway.notify import notify, watchdog_s
from gateway.pack import Packer
from gateway.pack_room import Terms
from gateway.pack_sql import SqlError
from gateway.pole_state import VERSION, PoleState
from gateway.poll import LONGEST_PAUSE_S, poll
from gateway.reading import Pack, Reading
from gateway.replay import Replay
from gateway.report import Report, last_will
from gateway.serial_wire import SerialWire
from gateway.settings import Settings
from gateway.signs import Certificate, Signs
from gateway.tcp_wire import TcpWire
from gateway.tell_alarms import tell_alarms
from gateway.tell_losses import tell_losses
from gateway.tell_watchdog import Watched, tell_watchdog
from gateway.timeline import Timeline
from gateway.tls import TlsFiles
from gateway.uplink import LONGEST_ROUND_S, Uplink

# The end takes 5 s at the most, whatever the broker and bluetoothd do; radio and mqtt_link take 1 s each
LAST_SENDS_S = 1.5
GOODBYE_S = 0.5
LONGEST_LOOK_S = 600.0  # a driver may wait for its device for minutes: a fan runs before the first sample
NS = 1_000_000_000

Job = Coroutine[Any, Any, None]
log = structlog.get_logger()


async def run(settings: Settings) -> None:
    """Run the gateway until SIGTERM or SIGINT. Raises BufferUnusable."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock = Clock()
    journal = Journal(runtime_folder(), clock.boot)
    buffer = _buffer(settings, clock, journal)
    await buffer.open(clock.boot, clock.now(), clock.utc_offset() if clock.synchronised() else None)
    pole = Pole(settings, clock, buffer, journal)
    try:
        await pole.go_on()
        await pole.run(stop)
    finally:
        pole.packer.seal_all()
        try:
            await buffer.end()
        except (SqlError, OSError) as error:
            log.critical("the buffer cannot be written: packs are lost", why=str(error), packs=buffer.depth.packs)
        else:
            log.info("stopped", packs_kept=buffer.depth.packs)


class Pole:
    """All the parts of one run, wired."""

    def __init__(self, settings: Settings, clock: Clock, buffer: Buffer, journal: Journal) -> None:
        """Make the parts; nothing runs yet."""
        root = settings.root
        topic = f"{root.uplink.prefix}/{root.pole.id}"
        self._settings = settings
        self._clock = clock
        self._buffer = buffer
        self._journal = journal
        self._health = {device.id: DeviceHealth() for device in settings.devices}
        best, *others = brokers_of(settings)
        self._uplink = Uplink(best, last_will(topic), others)
        self._forward = Forward(
            buffer,
            self._uplink,
            topic=lambda dataset: f"{topic}/data/{dataset}",
            payload=Timeline(lambda: buffer.epochs).payload,
            backfill=Backfill(Pace(*root.uplink.pace)),
        )
        self._replay = Replay(buffer, self._uplink, topic=topic, send=self._forward.send_once)
        self._topic = topic
        terms = {name: _terms(settings, name) for name in {device.home for device in settings.devices}}
        self._catalogue = Catalogue(
            root.pole.id, settings.devices, terms, site=_site(settings), prefix=root.uplink.prefix
        )
        self._state = PoleState(
            clock=clock, uplink=self._uplink, buffer=buffer, journal=journal, health=self._health, refused=self._refused
        )
        self._signs = Signs(
            clock,
            self._health,
            lambda: buffer.trouble,
            lambda: buffer.mended,
            dead=lambda: buffer.depth.set_aside,
            refused=lambda: self._forward.refused,
            certificate=self._certificate,
        )
        self._report = Report(
            self._uplink, self._catalogue, topic=topic, state=self._state.now, matters=self._state.what_matters
        )
        self.packer = Packer(
            root.pole.id,
            epoch=buffer.epoch,
            after=buffer.after,
            rhythm=settings.dataset,
            catalogue=self._catalogue,
            clock=clock,
            put=buffer.put,
            may_wait=lambda: not self._uplink.up,
        )
        buffer.before_commit = self._seal_for_commit
        self._radio_progress: Callable[[], list[Watched]] = list

    async def go_on(self) -> None:
        """Take up what the run before had accepted, where a journal kept it."""
        left = self._journal.open()
        await self._buffer.restore(left, self._within)
        for reading in left.readings:
            if reading.device in self._health:  # else it was taken out of the file; its readings go out without units
                self._catalogue.note(reading.device, (name for name in reading.values if QUALITY not in name))
            self.packer.keep(reading)
        if self._journal.trouble:
            log.info("a crash may lose what is not on the disk yet", why=self._journal.trouble)
        elif left.packs or left.readings:
            log.info("the run before was not ended in order", packs=len(left.packs), readings=len(left.readings))

    async def run(self, stop: asyncio.Event) -> None:
        """Run all jobs until ``stop``, then end them in order."""
        async with asyncio.TaskGroup() as group:
            carriers = [group.create_task(job) for job in self._carriers()]
            collectors = [group.create_task(job) for job in self._collectors()]
            log.info("started", version=VERSION, epoch=self._buffer.epoch, devices=len(self._settings.devices))
            notify("READY=1\nSTATUS=running")
            await stop.wait()
            notify("STOPPING=1")
            await _end(collectors)
            self.packer.seal_all()
            await self._last_sends()
            with contextlib.suppress(SqlError, OSError):  # it is tried again, and told, at the end
                await self._buffer.barrier()
            await _end(carriers)
        await self._say_goodbye()

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
            jobs.append(status_socket.serve(folder, self._state.detailed))
        if period := watchdog_s():
            jobs += [self._buffer.answer(), tell_watchdog(self._progress, notify, period)]
        return jobs

    def _progress(self) -> list[Watched]:
        """Tell how far each job is. What waits for the broker by its nature is not here."""
        devices = self._settings.devices
        return [
            Watched("buffer", self._buffer.answers, LONGEST_ANSWER_S),
            Watched("uplink", self._uplink.rounds, LONGEST_ROUND_S),
            *self._radio_progress(),
            *(Watched(f"device {each.id}", self._health[each.id].looks, _longest(each, devices)) for each in devices),
        ]

    def _collectors(self) -> list[Job]:
        lines = {
            device.port: line_of(self._settings, device.port)
            for device in self._settings.devices
            if isinstance(device, OnPort)
        }
        jobs: list[Job] = [line.run() for line in lines.values()]
        heard = []
        for device in self._settings.devices:
            account = Account(
                device,
                health=self._health[device.id],
                now=self._clock.now,
                note=self._catalogue.note,
                keep=self._accept,
            )
            if isinstance(device, Asked):
                port = LinePort(lines[device.port], device.place(), device.timeout)
                jobs.append(poll(device, port, account))
            elif isinstance(device, Streamed):
                ear = Ear(device, account)
                lines[device.port].stream(ear.seek, device.LONGEST, ear.frame)
                jobs.append(ear.listen(lines[device.port].trouble))
            elif isinstance(device, Advertised):
                heard.append((device.address, Ear(device, account)))
        return jobs + (self._radio_jobs(heard) if heard else [])

    def _refused(self) -> dict[str, str]:
        return {dataset: refusal.text for dataset, refusal in self._forward.refused.items()}

    def _certificate(self) -> Certificate:
        return Certificate(self._uplink.state["certificate_expires"], self._uplink.certificate_trouble)

    def _seal_for_commit(self) -> None:
        if not self._uplink.up:  # all that waits goes to the disk in one commit, not soon after in another
            self.packer.seal_all()

    def _accept(self, reading: Reading) -> None:
        self._journal.accept(reading)
        self.packer.keep(reading)

    def _within(self, pack: Pack) -> float:
        age = (self._clock.now() - pack.taken) / NS
        return max(0.0, self._settings.dataset(pack.dataset).commit_within - age)

    def _radio_jobs(self, heard: list[tuple[str, Ear]]) -> list[Job]:
        from gateway import radio as door  # noqa: PLC0415  # bleak takes 8 MB that a pole without Bluetooth keeps

        radio = door.Radio(self._settings.root.bluetooth.adapter)
        self._radio_progress = lambda: [Watched("bluetooth", radio.rounds, door.LONGEST_ROUND_S)]
        for address, ear in heard:
            radio.hear(address, ear.advert)
        return [radio.run(), *(ear.listen(radio.trouble) for _, ear in heard)]

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


def runtime_folder() -> Path | None:
    """Return the folder that systemd gives to this service alone, in RAM; None where there is none."""
    folder = os.environ.get("RUNTIME_DIRECTORY")
    return Path(folder.split(":")[0]) if folder else None


def line_of(settings: Settings, name: str, tap: Tap | None = None) -> Line:
    """Make the line of a [port] section. ``tap`` sees all bytes."""
    port = settings.root.port[name]
    wire: Wire = TcpWire(*port.tcp) if port.tcp else SerialWire(port.path, settings.line(name))
    return Line(name, wire, tap=tap)


def brokers_of(settings: Settings) -> list[Broker]:
    """Tell where the brokers are and how to get in, the best first."""
    uplink = settings.root.uplink
    files = TlsFiles(ca=uplink.ca_file, cert=uplink.cert_file, key=uplink.key_file)
    return [
        Broker(
            host=broker.host,
            port=broker.port,
            tls=files if broker.tls else None,
            path=broker.path,
            client=settings.root.pole.id,
            username=uplink.username or settings.root.pole.id,
            password_file=uplink.password_file,
        )
        for broker in uplink.brokers
    ]


def _buffer(settings: Settings, clock: Clock, journal: Journal) -> Buffer:
    options = settings.root.buffer
    names = {*settings.root.dataset, *(device.home for device in settings.devices)}
    terms = {name: settings.dataset(name) for name in names}
    history_ns = options.history_s * NS
    return Buffer(
        options.path,
        options.max_bytes,
        terms={name: Terms(dataset.priority, dataset.when_full) for name, dataset in terms.items()},
        journal=journal,
        disk_first=options.durability == "disk-first",
        forget_before=(lambda: clock.now() + clock.utc_offset() - history_ns) if history_ns else None,
    )


def _site(settings: Settings) -> Site:
    pole = settings.root.pole
    return Site(pole.description, pole.latitude, pole.longitude)


def _terms(settings: Settings, dataset: str) -> dict[str, str]:
    terms = settings.dataset(dataset)
    facts = {"owner": terms.owner, "licence": terms.licence, "access": terms.access}
    return {key: fact for key, fact in facts.items() if fact}


def _longest(device: Driver, devices: Iterable[Driver]) -> float:
    """Return the seconds in which a look at a device must have come to an end, whatever became of it."""
    if isinstance(device, Streamed | Advertised):
        return 3 * device.SILENT_AFTER_S + LONGEST_LOOK_S
    if not isinstance(device, Asked):
        return math.inf
    turns = sum(5.0 + 10 * other.timeout for other in devices if isinstance(other, Asked) and other.port == device.port)
    return device.every + LONGEST_PAUSE_S + turns + LONGEST_LOOK_S


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:  # a pole without devices has no collectors
        await asyncio.wait(tasks)

"""The wiring: the one file that knows all the others. Settings in, one task group, out again in order.

The end has an order too: those who collect stop first, then open packs are sealed, then what the uplink takes at
once is sent, and what is left is on the disk before the process ends.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Hashable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from drivers.contract import Advertised, Asked, OnPort, Streamed
from gateway import status_socket
from gateway.account import QUALITY, Account
from gateway.buffer import Buffer
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.forward import Forward
from gateway.health import DeviceHealth
from gateway.journal import Journal
from gateway.keep_time import keep_time
from gateway.line import Line, LinePort, Tap, Wire
from gateway.listen import Ear
from gateway.mqtt_link import Broker, Refused, UplinkDown
from gateway.notify import notify
from gateway.pack import Packer
from gateway.pack_room import Terms
from gateway.pack_sql import SqlError
from gateway.poll import poll
from gateway.reading import Pack, Reading
from gateway.replay import Replay
from gateway.report import Report, last_will
from gateway.serial_wire import SerialWire
from gateway.settings import Settings
from gateway.tcp_wire import TcpWire
from gateway.tell_losses import tell_losses
from gateway.timeline import Timeline
from gateway.uplink import Uplink

# The end takes 5 s at the most, whatever the broker and bluetoothd do; radio and mqtt_link take 1 s each
LAST_SENDS_S = 1.5
GOODBYE_S = 0.5
NS = 1_000_000_000
VERSION = version("polegate")

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
        self._started = clock.now()
        self._health = {device.id: DeviceHealth() for device in settings.devices}
        self._uplink = Uplink(brokers_of(settings)[0], last_will(topic))
        self._forward = Forward(
            buffer,
            self._uplink,
            topic=lambda dataset: f"{topic}/data/{dataset}",
            payload=Timeline(lambda: buffer.epochs).payload,
        )
        self._replay = Replay(buffer, self._uplink, topic=topic, send=self._forward.send_once)
        self._topic = topic
        terms = {name: _terms(settings, name) for name in {device.home for device in settings.devices}}
        self._catalogue = Catalogue(root.pole.id, settings.devices, terms)
        self._report = Report(
            self._uplink, self._catalogue, topic=topic, snapshot=self.snapshot, matters=self._what_matters
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
            notify("READY=1")
            await stop.wait()
            notify("STOPPING=1")
            await _end(collectors)
            self.packer.seal_all()
            await self._last_sends()
            with contextlib.suppress(SqlError, OSError):  # it is tried again, and told, at the end
                await self._buffer.barrier()
            await _end(carriers)
        await self._say_goodbye()

    def snapshot(self) -> dict[str, Any]:
        """Tell how the pole is, for the state message and the status socket."""
        now = self._clock.now()
        depth = self._buffer.depth
        return {
            "version": VERSION,
            "boot": self._clock.boot,
            "epoch": self._buffer.epoch,
            "uptime": (now - self._started) // NS,
            "at": round((now + self._clock.utc_offset()) / NS, 3),
            "clock": "synchronised" if self._clock.synchronised() else "unsynchronised",
            "uplink": {"up": self._uplink.up, "trouble": self._uplink.trouble},
            "buffer": {
                "packs": depth.packs,
                "readings": depth.readings,
                "stored": depth.stored,
                "commits": depth.commits,
                "dropped": depth.dropped,
                "dropped_readings": depth.dropped_readings,
                "trouble": self._buffer.trouble,
                "journal": self._journal.trouble or "ok",
                "mended": asdict(self._buffer.mended) if self._buffer.mended else None,
            },
            "devices": {name: _health(health, now) for name, health in self._health.items()},
        }

    def _what_matters(self) -> Hashable:
        buffer = self._buffer
        disk = bool(buffer.depth.dropped), buffer.trouble, buffer.mended, self._journal.trouble
        return disk, tuple(health.lapse for health in self._health.values())

    def _carriers(self) -> list[Job]:
        jobs = [self._buffer.run(), self._uplink.run(), self._forward.run(), self._report.run()]
        jobs += [
            self._buffer.verify(),
            self._replay.run(),
            tell_losses(self._buffer, self._uplink, f"{self._topic}/event/lost"),
            keep_time(self._clock, self._buffer.know_utc),
        ]
        if folder := runtime_folder():
            jobs.append(status_socket.serve(folder, self._detailed))
        return jobs

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
        from gateway.radio import Radio  # noqa: PLC0415  # bleak takes 8 MB that a pole without Bluetooth keeps

        radio = Radio(self._settings.root.bluetooth.adapter)
        for address, ear in heard:
            radio.hear(address, ear.advert)
        return [radio.run(), *(ear.listen(radio.trouble) for _, ear in heard)]

    def _detailed(self) -> dict[str, Any]:
        """Tell the latest values as well: the status socket is for people at the pole."""
        snapshot = self.snapshot()
        for name, health in self._health.items():
            snapshot["devices"][name]["latest"] = health.latest
        return snapshot

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


def brokers_of(settings: Settings) -> list[Broker]:
    """Tell where the brokers are and how to get in, the best first."""
    uplink = settings.root.uplink
    host, port, tls = uplink.broker
    return [
        Broker(
            host=host,
            port=port,
            tls=tls,
            ca_file=uplink.ca_file,
            client=settings.root.pole.id,
            username=uplink.username or settings.root.pole.id,
            password_file=uplink.password_file,
        )
    ]


def _terms(settings: Settings, dataset: str) -> dict[str, str]:
    terms = settings.dataset(dataset)
    facts = {"owner": terms.owner, "licence": terms.licence, "access": terms.access}
    return {key: fact for key, fact in facts.items() if fact}


def _health(health: DeviceHealth, now: int) -> dict[str, Any]:
    return {
        "good": health.good,
        "lost": dict(health.lost),
        "age": None if health.last_good is None else round((now - health.last_good) / NS, 1),
        "trouble": health.trouble,
    }


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

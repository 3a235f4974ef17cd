"""A pole that operators configure over the air: their commands, a real broker, a real gateway, devices that answer.

Two things are not real. The time of day: this gateway holds it for right, whatever the kernel of the machine says. And
the card on which the configuration lies, where a test wants to hold it up.
"""

import asyncio
import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.remote.remote import topic_of
from gateway.remote.verdict import Code
from tests.commands.cli_scene import call
from tests.whole.bench_pole import DATASET, POLE, Bench, bench

MINE = f"pole/{POLE}"
REPORTED, DESIRED = f"pole/1/{POLE}/config/reported", topic_of(MINE, "pole/1")
FENCE = "operator/fence"
REMOTE = '[remote]\nenabled = true\ntrust = "{folder}/trust"\nstate = "{folder}/config"\n'
ROLES = ("root", "fleet", "group", "pole", "command")
COME_S = 30.0
SESSION_S = 3600
EVERY_S = 1.0
MISSED = 1.75  # intervals between two readings where a poll is missing; one may be late
GOOD = '[[device]]\nid = "meter-1"\nevery = 2.0\n'
UNCHANGED = "meter-0", "meter-2", "meter-3"
UNREAL = """\
import os, time
from pathlib import Path
from gateway.host.clock import Clock
Clock.synchronised = lambda _: True
holds, held, goes = (Path("{folder}", name) for name in ("card-holds", "card-held", "card-goes"))
fsync = os.fsync
def sync(file):
    path = Path(os.readlink(f"/proc/self/fd/{{file}}"))
    if holds.exists() and path.is_file() and holds.read_bytes() in path.read_bytes():
        while not goes.exists():
            held.touch()
            time.sleep(0.01)
    fsync(file)
os.fsync = sync
"""


class Card:
    """The one on which the configuration lies; it may take its time."""

    def __init__(self, folder: Path) -> None:
        self._holds, self._held, self._goes = (folder / name for name in ("card-holds", "card-held", "card-goes"))

    def hold(self, text: str) -> None:
        """Have the first file in which that stands wait for the card; to be said before the pole starts."""
        self._holds.write_text(text)

    async def held(self) -> None:
        """Wait until it does."""
        await until(self._held.exists)

    def go(self) -> None:
        """Write all from now on."""
        self._goes.touch()


class Operator:
    """Signs with the commands, publishes, and reads what the pole reports."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self.reports: list[dict[str, Any]] = []
        self._fenced = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="operator", protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.on_connect = self._on_connect
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        session.SessionExpiryInterval = SESSION_S
        self._client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self._client.loop_start()

    def close(self) -> None:
        """Go."""
        self._client.disconnect()
        self._client.loop_stop()

    def provision(self) -> None:
        """Make a key, and put the root of trust on the pole."""
        self._call("keygen", self._path("key"))
        public = self._path("key.pub").read_text().strip()
        roles = "".join(f'[roles.{role}]\nkeys = ["k"]\nthreshold = 1\n' for role in ROLES)
        self._path("root.toml").write_text(f'version = 1\nepoch = 1\n[keys]\nk = "{public}"\n{roles}')
        self._path("trust").mkdir()
        self._sign("root.toml", "trust/root.json")

    def send(
        self, seq: int, settings: str, *, hold_s: int = 1, window_s: int = 10, stream: str = MINE, more: str = ""
    ) -> None:
        """Sign a document and publish it.

        Args:
            seq: its number.
            settings: what it sets.
            hold_s: all must be well for so long before it stays.
            window_s: how long it has for that.
            stream: whose document it is.
            more: what else it says.
        """
        self._path("layer.toml").write_text(settings)
        terms = f"[trial]\nwindow_s = {window_s}\nhold_s = {hold_s}\n"
        self._path("document.toml").write_text(
            f'stream = "{stream}"\nseq = {seq}\nvalid = "1d"\nsettings = "layer.toml"\n{more}{terms}'
        )
        self._sign("document.toml", "signed.json")
        self._client.publish(topic_of(stream, "pole/1"), self._path("signed.json").read_bytes(), qos=1, retain=True)

    async def hears(self, name: str, seq: int) -> dict[str, Any]:
        """Wait for a report with this verdict; that it ended in another way ends the wait."""
        give_up = time.monotonic() + 3 * COME_S
        while time.monotonic() < give_up:
            for report in self.reports:
                last = report.get("last", {})
                if (last.get("name"), last.get("seq")) == (name, seq):
                    return report
                assert last.get("seq") != seq or not Code(last["code"]).result, last
            await asyncio.sleep(0.05)
        raise AssertionError(f"no {name} of {seq}, but {self.reports[-1:]}")

    async def hears_of_trial(self, *, well: bool = False) -> None:
        """Wait for a report that something is tried; ``well``: and that it lacks nothing."""

        def says(trial: dict[str, Any]) -> bool:
            gates = trial.get("gates", {})
            return not well or (gates.get("downlink") and not gates.get("sensors"))

        await until(lambda: any(says(report["trial"]) for report in self.reports if "trial" in report))

    async def hears_that(self, **stands: object) -> None:
        """Wait for a report that the pole's own stream stands so, and that nothing is tried."""

        def says(report: dict[str, Any]) -> bool:
            return "trial" not in report and stands.items() <= report["streams"].get(MINE, {}).items()

        await until(lambda: any(says(report) for report in self.reports), 3 * COME_S)

    def forget(self) -> None:
        """Forget what was heard so far; to be said while the pole cannot report."""
        self._fenced.clear()
        self._client.publish(FENCE, qos=1)
        assert self._fenced.wait(COME_S)
        self.reports.clear()

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        # Again after each restart of a broker; what is retained comes the first time only, so all after that is new
        once = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        client.subscribe([(REPORTED, once), (FENCE, once)])

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == FENCE:
            self._fenced.set()
        else:
            self.reports.append(json.loads(message.payload))

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _sign(self, name: str, out: str) -> None:
        self._call("sign", self._path(name), "--key", self._path("key"), "--out", self._path(out))

    def _call(self, *arguments: object) -> None:
        told = call("fleet", *map(str, arguments))
        assert told.code == 0, told


@contextlib.asynccontextmanager
async def operated(
    folder: Path, prepare: Callable[[Bench], object] = lambda _: None, *, extra: str = ""
) -> AsyncIterator[tuple[Bench, Operator]]:
    """Start a pole that takes documents; ``prepare`` may change its file before, ``extra`` is for the broker's."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(UNREAL.format(folder=folder))
    with mock.patch.dict(os.environ, PYTHONPATH=str(folder / "site")):
        async with _operated(folder, prepare, extra) as both:
            yield both


@contextlib.asynccontextmanager
async def _operated(
    folder: Path, prepare: Callable[[Bench], object], extra: str
) -> AsyncIterator[tuple[Bench, Operator]]:
    async with bench(folder, extra=extra) as b:
        b.daemon.config.write_text(b.daemon.config.read_text() + REMOTE.format(folder=folder))
        prepare(b)
        operator = Operator(folder, b.broker.port)
        try:
            operator.provision()
            b.daemon.start()
            await b.wait(3)
            yield b, operator
        finally:
            operator.close()


def slower(b: Bench) -> None:
    """Have the devices read at a pace that a busy machine keeps, and be waited for as long as a trial takes."""
    text = b.daemon.config.read_text().replace("every = 0.1", f"every = {EVERY_S}")
    b.daemon.config.write_text(f"{text}[reload]\ndevice_within = 9.0\n")


def times(b: Bench, device: str) -> list[float]:
    """Return when a device was read."""
    return sorted({record.time for record in b.heard.records if record.name.startswith(f"{POLE}/{device}/")})


async def all_is_well(b: Bench, unchanged: tuple[str, ...] = UNCHANGED, longest: float = MISSED) -> None:
    """Prove that the devices nobody touched missed nothing, and that nothing is lost."""
    packs = len(b.heard.packs[DATASET])
    await b.wait(packs + 10)
    await asyncio.to_thread(b.daemon.stop)
    assert not b.heard.holes()
    for device in unchanged:
        read = times(b, device)
        assert max(later - earlier for earlier, later in itertools.pairwise(read)) < longest * EVERY_S, device


def transitions(b: Bench) -> list[tuple[Any, ...]]:
    """Return what became of documents, in order of time: stream, number and verdict."""
    rows: dict[float, dict[str, Any]] = {}
    for record in b.heard.records:
        if record.name.startswith(f"{POLE}/_configuration/"):
            rows.setdefault(record.time, {})[record.name.rsplit("/", 1)[1]] = record.value
    return [(row["stream"], row["seq"], row["verdict"]) for _, row in sorted(rows.items())]


async def until(true: Callable[[], bool], within: float = COME_S) -> None:
    """Wait for something outside this process."""
    async with asyncio.timeout(within):
        while True:
            if await asyncio.to_thread(true):
                return
            await asyncio.sleep(0.02)

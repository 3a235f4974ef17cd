"""A pole that operators configure over the air: their commands, a real broker, a real gateway, devices that answer.

Only the time of day is not real: this gateway holds it for right, whatever the kernel of the machine says.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway.remote.verdict import Code
from tests.commands.cli_scene import call
from tests.whole.bench_pole import POLE, Bench, bench

REPORTED, DESIRED = f"pole/1/{POLE}/config/reported", f"pole/1/{POLE}/config/desired"
REMOTE = '[remote]\nenabled = true\ntrust = "{folder}/trust"\nstate = "{folder}/config"\n'
ROLES = ("root", "fleet", "group", "pole", "command")
COME_S = 30.0
RIGHT = "from gateway.host.clock import Clock\nClock.synchronised = lambda _: True\n"


class Operator:
    """Signs with the commands, publishes, and reads what the pole reports."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self.reports: list[dict[str, Any]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="operator", protocol=mqtt.MQTTv5)
        self._client.on_message = lambda _c, _d, message: self.reports.append(json.loads(message.payload))
        self._client.on_connect = lambda client, *_: client.subscribe(REPORTED, qos=1)  # after each restart of a broker
        self._client.connect("127.0.0.1", port)
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

    def send(self, seq: int, settings: str, *, hold_s: int = 1) -> None:
        """Sign a document and publish it; all must be well for so long before it stays."""
        self._path("layer.toml").write_text(settings)
        terms = f"[trial]\nwindow_s = 10\nhold_s = {hold_s}\n"
        self._path("document.toml").write_text(
            f'stream = "pole/{POLE}"\nseq = {seq}\nvalid = "1d"\nsettings = "layer.toml"\n{terms}'
        )
        self._sign("document.toml", f"{seq}.json")
        self._client.publish(DESIRED, self._path(f"{seq}.json").read_bytes(), qos=1, retain=True)

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

    async def hears_of_trial(self) -> None:
        """Wait for a report that something is tried."""
        await until(lambda: any("trial" in report for report in self.reports))

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
    (folder / "site" / "sitecustomize.py").write_text(RIGHT)
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


async def until(true: Callable[[], bool]) -> None:
    """Wait for something outside this process."""
    async with asyncio.timeout(COME_S):
        while True:
            if await asyncio.to_thread(true):
                return
            await asyncio.sleep(0.02)

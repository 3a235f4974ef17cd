"""A document that an operator signs changes a running pole; one that the pole does worse with is taken back by itself.

The whole: the commands of the operator, a real broker, a real gateway with devices that answer. Only the time of day is
not real: this gateway holds it for right, whatever the kernel of the machine says.
"""

import asyncio
import contextlib
import itertools
import json
import os
import statistics
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from hil.broker import free_port
from tests.bench_pole import DATASET, POLE, Bench, bench
from tests.cli_scene import call

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
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(REPORTED, qos=1)
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

    def send(self, seq: int, settings: str) -> None:
        """Sign a document and publish it."""
        self._path("layer.toml").write_text(settings)
        terms = "[trial]\nwindow_s = 10\nhold_s = 1\n"
        self._path("document.toml").write_text(
            f'stream = "pole/{POLE}"\nseq = {seq}\nvalid = "1d"\nsettings = "layer.toml"\n{terms}'
        )
        self._sign("document.toml", f"{seq}.json")
        self._client.publish(DESIRED, self._path(f"{seq}.json").read_bytes(), qos=1, retain=True)

    async def hears(self, name: str, seq: int) -> dict[str, Any]:
        """Wait for a report with this verdict."""
        async with asyncio.timeout(3 * COME_S):
            while True:
                for report in self.reports:
                    last = report.get("last", {})
                    if (last.get("name"), last.get("seq")) == (name, seq):
                        return report
                await asyncio.sleep(0.05)

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _sign(self, name: str, out: str) -> None:
        self._call("sign", self._path(name), "--key", self._path("key"), "--out", self._path(out))

    def _call(self, *arguments: object) -> None:
        told = call("fleet", *map(str, arguments))
        assert told.code == 0, told


@contextlib.asynccontextmanager
async def operated(folder: Path) -> AsyncIterator[tuple[Bench, Operator]]:
    """Start a pole that takes documents."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(RIGHT)
    with mock.patch.dict(os.environ, PYTHONPATH=str(folder / "site")):
        async with _operated(folder) as both:
            yield both


@contextlib.asynccontextmanager
async def _operated(folder: Path) -> AsyncIterator[tuple[Bench, Operator]]:
    async with bench(folder) as b:
        b.daemon.config.write_text(b.daemon.config.read_text() + REMOTE.format(folder=folder))
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


def every(b: Bench, device: str) -> float:
    """Return the median of the seconds between the last readings of a device."""
    times = sorted(record.time for record in b.heard.records if record.name == f"{POLE}/{device}/voltage_l1")[-9:]
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(times))


def test_a_signed_document_changes_one_device_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (b, operator):
            operator.send(1, '[[device]]\nid = "meter-1"\nevery = 0.4\n')
            report = await operator.hears("COMMITTED", 1)
            assert report["streams"][f"pole/{POLE}"]["active_seq"] == 1
            with mock.patch.dict(os.environ, RUNTIME_DIRECTORY=str(b.daemon.runtime)):
                asked = await asyncio.to_thread(call, "doctor", "--config", str(b.daemon.config))
            assert asked.code == 0
            assert f"ok    configuration: pole/{POLE} seq 1 is in force\n" in asked.out
            assert f'[[device]] "meter-1": "every" is SHADOWED: pole/{POLE} seq 1 sets 0.4; to keep yours' in asked.out
            packs = len(b.heard.packs[DATASET])
            await b.wait(packs + 20)
            assert every(b, "meter-1") == pytest.approx(0.4, abs=0.1)
            assert every(b, "meter-2") == pytest.approx(0.1, abs=0.05)
            await asyncio.to_thread(b.daemon.stop)
            assert not b.heard.holes()
            assert len({epoch for epoch, _ in b.heard.packs[DATASET]}) == 1
            b.daemon.start()  # what is in force stays so
            packs = len(b.heard.packs[DATASET])
            await b.wait(packs + 30)
            assert every(b, "meter-1") == pytest.approx(0.4, abs=0.1)

    asyncio.run(main())


def test_who_may_not_sign_changes_nothing_and_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (_, operator):
            (tmp_path / "key").rename(tmp_path / "old")
            operator._call("keygen", tmp_path / "key")  # noqa: SLF001  # a key that no root names
            operator.send(1, '[[device]]\nid = "meter-1"\nevery = 0.4\n')
            await operator.hears("SIG", 0)
            assert all(not report["streams"].get(f"pole/{POLE}", {}).get("active_seq") for report in operator.reports)

    asyncio.run(main())


def transitions(b: Bench) -> list[tuple[Any, ...]]:
    """Return what became of documents, in order of time: stream, number and verdict."""
    rows: dict[float, dict[str, Any]] = {}
    for record in b.heard.records:
        if record.name.startswith(f"{POLE}/_configuration/"):
            rows.setdefault(record.time, {})[record.name.rsplit("/", 1)[1]] = record.value
    return [(row["stream"], row["seq"], row["verdict"]) for _, row in sorted(rows.items())]


def test_what_became_of_a_change_while_the_broker_was_away_comes_afterwards_once_and_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (b, operator):
            mine = f"pole/{POLE}"
            operator.send(1, '[[device]]\nid = "meter-1"\nevery = 0.4\n')
            await until(lambda: any("trial" in report for report in operator.reports))
            await until(lambda: transitions(b) == [(mine, 1, "OK")])
            b.relay.cut()
            for _ in range(3):  # twice in the trial, and once when it was just taken back
                b.daemon.kill()
                b.daemon.start()
                await until(lambda: b.daemon.status() is not None)
            assert transitions(b) == [(mine, 1, "OK")]
            b.relay.restore()
            # The broker has the document still, and gives it again on the new link
            await until(lambda: (mine, 0, "TOMBSTONED") in transitions(b) and not b.heard.holes())
            assert transitions(b) == [(mine, 1, "OK"), (mine, 1, "RB_CRASHLOOP"), (mine, 0, "TOMBSTONED")]
            described = {each["polegate:name"] for each in b.heard.catalogues["configuration"]["properties"].values()}
            assert described == {record.name for record in b.heard.records if "/_configuration/" in record.name}

    asyncio.run(main())


@pytest.mark.soak
def test_a_document_that_takes_the_broker_away_is_taken_back_and_no_reading_is_lost(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (b, operator):
            operator.send(1, f'[uplink]\nurl = "mqtt://127.0.0.1:{free_port()}"\n')
            await operator.hears("RB_UPSTREAM", 1)
            packs = len(b.heard.packs[DATASET])
            await b.wait(packs + 10)
            operator.send(2, '[[device]]\nid = "meter-1"\nevery = 0.4\n')
            await operator.hears("COMMITTED", 2)
            await asyncio.to_thread(b.daemon.stop)
            assert not b.heard.holes()

    asyncio.run(main())

"""Documents over a real broker: heard, tried, proven by the way there and back, and reported."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.jobs.report import echo
from gateway.link.broker import Broker, Message
from gateway.link.mqtt_link import Link, Version
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import digest
from gateway.remote.envelope import read
from gateway.remote.incoming import Incoming
from gateway.remote.plant import Way
from gateway.remote.prove_way import ProveWay
from gateway.remote.remote import Remote
from gateway.remote.trust_chain import TrustChain
from gateway.remote.verdict import Verdict
from hil.broker import mosquitto
from tests.link.mosquitto_scene import play, until, uplink_to
from tests.remote.cut_scene import Texts, composed
from tests.remote.operator import NOW, POLE, command, document, root

TOPIC = f"pole/1/{POLE}"
DESIRED = f"{TOPIC}/config/desired"
TERMS = {"window_s": 20, "hold_s": 2}
FASTER = 20.0  # than time, so that a window is over in a second
NO_WAY_BACK = "user operator\ntopic readwrite #\npattern write pole/1/%u/#\n"


class Plant:
    """A pole without devices, whose time runs fast."""

    boot = "boot"
    commit: ConfirmedCommit[Texts]
    incoming: Incoming[Texts]
    prover: ProveWay
    remote: Remote[Texts]

    def __init__(self) -> None:
        self.told: list[Verdict] = []
        self.applied: list[Texts] = []

    def now(self) -> float:
        """Count, fast."""
        return time.monotonic() * FASTER

    def utc(self) -> int | None:
        """Tell the time."""
        return NOW + 10

    async def probe(self, wanted: Texts) -> None:
        """Find nothing."""

    async def apply(self, wanted: Texts) -> None:
        """Run so."""
        self.applied.append(wanted)
        if len(self.applied) > 1:
            self.prover.renew()
            self.remote.renew()

    def way(self) -> Way:
        """Ask who proves it."""
        return self.prover.way()

    async def find_way(self) -> None:
        """Ask who proves it."""
        await self.prover.find()

    def well_in(self, wanted: Texts) -> tuple[str, ...]:
        """Name none."""
        del wanted
        return ()

    def healthy(self) -> tuple[str, ...]:
        """Name none."""
        return ()

    def good_since(self, at: float) -> tuple[str, ...]:
        """Name none."""
        del at
        return ()

    def tell(self, verdict: Verdict) -> None:
        """Note it."""
        self.told.append(verdict)


class Operator:
    """Publishes, and hears what the pole reports."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.reports: list[dict[str, Any]] = []

    async def listen(self) -> None:
        """Hear reports."""
        async for received in self.link.hear(f"{TOPIC}/config/reported"):
            self.reports.append(json.loads(received.payload))

    async def publish(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Publish."""
        await self.link.send(Message(topic, payload, retain=retain))

    async def hears(self, name: str, **more: object) -> dict[str, Any]:
        """Wait for a report whose last verdict has a name."""
        while True:
            for report in self.reports:
                last = report.get("last", {})
                if last.get("name") == name and more.items() <= last.items():
                    return report
            await asyncio.sleep(0.02)


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Run a broker, with rules where a test has some."""
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    extra = ""
    if rules := getattr(request, "param", ""):
        (folder / "rules").write_text(rules)
        extra = f"acl_file {folder}/rules"
    running = mosquitto(folder, extra)
    running.start()
    password = tmp_path / "password"
    password.write_text("any")
    yield Broker(host="127.0.0.1", port=running.port, client=POLE, username=POLE, password_file=str(password))
    running.stop()


@contextlib.asynccontextmanager
async def operating(broker: Broker) -> AsyncIterator[Operator]:
    link = Link(
        Broker(
            host=broker.host,
            port=broker.port,
            client="operator",
            username="operator",
            password_file=broker.password_file,
        ),
        will=None,
        version=Version.V5,
    )
    await link.connect()
    operator = Operator(link)
    listening = asyncio.create_task(operator.listen())
    try:
        yield operator
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        await link.close()


@contextlib.asynccontextmanager
async def pole(broker: Broker, folder: Path) -> AsyncIterator[Plant]:
    (folder / "trust").mkdir(exist_ok=True)
    (folder / "trust" / "root.json").write_bytes(root())
    plant = Plant()
    plant.commit = commit = ConfirmedCommit(plant, ConfigFolder(folder / "config"), composed)
    await commit.start("own")
    commit.incoming = plant.incoming = Incoming(plant, commit.in_force, TrustChain(folder / "trust"), agent="1")
    plant.incoming.load()
    async with uplink_to(broker) as uplink:
        plant.prover = ProveWay(uplink, lambda link: echo(link, f"{TOPIC}/state", b"{}"), plant.now)
        plant.remote = Remote(uplink, commit, plant.incoming, topic=TOPIC)
        jobs = [asyncio.create_task(job) for job in (plant.prover.run(), plant.remote.run(), drive(commit))]
        try:
            yield plant
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs)


async def drive(commit: ConfirmedCommit[Texts]) -> None:
    while True:
        await commit.tick()
        await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than once a second."""
    monkeypatch.setattr("gateway.remote.remote.TICK_S", 0.02)
    monkeypatch.setattr("gateway.remote.prove_way.PAUSE_S", 0.02)


def test_a_retained_document_is_tried_and_reported(tmp_path: Path, broker: Broker) -> None:
    async def scene() -> None:
        async with operating(broker) as operator:
            await operator.publish(DESIRED, document("new", trial=TERMS))
            await operator.publish("fleet/1/config/all", document("all", stream="fleet", seq=9, trial=TERMS))
            async with pole(broker, tmp_path) as plant:
                await operator.hears("COMMITTED", stream="fleet")
                report = await operator.hears("COMMITTED", stream=f"pole/{POLE}")
                assert report["streams"]["fleet"]["active_seq"] == 9
                assert report["streams"][f"pole/{POLE}"]["active"] == digest(read(document("new", trial=TERMS)).payload)
                assert "trial" not in report
                assert plant.applied[-1].layers == {"fleet": "all", f"pole/{POLE}": "new"}

    play(scene)


def test_a_link_that_stays_is_proven_anew_after_a_change(tmp_path: Path, broker: Broker) -> None:
    async def scene() -> None:
        async with operating(broker) as operator, pole(broker, tmp_path) as plant:
            await until(lambda: plant.way().back is not None)
            before = plant.way().back
            assert before
            await operator.publish(DESIRED, document("new", trial=TERMS))
            await operator.hears("COMMITTED")
            back = plant.way().back
            assert back
            assert back > before

    play(scene)


@pytest.mark.parametrize("broker", [NO_WAY_BACK], indirect=True)
def test_a_broker_that_gives_nothing_back_proves_nothing(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.jobs.report.ECHO_S", 0.5)

    async def scene() -> None:
        async with operating(broker) as operator, pole(broker, tmp_path) as plant:
            await until(lambda: bool(operator.reports))
            await plant.find_way()
            taken, back, why = plant.way()
            assert (taken is None, back) == (False, None)
            assert "it did not come back" in why

    play(scene)


def test_nothing_is_sent_to_prove_the_way_while_nobody_asks(tmp_path: Path, broker: Broker) -> None:
    async def scene() -> None:
        async with operating(broker) as operator, pole(broker, tmp_path) as plant:
            await until(lambda: bool(operator.reports))
            await plant.incoming.hear("elsewhere", b"")
            await operator.hears("STREAM")
            asked = operator.link.hear(f"{TOPIC}/state")
            came = asyncio.ensure_future(anext(asked))
            await operator.publish(DESIRED, document("new", trial=TERMS))
            assert (await came).payload == b"{}"
            assert not (await came).retain  # else it was there before

    play(scene)


def test_a_trial_is_reported_with_its_gates_and_not_again_because_time_passes(tmp_path: Path, broker: Broker) -> None:
    async def scene() -> None:
        async with operating(broker) as operator, pole(broker, tmp_path) as plant:
            await operator.publish(DESIRED, document("new", trial={**TERMS, "window_s": 2000, "confirm": "server"}))
            proven = {"upstream": True, "downlink": True, "sensors": []}
            await until(lambda: any(report.get("trial", {}).get("gates") == proven for report in operator.reports))
            begun = plant.now()
            await until(lambda: plant.now() > begun + 20)
            trials = [report["trial"] for report in operator.reports if "trial" in report]
            assert 0 < trials[-1]["left_s"] <= 2000
            assert len(trials) < 10  # once for each change of the gates, and for each subscription

    play(scene)


def test_commands_are_obeyed_and_retained_ones_are_not(tmp_path: Path, broker: Broker) -> None:
    async def scene() -> None:
        sent = document("new", trial={**TERMS, "window_s": 2000, "confirm": "server"})
        cancel = command("cancel", digest(read(sent).payload))
        async with operating(broker) as operator:
            await operator.publish(f"{TOPIC}/command/config", cancel)
            async with pole(broker, tmp_path) as plant:
                await operator.hears("RETAINED")
                await operator.publish(DESIRED, sent)
                # By then it has subscribed anew for what it tries
                await until(lambda: operator.reports[-1].get("trial", {}).get("gates", {}).get("downlink"))
                assert operator.reports[-1]["trial"]["sha"] == digest(read(sent).payload)
                await operator.publish(f"{TOPIC}/command/config", cancel, retain=False)
                mine = (
                    f"pole/{POLE}"  # its fate stays; as the last verdict, TOMBSTONED may follow before it is reported
                )
                await until(lambda: operator.reports[-1]["streams"].get(mine, {}).get("fate") == "RB_CANCELLED")
                assert plant.applied[-1].layers == {}

    play(scene)


def test_roots_are_followed_in_whatever_order_they_come(tmp_path: Path, broker: Broker) -> None:
    async def scene() -> None:
        async with operating(broker) as operator:
            for version in (4, 3, 2):
                await operator.publish(f"fleet/1/config/root/{version}", root(version=version))
            async with pole(broker, tmp_path):
                await operator.hears("COMMITTED", stream="root", seq=4)

    play(scene)


def test_a_cleared_document_stays_in_force(tmp_path: Path, broker: Broker) -> None:
    async def scene() -> None:
        async with operating(broker) as operator, pole(broker, tmp_path) as plant:
            await operator.publish(DESIRED, document("new", trial=TERMS))
            await operator.hears("COMMITTED")
            await operator.publish(DESIRED, b"")
            await operator.publish(DESIRED, document("other", seq=2, signers=["x"]), retain=False)  # comes behind it
            await operator.hears("SIG")
            assert plant.applied[-1].layers == {f"pole/{POLE}": "new"}
            assert [verdict.code.name for verdict in plant.told[-2:]] == ["COMMITTED", "SIG"]

    play(scene)

"""Documents over a real broker: heard, tried, proven by the way there and back, and reported."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.link.mqtt_link import Broker, Link, Message, Version
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import digest
from gateway.remote.envelope import read
from gateway.remote.remote import Remote, Way
from gateway.remote.trust_chain import TrustChain
from gateway.remote.verdict import Verdict
from hil.broker import mosquitto
from tests.mosquitto_scene import play, until, uplink_to
from tests.remote.cut_scene import Texts, composed
from tests.remote.operator import NOW, POLE, command, document, root

TOPIC = f"pole/1/{POLE}"
DESIRED = f"{TOPIC}/config/desired"
TERMS = {"window_s": 20, "hold_s": 2}
FASTER = 20.0  # than time, so that a window is over in a second
NO_WAY_BACK = "user operator\ntopic readwrite #\npattern write pole/1/%u/#\n"


class NotedWay(Way):
    """Keeps what it is told."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.notes: list[dict[str, bool]] = []

    def note(self, **what: bool) -> None:
        """Keep it."""
        self.notes.append(what)
        super().note(**what)


class Plant:
    """A pole without devices, whose time runs fast."""

    boot = "boot"
    commit: ConfirmedCommit[Texts]

    def __init__(self) -> None:
        self.way = NotedWay(self.now)
        self.notes = self.way.notes
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
        self.way.renew()

    def proven_since(self) -> float | None:
        """Ask the way."""
        return self.way.since

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
    commit = ConfirmedCommit(
        plant, ConfigFolder(folder / "config"), TrustChain(folder / "trust"), composed, pole=POLE, agent="1"
    )
    plant.commit = commit
    await commit.start("own")
    async with uplink_to(broker) as uplink:
        job = asyncio.create_task(Remote(uplink, commit, plant.way, topic=TOPIC, overrides=tuple).run())
        try:
            yield plant
        finally:
            job.cancel()
            await asyncio.wait([job])


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than once a second."""
    monkeypatch.setattr("gateway.remote.remote.TICK_S", 0.02)


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
            await until(lambda: plant.way.since is not None)
            before = plant.way.since
            assert before
            await operator.publish(DESIRED, document("new", trial=TERMS))
            await operator.hears("COMMITTED")
            assert plant.way.since
            assert plant.way.since > before

    play(scene)


@pytest.mark.parametrize("broker", [NO_WAY_BACK], indirect=True)
def test_a_broker_that_gives_nothing_back_proves_nothing(tmp_path: Path, broker: Broker) -> None:
    async def scene() -> None:
        async with operating(broker) as operator, pole(broker, tmp_path) as plant:
            await until(lambda: bool(operator.reports))
            plant.commit.hear("elsewhere", b"")  # there is something new to report
            await operator.hears("STREAM")
            await until(lambda: plant.notes.count({"taken": True}) > 1)  # what comes back would have come before that
            assert {"back": True} not in plant.notes
            assert plant.way.since is None

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
                await until(lambda: any("trial" in report for report in operator.reports))
                assert operator.reports[-1]["trial"]["sha"] == digest(read(sent).payload)
                await operator.publish(f"{TOPIC}/command/config", cancel, retain=False)
                await operator.hears("RB_CANCELLED")
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

"""What the pole tells of itself: its state and its catalogues, kept by the broker for those who come later."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from drivers.ruuvi import Ruuvi
from drivers.sds011 import Sds011
from gateway.jobs.report import BEAT_S, Report, last_will
from gateway.link.mqtt_link import ACK_S
from gateway.link.uplink import Uplink
from gateway.words.catalogue import Catalogue
from gateway.words.standing import Echo
from hil.mqtt_packets import Publish
from hil.scripted_broker import NOTHING, Ack, Deeds, Disconnect, Refuse, ScriptedBroker, Send
from hil.senml import plain
from tests.link.broker_scene import play, where
from tests.words.contract import must_be, some_state

TOPIC = "pole/1/pole-7"
CHANGE_S = 2.0
HOUR_S = 3600


@dataclass
class Telling:
    """A report that runs, and what it tells."""

    uplink: Uplink
    report: Report
    catalogue: Catalogue
    facts: dict[str, Any] = field(default_factory=lambda: {"uptime": 0, "boot": ""})


@contextlib.asynccontextmanager
async def telling(port: int) -> AsyncIterator[Telling]:
    """Run an uplink and a report; what matters is "boot", and "uptime" only counts."""
    tag = Ruuvi(id="tag", driver="ruuvi", address="AA:BB:CC:DD:EE:FF")
    dust = Sds011(id="dust", driver="sds011", port="usb")
    catalogue = Catalogue("pole-7", [tag, dust], {})
    uplink = Uplink(where(port), last_will(TOPIC))
    report = Report(
        uplink,
        catalogue,
        topic=TOPIC,
        state=lambda status: some_state(status, **it.facts),
        matters=lambda: it.facts["boot"],
    )
    it = Telling(uplink, report, catalogue)
    jobs = [asyncio.create_task(job) for job in (uplink.run(), report.run())]
    try:
        yield it
        assert not any(job.done() for job in jobs)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        await uplink.close()


def states(broker: ScriptedBroker) -> list[dict[str, Any]]:
    told = [json.loads(publish.payload) for publish in broker.acknowledged if publish.topic == f"{TOPIC}/state"]
    for state in told:
        must_be("state", state)
    return told


def catalogues(broker: ScriptedBroker, dataset: str = "weather") -> list[dict[str, Any]]:
    topic = f"{TOPIC}/catalogue/{dataset}"
    told = [json.loads(plain(publish.payload)) for publish in broker.acknowledged if publish.topic == topic]
    for thing in told:
        must_be("catalogue", thing)
    return told


def hashes(told: list[dict[str, Any]]) -> list[str]:
    return [thing["version"]["instance"] for thing in told]


def test_state_and_catalogue_are_told_as_soon_as_the_link_is_up_and_are_kept() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            await asyncio.sleep(0.1)
            assert [(told["status"], told["uptime"]) for told in states(broker)] == [("online", 0)]
            for dataset in ("air", "weather"):
                assert hashes(catalogues(broker, dataset)) == [pole.catalogue.hash(dataset)]
            assert all(publish.retain for publish in broker.published)
            kinds = [(publish.content_type, publish.user) for publish in broker.published]
            assert kinds == [("application/json", ()), *[("application/td+json", (("ce", "zstd"),))] * 2]

    play(scene)


def test_state_is_told_at_a_slow_beat_while_nothing_changes() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            for second in range(HOUR_S):
                pole.facts["uptime"] = second  # counts, and does not matter
                await asyncio.sleep(1)
            assert len(states(broker)) == pytest.approx(HOUR_S / BEAT_S, abs=2)
            assert states(broker)[-1]["uptime"] > HOUR_S - BEAT_S - CHANGE_S
            assert len(catalogues(broker)) == len(catalogues(broker, "air")) == 1

    play(scene)


def test_a_change_that_matters_is_told_within_two_seconds() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            for number in range(1, 20):
                await asyncio.sleep(7.3)
                pole.facts["boot"] = f"no reply {number}"
                await asyncio.sleep(CHANGE_S)
                assert states(broker)[-1]["boot"] == f"no reply {number}"

    play(scene)


def test_the_catalogue_of_a_dataset_is_told_again_when_it_grew() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            await asyncio.sleep(10)
            pole.catalogue.note("tag", ["battery_voltage"])
            await asyncio.sleep(CHANGE_S)
            assert hashes(catalogues(broker))[1:] == [pole.catalogue.hash("weather")]
            assert "tag/battery_voltage" in catalogues(broker)[-1]["properties"]
            assert len(catalogues(broker, "air")) == 1  # it is as it was

    play(scene)


@pytest.mark.parametrize("quiet_s", [2.0, 20.0, 50.0])
def test_after_each_reconnect_all_is_told_at_once_because_the_will_said_gone(quiet_s: float) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            for number in range(1, 6):
                await asyncio.sleep(quiet_s)
                broker.drop()
                await asyncio.sleep(0.1)
                while not pole.uplink.up:  # noqa: ASYNC110  # it is what a person would look at
                    await asyncio.sleep(0.1)
                await asyncio.sleep(CHANGE_S)
                assert len(broker.wills) == number
                assert len(states(broker)) >= number + 1
                assert len(catalogues(broker)) == len(catalogues(broker, "air")) == number + 1

    play(scene)


def test_a_link_that_breaks_while_the_state_is_told_costs_nothing_but_that_message() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            await asyncio.sleep(10)
            broker.on_publish = lambda _: Disconnect(0x8B)
            pole.facts["boot"] = "port gone"
            await asyncio.sleep(CHANGE_S)
            broker.on_publish = lambda _: Ack()
            await asyncio.sleep(120)
            assert states(broker)[-1]["boot"] == "port gone"

    play(scene)


def test_a_broker_that_refuses_the_state_is_told_of_once_a_minute_and_the_link_stays() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: Ack(0x87 if publish.topic.endswith("state") else 0)
        async with telling(broker.port):
            with capture_logs() as logs:
                await asyncio.sleep(10 * BEAT_S + 1)
            assert 9 <= sum("state" in line["event"] for line in logs) <= 11
            assert len(broker.connects) == 1
            broker.on_publish = lambda _: Ack()
            await asyncio.sleep(BEAT_S + 1)
            assert [told["status"] for told in states(broker)] == ["online"]

    play(scene)


def test_a_broker_that_refuses_a_catalogue_still_hears_how_the_pole_is_and_the_others() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: Ack(0x97 if publish.topic.endswith("catalogue/weather") else 0)
        async with telling(broker.port) as pole:
            await asyncio.sleep(CHANGE_S)
            assert [told["status"] for told in states(broker)] == ["online"]
            pole.facts["boot"] = "no reply"
            await asyncio.sleep(CHANGE_S)
            assert states(broker)[-1]["boot"] == "no reply"
            await asyncio.sleep(10 * BEAT_S)
            assert 10 <= sum(publish.topic.endswith("catalogue/weather") for publish in broker.published) <= 12
            broker.on_publish = lambda _: Ack()
            await asyncio.sleep(BEAT_S + 1)
            assert len(catalogues(broker)) == len(catalogues(broker, "air")) == 1

    play(scene)


def test_a_broker_that_never_acknowledges_the_state_costs_the_link_and_hears_it_on_the_next() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: NOTHING
        async with telling(broker.port):
            await asyncio.sleep(ACK_S - 1)
            broker.on_publish = lambda _: Ack()
            await asyncio.sleep(10)
            assert [told["status"] for told in states(broker)] == ["online"]

    play(scene)


def test_an_orderly_end_says_stopped_and_leaves_no_will() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            await asyncio.sleep(1)
            await pole.report.tell_state(await pole.uplink.link(), "stopped")
        await asyncio.sleep(1)
        assert states(broker)[-1]["status"] == "stopped"
        assert (broker.goodbyes, broker.wills) == (1, [])

    play(scene)


def test_the_will_says_gone_in_the_words_of_the_state() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port):
            await asyncio.sleep(5)
            broker.on_connect = lambda _: Refuse(0x88)
            broker.drop()
            await asyncio.sleep(5)
        ((topic, payload),) = broker.wills
        assert (topic, json.loads(payload)) == (f"{TOPIC}/state", {"status": "gone"})
        assert broker.connects[0].will_retained

    play(scene)


def mirror(publish: Publish) -> Deeds:
    """Give back what the pole tells of itself, and acknowledge it."""
    return [Send(sent(publish.topic, publish.payload)), Ack()] if publish.topic.endswith("/state") else Ack()


def sent(topic: str, payload: bytes) -> bytes:
    """Return a PUBLISH with QoS 0, MQTT 5 section 3.3."""
    body = len(topic).to_bytes(2, "big") + topic.encode() + b"\0" + payload
    low, high = len(body) & 0x7F, len(body) >> 7
    return bytes((0x30, low | 0x80, high)) + body


def test_the_state_that_comes_back_proves_the_link_both_ways() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = mirror
        async with telling(broker.port) as pole:
            link = await pole.uplink.link()
            began = asyncio.get_running_loop().time()
            assert await pole.report.echo(link) == Echo(taken=True, came_back=True)
            assert asyncio.get_running_loop().time() - began < 0.1
            await asyncio.sleep(0.1)
            assert broker.unsubscribed == [f"{TOPIC}/state"]
            assert states(broker)[-1]["status"] == "online"

    play(scene)


def test_what_comes_back_must_be_what_was_told_now() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: [Send(sent(publish.topic, b"{}")), Ack()]
        async with telling(broker.port) as pole:
            began = asyncio.get_running_loop().time()
            echo = await pole.report.echo(await pole.uplink.link())
            why = "the pole published its state, and it did not come back within 10 s"
            assert echo == Echo(taken=True, came_back=False, why=why)
            assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.1)

    play(scene)


def test_a_broker_that_refuses_either_way_or_says_nothing_or_goes_is_no_proof() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            link = await pole.uplink.link()
            broker.on_publish = lambda _: Ack(0x87)
            assert await pole.report.echo(link) == Echo(
                taken=False, came_back=False, why="the broker refuses with reason 0x87"
            )
            broker.on_publish = mirror
            broker.on_subscribe = lambda _, __: 0x87
            why = "the broker refuses a subscription with reason 0x87"
            assert await pole.report.echo(link) == Echo(taken=True, came_back=False, why=why)
            broker.on_publish = lambda _: NOTHING
            why = "the pole published its state, and the broker did not acknowledge it within 10 s"
            assert await pole.report.echo(link) == Echo(taken=False, came_back=False, why=why)
            broker.on_publish = lambda _: Disconnect(0x97)
            echo = await pole.report.echo(link)
            assert (echo.taken, echo.came_back) == (False, False)
            assert "the link broke" in echo.why

    play(scene)

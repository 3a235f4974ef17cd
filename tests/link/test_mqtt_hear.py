"""One who listens to a broker: what is subscribed to, what waits, and what is dropped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gateway.link.broker import Message, Received, Refused, UplinkDown
from gateway.link.mqtt_link import MOST_UNHEARD, Link, Version
from hil.scripted_broker import Ack, ScriptedBroker, Send
from tests.link.broker_scene import play, where

MANY = 3 * MOST_UNHEARD
FLOOD = 4000
GO = Message("go", b"")


def publish(topic: str, payload: bytes, user: tuple[str, str] | None = None) -> bytes:
    """Return a PUBLISH with QoS 0, MQTT 5 section 3.3, for a short topic and payload, with a user property or none."""
    texts = [text.encode() for text in user or ()]
    properties = b"".join([b"\x26", *(len(text).to_bytes(2, "big") + text for text in texts)]) if texts else b""
    body = len(topic).to_bytes(2, "big") + topic.encode() + bytes([len(properties)]) + properties + payload
    return bytes((0x30, len(body))) + body


async def connected(broker: ScriptedBroker, version: Version = Version.V5, unheard: int = MOST_UNHEARD) -> Link:
    link = Link(where(broker.port), will=None, version=version, unheard=unheard)
    await link.connect()
    return link


async def hear_on(heard: AsyncIterator[Received], got: list[bytes]) -> None:
    async for received in heard:
        got.append(received.payload)  # noqa: PERF401  # what came before the link broke counts


def test_a_link_without_a_will_leaves_nothing_behind() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        link = await connected(broker)
        assert broker.connects[0].will is None
        link.abort()
        await link.broken()

    play(scene)


def test_what_is_backfill_is_told() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        told = ("backfill", "1"), ("ce", "zstd"), None
        broker.on_publish = lambda _: [Send(b"".join(publish("a", b"x", user) for user in told)), Ack()]
        link = await connected(broker)
        heard = link.hear("a")
        first = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0.1)
        await link.send(GO)
        got = [await first, await anext(heard), await anext(heard)]
        assert [received.backfill for received in got] == [True, False, False]
        await heard.aclose()
        await link.close()

    play(scene)


@pytest.mark.parametrize("version", [Version.V5, Version.V311])
def test_all_topics_are_subscribed_to_and_one_that_is_refused_is_told(version: Version) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        asked = []

        def answer(topic: str, qos: int) -> int:
            asked.append((topic, qos))
            return 0x87 if topic == "b/+" else qos

        broker.on_subscribe = answer
        link = await connected(broker, version)
        with pytest.raises(Refused, match="reason 0x87"):
            await anext(link.hear("a", "b/+", "c/#"))
        assert asked == [("a", 1), ("b/+", 1), ("c/#", 1)]
        await link.close()

    play(scene)


@pytest.mark.parametrize(("unheard", "kept"), [(MOST_UNHEARD, MOST_UNHEARD), (0, MANY)])
def test_what_nobody_hears_yet_waits_up_to_the_bound_and_all_of_it_without_one(unheard: int, kept: int) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        packets = b"".join(publish("a", b"%d" % number) for number in range(MANY))
        broker.on_publish = lambda _: (Send(packets), Ack())
        link = await connected(broker, unheard=unheard)
        async with contextlib.aclosing(link.hear("a")) as heard:
            first = asyncio.ensure_future(anext(heard))
            await asyncio.sleep(1)  # it has subscribed
            await link.send(GO)
            await asyncio.sleep(1)  # all is here
            got = [(await first).payload]
            broker.drop()
            with pytest.raises(UplinkDown):
                await hear_on(heard, got)
        assert got[:3] == [b"0", b"1", b"2"]
        assert kept <= len(got) <= kept + 1  # the first was taken before the others waited, or not

    play(scene)


def test_a_broker_that_floods_leaves_all_others_their_turn() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        packets = publish("a", b"xyz") * FLOOD + publish("end", b"")  # 9 bytes: hardly one ends where a read does
        broker.on_publish = lambda _: [Send(packets), Ack()]
        link = await connected(broker)
        async with contextlib.aclosing(link.hear("end")) as heard:
            end = asyncio.ensure_future(anext(heard))
            await asyncio.sleep(1)  # it has subscribed
            sent = asyncio.ensure_future(link.send(GO))
            turns = 0
            while not end.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns > FLOOD / 2
            await sent
        await link.close()

    play(scene)


def test_each_hears_his_own_topics_and_who_leaves_unsubscribes() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        packets = publish("a", b"1") + publish("b/c", b"2") + publish("d", b"3")
        broker.on_publish = lambda _: [Send(packets), Ack()]
        link = await connected(broker)
        first, second = link.hear("a", "d"), link.hear("b/+")
        waiting = [asyncio.ensure_future(anext(each)) for each in (first, second)]
        await asyncio.sleep(0.1)
        await link.send(GO)
        assert [(await each).payload for each in waiting] == [b"1", b"2"]
        await second.aclose()
        await asyncio.sleep(0.1)
        assert broker.unsubscribed == ["b/+"]
        assert (await anext(first)).payload == b"3"
        await link.send(GO)
        assert (await anext(first)).payload == b"1"
        await first.aclose()
        await link.close()

    play(scene)

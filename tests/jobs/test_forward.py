"""Forwarding: a pack leaves the buffer once the broker has it, and not before."""

import asyncio
from pathlib import Path

from gateway.link.broker import Message
from gateway.link.mqtt_link import ACK_S
from gateway.link.uplink import LONGEST_PAUSE_S
from hil.mqtt_packets import Publish
from hil.scripted_broker import NOTHING, Accept, Ack, Deed, Disconnect, Reset, ScriptedBroker
from tests.jobs.forward_scene import TOPIC, arrived, blobs, delivering, now
from tests.link.broker_scene import play
from tests.store.buffer_bench import pack


def test_a_pack_is_published_byte_for_byte_and_leaves_the_buffer(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(50)
            await asyncio.wait_for(delivery.buffer.empty(), 1)
            assert arrived(broker) == blobs(50)
            assert len(broker.published) == 50
            first = broker.published[0]
            assert (first.topic, first.content_type, first.retain) == (f"{TOPIC}/air", "application/senml+json", False)
            assert delivery.buffer.depth.commits == 0

    play(scene)


def test_what_is_compressed_is_announced_as_compressed(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put()
            plain = pack(2)
            packed = type(plain)("air", 1, 2, 10, 0, bytes.fromhex("28b52ffd") + b"...")
            delivery.buffer.put(packed, 10.0)
            await asyncio.wait_for(delivery.buffer.empty(), 1)
            assert [publish.user for publish in broker.published] == [(), (("ce", "zstd"),)]

    play(scene)


def test_whatever_breaks_the_link_in_the_middle_of_a_burst_all_arrive_and_none_leaves_too_early(tmp_path: Path) -> None:
    deeds: list[Deed] = [Reset(), Disconnect(0x97), Disconnect(0x8B), NOTHING]

    async def scene(broker: ScriptedBroker) -> None:
        seen = 0

        def answer(_: Publish) -> Deed:
            nonlocal seen
            seen += 1
            return deeds[seen // 37 % len(deeds)] if seen % 37 == 0 else Ack()

        broker.on_publish = answer
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(300, within=1.0)
            while delivery.buffer.depth.packs:
                await asyncio.sleep(0.2)
                not_there = set(blobs(300)) - set(arrived(broker))
                assert len(not_there) <= delivery.buffer.depth.packs, "a pack left that the broker never acknowledged"
                assert now() < 20 * (ACK_S + LONGEST_PAUSE_S)
            assert sorted(arrived(broker)) == sorted(blobs(300))
            assert len(broker.connects) > 5

    play(scene)


def test_a_broker_that_never_acknowledged_gets_all_on_the_next_link(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: NOTHING
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(60)
            await asyncio.sleep(ACK_S - 1)
            assert (delivery.buffer.depth.packs, delivery.buffer.depth.stored) == (60, 60)
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), 5)
            assert now() <= ACK_S + 3
            assert sorted(arrived(broker)) == sorted(blobs(60))

    play(scene)


def test_acknowledgements_that_come_late_are_waited_for_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(after=ACK_S - 5)
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(60)
            await asyncio.wait_for(delivery.buffer.empty(), 3 * ACK_S)
            assert len(broker.published) == 60
            assert (broker.most_in_flight, len(broker.connects)) == (20, 1)

    play(scene)


def test_a_broker_that_allows_five_under_way_never_sees_six(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: Accept(receive_maximum=5)
        broker.on_publish = lambda _: Ack(after=0.1)
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(100)
            for number in range(20):  # as the pole's state does, between the packs
                link = await delivery.uplink.link()
                await link.send(Message("pole/1/pole-7/state", b"%d" % number))
            await asyncio.wait_for(delivery.buffer.empty(), 60)
            assert broker.most_in_flight == 5
            assert len(broker.connects) == 1

    play(scene)


def test_what_an_earlier_run_left_is_sent_under_its_own_numbers(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        for _ in range(3):
            async with delivering(tmp_path, broker.port) as delivery:
                delivery.put(10)
                await asyncio.sleep(1)
        await broker.start()
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(10)
            await asyncio.wait_for(delivery.buffer.empty(), 60)
        expected = [blob for epoch in (1, 2, 3, 4) for blob in blobs(10, epoch=epoch)]
        assert sorted(arrived(broker)) == sorted(expected)
        assert len(broker.published) == 40

    play(scene)


def test_the_end_does_not_wait_for_the_broker_and_loses_nothing(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: Ack(0x87) if publish.topic.endswith("noise") else NOTHING
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(400, "noise")
            delivery.put(30)
            await asyncio.sleep(1)
            ended = now()
        assert now() - ended <= 0.1
        broker.on_publish = lambda _: Ack()
        async with delivering(tmp_path, broker.port) as delivery:
            assert delivery.buffer.depth.packs == 430
            await asyncio.wait_for(delivery.buffer.empty(), 10)
        assert sorted(arrived(broker)) == sorted(blobs(30))

    play(scene)

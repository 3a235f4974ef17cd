"""Forwarding: a pack leaves the buffer once the broker has it, and not before."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from structlog.testing import capture_logs

from gateway.buffer import Buffer
from gateway.forward import MOST_REFUSED, REFUSED_PAUSE_S, Forward
from gateway.mqtt_link import ACK_S, Message
from gateway.uplink import LONGEST_PAUSE_S, Uplink
from hil.mqtt_packets import Publish
from hil.scripted_broker import NOTHING, Accept, Ack, Deed, Disconnect, Reset, ScriptedBroker
from tests.broker_scene import WILL, play, where
from tests.buffer_bench import ROOMY, pack

TOPIC = "pole/1/pole-7/data"


@dataclass
class Delivery:
    """The delivering half of a gateway, running."""

    buffer: Buffer
    uplink: Uplink
    put_so_far: Counter[str]

    def put(self, count: int = 1, dataset: str = "air", *, size: int = 300, within: float = 10.0) -> None:
        """Hand the buffer packs."""
        for _ in range(count):
            self.put_so_far[dataset] += 1
            new = pack(self.put_so_far[dataset], dataset, epoch=self.buffer.epoch, size=size)
            self.buffer.put(new, within)


@contextlib.asynccontextmanager
async def delivering(folder: Path, port: int) -> AsyncIterator[Delivery]:
    """Run buffer, uplink and forwarding; end them in the order in which the gateway does."""
    buffer = Buffer(folder / "buffer.db", ROOMY)
    await buffer.open("boot")
    uplink = Uplink(where(port), WILL)
    forward = Forward(buffer, uplink, topic=lambda dataset: f"{TOPIC}/{dataset}", payload=lambda pack: pack.blob)
    jobs = [asyncio.create_task(job) for job in (buffer.run(), uplink.run(), forward.run())]
    try:
        yield Delivery(buffer, uplink, Counter())
        assert not any(job.done() for job in jobs)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        await uplink.close()
        await buffer.close()


def arrived(broker: ScriptedBroker, dataset: str = "air") -> list[bytes]:
    """Return what the broker acknowledged of a dataset, in the order of its first arrival."""
    return list(dict.fromkeys(p.payload for p in broker.acknowledged if p.topic == f"{TOPIC}/{dataset}"))


def blobs(count: int, dataset: str = "air", *, first: int = 1, epoch: int = 1) -> list[bytes]:
    return [pack(n, dataset, epoch=epoch).blob for n in range(first, first + count)]


def now() -> float:
    return asyncio.get_running_loop().time()


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


def test_a_refused_pack_stays_and_is_tried_again_and_the_refusal_is_told(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(0x87)
        async with delivering(tmp_path, broker.port) as delivery:
            with capture_logs() as logs:
                delivery.put(3)
                await asyncio.sleep(REFUSED_PAUSE_S - 1)
            assert [line["seq"] for line in logs if "0x87" in line["event"]] == [1, 2, 3]
            assert (delivery.buffer.depth.packs, len(broker.published)) == (3, 3)
            await asyncio.sleep(REFUSED_PAUSE_S)
            assert (delivery.buffer.depth.packs, len(broker.published)) == (3, 6)
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), REFUSED_PAUSE_S)
            assert sorted(arrived(broker)) == blobs(3)
            assert delivery.uplink.up

    play(scene)


def test_what_is_refused_is_kept_over_a_restart(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(0x87)
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(3)
            await asyncio.sleep(5)
        broker.on_publish = lambda _: Ack()
        async with delivering(tmp_path, broker.port) as delivery:
            assert delivery.buffer.depth.packs == 3
            await asyncio.wait_for(delivery.buffer.empty(), 5)
        assert arrived(broker) == blobs(3)

    play(scene)


def test_a_dataset_the_broker_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: Ack(0x87 if publish.topic.endswith("air") else 0)
        async with delivering(tmp_path, broker.port) as delivery:
            for _ in range(MOST_REFUSED // 5):
                delivery.put(4, "air")
                delivery.put(1, "noise")
                await asyncio.sleep(5)
                assert delivery.buffer.depth.packs == delivery.put_so_far["air"]
            assert arrived(broker, "noise") == blobs(MOST_REFUSED // 5, "noise")
            assert arrived(broker, "air") == []

    play(scene)


def test_a_great_many_refused_packs_wait_and_none_is_lost(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(0x97)
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(3 * MOST_REFUSED)
            await asyncio.sleep(REFUSED_PAUSE_S / 2)
            assert len(broker.published) <= MOST_REFUSED + 20
            assert delivery.buffer.depth.packs == 3 * MOST_REFUSED
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), 2 * REFUSED_PAUSE_S)
            assert sorted(arrived(broker)) == sorted(blobs(3 * MOST_REFUSED))

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


def test_a_pack_that_is_too_large_for_the_broker_stays_and_the_others_go(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: Accept(maximum_packet_size=10_000)
        async with delivering(tmp_path, broker.port) as delivery:
            with capture_logs() as logs:
                delivery.put(5)
                delivery.put(1, "noise", size=20_000)
                delivery.put(5)
                await asyncio.sleep(10)
            assert arrived(broker) == blobs(10)
            assert delivery.buffer.depth.packs == 1
            assert any("takes 10000 bytes" in line["event"] and line["dataset"] == "noise" for line in logs)
            assert len(broker.connects) == 1

    play(scene)


def test_while_the_broker_is_away_all_is_kept_and_live_comes_before_old_when_it_is_back(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        async with delivering(tmp_path, broker.port) as delivery:
            for _ in range(720):  # an hour
                delivery.put()
                await asyncio.sleep(5)
            assert delivery.buffer.depth.packs == 720
            stored = delivery.buffer.depth.stored
            assert stored >= 717
            await broker.start()
            broker.on_publish = lambda _: Ack(after=1.0)
            await delivery.uplink.link()
            await asyncio.sleep(5)
            assert len(arrived(broker)) < 200  # twenty a second at the most
            delivery.put(1, "noise")
            await asyncio.sleep(2.5)
            assert arrived(broker, "noise") == blobs(1, "noise")
            assert delivery.buffer.depth.packs > 400
            await asyncio.wait_for(delivery.buffer.empty(), 60)
            sent = [publish.payload for publish in broker.published if publish.topic.endswith("air")]
            live = 720 - stored
            assert sent == blobs(live, first=stored + 1) + blobs(stored)

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
            delivery.put(2 * MOST_REFUSED, "noise")
            delivery.put(30)
            await asyncio.sleep(1)
            ended = now()
        assert now() - ended <= 0.1
        broker.on_publish = lambda _: Ack()
        async with delivering(tmp_path, broker.port) as delivery:
            assert delivery.buffer.depth.packs == 2 * MOST_REFUSED + 30
            await asyncio.wait_for(delivery.buffer.empty(), 10)
        assert sorted(arrived(broker)) == sorted(blobs(30))

    play(scene)

"""Forwarding after an outage: alarms first, then what is live, and the backlog beside it at its own rate."""

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from gateway.link.backfill import Pace
from gateway.words.payload import unpacked
from hil.mqtt_packets import V5, Publish
from hil.scripted_broker import NOTHING, Accept, Ack, Refuse, Reset, ScriptedBroker
from tests.jobs.forward_scene import Delivery, arrived, blobs, delivering, now, sealed
from tests.link.broker_scene import another_broker, play, where


def is_old(publish: Publish) -> bool:
    return ("backfill", "1") in publish.user


async def hour_offline(broker: ScriptedBroker, delivery: Delivery) -> int:
    """Fill the buffer with the broker away, and tell how many packs lie on the disk when it is back."""
    for _ in range(720):
        delivery.put()
        await asyncio.sleep(5)
    assert delivery.buffer.depth.packs == 720
    await broker.start()
    await delivery.uplink.link()
    return delivery.buffer.depth.stored


def test_after_an_outage_live_packs_go_at_once_and_the_backlog_beside_them_at_its_share(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        broker.on_publish = lambda _: Ack(after=1.0)
        async with delivering(tmp_path, broker.port, Pace(0.5)) as delivery:
            stored = await hour_offline(broker, delivery)
            assert stored >= 717
            began = now()
            await asyncio.sleep(5)
            assert 30 <= sum(map(is_old, broker.published)) <= 60, "ten a second"
            for _ in range(20):
                delivery.put(5, "noise")
                await asyncio.sleep(1.1)
                assert len(arrived(broker, "noise")) == delivery.put_so_far["noise"], "a live pack waited"
            await asyncio.wait_for(delivery.buffer.empty(), 120)
            assert now() - began == pytest.approx(720 / 10, abs=3)
            sent = [publish.payload for publish in broker.published if publish.topic.endswith("air")]
            live = 720 - stored
            assert sorted(sent[: live + 10]) == sorted(blobs(live, first=stored + 1) + blobs(10))
            assert [publish.payload for publish in broker.published if is_old(publish)] == blobs(stored)
            assert broker.most_in_flight <= 15

    play(scene)


def test_the_backlog_keeps_to_its_bytes_a_second(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        async with delivering(tmp_path, broker.port, Pace(bytes_per_s=1000.0)) as delivery:
            stored = await hour_offline(broker, delivery)
            began = now()
            await asyncio.wait_for(delivery.buffer.empty(), 3600)
            assert now() - began == pytest.approx(stored * 300 / 1000, rel=0.02)

    play(scene)


def test_a_link_that_breaks_in_the_middle_of_the_backlog_changes_nothing(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        count = itertools.count()
        broker.on_publish = lambda _: Reset() if next(count) % 50 == 49 else Ack(after=0.1)
        async with delivering(tmp_path, broker.port, Pace(0.5)) as delivery:
            await hour_offline(broker, delivery)
            for _ in range(30):
                delivery.put(1, "noise")
                await asyncio.sleep(1)
            await asyncio.wait_for(delivery.buffer.empty(), 3600)
            assert sorted(arrived(broker)) == sorted(blobs(720))
            assert sorted(arrived(broker, "noise")) == sorted(blobs(30, "noise"))

    play(scene)


@pytest.mark.parametrize(("pace", "most"), [(Pace(0.5), 10), (Pace(bytes_per_s=3000.0), 1)])
def test_after_a_take_over_of_the_link_the_backlog_goes_on_at_its_share(tmp_path: Path, pace: Pace, most: int) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        broker.on_publish = lambda _: NOTHING
        async with delivering(tmp_path, broker.port, pace) as delivery, another_broker() as better:
            better.on_publish = lambda _: Ack(after=0.1)
            stored = await hour_offline(broker, delivery)
            await asyncio.sleep(2)
            assert sum(map(is_old, broker.published)) == most, "under way when the other broker is taken"
            delivery.uplink.change([where(better.port)])
            await asyncio.wait_for(delivery.buffer.empty(), 120)
            assert (len(broker.connects), len(better.connects)) == (1, 1)
            assert sorted(arrived(better)) == sorted(blobs(720))
            assert better.most_in_flight <= most + 720 - stored

    play(scene)


def test_alarms_go_before_all_also_those_that_lie_behind_a_long_backlog(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        async with delivering(tmp_path, broker.port) as delivery:
            for _ in range(200):
                delivery.put(20)
                await asyncio.sleep(5)
            delivery.put(30, "alarm", within=0.2)
            await asyncio.sleep(20)
            assert delivery.buffer.depth.stored == 4030
        async with delivering(tmp_path, broker.port, Pace(0.5)) as delivery:
            delivery.put(5, within=1000.0)
            broker.on_publish = lambda _: Ack(after=1.0)
            await broker.start()
            await delivery.uplink.link()
            await asyncio.sleep(4)
            first = [publish.payload for publish in broker.published[:30]]
            assert first == blobs(30, "alarm")
            delivery.put(1, "alarm", within=0.2)
            await asyncio.sleep(1.5)
            assert blobs(1, "alarm", epoch=2)[0] in arrived(broker, "alarm")

    play(scene)


def test_where_every_pack_goes_to_the_disk_first_live_still_comes_before_old(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        async with delivering(tmp_path, broker.port, Pace(0.5), disk_first=True) as delivery:
            await hour_offline(broker, delivery)
            broker.on_publish = lambda _: Ack(after=1.0)
            await asyncio.sleep(3)
            for _ in range(10):
                delivery.put(5, "noise")
                await asyncio.sleep(1.5)
                assert len(arrived(broker, "noise")) == delivery.put_so_far["noise"]
            assert not any(is_old(publish) for publish in broker.published if publish.topic.endswith("noise"))
            assert delivery.buffer.depth.packs > 300

    play(scene)


def test_a_broker_of_mqtt_3_1_1_is_told_of_backlog_in_the_pack(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        broker.on_connect = lambda connect: Refuse(1) if connect.version == V5 else Accept()
        async with delivering(tmp_path, broker.port) as delivery:
            whole = sealed(20)
            delivery.buffer.put(whole, 1.0)
            await asyncio.sleep(60)
            await broker.start()
            await delivery.uplink.link()
            live = sealed(21, "noise")
            delivery.buffer.put(live, 10.0)
            await asyncio.wait_for(delivery.buffer.empty(), 5)
            assert arrived(broker, "noise") == [live.blob]
            (old,) = (json.loads(unpacked(payload)) for payload in arrived(broker))
            assert old[0].pop("backfill") is True
            assert old == json.loads(unpacked(whole.blob))

    play(scene)

"""Forwarding: a pack leaves the buffer once the broker has it, and not before."""

import asyncio
import contextlib
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.jobs.forward import DEATHS, FIRST_REST_S, KILLS, LOCKED_OUT_REST_S, LONGEST_REST_S, Forward
from gateway.link.backfill import Backfill, Pace
from gateway.link.broker import Message, UplinkDown
from gateway.link.mqtt_link import ACK_S
from gateway.link.uplink import LONGEST_PAUSE_S, Uplink
from gateway.store.buffer import Buffer
from gateway.store.pack_room import Terms
from gateway.words import senml
from gateway.words.payload import packed, unpacked
from gateway.words.reading import Pack, Reading
from hil.mqtt_packets import V5, Publish
from hil.scripted_broker import NOTHING, Accept, Ack, Close, Deed, Disconnect, Refuse, Reset, ScriptedBroker, Stall
from hil.senml import resolve
from tests.link.broker_scene import WILL, play, where
from tests.store.buffer_bench import ROOMY, pack

TOPIC = "pole/1/pole-7/data"
FREE = Pace()


@dataclass
class Delivery:
    """The delivering half of a gateway, running."""

    buffer: Buffer
    uplink: Uplink
    forward: Forward
    put_so_far: Counter[str]

    def put(self, count: int = 1, dataset: str = "air", *, size: int = 300, within: float = 10.0) -> None:
        """Hand the buffer packs."""
        for _ in range(count):
            self.put_so_far[dataset] += 1
            new = pack(self.put_so_far[dataset], dataset, epoch=self.buffer.epoch, size=size)
            self.buffer.put(new, within)


async def tell_state(uplink: Uplink) -> None:
    """Send what the pole tells of itself: when the link comes up, and now and then."""
    while True:
        link = await uplink.link()
        try:
            await link.send(Message("pole/1/pole-7/state", b"{}"))
        except UplinkDown:
            await link.broken()
        else:
            await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def delivering(
    folder: Path, port: int, pace: Pace = FREE, *, disk_first: bool = False
) -> AsyncIterator[Delivery]:
    """Run buffer, uplink and forwarding; end them in the order in which the gateway does."""
    buffer = Buffer(folder / "buffer.db", ROOMY, terms={"alarm": Terms(9, "keep")}, disk_first=disk_first)
    await buffer.open("boot")
    uplink = Uplink(where(port), WILL)
    forward = Forward(
        buffer,
        uplink,
        topic=lambda dataset: f"{TOPIC}/{dataset}",
        payload=lambda pack: pack.blob,
        backfill=Backfill(pace),
    )
    jobs = [asyncio.create_task(job) for job in (buffer.run(), uplink.run(), forward.run())]
    try:
        yield Delivery(buffer, uplink, forward, Counter())
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


@pytest.mark.parametrize("code", [0x80, 0x83, 0x97])
def test_what_is_refused_for_now_stays_and_is_tried_again_less_and_less_often(tmp_path: Path, code: int) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        tries: list[float] = []

        def refuse(_: Publish) -> Deed:
            tries.append(now())
            return Ack(code)

        broker.on_publish = refuse
        async with delivering(tmp_path, broker.port) as delivery:
            with capture_logs() as logs:
                delivery.put(3)
                await asyncio.sleep(600)
            assert [line["dataset"] for line in logs if f"0x{code:02x}" in line["event"]] == ["air"], "told once"
            assert list(delivery.forward.refused) == ["air"]
            assert delivery.buffer.depth.packs == 3
            rests = [b - a for a, b in itertools.pairwise(tries) if b - a > 0.1]
            assert rests[0] <= FIRST_REST_S
            assert LONGEST_REST_S / 2 <= max(rests) <= LONGEST_REST_S
            assert len(rests) < 25
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), LONGEST_REST_S)
            assert sorted(arrived(broker)) == blobs(3)
            assert delivery.forward.refused == {}
            assert delivery.uplink.up

    play(scene)


def test_what_the_pole_may_not_publish_is_told_with_the_topic_and_tried_every_few_minutes(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(0x87)
        async with delivering(tmp_path, broker.port) as delivery:
            with capture_logs() as logs:
                delivery.put(1)
                await asyncio.sleep(3600)
            (line,) = (line for line in logs if "0x87" in line["event"])
            assert f"{TOPIC}/air" in line["hint"]
            assert 3600 / LOCKED_OUT_REST_S <= len(broker.published) <= 1 + 3600 / (LOCKED_OUT_REST_S / 2)
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), LOCKED_OUT_REST_S)

    play(scene)


def test_a_link_that_ends_over_a_refusal_is_not_the_fault_of_what_was_beside_it(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        first = blobs(1)[0]
        broker.on_publish = lambda publish: [Ack(0x97), Close()] if publish.payload == first else NOTHING
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(5)
            delivery.put(5, "noise")
            await asyncio.sleep(600)
            assert len(broker.connects) > 2 * DEATHS
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), 2 * LONGEST_REST_S)
            assert delivery.buffer.depth.set_aside == 0
            assert sorted(arrived(broker)) == blobs(5)

    play(scene)


@pytest.mark.parametrize("code", [0x90, 0x99])
def test_what_no_try_can_bring_through_is_set_aside_and_stays_so(tmp_path: Path, code: int) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        bad = blobs(1, first=3)[0]
        broker.on_publish = lambda publish: Ack(code if publish.payload == bad else 0)
        async with delivering(tmp_path, broker.port) as delivery:
            with capture_logs() as logs:
                delivery.put(5)
                await asyncio.wait_for(delivery.buffer.empty(), 1)
            (line,) = (line for line in logs if line["log_level"] == "error")
            assert (line["dataset"], line["seq"]) == ("air", 3)
            assert f"0x{code:02x}" in line["why"]
            await asyncio.sleep(15)
            assert (delivery.buffer.depth.packs, delivery.buffer.depth.set_aside) == (0, 1)
        async with delivering(tmp_path, broker.port) as delivery:
            await asyncio.sleep(60)
            assert (delivery.buffer.depth.packs, delivery.buffer.depth.set_aside) == (0, 1)
            (row,) = await delivery.buffer.held("air", 1, 1, 9, 9)
            assert (row.pack.blob, row.level) == (bad, -code)
            delivery.buffer.arrived(row)
            await delivery.buffer.barrier()
            assert delivery.buffer.depth.set_aside == 0
        assert len(broker.published) == 5
        assert sorted(arrived(broker)) == sorted(set(blobs(5)) - {bad})

    play(scene)


def test_a_pack_that_was_set_aside_comes_back_after_a_crash_before_it_was_written(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(0x99)
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(1, within=5.0)
            await asyncio.sleep(4)
            assert (delivery.buffer.depth.packs, delivery.buffer.depth.set_aside) == (0, 0)
            await asyncio.sleep(1.1)
            assert delivery.buffer.depth.set_aside == 1, "on the disk when a pack that waits would have been"

    play(scene)


def test_a_pack_on_which_the_link_dies_is_sent_alone_and_then_set_aside(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        bad = blobs(1, first=8)[0]
        beside: list[int] = []

        def answer(publish: Publish) -> Deed:
            if publish.payload != bad:
                return Ack()
            beside.append(broker.in_flight)
            return Close()

        broker.on_publish = answer
        async with delivering(tmp_path, broker.port) as delivery:
            state = asyncio.create_task(tell_state(delivery.uplink))
            with capture_logs() as logs:
                delivery.put(15)
                await asyncio.wait_for(delivery.buffer.empty(), 600)
            state.cancel()
            assert len(beside) == DEATHS + 1
            assert beside[-1] == 1, "alone"
            assert sorted(arrived(broker)) == sorted(set(blobs(15)) - {bad})
            assert any(line.get("seq") == 8 and "died" in line.get("why", "") for line in logs)
            await delivery.buffer.barrier()
            (row,) = await delivery.buffer.held("air", 1, 8, 8, 9)
            assert row.level == KILLS

    play(scene)


def test_a_pack_that_alone_is_never_acknowledged_is_set_aside(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        bad = blobs(1, first=2)[0]
        broker.on_publish = lambda publish: NOTHING if publish.payload == bad else Ack(after=1.0)
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(5)
            state = asyncio.create_task(tell_state(delivery.uplink))
            await asyncio.wait_for(delivery.buffer.empty(), 10 * (ACK_S + LONGEST_PAUSE_S))
            state.cancel()
            assert sorted(arrived(broker)) == sorted(set(blobs(5)) - {bad})

    play(scene)


@pytest.mark.parametrize("deed", [NOTHING, Close(), Reset()])
def test_a_broker_that_acknowledges_nothing_for_a_while_has_no_pack_set_aside_and_none_is_held_up(
    tmp_path: Path, deed: Deed
) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: deed
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(30)
            await asyncio.sleep(20 * (ACK_S + LONGEST_PAUSE_S))
            assert len(broker.connects) > 2 * DEATHS
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), ACK_S + LONGEST_PAUSE_S)
            assert delivery.buffer.depth.set_aside == 0
            assert sorted(arrived(broker)) == sorted(blobs(30))

    play(scene)


def test_no_pack_is_to_blame_where_the_network_goes_again_and_again(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Stall()
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(25)
            await asyncio.sleep(20 * (ACK_S + LONGEST_PAUSE_S))
            assert len(broker.connects) > 2 * DEATHS
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), 2 * (ACK_S + LONGEST_PAUSE_S))
            assert sorted(arrived(broker)) == sorted(blobs(25))

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
        assert sorted(arrived(broker)) == blobs(3)

    play(scene)


def test_a_dataset_the_broker_refuses_does_not_hold_up_the_others_now_or_later(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: Ack(0x87 if publish.topic.endswith("air") else 0)
        async with delivering(tmp_path, broker.port) as delivery:
            for _ in range(100):
                delivery.put(4, "air")
                delivery.put(1, "noise")
                await asyncio.sleep(5)
                assert delivery.buffer.depth.packs == delivery.put_so_far["air"]
            assert arrived(broker, "noise") == blobs(100, "noise")
            assert arrived(broker, "air") == []
        async with delivering(tmp_path, broker.port) as delivery:
            delivery.put(1, "noise")
            await asyncio.sleep(5)
            assert delivery.buffer.depth.packs == 400
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), LOCKED_OUT_REST_S)
        assert sorted(arrived(broker)) == sorted(blobs(400))

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


def sealed(readings: int, dataset: str = "air") -> Pack:
    """Seal a pack as the gateway does; its values do not compress."""
    dice = random.Random(readings)  # noqa: S311  # the same each time
    values = [(f"pm{n % 3}", dice.random()) for n in range(readings)]
    looks = [dict(values[n : n + 3]) for n in range(0, readings, 3)]
    some = [Reading(f"d{n % 3}", dataset, n * 10**9, look) for n, look in enumerate(looks)]
    labels: dict[str, int | str] = {"epoch": 1, "seq": 1, "cat": "c0ffee"}
    blob = senml.encode(some, pole="pole-7", unit_of=lambda *_: "ug/m3", utc_offset=0, labels=labels)
    return Pack(dataset, 1, 1, readings, 0, packed(blob))


def facts_of(content: list[dict[str, Any]]) -> set[tuple[str, float, str, Any]]:
    return {(record.name, record.time, record.unit, record.value) for record in resolve(content)}


@pytest.mark.parametrize("says_so", [True, False])
def test_a_pack_that_is_too_large_for_the_broker_arrives_in_parts(tmp_path: Path, *, says_so: bool) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        if says_so:
            broker.on_connect = lambda _: Accept(maximum_packet_size=3000)
        broker.on_publish = lambda publish: Close() if len(publish.payload) > 2900 else Ack()
        async with delivering(tmp_path, broker.port) as delivery:
            state = asyncio.create_task(tell_state(delivery.uplink))
            whole = sealed(1000)
            delivery.put(5, "noise")
            delivery.buffer.put(whole, 10.0)
            await asyncio.wait_for(delivery.buffer.empty(), 600)
            state.cancel()
            assert sorted(arrived(broker, "noise")) == blobs(5, "noise")
            of_part = [json.loads(unpacked(payload)) for payload in arrived(broker)]
            assert [part[0]["part"] for part in of_part] == [f"{n}/4" for n in range(1, 5)]
            assert all((part[0]["epoch"], part[0]["seq"]) == (1, 1) for part in of_part)
            there = {facts for part in of_part for facts in facts_of(part)}
            assert there == facts_of(json.loads(unpacked(whole.blob)))
            assert (len(broker.connects) == 1) == says_so
            assert delivery.buffer.depth.set_aside == 0

    play(scene)


def test_a_pack_of_one_value_that_is_too_large_is_set_aside(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: Accept(maximum_packet_size=300)
        async with delivering(tmp_path, broker.port) as delivery:
            noise = random.Random(1).randbytes(400).hex().encode()  # noqa: S311  # it does not compress
            delivery.buffer.put(sealed(1)._replace(blob=b'[{"n":"a","vs":"%s"}]' % noise), 10.0)
            delivery.put(1, "noise", size=100)
            await asyncio.wait_for(delivery.buffer.empty(), 5)
            await delivery.buffer.barrier()
            assert delivery.buffer.depth.set_aside == 1
            assert len(broker.connects) == 1

    play(scene)


# Live, backlog, alarms


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

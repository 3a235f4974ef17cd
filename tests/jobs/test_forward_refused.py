"""Forwarding: what a broker refuses, what is too large for it, and what no try can bring through."""

import asyncio
import contextlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.jobs.forward import DEATHS, FIRST_REST_S, KILLS, LOCKED_OUT_REST_S, LONGEST_REST_S
from gateway.link.broker import Message, UplinkDown
from gateway.link.mqtt_link import ACK_S
from gateway.link.uplink import LONGEST_PAUSE_S, Uplink
from gateway.words.payload import unpacked
from hil.mqtt_packets import Publish
from hil.scripted_broker import NOTHING, Accept, Ack, Close, Deed, Disconnect, Reset, ScriptedBroker, Stall
from hil.senml import resolve
from tests.jobs.forward_scene import TOPIC, arrived, blobs, delivering, now, sealed, tell_state
from tests.link.broker_scene import play


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


@pytest.mark.parametrize("deed", [Close(), *map(Disconnect, (0x82, 0x83, 0x95))])
def test_a_pack_on_which_the_link_dies_is_sent_alone_and_then_set_aside(tmp_path: Path, deed: Deed) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        bad = blobs(1, first=8)[0]
        beside: list[int] = []

        def answer(publish: Publish) -> Deed:
            if publish.payload != bad:
                return Ack()
            beside.append(broker.in_flight)
            return deed

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


@pytest.mark.parametrize("code", [0x87, 0x96, 0x97])
def test_a_dataset_over_which_the_broker_ends_the_link_rests_and_the_others_go_on(tmp_path: Path, code: int) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: Disconnect(code) if publish.topic.endswith("air") else Ack()
        async with delivering(tmp_path, broker.port) as delivery:
            state = asyncio.create_task(tell_state(delivery.uplink))
            delivery.put(30)
            delivery.put(30, "noise")
            await asyncio.sleep(60)
            assert arrived(broker, "noise") == blobs(30, "noise")
            assert len(broker.connects) <= 3, "the link, the one on which packs go alone, and the one after it"
            for _ in range(60):
                delivery.put(1)
                delivery.put(1, "noise")
                await asyncio.sleep(60)
                assert delivery.buffer.depth.packs == delivery.put_so_far["air"]
            assert len(broker.connects) <= 4 + 3600 / (LOCKED_OUT_REST_S / 2)
            refusal = delivery.forward.refused["air"]
            assert list(delivery.forward.refused) == ["air"]
            assert refusal.code == ("not-authorised" if code == 0x87 else "refused")
            assert f"code:{code}" in refusal.text
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), LOCKED_OUT_REST_S)
            state.cancel()
            assert delivery.buffer.depth.set_aside == 0
            assert sorted(arrived(broker)) == sorted(blobs(90))
            assert delivery.forward.refused == {}

    play(scene)


def test_however_many_datasets_end_the_link_it_ends_every_few_minutes_and_the_others_go_on(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: Ack() if publish.topic.endswith(("noise", "state")) else Disconnect(0x87)
        async with delivering(tmp_path, broker.port) as delivery:
            state = asyncio.create_task(tell_state(delivery.uplink))
            for n in range(12):
                delivery.put(1, f"denied{n}")
            await asyncio.sleep(3600)
            assert len(delivery.forward.refused) == 12
            connects = len(broker.connects)
            for _ in range(60):
                delivery.put(1, "noise")
                await asyncio.sleep(60)
                assert delivery.put_so_far["noise"] - len(arrived(broker, "noise")) <= 1
            assert len(broker.connects) - connects <= 1.5 * 3600 / (LOCKED_OUT_REST_S / 2)
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), 12 * LOCKED_OUT_REST_S + LONGEST_PAUSE_S)
            state.cancel()
            assert delivery.forward.refused == {}

    play(scene)


def test_no_dataset_is_to_blame_where_the_broker_ends_the_link_over_what_was_beside_its_pack(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        def answer(publish: Publish) -> Deed:
            if publish.topic == "events":
                return Disconnect(0x87)
            return Ack(after=0.05 if "/data/" in publish.topic else 0.0)

        async def tell_events(uplink: Uplink) -> None:
            while True:
                link = await uplink.link()
                with contextlib.suppress(UplinkDown):
                    await link.send(Message("state", b"{}"))
                    await asyncio.sleep(0.02)  # a pack is under way by then
                    await link.send(Message("events", b"{}"))
                await link.broken()

        broker.on_publish = answer
        async with delivering(tmp_path, broker.port) as delivery:
            events = asyncio.create_task(tell_events(delivery.uplink))
            with capture_logs() as logs:
                delivery.put(1)
                delivery.put(1, "noise")
                await asyncio.sleep(600)
            assert delivery.forward.refused == {}
            whys = [line["why"] for line in logs if line["event"] == "uplink is down"]
            assert f"Not authorized, with events, {TOPIC}/air under way" in whys[-1]
            events.cancel()
            await asyncio.wait_for(delivery.buffer.empty(), ACK_S + LONGEST_PAUSE_S)

    play(scene)


def test_a_pack_goes_alone_only_once_all_has_an_answer_that_others_sent(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        def answer(publish: Publish) -> Deed:
            if publish.topic.endswith("air"):
                return Disconnect(0x87)
            return Ack(after=0.5 if publish.topic == "catalogue" else 0.0)

        async def tell_more(uplink: Uplink) -> None:
            while True:
                link = await uplink.link()
                link.post(Message("catalogue", b"{}")).add_done_callback(asyncio.Future.exception)
                await link.broken()

        broker.on_publish = answer
        async with delivering(tmp_path, broker.port) as delivery:
            jobs = [asyncio.create_task(job(delivery.uplink)) for job in (tell_state, tell_more)]
            delivery.put(1)
            await asyncio.sleep(LONGEST_PAUSE_S)
            assert list(delivery.forward.refused) == ["air"]
            assert len(broker.connects) <= 3
            for job in jobs:
                job.cancel()

    play(scene)


@pytest.mark.parametrize("code", [0x00, 0x89, 0x8B, 0x8D, 0x98, 0x9D])
def test_no_pack_is_to_blame_where_the_broker_ends_the_link_for_a_reason_of_its_own(tmp_path: Path, code: int) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: Disconnect(code) if "/data/" in publish.topic else Ack()
        async with delivering(tmp_path, broker.port) as delivery:
            state = asyncio.create_task(tell_state(delivery.uplink))
            delivery.put(3)
            await asyncio.sleep(30 * LONGEST_PAUSE_S)
            assert len(broker.connects) > 3 * DEATHS
            broker.on_publish = lambda _: Ack()
            await asyncio.wait_for(delivery.buffer.empty(), LONGEST_PAUSE_S)
            state.cancel()
            assert (delivery.buffer.depth.set_aside, delivery.forward.refused) == (0, {})
            assert sorted(arrived(broker)) == blobs(3)

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
            whole = sealed(900)
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

"""The uplink: how it comes up, what it does while it cannot, and how often it tries."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.mqtt_link import Broker, Message, Version
from gateway.uplink import FIRST_PAUSE_S, LOCKED_OUT_PAUSE_S, LONGEST_PAUSE_S, STABLE_S, Uplink
from hil.mqtt_packets import Connect
from hil.scripted_broker import NOTHING, Accept, Ack, Close, Deed, Deeds, Disconnect, Refuse, Reset, ScriptedBroker
from tests.broker_scene import WILL, play, where

HOUR_S = 3600.0


@contextlib.asynccontextmanager
async def uplink_to(broker: Broker) -> AsyncIterator[Uplink]:
    uplink = Uplink(broker, WILL)
    running = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        running.cancel()
        await asyncio.wait([running])
        await uplink.close()


def now() -> float:
    return asyncio.get_running_loop().time()


def times_of_connects(broker: ScriptedBroker, deed: Deeds) -> list[float]:
    """Answer every CONNECT so, and note when each came."""
    times: list[float] = []

    def note(_: Connect) -> Deeds:
        times.append(now())
        return deed

    broker.on_connect = note
    return times


def told(logs: list[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


def test_the_newest_version_is_tried_first_and_nothing_is_wrong_while_the_link_is_up() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with uplink_to(where(broker.port)) as uplink:
            assert not uplink.up
            assert uplink.trouble
            link = await uplink.link()
            assert (uplink.up, uplink.trouble, link.version) == (True, "", Version.V5)
            assert await uplink.link() is link
            await asyncio.sleep(HOUR_S)
            assert len(broker.connects) == 1

    play(scene)


@pytest.mark.parametrize("answer", [Refuse(0x01), Refuse(0x84), Close(), Reset()])
def test_a_broker_of_the_older_version_is_spoken_to_in_it_and_the_log_says_what_that_costs(answer: Deed) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda connect: Accept() if connect.version == 4 else answer
        with capture_logs() as logs:
            async with uplink_to(where(broker.port)) as uplink:
                link = await uplink.link()
                await link.send(Message("topic", b"payload"))
        assert link.version == Version.V311
        assert now() < 0.1
        assert [line["mqtt"] for line in told(logs, "uplink is up")] == ["3.1.1"]
        assert any("messages it refuses look as if it took them" in line["event"] for line in logs)

    play(scene)


def test_the_older_version_is_not_remembered_beyond_the_link() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda connect: Accept() if connect.version == 4 else Close()
        async with uplink_to(where(broker.port)) as uplink:
            await uplink.link()
            broker.on_connect = lambda _: Accept()
            broker.drop()
            await asyncio.sleep(5)
            assert (await uplink.link()).version == Version.V5
            assert [connect.version for connect in broker.connects] == [5, 4, 5]

    play(scene)


def test_a_broker_that_takes_neither_version_is_told_by_what_it_did() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: Close()
        async with uplink_to(where(broker.port)) as uplink:
            await asyncio.sleep(10)
            assert not uplink.up
            assert "closed the connection without an answer" in uplink.trouble

    play(scene)


@pytest.mark.parametrize("code", [0x86, 0x87])
def test_a_pole_that_is_not_let_in_asks_again_only_after_minutes(code: int) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        times = times_of_connects(broker, Refuse(code))
        with capture_logs() as logs:
            async with uplink_to(where(broker.port)) as uplink:
                await asyncio.sleep(HOUR_S)
                assert "refuses to let this pole in" in uplink.trouble
                broker.on_connect = lambda _: Accept()
                await asyncio.sleep(LOCKED_OUT_PAUSE_S)
                assert uplink.up
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(LOCKED_OUT_PAUSE_S / 2 <= pause <= LOCKED_OUT_PAUSE_S for pause in pauses)
        assert {connect.version for connect in broker.connects} == {5}
        assert len(told(logs, "no uplink")) == 1  # the same again and again is told once

    play(scene)


def test_a_broker_that_is_away_is_looked_for_at_least_once_a_minute_and_found_when_it_is_back() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        async with uplink_to(where(broker.port)) as uplink:
            for _ in range(20):
                await asyncio.sleep(HOUR_S / 20)
                assert not uplink.up
                assert "refused" in uplink.trouble
            await broker.start()
            await asyncio.sleep(LONGEST_PAUSE_S + 1)
            assert uplink.up

    play(scene)


def test_pauses_grow_while_the_broker_does_not_take_the_pole() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        times = times_of_connects(broker, Refuse(0x88))
        async with uplink_to(where(broker.port)):
            await asyncio.sleep(HOUR_S)
        assert times[1] - times[0] <= 2 * FIRST_PAUSE_S
        assert 60 <= len(times) <= 300  # 30 s on average, at random
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= LONGEST_PAUSE_S + 1

    play(scene)


def test_a_link_that_keeps_breaking_is_made_ever_more_seldom() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        times = times_of_connects(broker, [Accept(), Disconnect(0x8E)])
        async with uplink_to(where(broker.port)):
            await asyncio.sleep(HOUR_S)
        assert 60 <= len(times) <= 300

    play(scene)


def test_a_link_that_was_stable_is_made_again_within_seconds() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with uplink_to(where(broker.port)) as uplink:
            for _ in range(20):
                link = await uplink.link()
                await asyncio.sleep(STABLE_S + 1)
                broker.drop()
                assert await link.broken()
                broke = now()
                assert await uplink.link() is not link
                assert now() - broke <= FIRST_PAUSE_S + 0.1

    play(scene)


def test_poles_that_lost_the_same_broker_do_not_come_back_together() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        async with contextlib.AsyncExitStack() as stack:
            poles = [await stack.enter_async_context(uplink_to(where(broker.port))) for _ in range(40)]
            await asyncio.sleep(HOUR_S)
            await broker.start()
            times = times_of_connects(broker, Accept())
            await asyncio.sleep(LONGEST_PAUSE_S + 1)
            assert all(pole.up for pole in poles)
        assert len({int(time) for time in times}) > 10

    play(scene)


@pytest.mark.parametrize("deed", [Disconnect(0x97), Reset(), NOTHING])
def test_whatever_ends_a_link_the_next_one_delivers(deed: Deed) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: deed
        async with uplink_to(where(broker.port)) as uplink:
            link = await uplink.link()
            sends = [asyncio.create_task(link.send(Message("topic", b"payload"))) for _ in range(20)]
            await asyncio.wait(sends)
            assert all(send.exception() for send in sends)
            broker.on_publish = lambda _: Ack()
            await asyncio.sleep(2 * FIRST_PAUSE_S)
            await (await uplink.link()).send(Message("topic", b"payload"))

    play(scene)


def test_why_the_link_broke_is_known_until_it_is_up_again() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with uplink_to(where(broker.port)) as uplink:
            link = await uplink.link()
            broker.on_publish = lambda _: Disconnect(0x97)
            broker.on_connect = lambda _: Refuse(0x88)
            with pytest.raises(Exception, match="Quota exceeded"):
                await link.send(Message("topic", b"payload"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert "Quota exceeded" in uplink.trouble
            assert uplink.since == now()
            await asyncio.sleep(10)
            assert "Server unavailable" in uplink.trouble

    play(scene)


def test_what_lies_in_files_is_read_anew_so_that_mending_it_is_enough(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        password = tmp_path / "password"
        async with uplink_to(where(broker.port, password_file=password)) as uplink:
            await asyncio.sleep(10)
            assert str(password) in uplink.trouble
            password.write_text("secret")
            await asyncio.sleep(LONGEST_PAUSE_S)
            assert uplink.up

    play(scene)


def test_a_host_name_that_cannot_exist_leaves_the_gateway_running() -> None:
    async def scene(_: ScriptedBroker) -> None:
        async with uplink_to(where(1883, host="broker..example")) as uplink:
            await asyncio.sleep(HOUR_S)
            assert "broker..example" in uplink.trouble

    play(scene)


def test_an_uplink_that_is_closed_in_order_leaves_no_will_and_a_dropped_one_does() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with uplink_to(where(broker.port)) as uplink:
            await uplink.link()
        await asyncio.sleep(1)
        assert (broker.goodbyes, broker.wills) == (1, [])
        async with uplink_to(where(broker.port)) as uplink:
            await uplink.link()
            broker.drop()
            await asyncio.sleep(5)
            assert broker.wills == [(WILL.topic, WILL.payload)]

    play(scene)


def test_three_hundred_reconnects_leave_no_task_and_no_file_behind() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with uplink_to(where(broker.port)) as uplink:
            for _ in range(300):
                link = await uplink.link()
                broker.drop()
                await link.broken()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        assert len(broker.connects) >= 300

    play(scene)

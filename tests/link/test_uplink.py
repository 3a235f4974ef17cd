"""The uplink: how it comes up, what it does while it cannot, and how often it tries."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.link.broker import Broker, Message, UplinkDown
from gateway.link.endpoint import OLDER_VERSION_S
from gateway.link.mqtt_link import Version
from gateway.link.uplink import (
    FEW_MINUTES_S,
    FIRST_PAUSE_S,
    INVISIBLE,
    LONGEST_PAUSE_S,
    LOOK_S,
    STABLE_S,
    Uplink,
)
from hil.bench.proc import rss_mb
from hil.mqtt_packets import Connect
from hil.scripted_broker import NOTHING, Accept, Ack, Close, Deed, Deeds, Disconnect, Refuse, Reset, ScriptedBroker
from tests.link.broker_scene import WILL, another_broker, play, where

HOUR_S = 3600.0


@contextlib.asynccontextmanager
async def uplink_to(broker: Broker, others: Sequence[Broker] = ()) -> AsyncIterator[Uplink]:
    uplink = Uplink(broker, WILL, others)
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


def test_the_older_version_is_remembered_for_that_broker_where_it_worked() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda connect: Accept() if connect.version == 4 else Refuse(1)
        async with uplink_to(where(broker.port)) as uplink:
            for _ in range(3):
                await uplink.link()
                assert uplink.state["mqtt"] == "3.1.1"
                assert uplink.state["note"] == INVISIBLE
                broker.drop()
                await asyncio.sleep(LONGEST_PAUSE_S)
            assert [connect.version for connect in broker.connects] == [5, 4, 4, 4, 4]
            broker.on_connect = lambda connect: Accept() if connect.version == 5 else Refuse(1)
            broker.drop()
            await asyncio.sleep(LONGEST_PAUSE_S)
            assert uplink.state["mqtt"] == "5"
            assert uplink.state["note"] == ""
            assert [connect.version for connect in broker.connects[5:]] == [4, 5]
        async with uplink_to(where(broker.port)):
            await asyncio.sleep(1)
            assert broker.connects[-1].version == 5

    play(scene)


def test_after_a_day_on_the_older_version_the_newer_is_tried_and_costs_nothing_where_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert OLDER_VERSION_S == 24 * HOUR_S
    monkeypatch.setattr("gateway.link.endpoint.OLDER_VERSION_S", HOUR_S / 2)

    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda connect: Accept() if connect.version == 4 else Refuse(0x84)
        async with uplink_to(where(broker.port)) as uplink:
            link = await uplink.link()
            await asyncio.sleep(2 * HOUR_S)
            assert await uplink.link() is link
            assert not link.ended.done()
            assert [connect.version for connect in broker.connects] in ([5, 4, 5, 5, 5], [5, 4, 5, 5, 5, 5])
            broker.on_connect = lambda _: Accept()
            await link.broken()
            assert now() <= 3 * HOUR_S
            broker.drop()
            await asyncio.sleep(5)
            assert (await uplink.link()).version == Version.V5

    play(scene)


@pytest.mark.parametrize("end", [Close(), Reset()])
def test_one_end_without_an_answer_costs_minutes_on_the_older_version_and_not_a_day(end: Deed) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with uplink_to(where(broker.port)) as uplink:
            for _ in range(2):  # the second time is a first time as well
                connects = len(broker.connects)
                broker.on_connect = lambda _, last=connects: end if len(broker.connects) == last + 1 else Accept()  # type: ignore[misc]
                broker.drop()
                await asyncio.sleep(LONGEST_PAUSE_S)
                assert (await uplink.link()).version == Version.V311
                await asyncio.sleep(FEW_MINUTES_S + LOOK_S)
                assert (await uplink.link()).version == Version.V5
                assert [connect.version for connect in broker.connects[connects:]] == [5, 4, 5]

    play(scene)


def test_a_second_end_without_an_answer_is_believed_for_a_day() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda connect: Accept() if connect.version == 4 else Close()
        async with uplink_to(where(broker.port)) as uplink:
            link = await uplink.link()
            await asyncio.sleep(OLDER_VERSION_S)
            assert [connect.version for connect in broker.connects] == [5, 4, 5]
            await asyncio.sleep(FEW_MINUTES_S + LOOK_S)
            assert [connect.version for connect in broker.connects] == [5, 4, 5, 5]
            assert await uplink.link() is link
            assert not link.ended.done()

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
                await asyncio.sleep(FEW_MINUTES_S)
                assert uplink.up
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(FEW_MINUTES_S / 2 <= pause <= FEW_MINUTES_S for pause in pauses)
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


def test_so_is_one_that_breaks_a_second_later() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: soon_gone(broker)
        async with uplink_to(where(broker.port)):
            await asyncio.sleep(HOUR_S)
        assert 60 <= len(broker.connects) <= 300

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


def with_two(scene: Callable[[Uplink, ScriptedBroker, ScriptedBroker], Awaitable[None]], *, away: bool = False) -> None:
    """Play a scene with an uplink to a better broker and another one; the better may be away at first."""

    async def whole(better: ScriptedBroker) -> None:
        if away:
            await better.leave()
        async with another_broker() as other, uplink_to(where(better.port), [where(other.port)]) as uplink:
            await scene(uplink, better, other)

    play(whole)


def soon_gone(broker: ScriptedBroker) -> Deeds:
    """Accept, and drop the connection a second later."""
    asyncio.get_running_loop().call_later(1, broker.drop)
    return Accept()


def place(broker: ScriptedBroker) -> str:
    return f"127.0.0.1:{broker.port}"


def test_the_best_broker_is_taken_and_the_others_are_left_alone() -> None:
    async def scene(uplink: Uplink, better: ScriptedBroker, other: ScriptedBroker) -> None:
        await asyncio.sleep(HOUR_S)
        assert uplink.state["broker"] == place(better)
        assert (len(better.connects), len(other.connects)) == (1, 0)

    with_two(scene)


def test_while_the_best_broker_is_away_the_next_one_is_taken_and_the_best_is_looked_for_every_few_minutes() -> None:
    async def scene(uplink: Uplink, better: ScriptedBroker, other: ScriptedBroker) -> None:
        times = times_of_connects(better, Refuse(0x88))
        link = await uplink.link()
        assert now() < 0.1
        assert uplink.state["broker"] == place(other)
        note = f"{place(better)} comes first in `url`, and is not taken: the broker refuses the connection"
        assert uplink.state["note"].startswith(note)
        await asyncio.sleep(HOUR_S)
        assert await uplink.link() is link
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert len(times) > 10
        assert min(pauses) >= FEW_MINUTES_S / 2
        assert max(pauses) <= FEW_MINUTES_S + LOOK_S

    with_two(scene)


def test_the_best_broker_is_taken_again_when_it_is_back_without_a_gap_in_the_sending() -> None:
    async def scene(uplink: Uplink, better: ScriptedBroker, other: ScriptedBroker) -> None:
        async def send_for_ever() -> None:
            while True:
                await (await uplink.link()).send(Message("topic", b"payload"))
                sent.append(now())
                await asyncio.sleep(0.5)

        sent: list[float] = []
        await uplink.link()
        since = uplink.since
        sending = asyncio.create_task(send_for_ever())
        await better.start()
        await asyncio.sleep(FEW_MINUTES_S + LOOK_S + 1)
        assert (uplink.state["broker"], uplink.state["note"]) == (place(better), "")
        assert not sending.done()
        sending.cancel()
        assert max(later - earlier for earlier, later in itertools.pairwise(sent)) < 1
        assert better.published
        assert (other.goodbyes, other.wills, other.clients) == (1, [], 0)  # that link was closed in order
        assert uplink.since == since

    with_two(scene, away=True)


def test_a_better_broker_that_shares_the_session_with_the_other_ends_the_link_there_and_that_is_no_break() -> None:
    async def scene(uplink: Uplink, better: ScriptedBroker, other: ScriptedBroker) -> None:
        def take_over(_: Connect) -> Deeds:
            other.drop()
            return Accept()

        link = await uplink.link()
        better.on_connect = take_over
        await better.start()
        with capture_logs() as logs:
            await asyncio.sleep(FEW_MINUTES_S + LOOK_S + 1)
        assert link.ended.done()
        assert uplink.state["broker"] == place(better)
        assert told(logs, "uplink is down") == []
        assert len(other.connects) == len(better.connects) == 1

    with_two(scene, away=True)


def test_a_better_broker_that_lets_in_and_breaks_is_not_gone_back_to_in_a_tight_loop() -> None:
    async def scene(uplink: Uplink, better: ScriptedBroker, other: ScriptedBroker) -> None:
        better.on_connect = lambda _: soon_gone(better)
        up = 0
        for _ in range(int(HOUR_S)):
            await asyncio.sleep(1)
            up += uplink.up
        assert len(better.connects) <= 2 * HOUR_S / FEW_MINUTES_S
        assert up > 0.8 * HOUR_S
        assert len(other.connects) > 5

    with_two(scene)


def test_a_broker_that_does_not_let_the_pole_in_is_asked_every_few_minutes_and_the_other_is_used() -> None:
    async def scene(uplink: Uplink, better: ScriptedBroker, other: ScriptedBroker) -> None:
        times = times_of_connects(better, Refuse(0x87))
        other.on_connect = lambda _: Refuse(0x88)
        await asyncio.sleep(HOUR_S)
        assert f"{place(better)}: the broker refuses to let this pole in" in uplink.trouble
        assert f"{place(other)}: the broker refuses the connection: Server unavailable" in uplink.trouble
        assert len(times) <= 2 * HOUR_S / FEW_MINUTES_S
        assert len(other.connects) >= 60
        other.on_connect = lambda _: Accept()
        await asyncio.sleep(LONGEST_PAUSE_S + 1)
        assert uplink.up

    with_two(scene)


def test_pauses_grow_over_all_brokers_together() -> None:
    async def scene(_: Uplink, better: ScriptedBroker, other: ScriptedBroker) -> None:
        better.on_connect = lambda _: soon_gone(better)
        other.on_connect = lambda _: soon_gone(other)
        await asyncio.sleep(HOUR_S)
        assert 60 <= len(better.connects) + len(other.connects) <= 300

    with_two(scene)


def test_a_link_that_breaks_while_a_better_broker_is_tried_is_down_at_once() -> None:
    async def scene(uplink: Uplink, better: ScriptedBroker, other: ScriptedBroker) -> None:
        await uplink.link()
        better.on_connect = lambda _: NOTHING
        await better.start()
        while not better.connects:  # noqa: ASYNC110  # on the virtual clock it costs nothing
            await asyncio.sleep(1)
        other.drop()
        other.on_connect = lambda _: Refuse(0x88)
        await asyncio.sleep(1)
        assert not uplink.up
        assert "the link broke" in uplink.trouble
        other.on_connect = lambda _: Accept()
        await asyncio.sleep(LONGEST_PAUSE_S)
        assert uplink.up

    with_two(scene, away=True)


def test_a_client_with_the_same_id_is_told_where_the_broker_says_so_and_guessed_where_it_does_not() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        times_of_connects(broker, [Accept(), Disconnect(0x8E)])
        async with uplink_to(where(broker.port)) as uplink:
            await asyncio.sleep(1)
            assert 'Session taken over: another client came with the id "pole-7"; give each' in uplink.trouble
            broker.on_connect = lambda _: soon_gone(broker)
            await asyncio.sleep(HOUR_S / 2)
            assert 'is there a second client with the id "pole-7"?' in uplink.trouble

    play(scene)


@pytest.mark.parametrize("code", [0x87, 0x97, 0x8B])
def test_an_end_with_another_reason_is_no_sign_of_a_client_with_the_same_id(code: int) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Disconnect(code)
        with capture_logs() as logs:
            async with uplink_to(where(broker.port)) as uplink:
                for _ in range(10):
                    link = await uplink.link()
                    link.post(Message("topic", b"payload")).add_done_callback(asyncio.Future.exception)
                    await link.broken()
                    await asyncio.sleep(1)
        whys = [line["why"] for line in told(logs, "uplink is down")]
        assert len(whys) == 10
        assert all(f"code:{code}" in why and "second client" not in why for why in whys)

    play(scene)


def test_a_thousand_reconnects_leave_no_task_no_file_and_no_memory_behind() -> None:
    count = 1000
    ends: list[Deed] = [Close(), Reset(), Disconnect(0x97)]
    deeds: list[Deeds] = [*([Accept(), end] for end in ends), Accept(), Refuse(0x88)]
    memory: list[float] = []

    async def scene(better: ScriptedBroker) -> None:
        turns = itertools.cycle(deeds)

        def answer(_: Connect) -> Deeds:
            if len(broker.connects) + len(better.connects) == count // 2:
                memory.append(rss_mb(os.getpid()))
            return next(turns)

        async with another_broker() as broker, uplink_to(where(better.port), [where(broker.port)]) as uplink:
            for each in (better, broker):
                each.on_connect = answer
                each.on_publish = lambda _: NOTHING
            while len(broker.connects) + len(better.connects) < count:
                link = await uplink.link()
                send = asyncio.create_task(link.send(Message("topic", b"payload")))
                await asyncio.sleep(0.1)
                for each in (better, broker):
                    each.drop()
                with pytest.raises(UplinkDown):
                    await send
            memory.append(rss_mb(os.getpid()))

    play(scene)
    before, after = memory
    assert after - before < 1, memory

"""One connection to a broker: what it takes for sent, what for refused, and what for broken."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.link import mqtt_link
from gateway.link.broker import Cut, Message, NotAcknowledged, NotAuthorised, OtherVersion, Refused, UplinkDown
from gateway.link.mqtt_link import ACK_S, KEEPALIVE_S, Link, Version
from hil.relay import Relay
from hil.scripted_broker import (
    NOTHING,
    Accept,
    Ack,
    Close,
    Deed,
    Disconnect,
    Refuse,
    Reset,
    ScriptedBroker,
    Send,
    Stall,
)
from tests.link.broker_scene import WILL, play, where

BROKEN_S = KEEPALIVE_S * 2 + 2  # of a link on which nothing comes back: a ping, its answer, the look once a second


def message(number: int = 0, size: int = 100) -> Message:
    return Message(f"pole/1/pole-7/data/{number}", b"x" * size, content_type="application/senml+json")


async def connected(broker: ScriptedBroker, version: Version = Version.V5) -> Link:
    link = Link(where(broker.port), will=WILL, version=version)
    await link.connect()
    return link


async def send_all(link: Link, count: int, size: int = 100) -> list[BaseException | None]:
    return await asyncio.gather(*(link.send(message(n, size)) for n in range(count)), return_exceptions=True)


def on_a_link(scene: Callable[[Link, ScriptedBroker], Awaitable[None]], version: Version = Version.V5) -> None:
    """Play a scene on a link that is up; it is closed in the end, whatever became of it."""

    async def whole(broker: ScriptedBroker) -> None:
        link = await connected(broker, version)
        await scene(link, broker)
        await link.close()

    play(whole)


def test_what_arrives_is_what_was_sent() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        await link.send(
            Message("pole/1/pole-7/data/air", b"\0\xff", retain=True, content_type="text/plain", encoding="zstd")
        )
        (publish,) = broker.published
        assert (publish.topic, publish.payload, publish.retain) == ("pole/1/pole-7/data/air", b"\0\xff", True)
        assert publish.content_type == "text/plain"
        assert publish.user == (("ce", "zstd"),)
        (connect,) = broker.connects
        assert (connect.client, connect.clean, connect.keepalive) == ("pole-7", True, KEEPALIVE_S)
        assert (connect.will, connect.will_retained) == ((WILL.topic, WILL.payload), True)
        assert (connect.username, connect.password) == (None, None)

    on_a_link(scene)


def test_user_and_password_are_sent_where_there_is_a_password(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        (tmp_path / "password").write_text("secret\n")
        link = Link(where(broker.port, password_file=tmp_path / "password"), will=WILL, version=Version.V5)
        await link.connect()
        assert (broker.connects[0].username, broker.connects[0].password) == ("pole-7", b"secret")
        await link.close()

    play(scene)


def test_a_password_that_cannot_be_read_is_told_by_the_name_of_its_file(tmp_path: Path) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        with pytest.raises(UplinkDown, match="no-such-file"):
            Link(where(broker.port, password_file=tmp_path / "no-such-file"), will=WILL, version=Version.V5)

    play(scene)


@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x97, 0x99])
def test_a_refused_message_is_not_taken_for_sent(code: int) -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(code)
        with pytest.raises(Refused, match=f"0x{code:02x}") as refusal:
            await link.send(message())
        assert refusal.value.code == code
        broker.on_publish = lambda _: Ack()
        await link.send(message())  # the link is as good as before

    on_a_link(scene)


def test_taken_but_nobody_listens_is_taken() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(0x10)  # no matching subscribers
        await link.send(message())

    on_a_link(scene)


@pytest.mark.parametrize(
    ("deed", "says"),
    [
        (Reset(), ""),
        (Close(), ""),
        (Disconnect(0x97), "Quota exceeded"),
        (Disconnect(0x8E), "Session taken over"),
        (Disconnect(0x00), ""),
        (Send(b"\xf0\xff\xff\xff\xff\xff\x00"), ""),
    ],
)
def test_when_the_link_breaks_all_who_wait_are_told_at_once(deed: Deed, says: str) -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: deed if publish.topic.endswith("/10") else NOTHING
        results = await send_all(link, 20)
        assert all(isinstance(result, UplinkDown) and says in str(result) for result in results)
        assert says in await link.broken()
        with pytest.raises(UplinkDown):
            await link.send(message())
        assert asyncio.get_running_loop().time() < 0.1

    on_a_link(scene)


def test_what_was_under_way_is_told_where_the_broker_ends_the_link_over_what_it_does_not_take() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        async def hear() -> None:
            async for _ in link.hear("downlink"):
                pass

        broker.on_publish = lambda publish: Disconnect(0x87) if publish.topic == "b" else NOTHING
        acks = [link.post(Message(topic, b"payload")) for topic in ("a", "b")]
        hearing = asyncio.create_task(hear())
        await asyncio.wait([*acks, hearing])
        assert link.unanswered == {"a", "b", "a subscription"}
        for failed in (*acks, hearing):
            assert "Not authorized, with a, a subscription, b under way" in str(failed.exception())

    on_a_link(scene)


@pytest.mark.parametrize("deed", [Disconnect(0x8E), Close(), Reset(), Send(b"\xe0\x00garbage")])
def test_a_link_that_breaks_in_the_moment_it_is_up_is_broken(deed: Deed) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: [Accept(), deed]
        link = Link(where(broker.port), will=WILL, version=Version.V5)
        with contextlib.suppress(UplinkDown):
            await link.connect()
            await asyncio.wait_for(link.broken(), 1)
        with pytest.raises(UplinkDown):
            await link.send(message())
        await link.close()

    play(scene)


@pytest.mark.parametrize("most", [1, 5])
def test_no_more_messages_are_under_way_than_the_broker_allows_whoever_sends(most: int) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: Accept(receive_maximum=most)
        broker.on_publish = lambda _: Ack(after=0.05)
        link = await connected(broker)
        assert link.window == most
        assert await send_all(link, 60) == [None] * 60
        assert broker.most_in_flight == most
        await link.close()

    play(scene)


def test_slow_acknowledgements_do_not_shrink_the_window() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(after=0.5)
        assert await send_all(link, 100) == [None] * 100
        assert broker.most_in_flight == link.window == mqtt_link.WINDOW
        assert asyncio.get_running_loop().time() == pytest.approx(2.5, abs=0.1)

    on_a_link(scene)


def test_an_acknowledgement_that_comes_twice_counts_once() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Ack(times=2)
        assert await send_all(link, 40) == [None] * 40

    on_a_link(scene)


def test_an_acknowledgement_of_nothing_is_ignored() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: [Send(b"\x40\x02\x77\x77"), Ack()]
        assert await send_all(link, 5) == [None] * 5

    on_a_link(scene)


@pytest.mark.parametrize("version", [Version.V5, Version.V311])
def test_a_broker_that_never_acknowledges_costs_the_link_and_the_next_one_is_sound(version: Version) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: NOTHING
        link = await connected(broker, version)
        results = await send_all(link, 60)
        assert all(isinstance(result, UplinkDown) for result in results)
        assert asyncio.get_running_loop().time() == pytest.approx(ACK_S, abs=0.1)
        assert "30 s" in str(results[0])
        await link.broken()
        broker.on_publish = lambda _: Ack()
        again = await connected(broker, version)
        assert await send_all(again, 60) == [None] * 60
        await again.close()

    play(scene)


def test_one_message_without_acknowledgement_costs_the_link_though_others_get_theirs() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: NOTHING if publish.topic.endswith("/0") else Ack()
        results = await send_all(link, 10)
        assert [type(result) for result in results] == [NotAcknowledged] + [type(None)] * 9
        assert asyncio.get_running_loop().time() == pytest.approx(ACK_S, abs=0.1)

    on_a_link(scene)


def test_a_link_on_which_no_ping_is_answered_is_broken() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_ping = lambda: NOTHING
        await link.broken()
        assert KEEPALIVE_S < asyncio.get_running_loop().time() <= BROKEN_S

    on_a_link(scene)


def test_a_link_on_which_pings_are_answered_stays() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        await asyncio.sleep(3600)
        await link.send(message())
        assert len(broker.connects) == 1

    on_a_link(scene)


def test_a_broker_that_stops_reading_costs_the_link_in_time() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Stall()
        results = await send_all(link, 20, size=500_000)
        assert all(isinstance(result, UplinkDown) for result in results)
        assert asyncio.get_running_loop().time() <= max(ACK_S, BROKEN_S)

    on_a_link(scene)


def test_a_path_that_goes_silent_both_ways_is_noticed_by_who_sends_and_by_who_does_not() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        for sends in (True, False):
            relay = Relay(broker.port)
            await relay.start()
            link = Link(where(relay.port), will=WILL, version=Version.V5)
            await link.connect()
            relay.stall()
            stalled = asyncio.get_running_loop().time()
            if sends:
                with pytest.raises(UplinkDown):
                    await link.send(message())
            await link.broken()
            assert asyncio.get_running_loop().time() - stalled <= max(ACK_S, BROKEN_S)
            await relay.close()

    play(scene)


def test_a_message_that_is_too_large_for_the_broker_is_refused_before_it_costs_the_link() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: Accept(maximum_packet_size=10_000)
        link = await connected(broker)
        with pytest.raises(Refused, match="10000 bytes") as refusal:
            await link.send(message(size=10_000))
        assert refusal.value.code == 0x95
        assert broker.published == []
        await link.send(message(size=9_000))
        await link.close()

    play(scene)


@pytest.mark.parametrize(("end", "kind"), [("broker", Cut), ("close", UplinkDown), ("abort", UplinkDown)])
def test_who_ended_the_link_is_told_to_those_who_wait(end: str, kind: type[UplinkDown]) -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: NOTHING
        waiting = asyncio.ensure_future(link.send(message()))
        await asyncio.sleep(0.1)
        if end == "broker":
            broker.drop()
        elif end == "close":
            await link.close()
        else:
            link.abort()
        with pytest.raises(UplinkDown) as error:
            await waiting
        assert type(error.value) is kind

    on_a_link(scene)


def test_a_link_that_is_closed_in_order_leaves_no_will() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        await link.close()
        await asyncio.sleep(1)
        assert (broker.goodbyes, broker.wills) == (1, [])

    on_a_link(scene)


def test_a_link_may_be_closed_in_the_moment_in_which_a_ping_is_due() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        await asyncio.sleep(5 * KEEPALIVE_S)
        await link.close()
        await asyncio.sleep(1)
        assert broker.wills in ([], [(WILL.topic, WILL.payload)])  # what matters is what is left over: nothing

    on_a_link(scene)


def test_a_link_that_is_aborted_leaves_its_will() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        link.abort()
        await link.broken()
        await asyncio.sleep(1)
        assert (broker.goodbyes, broker.wills) == (0, [(WILL.topic, WILL.payload)])

    on_a_link(scene)


def test_closing_does_not_wait_for_a_broker_that_does_not_read() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: Stall()
        sends = asyncio.ensure_future(send_all(link, 20, size=500_000))
        await asyncio.sleep(0.5)
        await link.close()
        results = await sends
        assert all(isinstance(result, UplinkDown) for result in results)
        assert asyncio.get_running_loop().time() <= 0.5 + mqtt_link.CLOSE_S + 0.1

    on_a_link(scene)


def test_a_link_may_be_closed_twice_and_after_it_broke() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        broker.drop()
        await link.broken()
        await link.close()
        await link.close()

    on_a_link(scene)


@pytest.mark.parametrize(
    ("version", "code", "error", "says"),
    [
        (Version.V5, 0x86, NotAuthorised, "Bad user name or password"),
        (Version.V5, 0x87, NotAuthorised, "Not authorized"),
        (Version.V5, 0x8C, NotAuthorised, "Bad authentication method"),
        (Version.V5, 0x84, OtherVersion, "Unsupported protocol version"),
        (Version.V5, 0x01, OtherVersion, "Unsupported protocol version"),
        (Version.V5, 0x88, UplinkDown, "Server unavailable"),
        (Version.V5, 0x9F, UplinkDown, "Connection rate exceeded"),
        (Version.V311, 4, NotAuthorised, "Bad user name or password"),
        (Version.V311, 5, NotAuthorised, "Not authorized"),
        (Version.V311, 3, UplinkDown, "Server unavailable"),
        (Version.V311, 2, UplinkDown, "Client identifier not valid"),
    ],
)
def test_a_refused_connection_says_why(version: Version, code: int, error: type[UplinkDown], says: str) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: Refuse(code)
        with pytest.raises(UplinkDown, match=says) as refusal:
            await connected(broker, version)
        assert type(refusal.value) is error

    play(scene)


def test_an_end_that_comes_after_the_time_for_an_answer_was_over_is_nobodys_error() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: NOTHING
        link = Link(where(broker.port), will=WILL, version=Version.V5)
        connecting = asyncio.ensure_future(link.connect())
        await asyncio.sleep(1)
        link._connected.cancel()  # noqa: SLF001  # what the time-out in aiomqtt does, a moment before the end comes
        broker.drop()
        await asyncio.wait([connecting])
        assert connecting.cancelled() or isinstance(connecting.exception(), UplinkDown)

    play(scene)


@pytest.mark.parametrize("deed", [Close(), Reset()])
def test_an_end_before_the_answer_may_be_a_broker_of_another_version(deed: Deed) -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: deed
        with pytest.raises(OtherVersion):
            await connected(broker)
        assert asyncio.get_running_loop().time() < 0.1

    play(scene)


def test_a_broker_that_does_not_answer_is_given_up() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: NOTHING
        with pytest.raises(UplinkDown) as silence:
            await connected(broker)
        assert type(silence.value) is UplinkDown
        assert asyncio.get_running_loop().time() <= KEEPALIVE_S

    play(scene)


def test_nobody_listens_is_told() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        await broker.leave()
        with pytest.raises(UplinkDown, match="refused"):
            await connected(broker)

    play(scene)


@pytest.mark.parametrize("host", ["broker..example", "x" * 70 + ".example", "no-such-host.invalid"])
def test_a_host_name_that_does_not_exist_is_only_an_uplink_that_is_down(host: str) -> None:
    async def scene(_: ScriptedBroker) -> None:
        with pytest.raises(UplinkDown):
            await Link(where(1883, host=host), will=WILL, version=Version.V5).connect()

    play(scene)


def garbage(source: random.Random) -> bytes:
    """Make bytes that begin like a packet a broker sends, more often than not."""
    body = source.randbytes(source.choice((0, 1, 2, 3, 5, 20)))
    head = source.choice(
        (0x20, 0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x90, 0xB0, 0xD0, 0xE0, 0xF0, source.randrange(256))
    )
    length = source.choice((len(body), len(body), source.randrange(128)))
    return bytes((head, length)) + body


@pytest.mark.parametrize("before", [True, False])
def test_no_garbage_from_the_broker_hangs_or_leaks(before: bool) -> None:  # noqa: FBT001  # two cases
    source = random.Random(7)  # noqa: S311  # it spreads, it hides nothing

    async def scene(broker: ScriptedBroker) -> None:
        for _ in range(300):
            trash = Send(garbage(source))
            broker.on_connect = lambda _: [trash, Accept()] if before else [Accept(), trash]  # noqa: B023
            started = asyncio.get_running_loop().time()
            link = Link(where(broker.port), will=WILL, version=Version.V5)
            try:
                await link.connect()
                await link.send(message())
            except (UplinkDown, Refused):
                pass
            assert asyncio.get_running_loop().time() - started <= ACK_S + 1
            link.abort()
            await asyncio.sleep(1)

    began = time.process_time()
    play(scene)
    assert time.process_time() - began < 20, "something spins"


def test_three_hundred_links_leave_no_task_and_no_file_behind() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        for number in range(300):
            link = await connected(broker)
            await link.send(message())
            broker.drop() if number % 2 else link.abort()
            await link.broken()
        assert len(broker.wills) >= 299

    play(scene)


def test_on_the_older_version_a_message_has_no_properties_and_arrives() -> None:
    async def scene(link: Link, broker: ScriptedBroker) -> None:
        await link.send(message())
        assert broker.connects[0].version == 4
        assert broker.connects[0].clean
        assert broker.published[0].content_type == ""

    on_a_link(scene, Version.V311)


def test_to_be_cancelled_in_the_moment_the_broker_lets_us_in_is_to_be_cancelled() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        link = Link(where(broker.port), will=WILL, version=Version.V5)
        connecting = asyncio.create_task(link.connect())
        link._connected.add_done_callback(lambda _: connecting.cancel())  # noqa: SLF001  # that moment
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        await link.broken()

    play(scene)

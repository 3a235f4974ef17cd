"""A link on which acknowledgements come slowly: it stays while they come, and ends where they do not."""

import asyncio
from collections.abc import Callable, Collection

import pytest
from structlog.testing import capture_logs

from gateway.link.broker import Message, NotAcknowledged, UplinkDown
from gateway.link.mqtt_link import ACK_S, KEEPALIVE_S, WINDOW, Link, Version
from gateway.link.uplink import MANY_FAILURES, Uplink
from hil.mqtt_packets import Publish
from hil.relay import Relay
from hil.scripted_broker import NOTHING, Ack, Deed, ScriptedBroker
from tests.link.broker_scene import WILL, play, where

EACH_S = 4.0  # 1.5 kB at 0.4 kB/s


def now() -> float:
    return asyncio.get_running_loop().time()


async def connected(port: int) -> Link:
    link = Link(where(port), will=WILL, version=Version.V5)
    await link.connect()
    return link


async def send_all(link: Link, count: int, size: int = 1500) -> list[BaseException | None]:
    messages = [Message(f"pole/1/pole-7/data/{n}", b"x" * size) for n in range(count)]
    return await asyncio.gather(*map(link.send, messages), return_exceptions=True)


def one_by_one(never: Collection[int] = ()) -> Callable[[Publish], Deed]:
    """Acknowledge one message after the other, ``EACH_S`` each, and some never."""
    free_at = 0.0

    def answer(publish: Publish) -> Deed:
        nonlocal free_at
        free_at = max(now(), free_at) + EACH_S
        return NOTHING if int(publish.topic.rpartition("/")[2]) in never else Ack(after=free_at - now())

    return answer


def test_a_link_on_which_a_window_takes_minutes_stays_while_acknowledgements_come() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = one_by_one()
        link = await connected(broker.port)
        assert WINDOW * EACH_S > 2 * ACK_S
        assert await send_all(link, 60) == [None] * 60
        assert len(broker.published) == 60
        await asyncio.sleep(2 * ACK_S)
        assert not link.ended.done()
        await link.close()

    play(scene)


def test_so_does_one_on_which_the_ping_waits_behind_what_is_sent() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        relay = Relay(broker.port)
        relay.speed = 400
        await relay.start()
        link = await connected(relay.port)
        began = now()
        assert await send_all(link, WINDOW) == [None] * WINDOW
        assert now() - began > 3 * KEEPALIVE_S
        await asyncio.sleep(3 * KEEPALIVE_S)
        assert not link.ended.done()
        await link.close()
        await relay.close()

    play(scene)


def test_a_message_that_is_passed_over_costs_the_slow_link_and_is_the_only_one_to_blame() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = one_by_one(never={10})
        link = await connected(broker.port)
        results = await send_all(link, 60)
        assert now() == pytest.approx(12 * EACH_S + ACK_S, abs=0.1), "from the acknowledgement of the next one on"
        done = results.count(None)
        assert done >= 18
        assert {type(result) for result in results} == {type(None), NotAcknowledged, UplinkDown}
        assert [n for n, result in enumerate(results) if isinstance(result, NotAcknowledged)] == [10]
        assert "later ones" in await link.broken()

    play(scene)


def test_where_acknowledgements_stop_the_link_ends_and_no_message_is_to_blame() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = one_by_one(never=range(5, 60))
        link = await connected(broker.port)
        results = await send_all(link, 60)
        assert now() == pytest.approx(5 * EACH_S + ACK_S, abs=0.1), "from the last acknowledgement on"
        assert [type(result) for result in results] == [type(None)] * 5 + [UplinkDown] * 55
        assert "acknowledged nothing for 30 s" in await link.broken()

    play(scene)


def test_acknowledgements_of_before_do_not_shorten_the_time_for_the_next_message() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        link = await connected(broker.port)
        assert await send_all(link, 5) == [None] * 5
        await asyncio.sleep(5)
        broker.on_publish = lambda _: Ack(after=ACK_S - 1)
        assert await send_all(link, 5) == [None] * 5
        await link.close()

    play(scene)


def test_where_the_gateway_itself_ends_the_link_again_and_again_no_second_client_is_blamed() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda _: NOTHING
        uplink = Uplink(where(broker.port), WILL)
        running = asyncio.create_task(uplink.run())
        with capture_logs() as logs:
            while len(broker.connects) <= 2 * MANY_FAILURES:
                link = await uplink.link()
                with pytest.raises(UplinkDown):
                    await link.send(Message("topic", b"payload"))
                await asyncio.sleep(0.1)  # by then the uplink has seen it
        ends = [line["why"] for line in logs if line["event"] == "uplink is down"]
        assert len(ends) >= 2 * MANY_FAILURES
        assert set(ends) == {"the link broke: the broker acknowledged nothing for 30 s"}
        running.cancel()
        await asyncio.wait([running])
        await uplink.close()

    play(scene)

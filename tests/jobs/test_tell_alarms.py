"""What is wrong with the pole is told when it begins and when it is over: once, with a count, and not in a flood."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from structlog.testing import capture_logs

from gateway.jobs.report import last_will
from gateway.jobs.signs import GRACE_NS, Sign
from gateway.jobs.tell_alarms import PAUSE_S, tell_alarms
from gateway.link.uplink import Uplink
from hil.scripted_broker import Accept, Ack, Refuse, ScriptedBroker
from tests.link.broker_scene import play, where
from tests.words.contract import must_be

TOPIC = "pole/1/pole-7"
NS = 1_000_000_000
UTC_S = 1_800_000_000
SOON_S = 1.5
GRACE_S = GRACE_NS["not-ready"] / NS


class Clock:
    """The clock of the loop, with a time of day."""

    def now(self) -> int:
        """Return nanoseconds since boot."""
        return round(asyncio.get_running_loop().time() * NS)

    def utc_offset(self) -> int:
        """Return what to add for nanoseconds since 1970."""
        return UTC_S * NS

    def synchronised(self) -> bool:
        """Tell whether that is right."""
        return True


@dataclass
class Subject:
    """One that has trouble."""

    code: str = ""
    since: int = 0
    times: Counter[str] = field(default_factory=Counter)

    def goes(self, code: str) -> None:
        """Begin a trouble, or end it with ""."""
        self.code, self.since = code, Clock().now()
        if code:
            self.times[code] += 1


@dataclass
class Pole:
    """A pole with two devices that tells its alarms."""

    uplink: Uplink
    dust: Subject = field(default_factory=Subject)
    meter: Subject = field(default_factory=Subject)

    def look(self) -> list[Sign]:
        """Tell how both are."""
        return [
            Sign("device", name, each.code, each.since, each.times, f"text of {each.code}", f"hint of {each.code}")
            for name, each in (("dust", self.dust), ("meter", self.meter))
        ]


@contextlib.asynccontextmanager
async def telling(port: int) -> AsyncIterator[Pole]:
    uplink = Uplink(where(port), last_will(TOPIC))
    pole = Pole(uplink)
    alarms = tell_alarms(uplink, f"{TOPIC}/event", look=pole.look, clock=Clock(), epoch=3)
    jobs = [asyncio.create_task(job) for job in (uplink.run(), alarms)]
    await asyncio.sleep(SOON_S)
    try:
        yield pole
        assert not any(job.done() for job in jobs)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        await uplink.close()


def told(broker: ScriptedBroker) -> list[dict[str, Any]]:
    """Return the alarms that the broker took."""
    alarms = []
    for publish in broker.acknowledged:
        alarm = json.loads(publish.payload)
        must_be("alarm", alarm)
        assert publish.topic == f"{TOPIC}/event/{alarm['event']}"
        assert not publish.retain
        alarms.append(alarm)
    return alarms


def story(broker: ScriptedBroker) -> list[tuple[str, str, str, int]]:
    """Tell them in short: of whom, what, and how often."""
    return [(alarm["subject"], alarm["state"], alarm["code"], alarm["count"]) for alarm in told(broker)]


def test_nothing_wrong_is_nothing_told() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port):
            await asyncio.sleep(600)
            assert broker.published == []

    play(scene)


def test_an_alarm_is_raised_at_once_and_cleared_under_the_same_id() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            await asyncio.sleep(100)
            began = asyncio.get_running_loop().time()
            pole.dust.goes("no-reply")
            await asyncio.sleep(SOON_S)
            assert story(broker) == [("dust", "raise", "no-reply", 1)]
            await asyncio.sleep(3600)
            assert len(told(broker)) == 1
            pole.dust.goes("")
            await asyncio.sleep(SOON_S)
            raised, cleared = told(broker)
            assert raised == {
                "event": "device",
                "id": "3-device-dust-1",
                "state": "raise",
                "subject": "dust",
                "code": "no-reply",
                "text": "text of no-reply",
                "hint": "hint of no-reply",
                "count": 1,
                "at": UTC_S + began,
                "since": UTC_S + began,
                "clock": "synchronised",
                "epoch": 3,
            }
            assert (cleared["state"], cleared["code"], cleared["id"]) == ("clear", "no-reply", raised["id"])
            assert (cleared["since"], cleared["at"]) == (raised["since"], raised["at"] + 3600 + SOON_S)
            await asyncio.sleep(PAUSE_S)
            pole.dust.goes("no-reply")
            await asyncio.sleep(SOON_S)
            again = told(broker)[-1]
            assert (again["state"], again["count"], again["id"]) == ("raise", 2, "3-device-dust-2")

    play(scene)


def test_one_that_flaps_is_told_once_a_minute_with_its_count_and_keeps_the_others_waiting_for_nothing() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            for _ in range(100):  # 20 minutes
                pole.dust.goes("bad-frame")
                await asyncio.sleep(7)
                pole.dust.goes("")
                await asyncio.sleep(5)
            assert 18 <= len(told(broker)) <= 21
            counts = [count for _, _, _, count in story(broker)]
            assert counts == sorted(counts)
            assert len({alarm["id"] for alarm in told(broker)}) < len(told(broker)) / 2
            pole.meter.goes("no-reply")
            await asyncio.sleep(SOON_S)
            assert ("meter", "raise", "no-reply", 1) in story(broker)
            await asyncio.sleep(PAUSE_S)
            last = [alarm for alarm in told(broker) if alarm["subject"] == "dust"][-1]
            assert (last["state"], last["count"]) == ("clear", 100)

    play(scene)


def test_what_was_over_between_two_looks_is_told_as_cleared() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            for _ in range(3):
                pole.dust.goes("no-reply")
                pole.dust.goes("")
            await asyncio.sleep(SOON_S)
            assert story(broker) == [("dust", "clear", "no-reply", 3)]

    play(scene)


def test_another_reason_is_told_under_the_same_id() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            pole.dust.goes("no-reply")
            await asyncio.sleep(PAUSE_S)
            pole.dust.goes("port-gone")
            await asyncio.sleep(SOON_S)
            assert story(broker) == [("dust", "raise", "no-reply", 1), ("dust", "raise", "port-gone", 1)]
            first, second = told(broker)
            assert first["id"] == second["id"]
            assert second["since"] == first["since"] + PAUSE_S

    play(scene)


def test_to_warm_up_is_no_alarm_unless_it_lasts() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            for _ in range(5):
                pole.dust.goes("not-ready")
                await asyncio.sleep(GRACE_S - 10)
                pole.dust.goes("")
                await asyncio.sleep(60)
            assert told(broker) == []
            pole.dust.goes("not-ready")
            await asyncio.sleep(GRACE_S + SOON_S)
            assert [(state, code) for _, state, code, _ in story(broker)] == [("raise", "not-ready")]

    play(scene)


def test_what_is_raised_is_told_again_once_on_each_link_and_what_was_cleared_meanwhile_too() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        async with telling(broker.port) as pole:
            pole.dust.goes("no-reply")
            pole.meter.goes("bad-frame")
            await asyncio.sleep(SOON_S)
            for number in range(1, 4):
                await asyncio.sleep(10)
                broker.drop()
                await until_up(pole)
                await asyncio.sleep(30)
                assert len(told(broker)) == 2 + 2 * number
            assert told(broker)[-2:] == told(broker)[:2]
            broker.on_connect = lambda _: Refuse(0x88)
            broker.drop()
            await asyncio.sleep(PAUSE_S)
            pole.meter.goes("")
            broker.on_connect = lambda _: Accept()
            await until_up(pole)
            await asyncio.sleep(SOON_S)
            assert story(broker)[-2:] == [("dust", "raise", "no-reply", 1), ("meter", "clear", "bad-frame", 1)]
            broker.drop()
            await until_up(pole)
            await asyncio.sleep(PAUSE_S)
            assert story(broker)[-2:] == [("meter", "clear", "bad-frame", 1), ("dust", "raise", "no-reply", 1)]

    play(scene)


def test_what_a_broker_refuses_is_tried_again_a_minute_later_and_the_rest_is_told() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_publish = lambda publish: Ack(0x87 if b'"dust"' in publish.payload else 0)
        async with telling(broker.port) as pole:
            with capture_logs() as logs:
                pole.dust.goes("no-reply")
                pole.meter.goes("no-reply")
                await asyncio.sleep(10 * PAUSE_S)
            assert story(broker) == [("meter", "raise", "no-reply", 1)]
            assert 9 <= sum("alarm" in line["event"] for line in logs) <= 11
            broker.on_publish = lambda _: Ack()
            await asyncio.sleep(PAUSE_S + SOON_S)
            assert story(broker)[1:] == [("dust", "raise", "no-reply", 1)]
            assert len(broker.connects) == 1

    play(scene)


async def until_up(pole: Pole) -> None:
    await asyncio.sleep(0.1)
    while not pole.uplink.up:  # noqa: ASYNC110  # it is what a person would look at
        await asyncio.sleep(0.1)

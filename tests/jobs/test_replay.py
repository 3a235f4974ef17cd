"""A receiver that missed packs asks for them; and what nobody will get is told. Against a real broker."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.jobs.forward import Forward
from gateway.jobs.replay import MOST_PACKS, Replay, gaps, ranges
from gateway.jobs.report import last_will
from gateway.jobs.tell_losses import event, tell_losses
from gateway.link.backfill import Backfill, Pace
from gateway.link.uplink import Uplink
from gateway.store.buffer import Buffer
from gateway.store.pack_sql import WAL_BYTES, Loss
from gateway.words.reading import Pack, Reading
from gateway.words.senml import encode
from gateway.words.timeline import Epoch
from hil.broker import mosquitto
from hil.receiver import Heard, Receiver
from tests.link.broker_scene import where
from tests.store.buffer_bench import ROOMY
from tests.words.contract import faults, must_be, ours

POLE = "pole-7"
TOPIC = f"pole/1/{POLE}"
NS = 1_000_000_000
WEEK_S = 7 * 86_400
LIMIT_S = 20.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """Give the port of a broker."""
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    running = mosquitto(folder)
    running.start()
    yield running.port
    running.stop()


def pack(n: int, size: int = 0, dataset: str = "air") -> Pack:
    blob = encode(
        [Reading("dust", dataset, n * NS, {"pm10": n, "padding": "x" * size})],
        pole=POLE,
        unit_of=lambda _, __: "",
        utc_offset=0,
        labels={"epoch": 1, "seq": n, "cat": "0123abcd"},
    )
    return Pack(dataset, 1, n, 1, n * NS, blob)


@dataclass
class Scene:
    """What runs."""

    buffer: Buffer
    receiver: Receiver
    heard: Heard

    async def ask(self, first: int, last: int, id_: str = "mine") -> dict[str, Any]:
        """Ask for packs of the first epoch and wait for the answer."""
        request = {"id": id_, "dataset": "air", "epoch": 1, "from": first, "to": last}
        must_be("replay", request)
        await asyncio.to_thread(self.receiver.command, POLE, "replay", request)
        return await self.told(lambda event: event.get("id") == id_)

    async def told(self, which: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for an event."""
        await asyncio.to_thread(self.receiver.wait, lambda: any(map(which, self.heard.events)), LIMIT_S, "an event")
        told: dict[str, Any] = next(filter(which, reversed(self.heard.events)))
        must_be("lost" if told["event"] == "lost" else "replayed", told)
        return told

    async def ready(self) -> None:
        """Wait until the pole hears requests: what is asked before that, nobody hears."""
        while not any(map(_complains, self.heard.events)):
            await asyncio.to_thread(self.receiver.command, POLE, "replay", "are you there?")
            with contextlib.suppress(TimeoutError):
                await asyncio.to_thread(
                    self.receiver.wait, lambda: any(map(_complains, self.heard.events)), 0.2, "an answer"
                )


def _complains(event: dict[str, Any]) -> bool:
    return "not a request" in event.get("error", "")


@contextlib.asynccontextmanager
async def scene(port: int, path: Path, *, history: bool, max_bytes: int = ROOMY) -> AsyncIterator[Scene]:
    """Run buffer, uplink, forward, replay and losses beside a receiver."""
    buffer = Buffer(path, max_bytes, forget_before=(lambda: 0) if history else None)
    await buffer.open("boot", 0, 0)
    uplink = Uplink(where(port), last_will(TOPIC))
    forward = Forward(
        buffer,
        uplink,
        topic=lambda name: f"{TOPIC}/data/{name}",
        payload=lambda pack: pack.blob,
        backfill=Backfill(Pace()),
    )
    replay = Replay(buffer, uplink, topic=TOPIC, send=forward.send_once)
    running = (
        buffer.run(),
        uplink.run(),
        forward.run(),
        replay.run(),
        tell_losses(buffer, uplink, f"{TOPIC}/event/lost"),
    )
    with Receiver(port) as receiver:
        jobs = [asyncio.create_task(job) for job in running]
        try:
            async with asyncio.timeout(LIMIT_S):
                await uplink.link()
                it = Scene(buffer, receiver, receiver.heard(POLE))
                await it.ready()
                yield it
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.wait(jobs)
            await uplink.close()
            await buffer.close()


def test_with_history_acknowledged_packs_come_again_byte_for_byte(broker: int, tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(broker, tmp_path / "buffer.db", history=True) as s:
            for n in range(1, 31):
                s.buffer.put(pack(n), 10.0)
            await s.buffer.empty()
            for stored in (False, True):  # while they are in RAM, and when they are on the disk
                answer = await s.ask(5, 9, f"mend {stored}")
                assert answer == {
                    "event": "replay",
                    "id": f"mend {stored}",
                    "dataset": "air",
                    "epoch": 1,
                    "sent": [[5, 9]],
                    "gone": [],
                }
                await s.buffer.barrier()
            assert [s.heard.packs["air"][1, n] for n in (4, 5, 9, 10)] == [1, 3, 3, 1]
            assert s.buffer.depth.packs == 0

    asyncio.run(main())


def test_history_is_there_after_a_restart_and_is_not_sent_unasked(broker: int, tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(broker, tmp_path / "buffer.db", history=True) as s:
            for n in range(1, 11):
                s.buffer.put(pack(n), 10.0)
            await s.buffer.empty()
        async with scene(broker, tmp_path / "buffer.db", history=True) as s:
            assert s.buffer.depth.packs == 0
            answer = await s.ask(1, 12)
            assert (answer["sent"], answer["gone"]) == ([[1, 10]], [[11, 12]])

    asyncio.run(main())


def test_without_history_the_answer_says_what_is_no_longer_held(broker: int, tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(broker, tmp_path / "buffer.db", history=False) as s:
            s.buffer.put(pack(1), 10.0)
            await s.buffer.empty()
            answer = await s.ask(1, 3)
            assert (answer["sent"], answer["gone"]) == ([], [[1, 3]])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"dataset": "air"}, "epoch"),
        ({"dataset": "air", "epoch": "3", "from": 1, "to": 2}, "epoch"),
        ({"dataset": "air", "epoch": 1, "from": 0, "to": 2}, "from"),
        ({"dataset": "air", "epoch": 1, "from": 1, "to": 2, "force": True}, "force"),
    ],
)
def test_what_is_no_request_is_answered_with_what_is_wrong(
    broker: int, tmp_path: Path, request_: object, says: str
) -> None:
    async def main() -> None:
        async with scene(broker, tmp_path / "buffer.db", history=False) as s:
            assert faults(ours("replay"), request_)
            await asyncio.to_thread(s.receiver.command, POLE, "replay", request_)
            await s.told(lambda event: says in event.get("error", ""))

    asyncio.run(main())


def test_a_request_at_the_ends_of_its_types_is_answered(broker: int, tmp_path: Path) -> None:
    largest = 2**53 - 1
    ends = [
        {"dataset": "air", "epoch": 2**31 - 1, "from": 1, "to": 1},
        {"dataset": "air", "epoch": 1, "from": largest, "to": largest},
        {"dataset": "air", "epoch": 1, "from": largest, "to": 1},
        {"dataset": "a\0ir" + "\N{GRINNING FACE}" * 58, "epoch": 1, "from": 2, "to": 2},
    ]

    async def main() -> None:
        async with scene(broker, tmp_path / "buffer.db", history=True) as s:
            s.buffer.put(pack(1), 0.0)
            await s.buffer.barrier()
            for n, request in enumerate(ends):
                wanted = {"id": f"{n}{'x' * 63}", **request}
                assert not faults(ours("replay"), wanted)
                await asyncio.to_thread(s.receiver.command, POLE, "replay", wanted)
                answer = await s.told(lambda event, wanted=wanted: event.get("id") == wanted["id"])  # type: ignore[misc]
                assert answer["sent"] == []

    asyncio.run(main())


def test_a_retained_request_is_not_obeyed(broker: int, tmp_path: Path) -> None:
    async def main() -> None:
        with Receiver(broker, name="careless") as careless:
            wanted = {"id": "retained", "dataset": "air", "epoch": 1, "from": 1, "to": 3}
            await asyncio.to_thread(careless.command, POLE, "replay", wanted, retain=True)
        async with scene(broker, tmp_path / "buffer.db", history=False) as s:
            await s.ask(7, 7, "mine")
            assert not [event for event in s.heard.events if event.get("id") == "retained"]

    asyncio.run(main())


def test_a_long_range_is_answered_in_parts() -> None:
    assert MOST_PACKS == 1000
    assert ranges([1, 2, 3, 7]) == [[1, 3], [7, 7]]
    assert gaps([2, 3, 7], 1, 9) == [[1, 1], [4, 6], [8, 9]]
    assert gaps([], 4, 5) == [[4, 5]]
    assert gaps([4, 5], 4, 5) == []


def test_what_gave_way_is_told_to_the_reading(broker: int, tmp_path: Path) -> None:
    async def fill() -> int:
        buffer = Buffer(tmp_path / "buffer.db", WAL_BYTES + 512 * 1024)
        await buffer.open("boot", 0, 0)
        for n in range(1, 1001):
            buffer.put(pack(n, size=1500), 10.0)
            if n % 10 == 0:
                await buffer.barrier()
        dropped = buffer.depth.dropped_readings
        await buffer.close()
        return dropped

    async def main() -> None:
        dropped = await fill()
        assert dropped > 100
        async with scene(broker, tmp_path / "buffer.db", history=False, max_bytes=WAL_BYTES + 512 * 1024) as s:
            told = await s.told(lambda event: event["event"] == "lost")
            await s.buffer.empty()
            (loss,) = told["losses"]
            assert (told["event"], loss["dataset"], loss["reason"], loss["epoch"]) == ("lost", "air", "evicted", 1)
            assert (loss["packs"], loss["readings"]) == (dropped, dropped)
            assert loss["seq"] == [1, dropped]
            assert loss["taken"] == [1.0, float(dropped)]
            await asyncio.to_thread(s.receiver.fence)
            assert set(s.heard.packs["air"]) == {(1, n) for n in range(dropped + 1, 1001)}
            assert (await s.buffer.losses())[1] == []

    asyncio.run(main())


def test_times_of_a_boot_that_is_not_known_are_not_told() -> None:
    loss = Loss("air", 3, "refused", 2, 20, 5, 6, 10 * NS, 20 * NS)
    (told,) = json.loads(event(1, [loss], [Epoch(3, "boot", 0, None)]).encoded())["losses"]
    assert "taken" not in told
    (told,) = json.loads(event(1, [loss], [Epoch(3, "boot", 0, 100 * NS)]).encoded())["losses"]
    assert told["taken"] == [110.0, 120.0]

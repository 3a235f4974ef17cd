"""A broker that is killed in the middle of a burst, again and again, gets every pack; nothing grows at the pole.

The broker dies with packs that it took and whose acknowledgements the pole did not get. Those that the pole got are
for what had reached the receiver by then: mosquitto acknowledges before it writes, and its loss would be taken for
ours.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.link.mqtt_link import WINDOW
from gateway.link.uplink import Uplink
from gateway.store.buffer import Buffer
from gateway.store.held import Held
from hil.broker import mosquitto
from hil.receiver import Receiver
from hil.relay import Relay
from tests.link.broker_scene import open_files, where
from tests.link.mosquitto_scene import forwarding, pack, until, uplink_to

KILLS, MANY_KILLS = 3, 50
BURST = 100  # packs
LIMIT_S = 20.0  # for each kill

Figures = Callable[[str, object], None]


def test_a_broker_that_is_killed_in_each_of_three_bursts_gets_every_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Figures
) -> None:
    Kills(tmp_path, monkeypatch).prove(KILLS, record_property)


@pytest.mark.soak
def test_the_same_holds_for_fifty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Figures) -> None:
    Kills(tmp_path, monkeypatch).prove(MANY_KILLS, record_property)


class Kills:
    """A broker, the way to it, and what of the buffer was acknowledged."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("gateway.link.uplink.FIRST_PAUSE_S", 0.05)
        patch.setattr("gateway.link.uplink.LONGEST_PAUSE_S", 0.2)
        self._folder = folder
        self._patch = patch
        self._dice = random.Random(50)  # noqa: S311  # it must repeat itself
        self._broker = mosquitto(folder)
        self._relay = Relay(self._broker.port)
        self._receiver = Receiver(self._broker.port)
        self._heard = self._receiver.heard("pole-7")
        self._came = self._heard.packs["air"]
        self._let_go: set[int] = set()
        self._enough = 0
        self._holds = asyncio.Event()

    def prove(self, kills: int, record_property: Figures) -> None:
        """Kill it so often, and see that all came."""

        async def main() -> None:
            async with asyncio.timeout(LIMIT_S * kills):
                await self._play(kills)

        self._broker.start()
        try:
            with self._receiver:
                asyncio.run(main())
        finally:
            self._broker.stop()
        assert self._heard.holes() == {}
        assert self._heard.values("pole-7/dust/pm10") == [n / 10 for n in range(1, kills * BURST + 1)]
        record_property("kills", kills)
        record_property("copies", self._heard.repeats())

    async def _play(self, kills: int) -> None:
        await self._relay.start()
        async with uplink_to(where(self._relay.port)) as uplink, forwarding(self._folder, uplink) as buffer:
            self._watch(buffer)
            await self._kill_in_burst(uplink, buffer)
            after_one = files_and_tasks()
            for _ in range(kills - 1):
                await self._kill_in_burst(uplink, buffer)
                await until(lambda: files_and_tasks() <= after_one)
            assert buffer.depth.dropped == 0
        await self._relay.close()

    def _watch(self, buffer: Buffer) -> None:
        acknowledge = buffer.acknowledge

        def noted(held: Held) -> None:
            acknowledge(held)
            self._let_go.add(held.pack.n)
            if len(self._let_go) == self._enough:
                self._relay.hold_answers()
                self._holds.set()

        self._patch.setattr(buffer, "acknowledge", noted)

    async def _kill_in_burst(self, uplink: Uplink, buffer: Buffer) -> None:
        await uplink.link()
        before = len(self._let_go)
        self._enough = before + self._dice.randrange(1, BURST - 2 * WINDOW)  # others are on their way by then
        for n in range(before + 1, before + 1 + BURST):
            buffer.put(pack(n), 1.0)
        await self._holds.wait()
        self._holds.clear()
        await asyncio.to_thread(self._receiver.fence)
        await asyncio.to_thread(self._broker.kill)
        assert buffer.depth.packs > 0, "the burst was over before the broker was killed"
        self._relay.cut()
        await until(lambda: not uplink.up)
        assert {(1, n) for n in self._let_go} <= set(self._came), "an acknowledgement that was no receipt"
        await asyncio.to_thread(self._broker.start)
        self._relay.restore()
        await buffer.empty()
        await until(lambda: len(self._came) == before + BURST)


def files_and_tasks() -> Counter[str]:
    """Count what this process has open, and its tasks."""
    return Counter(files=open_files().total(), tasks=len(asyncio.all_tasks()))

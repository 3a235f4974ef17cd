"""A pole and a receiver at brokers of three sorts: what is promised does not depend on the sort, nor on one node."""

import asyncio
import itertools
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hil.cluster import Cluster, alone
from hil.nats import nats
from hil.rabbitmq import rabbitmq
from tests.clusters.scene import Scene, scene, started, until

BACKLOG = 200  # packs
KILLS = 4
POLES = itertools.count(1)  # each test has its own: brokers remember

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(600)]

Figures = Callable[[str, object], None]
Play = Callable[[Callable[[Scene], Awaitable[None]]], None]


@pytest.fixture(scope="module", params=[alone, nats, rabbitmq], ids=["mosquitto", "nats", "rabbitmq"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, ThreadPoolExecutor]]:
    cluster: Cluster = request.param(tmp_path_factory.mktemp("cluster"))
    with started(cluster) as hands:
        yield cluster, hands


@pytest.fixture
def play(running: tuple[Cluster, ThreadPoolExecutor], tmp_path: Path) -> Play:
    """Give a function that plays a scene with a pole of its own."""
    pole = f"pole-{next(POLES)}"

    def run(what: Callable[[Scene], Awaitable[None]]) -> None:
        async def main() -> None:
            async with scene(tmp_path, pole, *running) as s:
                await what(s)

        asyncio.run(main())

    return run


def test_every_channel_arrives_and_who_comes_late_finds_the_state(play: Play) -> None:
    async def story(s: Scene) -> None:
        await until(lambda: s.channels <= set(s.heard.latest))
        await until(lambda: s.heard.state.get("status") == "online")
        log = [json.loads(line) for line in s.daemon.output().splitlines()]
        assert [line["mqtt"] for line in log if line["event"] == "uplink is up"] == [s.cluster.mqtt]
        await s.late("online", "first")
        s.cut()
        await until(lambda: s.heard.states[-1:] == ["gone"])
        s.restore()
        await until(lambda: s.heard.states[-1:] == ["online"])
        await s.late("online", "second")
        await s.end()

    play(story)


def test_the_will_says_that_a_gateway_is_gone_that_was_killed(play: Play) -> None:
    async def story(s: Scene) -> None:
        await until(lambda: s.heard.state.get("status") == "online")
        await s.more(10)
        s.daemon.kill()
        await until(lambda: s.heard.states[-1:] == ["gone"])
        await s.late("gone", "late")

    play(story)


def test_the_node_of_the_pole_is_killed_while_a_backlog_drains_and_nothing_is_lost(
    play: Play, record_property: Figures
) -> None:
    async def story(s: Scene) -> None:
        await s.more(10)
        stored = await s.backlog(BACKLOG)
        await until(lambda: len(stored & s.came()) >= BACKLOG // 4)
        node, at = await s.kill_node()
        assert stored - s.came(), "the backlog was over before the node was killed"
        if len(s.cluster.nodes) == 1:
            await s.by_hand(s.cluster.restart, node)
        await until(lambda: stored <= s.came())
        assert s.node() is not node or len(s.cluster.nodes) == 1
        await s.more(10)
        record_property("gap", f"{s.gap(at):.1f} s")
        record_property("copies", s.heard.repeats())
        await s.end()

    play(story)


def test_nodes_are_killed_again_and_again_and_come_back_and_nothing_is_lost(
    play: Play, record_property: Figures
) -> None:
    dice = random.Random(11)  # noqa: S311  # it must repeat itself

    async def story(s: Scene) -> None:
        gaps, killed, files = [], [], 0
        for _ in range(KILLS):
            await s.more(dice.randrange(5, 60))
            node, at = await s.kill_node()
            if len(s.cluster.nodes) > 1:
                await until(lambda node=node: s.node() is not node)  # type: ignore[misc]  # bound here
            if node is not s.cluster.nodes[-1]:
                await s.more(10)
            await s.by_hand(s.cluster.restart, node)  # where it is the receiver's, it finds its session again
            await s.more(30)
            gaps.append(s.gap(at))
            killed.append(node)
            files = files or s.files()
            await until(lambda most=files: s.files() <= most)  # type: ignore[misc]  # bound here
        assert len(set(killed)) > 1 or len(s.cluster.nodes) == 1
        record_property("gaps", " ".join(f"{gap:.1f} s" for gap in gaps))
        record_property("copies", s.heard.repeats())
        await s.end()

    play(story)

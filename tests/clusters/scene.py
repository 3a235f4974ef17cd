"""A pole at one node of a cluster, a receiver at another: what happens to nodes must not be seen in the readings."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from paho.mqtt.enums import MQTTProtocolVersion

from hil.broker import Broker
from hil.cluster import Cluster
from hil.daemon import Daemon
from hil.modbus_tcp import ModbusTcp
from hil.receiver import Heard, Receiver
from hil.relay import Relay
from hil.twins.modbus import sdm630

METERS = 6
LIMIT_S = 180.0
MANY = 20  # packs
CRAWL, MOBILE = 5_000, 80_000  # bytes a second: packs pile up, and a backlog takes its time

CONFIG = """\
[pole]
id = "{pole}"
[uplink]
url = {url}
[buffer]
path = "{folder}/buffer.db"
"""
METER = """
[dataset.energy-{n}]
send_every = 0.2
commit_within = 0.2
[port.p{n}]
path = "tcp://127.0.0.1:{port}"
[[device]]
id = "meter-{n}"
driver = "modbus"
port = "p{n}"
profile = "eastron-sdm630"
dataset = "energy-{n}"
every = 0.1
"""

Number = tuple[str, int, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scene:
    """What a test works with.

    Attributes:
        pole: its name.
        cluster: all nodes run when the test begins.
        relays: the ways of the pole to the nodes.
        daemon: the gateway; it is started.
        receiver: has a session at the last node; the pole begins at the first.
        heard: what came there.
        channels: names of all that it must get.
        hands: the thread that starts and ends nodes; they would end with another.
    """

    pole: str
    cluster: Cluster
    relays: Sequence[Relay]
    daemon: Daemon
    receiver: Receiver
    heard: Heard
    channels: set[str]
    hands: ThreadPoolExecutor

    async def by_hand(self, what: Callable[..., T], *args: object) -> T:
        """Do something with nodes, or wait for something of the receiver, while the loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self.hands, what, *args)

    def node(self) -> Broker:
        """Return the node that the pole was connected to last."""
        port = max(self.relays, key=lambda relay: relay.reached).target
        return next(node for node in self.cluster.nodes if node.port == port)

    def cut(self) -> None:
        """Cut the pole off."""
        for relay in self.relays:
            relay.cut()

    def restore(self) -> None:
        """Let it connect again."""
        for relay in self.relays:
            relay.restore()

    def set_speed(self, speed: int | None) -> None:
        """Set how many bytes a second the pole can send."""
        for relay in self.relays:
            relay.speed = speed

    def came(self) -> set[Number]:
        """Return what the receiver has, as (dataset, epoch, seq)."""
        return {(dataset, *number) for dataset, packs in list(self.heard.packs.items()) for number in list(packs)}

    def stored(self) -> set[Number]:
        """Return what the gateway has committed and nobody has acknowledged."""
        copy = self.daemon.folder / "copy.db"
        os.kill(self.daemon.pid, signal.SIGSTOP)  # file and log as they are at one moment
        for suffix in ("", "-wal"):
            Path(f"{copy}{suffix}").write_bytes(Path(f"{self.daemon.database}{suffix}").read_bytes())
        os.kill(self.daemon.pid, signal.SIGCONT)
        with contextlib.closing(sqlite3.connect(copy)) as sql:
            return set(sql.execute("SELECT dataset, id >> 32, n FROM pack"))

    async def backlog(self, packs: int) -> set[Number]:
        """Slow the uplink down until so many packs are stored, and return them; then it is faster."""
        self.set_speed(CRAWL)
        await until(lambda: len(self.stored()) >= packs)
        stored = self.stored()
        self.set_speed(MOBILE)
        return stored

    async def more(self, packs: int) -> None:
        """Wait for so many packs that the receiver did not have."""
        before = len(self.came())
        await until(lambda: len(self.came()) >= before + packs)

    async def kill_node(self) -> tuple[Broker, float]:
        """Kill the node that the pole is connected to; return it, and when."""
        node = self.node()
        if not self.cluster.durable:  # the pole must not hear of what only this node has
            for relay in self.relays:
                relay.hold_answers()
            await self.by_hand(self.receiver.fence)
        await self.by_hand(node.kill)
        at = time.monotonic()
        if not self.cluster.durable:
            self.cut()
            self.restore()
        return node, at

    def files(self) -> int:
        """Count what the gateway has open."""
        return len(list(Path(f"/proc/{self.daemon.pid}/fd").iterdir()))

    def gap(self, since: float) -> float:
        """Return the longest time that nothing came to the receiver since then, in seconds."""
        came = list(self.heard.came_at)
        before = [at for at in came if at < since]
        return max(later - earlier for earlier, later in pairwise([*before[-1:], *(at for at in came if at >= since)]))

    async def late(self, status: str, name: str) -> None:
        """Wait until one who subscribes only now is told this state."""
        node = self.cluster.nodes[-1] if self.cluster.retained_everywhere else self.node()
        topic = f"{self.pole}/state"  # RabbitMQ gives nothing retained to wildcards

        def look() -> None:
            with receiver_at(node.port, f"{name}-{self.pole}", [topic]) as late:
                heard = late.heard(self.pole)
                late.wait(lambda: heard.state.get("status") == status, 15.0, status)

        await self.by_hand(look)

    async def end(self) -> None:
        """End the gateway in order, and see that it kept nothing and every good reading came."""
        self.set_speed(None)
        await until(lambda: ((self.daemon.status() or {}).get("buffer", {}).get("packs", MANY)) < MANY)
        assert await asyncio.to_thread(self.daemon.stop) == 0
        await until(lambda: self.heard.states[-1:] == ["stopped"])
        assert self.heard.state["buffer"]["packs"] == 0
        await until(lambda: not self.heard.holes())
        for device, health in self.heard.state["devices"].items():
            name = f"{self.pole}/{device}/voltage_l1"
            await until(lambda name=name, health=health: len(self.heard.values(name)) == health["good"])  # type: ignore[misc]  # bound here


def url(relays: Sequence[Relay]) -> str:
    """Return what stands in the configuration."""
    urls = [f"mqtt://127.0.0.1:{relay.port}" for relay in relays]
    return json.dumps(urls)


def receiver_at(port: int, name: str, topics: Sequence[str] = ("#",)) -> Receiver:
    """Return a receiver that speaks what all of the brokers do."""
    return Receiver(port, name=name, topics=topics, version=MQTTProtocolVersion.MQTTv311)


@contextlib.contextmanager
def started(cluster: Cluster) -> Iterator[ThreadPoolExecutor]:
    """Start a cluster, and give the thread that it belongs to."""
    with ThreadPoolExecutor(1) as hands:
        try:
            hands.submit(cluster.start).result()
            yield hands
        finally:
            cluster.stop()


@contextlib.asynccontextmanager
async def scene(folder: Path, pole: str, cluster: Cluster, hands: ThreadPoolExecutor) -> AsyncIterator[Scene]:
    """Start a gateway and a receiver; in the end all nodes run again."""
    relays = [Relay(node.port) for node in cluster.nodes]
    for relay in relays:
        await relay.start()
    slaves = [sdm630(1, seed=number) for number in range(METERS)]
    servers = [ModbusTcp([slave]) for slave in slaves]
    for server in servers:
        await server.start()
    daemon = Daemon(folder)
    meters = "".join(METER.format(n=number, port=server.port) for number, server in enumerate(servers))
    daemon.config.write_text(CONFIG.format(pole=pole, url=url(relays), folder=folder) + meters)
    channels = {f"{pole}/meter-{n}/{channel}" for n, slave in enumerate(slaves) for channel in slave.truth()}
    try:
        with receiver_at(cluster.nodes[-1].port, f"receiver-of-{pole}") as receiver:
            daemon.start()
            yield Scene(pole, cluster, relays, daemon, receiver, receiver.heard(pole), channels, hands)
    finally:
        await asyncio.to_thread(daemon.stop)
        for server in servers:
            await server.close()
        for relay in relays:
            await relay.close()
        for node in cluster.nodes:
            if not node.running:
                await asyncio.get_running_loop().run_in_executor(hands, cluster.restart, node)


async def until(true: Callable[[], bool]) -> None:
    """Wait for something outside this process."""
    give_up = time.monotonic() + LIMIT_S
    while not await asyncio.to_thread(true):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)

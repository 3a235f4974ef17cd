"""Many poles whose confirmed commit, link and state on the disk are real; no devices, and a time that runs fast.

They live in a thread of their own, so that a command can run in the one of the test.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

from gateway.jobs.report import last_will
from gateway.link.broker import Broker, Message
from gateway.link.mqtt_link import Link
from gateway.link.uplink import Uplink
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import Document
from gateway.remote.incoming import Incoming
from gateway.remote.plant import Way
from gateway.remote.prove_way import ProveWay
from gateway.remote.remote import Remote
from gateway.remote.trust_chain import TrustChain
from gateway.remote.verdict import Verdict
from gateway.words.standing import Echo
from tests.remote.cut_scene import Texts
from tests.remote.office import BAD

LIMIT_S = 120.0


class RealPole:
    """One of them; with a layer that is bad its broker gives nothing back.

    Attributes:
        applied: all that it ever ran, in order.
        is_heard: its way to the broker and back was proven once.
    """

    boot = "boot"

    def __init__(self, folder: Path, name: str, root: bytes, faster: float, tick_s: float) -> None:
        self.name = name
        self._faster, self._tick_s = faster, tick_s
        self._topic = f"pole/1/{name}"
        self.is_heard = False
        self._prover: ProveWay | None = None
        self._remote: Remote[Texts] | None = None
        self.applied: list[Mapping[str, str]] = []
        (folder / "trust").mkdir(parents=True)
        (folder / "trust" / "root.json").write_bytes(root)
        self._trust = TrustChain(folder / "trust")
        self.commit = ConfirmedCommit(self, ConfigFolder(folder / "config"), self._composed)

    def _composed(self, own: str, documents: Mapping[str, Document]) -> Texts:
        layers = {stream: found.settings for stream, found in documents.items()}
        return Texts(own, layers, streams=("fleet", f"pole/{self.name}"), pole=self.name)

    def now(self) -> float:
        """Count, fast."""
        return time.monotonic() * self._faster

    def utc(self) -> int | None:
        """Tell the time of day."""
        return int(time.time())

    async def probe(self, wanted: Texts) -> None:
        """Find nothing."""

    async def apply(self, wanted: Texts) -> None:
        """Run so."""
        self.applied.append(wanted.layers)
        if self._prover and self._remote:
            self._prover.renew()
            self._remote.renew()

    def way(self) -> Way:
        """Ask who proves it."""
        return self._prover.way() if self._prover else Way(None, None)

    async def find_way(self) -> None:
        """Have it proven."""
        if self._prover:
            await self._prover.find()

    def healthy(self) -> tuple[str, ...]:
        """Name none."""
        return ()

    def well_in(self, wanted: Texts) -> tuple[str, ...]:
        """Name none."""
        del wanted
        return ()

    def good_since(self, at: float) -> tuple[str, ...]:
        """Name none."""
        del at
        return ()

    def tell(self, verdict: Verdict) -> None:
        """Leave it to the report."""

    async def live(self, port: int) -> None:
        """Go on for ever."""
        await self.commit.start("own")
        incoming = Incoming(self, self.commit.in_force, self._trust, agent="1")
        incoming.load()
        self.commit.incoming = incoming
        uplink = Uplink(Broker(host="127.0.0.1", port=port, client=self.name, username=""), last_will(self._topic))
        self._prover = ProveWay(uplink, self._echo, self.now)
        self._remote = Remote(uplink, self.commit, incoming, topic=self._topic)
        try:
            await asyncio.gather(uplink.run(), self._prover.run(), self._remote.run(), self._drive())
        finally:
            await uplink.close()

    async def _drive(self) -> None:
        while True:
            self.way()  # who asks has it proven
            await self.commit.tick()
            await asyncio.sleep(self._tick_s)

    async def _echo(self, link: Link) -> Echo:
        if BAD in self.applied[-1].values():
            return Echo(taken=True, came_back=False, why="nothing comes back")
        said = str(self.now()).encode()
        await link.send(Message(f"{self._topic}/state", said, retain=True))
        async with contextlib.aclosing(link.hear(f"{self._topic}/state")) as heard:
            async for each in heard:
                if each.payload == said:
                    break
        self.is_heard = True
        return Echo(taken=True, came_back=True)


class RealPoles:
    """All of them."""

    def __init__(
        self, folder: Path, port: int, names: Iterable[str], root: bytes, *, faster: float, tick_s: float
    ) -> None:
        self.poles = [RealPole(folder / name, name, root, faster, tick_s) for name in names]
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self.until(lambda pole: pole.is_heard)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def until(self, true: Callable[[RealPole], bool]) -> None:
        """Wait until something is so at all of them."""
        give_up = time.monotonic() + LIMIT_S
        while left := [pole.name for pole in self.poles if not true(pole)]:
            assert time.monotonic() < give_up, left
            time.sleep(0.05)

    def running(self, settings: str) -> set[str]:
        """Name the poles that run these settings."""
        return {pole.name for pole in self.poles if pole.applied[-1].get("fleet", "") == settings}

    def ever_ran(self, settings: str) -> set[str]:
        """Name the poles that have run these settings, be it on trial."""
        return {pole.name for pole in self.poles if settings in [each.get("fleet", "") for each in pole.applied]}

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._live())

    async def _live(self) -> None:
        lives = [asyncio.create_task(pole.live(self._port)) for pole in self.poles]
        await self._stop.wait()
        for life in lives:
            life.cancel()
        await asyncio.wait(lives)

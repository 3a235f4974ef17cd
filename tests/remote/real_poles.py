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
from gateway.link.mqtt_link import Broker
from gateway.link.uplink import Uplink
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import Document
from gateway.remote.remote import Remote, Way
from gateway.remote.trust_chain import TrustChain
from gateway.remote.verdict import Verdict
from tests.remote.cut_scene import Texts
from tests.remote.office import BAD

LIMIT_S = 120.0


class RealPole:
    """One of them; with a layer that is bad its broker gives nothing back.

    Attributes:
        applied: all that it ever ran, in order.
    """

    boot = "boot"

    def __init__(self, folder: Path, name: str, root: bytes, faster: float) -> None:
        self.name = name
        self._faster = faster
        self.way = Way(self.now)
        self.applied: list[Mapping[str, str]] = []
        (folder / "trust").mkdir(parents=True)
        (folder / "trust" / "root.json").write_bytes(root)
        self.commit = ConfirmedCommit(
            self, ConfigFolder(folder / "config"), TrustChain(folder / "trust"), self._composed, pole=name, agent="1"
        )

    def _composed(self, own: str, documents: Mapping[str, Document]) -> Texts:
        layers = {stream: found.settings for stream, found in documents.items()}
        return Texts(own, layers, streams=("fleet", f"pole/{self.name}"))

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
        self.way.renew()

    def proven_since(self) -> float | None:
        """Ask the way."""
        return None if BAD in self.applied[-1].values() else self.way.since

    def healthy(self) -> tuple[str, ...]:
        """Name none."""
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
        topic = f"pole/1/{self.name}"
        uplink = Uplink(Broker(host="127.0.0.1", port=port, client=self.name, username=""), last_will(topic))
        remote = Remote(uplink, self.commit, self.way, topic=topic, overrides=tuple)
        try:
            await asyncio.gather(uplink.run(), remote.run())
        finally:
            await uplink.close()


class RealPoles:
    """All of them."""

    def __init__(self, folder: Path, port: int, names: Iterable[str], root: bytes, faster: float) -> None:
        self.poles = [RealPole(folder / name, name, root, faster) for name in names]
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self.until(lambda pole: pole.way.since is not None)
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

"""A pole that is configured over the air: its plant is a model, its state lies in real files, its clock is ours."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.remote.config_folder import ConfigFolder
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.remote.document import digest
from gateway.remote.envelope import read
from gateway.remote.incoming import Incoming
from gateway.remote.override import Override  # noqa: TC001  # a list is made of it
from gateway.remote.plant import NeedsRestart, Unfit, Way
from gateway.remote.settings_layers import Configuration, compose
from gateway.remote.trust_chain import TrustChain
from gateway.remote.verdict import Code, Verdict
from tests.remote.operator import NOW, POLE, document, root

LOCAL = """\
[pole]
id = "pole-1"

[uplink]
url = "mqtts://broker.example"

[remote]
enabled = true
groups = ["harbour"]

[port.a]
path = "tcp://192.0.2.1:502"

[[device]]
id = "meter"
driver = "modbus"
port = "a"
profile = "eastron-sdm630"
every = 1.0

[[device]]
id = "tag"
driver = "modbus"
port = "a"
unit = 2
profile = "eastron-sdm630"
every = 1.0
"""
FIRST_BROKER = "mqtts://broker.example"
GOOD = "[dataset.air]\npriority = 7\n"
BETTER = "[dataset.air]\npriority = 8\n"
BAD_BROKER = '[uplink]\nurl = "mqtts://nobody.example"\n'
BAD_BAUD = '[[device]]\nid = "meter"\nunit = 99\n'
UNFIT = '[uplink]\nurl = "mqtts://unfit.example"\n'
MINE = f"pole/{POLE}"
TERMS = {"window_s": 60, "hold_s": 10}
SERVER = {**TERMS, "confirm": "server"}
ANSWER_S = 2.0  # until a link is proven, and a device gave a value


def wanted(settings: str = GOOD, **changes: Any) -> bytes:  # noqa: ANN401  # any JSON
    """Sign a document that is to be tried."""
    return document(settings, **{"trial": TERMS, **changes})


def sha(raw: bytes) -> str:
    """Return what a signed document is known by."""
    return digest(read(raw).payload)


def broker(wanted: Configuration) -> str:
    """Name the broker of a configuration."""
    return wanted.settings.root.uplink.url[0]


@dataclass(eq=False)
class Plant:
    """A pole whose broker and devices answer two seconds after they are asked, unless the scene says otherwise.

    Attributes:
        boot: which boot this is.
        time: seconds since it.
        clock: seconds since 1970 at time 0; None: not set.
        silent: devices that give nothing whatever they are set to.
        cut: the way to the broker is.
        deaf: nothing comes back on it.
        link_since: when the way to the broker and back was proven.
        asked_at: when links and devices began anew.
    """

    boot: str = "boot-1"
    time: float = 1000.0
    clock: float | None = NOW - 1000.0
    silent: set[str] = field(default_factory=set)
    cut: bool = False
    deaf: bool = False
    told: list[Verdict] = field(default_factory=list)
    applied: list[Configuration] = field(default_factory=list)
    on_apply: Callable[[Configuration], None] = lambda _: None
    on_probe: Callable[[Configuration], None] = lambda _: None
    link_since: float | None = None
    asked_at: float = 0.0
    good_at: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        """Count."""
        return self.time

    def utc(self) -> int | None:
        """Tell the time of day."""
        return None if self.clock is None else int(self.clock + self.time)

    async def probe(self, wanted: Configuration) -> None:
        """Refuse what is marked."""
        self.on_probe(wanted)
        if "unfit" in broker(wanted):
            raise Unfit("no such host: unfit.example")
        if self.applied and wanted.settings.root.uplink.prefix != self.applied[-1].settings.root.uplink.prefix:
            raise NeedsRestart("the prefix needs a restart")

    async def apply(self, wanted: Configuration) -> None:
        """Run so; links and devices begin anew."""
        self.on_apply(wanted)
        self.applied.append(wanted)
        self.link_since = None
        self.asked_at = self.time

    def way(self) -> Way:
        """Tell since when the link is."""
        return Way(self.link_since, None if self.deaf else self.link_since, "no broker")

    async def find_way(self) -> None:
        """Find nothing more."""

    def healthy(self) -> set[str]:
        """Name who gave something of late."""
        return {name for name, at in self.good_at.items() if self.time - at < 5}

    def well_in(self, wanted: Configuration) -> Collection[str]:
        """Name who did, of those that are to be."""
        return self.healthy() & wanted.patience_s.keys()

    def good_since(self, at: float) -> Collection[str]:
        """Name who gave something since."""
        return {name for name, good in self.good_at.items() if good > at}

    def tell(self, verdict: Verdict) -> None:
        """Note it."""
        self.told.append(verdict)

    def live(self) -> None:
        """Let a second pass."""
        self.time += 1.0
        if not self.applied:
            return
        running = self.applied[-1]
        if self.cut or "nobody" in broker(running):
            self.link_since = None
        elif self.link_since is None and self.time - self.asked_at >= ANSWER_S:
            self.link_since = self.time
        if self.time - self.asked_at >= ANSWER_S:
            for device in running.settings.devices:
                if device.id not in self.silent and getattr(device, "unit", 1) != 99:
                    self.good_at[device.id] = self.time


class Pole:
    """The pole: what outlives a restart is its folder and its plant."""

    def __init__(self, folder: Path, own: str = LOCAL) -> None:
        self.folder = folder
        self.trust = folder / "trust"
        self.trust.mkdir(exist_ok=True)
        (self.trust / "root.json").write_bytes(root())
        self.own = own
        self.plant = Plant()
        self.overrides: list[Override] = []
        self.commit = self._made()

    def _made(self) -> ConfirmedCommit[Configuration]:
        commit = ConfirmedCommit(
            self.plant,
            ConfigFolder(self.folder / "config"),
            lambda own, documents: compose(self.folder / "pole.toml", own, documents, self.overrides),
        )
        self.incoming = Incoming(self.plant, commit.in_force, TrustChain(self.trust), agent="1.4.2")
        return commit

    async def start(self) -> None:
        """Start the gateway, and let it run until all is well."""
        self.commit = self._made()
        self.plant.link_since = None
        await self.commit.start(self.own)
        self.incoming.load()
        self.commit.incoming = self.incoming

    async def started(self) -> "Pole":
        """Start it, and let all become well."""
        await self.start()
        await self.run(5)
        return self

    async def reboot(self, name: str = "") -> None:
        """Cut the power."""
        self.plant.boot = name or self.plant.boot + "'"
        if self.plant.clock is not None:
            self.plant.clock += self.plant.time
        self.plant.time = 0.0
        self.plant.good_at.clear()
        await self.start()

    async def run(self, seconds: int) -> None:
        """Let time pass."""
        for _ in range(seconds):
            self.plant.live()
            await self.commit.tick()

    async def hear(self, raw: bytes, stream: str = MINE) -> Code:
        """Have the broker send a document."""
        return await self.incoming.hear(stream, raw)

    @property
    def codes(self) -> list[Code]:
        """What was told so far."""
        return [verdict.code for verdict in self.plant.told]

    @property
    def priority(self) -> int:
        """What the documents change."""
        return self.commit.running.settings.dataset("air").priority

    @property
    def broker(self) -> str:
        """What the bad ones change."""
        return broker(self.plant.applied[-1])


def play(scene: Coroutine[Any, Any, None]) -> None:
    """Run a scene."""
    asyncio.run(scene)

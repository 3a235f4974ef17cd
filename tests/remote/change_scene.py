"""A pole whose configuration is changed, on the virtual clock: its file and state are real, the rest does as told."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from gateway.config.settings import Settings
from gateway.config.settings_file import load
from gateway.host.clock import Clock
from gateway.link.broker import Message, Received, Refused
from gateway.link.mqtt_link import Link
from gateway.link.uplink import Uplink  # noqa: TC001  # in a text
from gateway.remote.change import Change
from gateway.words.health import DeviceHealth
from gateway.words.standing import Echo
from hil.vclock import run

NS = 1_000_000_000
WELL = Echo(taken=True, came_back=True)
DEAD = Echo(taken=False, came_back=False, why="connection refused")
WITHIN_S, HOLD_S = 60.0, 10.0
OWN = """\
[pole]
id = "pole-1"

[uplink]
url = "mqtts://broker.example"

[buffer]
path = "{folder}/buffer.db"

[reload]
uplink_within = 60.0

[port.a]
path = "tcp://192.0.2.1:502"

[[device]]
id = "meter"
driver = "modbus"
port = "a"
profile = "eastron-sdm630"
every = 1.0

[[device]]
id = "noise"
driver = "modbus"
port = "a"
unit = 2
profile = "rs485-noise-meter"
every = 1.0
"""


class Watch(Clock):
    """The virtual clock."""

    def __init__(self) -> None:
        super().__init__()
        self.boot = "the-boot"

    def now(self) -> int:
        """Return nanoseconds since boot."""
        return 1000 * NS + round(asyncio.get_running_loop().time() * NS)

    def utc_offset(self) -> int:
        """Return what to add for nanoseconds since 1970."""
        return 1_800_000_000 * NS

    def synchronised(self) -> bool:
        """Tell whether that is right."""
        return True


class FakeLink:
    """A link that takes everything, and hears nothing or is told that it may not."""

    dropped = 0

    def __init__(self, *, may_hear: bool) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._may_hear = may_hear

    async def hear(self, *topics: str) -> AsyncGenerator[Received, None]:
        """Hear nothing."""
        if not self._may_hear:
            raise Refused(f"no {topics}", 0x87)
        await asyncio.Future()
        yield Received("", b"", retain=False)

    async def send(self, message: Message) -> None:
        """Take it."""


class FakeUplink:
    """An uplink that is up."""

    def __init__(self, *, may_hear: bool = True) -> None:
        self.up = True
        self.astray = ""
        self.trouble = ""
        self._link = FakeLink(may_hear=may_hear)

    async def link(self) -> Link:
        """Return it."""
        return cast("Link", self._link)


class Pole:
    """A pole that does as it is told.

    Attributes:
        applied: what was applied: id of the pole, devices, and what another broker must do as well.
        silent: devices that give nothing.
        echo: what comes of the uplink.
        breaks: applying fails.
        said: what systemd was told.
    """

    def __init__(self, folder: Path, said: list[str], own: str = OWN) -> None:
        self.path = folder / "pole.toml"
        self.own = own.format(folder=folder)
        self.path.write_text(self.own)
        self.said = said
        self.applied: list[tuple[Settings, Echo]] = []
        self.silent: set[str] = set()
        self.echo = WELL
        self.breaks = False
        self.may_hear = True
        self.uplink = FakeUplink()
        self.health: dict[str, DeviceHealth] = {}
        self.settings: Settings
        self.change: Change
        self.kept: list[object] = []
        self._jobs: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the gateway."""
        self.asked = asyncio.Event()
        self.change = Change(self.path, load(self.path), Watch())
        self.settings = await self.change.start()
        self.uplink = FakeUplink(may_hear=self.may_hear)
        self.health.clear()
        self._be(self.settings)
        self.change.lead(
            self,
            cast("Uplink", self.uplink),
            self.health,
            topic="pole/1/pole-1",
            echo=self._echo,
            keep=self.kept.append,
        )
        self._jobs = [asyncio.create_task(self.change.run(self.asked)), asyncio.create_task(self._live())]
        await asyncio.sleep(3)

    async def end(self) -> None:
        """End it in order."""
        for job in self._jobs:
            job.cancel()
        await asyncio.wait(self._jobs)

    async def again(self, own: str = "") -> None:
        """End it, and start it, with another file."""
        await self.end()
        if own:
            self.path.write_text(own)
        await self.start()

    async def edit(self, own: str, after: float = 0.0) -> None:
        """Change the file, ask for a reload, and let time pass."""
        self.path.write_text(own)
        self.asked.set()
        await asyncio.sleep(after)

    def result(self) -> tuple[str, str]:
        """Return what the alarm is about."""
        verdict = self.change.verdict
        return (verdict.result, verdict.why) if verdict else ("", "")

    # --- what a change needs of it ---

    async def apply(self, configuration: Settings, before: Echo) -> None:
        """Run that."""
        self.applied.append((configuration, before))
        if self.breaks and configuration.root.pole.description:
            raise OSError("no such adapter")
        self._be(configuration)

    def healthy(self) -> frozenset[str]:
        """Name who gives values."""
        return frozenset(name for name, health in self.health.items() if health.good and not health.lapse)

    def _be(self, settings: Settings) -> None:
        self.settings = settings
        names = [device.id for device in settings.devices]
        for name in self.health.keys() - set(names):
            del self.health[name]
        for name in names:
            self.health.setdefault(name, DeviceHealth())

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            for name, health in self.health.items():
                health.lapse = "no-reply" if name in self.silent else ""
                if name not in self.silent:
                    health.good += 1
                    health.last_good = Watch().now()

    async def _echo(self, link: Link) -> Echo:
        del link
        await asyncio.sleep(0.1)
        return self.echo


def play(folder: Path, told: list[str], scene: Callable[[Pole], Awaitable[None]], own: str = OWN) -> None:
    """Run a scene with a pole that is well."""

    async def main() -> None:
        pole = Pole(folder, told, own)
        await pole.start()
        try:
            await scene(pole)
        finally:
            await pole.end()

    run(main())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemd is told."""
    said: list[str] = []
    monkeypatch.setattr("gateway.remote.change.notify", said.append)
    monkeypatch.setattr("gateway.remote.change.notify_reloading", lambda: said.append("RELOADING=1"))
    return said

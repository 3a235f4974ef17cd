"""``make demo``: a living pole in the terminal.

An emulated pole of thirteen devices, an embedded broker, the real ``polegate run`` as a process of its own, and a
receiver at the far end. With a terminal it shows a live table, and keys break things; with ``--seconds`` it runs
without one and ends with 0 only if every channel of every device arrived at the broker and no pack is missing.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hil import broker, demo_table
from hil.daemon import Daemon
from hil.pole import DUST, NAME, SILENT, Pole
from hil.receiver import Heard, Receiver
from hil.relay import Relay

REFRESH_S = 0.5
LAST_PACKS_S = 8.0  # for what is still on its way when the time is over


@dataclass(slots=True)
class Scene:
    """All that runs."""

    pole: Pole
    relay: Relay
    daemon: Daemon
    receiver: Receiver
    heard: Heard
    status: dict[str, Any] = field(default_factory=dict)
    page: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def keys(self) -> dict[str, tuple[str, Callable[[], None]]]:
        """Name what a visitor can do."""
        return {
            "u": ("restore the uplink" if self.relay.is_cut else "cut the uplink", self._uplink),
            "s": (f"silence {SILENT}, or wake it", self.pole.silence),
            "p": (f"pull the USB adapter of {DUST}, or plug it in", lambda: self.pole.pull(DUST)),
            "b": ("switch Bluetooth off, or on", self.pole.switch_bluetooth),
            "k": ("kill the gateway (-9); it starts again", self._kill),
            " ": ("next page", self._turn),
            "q": ("quit", self.over.set),
        }

    async def look(self) -> None:
        """Ask the gateway how it does; what it said last stays while it does not answer."""
        told = await asyncio.to_thread(self.daemon.status)
        self.status = told or self.status | {"silent": True}

    def _uplink(self) -> None:
        if self.relay.is_cut:
            self.relay.restore()
        else:
            self.relay.cut()

    def _kill(self) -> None:
        self.daemon.kill()
        self.daemon.start()

    def _turn(self) -> None:
        self.page += 1


@contextlib.asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """Build the scene and take it down."""
    embedded = broker.embedded(folder)
    embedded.start()
    relay = Relay(embedded.port)
    await relay.start()
    try:
        with Receiver(embedded.port) as receiver:
            async with Pole(folder) as pole:
                daemon = Daemon(folder, env=pole.env)
                daemon.config.write_text(pole.configuration(relay.port))
                daemon.start()
                try:
                    yield Scene(pole, relay, daemon, receiver, receiver.heard(NAME))
                finally:
                    await asyncio.to_thread(daemon.stop)
    finally:
        await relay.close()
        embedded.stop()


async def watch(show: Scene) -> None:
    """Show the live table until somebody quits."""
    with demo_table.screen() as screen, _keys(lambda key: _press(show, key)):
        while not show.over.is_set():
            await show.look()
            hints = {key: what for key, (what, _) in show.keys().items()}
            screen.draw(show.status, show.heard, hints, show.page)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await show.over.wait()


async def prove(show: Scene, seconds: float) -> int:
    """Run for a while, then tell what arrived. Returns the exit code."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(min(5.0, end - loop.time()))
        await show.look()
        print(demo_table.line(show.status, show.heard), flush=True)
    expected = show.pole.expected()
    with contextlib.suppress(TimeoutError):
        await asyncio.to_thread(
            show.receiver.wait, lambda: expected <= set(show.heard.latest), LAST_PACKS_S, "all channels"
        )
    missing = expected - set(show.heard.latest)
    print(demo_table.summary(expected, show.heard))
    holes = show.heard.holes()
    for name in sorted(missing):
        print(f"did not arrive: {name}")
    for dataset, packs in holes.items():
        print(f"missing packs of {dataset} (epoch, seq): {packs}")
    if missing or holes:
        print(show.daemon.output())
    return 1 if missing or holes else 0


def _press(show: Scene, key: str) -> None:
    if action := show.keys().get(key):
        action[1]()


@contextlib.contextmanager
def _keys(press: Callable[[str], None]) -> Iterator[None]:
    """Hand over single keys as they are pressed."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    loop = asyncio.get_running_loop()

    def readable() -> None:
        for key in os.read(sys.stdin.fileno(), 64).decode(errors="ignore"):
            press(key)

    loop.add_reader(sys.stdin, readable)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


async def demo(seconds: float | None) -> int:
    """Run the demo. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="polegate-") as folder:
        async with scene(Path(folder)) as show:
            if seconds is not None:
                return await prove(show, seconds)
            await watch(show)
            return 0


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="A living pole in this terminal.")
    parser.add_argument("--seconds", type=float, help="run without a terminal for so long, then check what arrived")
    seconds = parser.parse_args().seconds
    if seconds is None and not sys.stdin.isatty():
        parser.error("there is no terminal here: say make demo SECONDS=30")
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(demo(seconds)))


if __name__ == "__main__":
    main()

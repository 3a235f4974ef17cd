"""From exec to the first pack at the broker, and the memory after a minute: the demo's pole, Bluetooth and all."""

import asyncio
import time
from pathlib import Path

from hil import broker
from hil.bench.proc import rss_mb
from hil.daemon import Daemon
from hil.pole import NAME, Pole
from hil.receiver import Receiver

RUNS = 5
SECONDS = 60.0
FIRST_PACK_S = 20.0
AT_ONCE = "send_every = 2.0"


async def measure(folder: Path, polegate: str) -> dict[str, float]:
    """Run the scenario. Takes some 80 seconds."""
    mosquitto = broker.mosquitto(folder)
    mosquitto.start()
    async with Pole(folder) as pole:
        daemon = Daemon(folder, env=pole.env, command=polegate)
        # A pack is sealed as soon as it has a reading, so that the time is the start's and not the pack's.
        daemon.config.write_text(pole.configuration(mosquitto.port).replace(AT_ONCE, "send_every = 0.01"))
        with Receiver(mosquitto.port) as receiver:
            starts = [await _first_pack(daemon, receiver) for _ in range(RUNS)]
            await asyncio.sleep(SECONDS)
            memory = rss_mb(daemon.pid)
            await asyncio.to_thread(daemon.stop)
    mosquitto.stop()
    return {"start_to_first_pack_s": sorted(starts)[RUNS // 2], "rss_mb": memory}


async def _first_pack(daemon: Daemon, receiver: Receiver) -> float:
    """Start the gateway anew and return the seconds until its first pack was received."""
    await asyncio.to_thread(daemon.stop)
    await asyncio.sleep(1.0)
    heard = receiver.heard(NAME)
    before = sum(map(len, heard.packs.values()))
    begin = time.monotonic()
    daemon.start()
    await asyncio.to_thread(
        receiver.wait, lambda: sum(map(len, heard.packs.values())) > before, FIRST_PACK_S, "a first pack"
    )
    return time.monotonic() - begin

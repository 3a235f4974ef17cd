"""Seven days without an uplink at 50 readings/s: memory is flat, the cap holds, and every reading is accounted for."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from drivers.sds011 import Sds011
from gateway.config.settings import DatasetSettings
from gateway.jobs.pack import Packer
from gateway.store.buffer import Buffer
from gateway.words.catalogue import Catalogue
from gateway.words.reading import Reading
from hil.bench.proc import rss_mb
from hil.vclock import run

CAP = 16 * 1024 * 1024
LOG_SLACK = 64 * 1024
CHANNELS, LOOKS_PER_S = 25, 2
HOUR_S = 3600
NS = 1_000_000_000


class LoopClock:
    """A clock that goes with the loop."""

    def now(self) -> int:
        """Return nanoseconds since boot."""
        return round(asyncio.get_running_loop().time() * NS)

    def utc_offset(self) -> int:
        """Return what to add for nanoseconds since 1970."""
        return 1_767_225_600 * NS

    def synchronised(self) -> bool:
        """Tell whether that is right."""
        return True


def size_of(path: Path) -> int:
    return sum(Path(f"{path}{part}").stat().st_size for part in ("", "-wal"))


async def offline(path: Path, hours: int) -> None:
    """Let a pole collect, and look at it each hour."""
    dice = random.Random(7)  # noqa: S311  # it makes values
    buffer = Buffer(path, CAP)
    await buffer.open("boot", 0, 0)
    committing = asyncio.create_task(buffer.run())
    device = Sds011(id="dust", driver="sds011", port="x")
    packer = Packer(
        "pole",
        epoch=buffer.epoch,
        after=buffer.after,
        rhythm=lambda _: DatasetSettings(send_every=10.0, commit_within=10.0),
        catalogue=Catalogue("pole", [device], {}),
        clock=LoopClock(),
        put=buffer.put,
    )
    values = {f"c{number}": 100.0 for number in range(CHANNELS)}
    put, memory = 0, []
    for second in range(hours * HOUR_S):
        for look in range(LOOKS_PER_S):
            name = f"c{dice.randrange(CHANNELS)}"
            values[name] = round(values[name] + dice.choice((-0.1, 0.1)), 1)
            packer.keep(Reading("dust", "air", second * NS + look, dict(values)))
            put += CHANNELS
        await asyncio.sleep(1)
        if second % HOUR_S == HOUR_S - 1:
            memory.append(rss_mb(os.getpid()))
            assert size_of(path) <= CAP + LOG_SLACK
            assert buffer.trouble == ""
    packer.seal_all()
    await buffer.barrier()
    committing.cancel()
    _, losses = await buffer.losses()
    await buffer.close()
    assert buffer.depth.dropped > 0, "the cap was never reached"
    assert sum(loss.readings for loss in losses) == buffer.depth.dropped_readings
    assert put == buffer.depth.readings + buffer.depth.dropped_readings
    settled = memory[len(memory) // 4 :]
    assert max(settled) - min(settled) < 2.0, memory


@pytest.mark.soak
def test_a_week_offline(tmp_path: Path) -> None:
    run(offline(tmp_path / "buffer.db", 7 * 24))

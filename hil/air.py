"""The air around the pole: beacons that advertise by themselves, each at its own pace.

Two runs with the same seed hear the same adverts at the same times of the loop's clock.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from hil.bluez import FakeBlueZ
from hil.faults import seeded

ADV_DELAY_S = 0.010
"""The most that is added to each interval at random, so that two beacons do not collide for ever.

Source: Bluetooth Core Specification, vol. 6 part B section 4.4.2.2.1 (advDelay).
"""


@dataclass
class Beacon:
    """A device that advertises. All may be changed while it does.

    Attributes:
        address: upper case with colons.
        payload: gives the AD structures of the next advert; it is called once an interval, in range or not.
        interval_s: seconds from one advert to the next, before the random delay.
        rssi: dBm at the pole, in the mean.
        noise_db: standard deviation of the RSSI.
        in_range: whether the pole hears it.
    """

    address: str
    payload: Callable[[], bytes]
    interval_s: float
    rssi: int = -60
    noise_db: float = 2.0
    in_range: bool = True


class Air:
    """Runs beacons from ``add`` until the end of its ``async with`` block, which also raises what a payload raised.

    Args:
        bluez: who hears them.
        seed: of all that is random.
    """

    def __init__(self, bluez: FakeBlueZ, seed: int) -> None:
        self._bluez = bluez
        self._seed = seed
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, traceback)

    def add(self, beacon: Beacon) -> None:
        """Let the beacon advertise, first at a random moment of its interval."""
        self._tasks.append(self._group.create_task(self._run(beacon), name=f"beacon {beacon.address}"))

    async def _run(self, beacon: Beacon) -> None:
        dice = seeded(self._seed, beacon.address)
        loop = asyncio.get_running_loop()
        at = loop.time() + dice.uniform(0, beacon.interval_s)
        while True:
            await asyncio.sleep(at - loop.time())
            payload = beacon.payload()
            rssi = round(dice.gauss(beacon.rssi, beacon.noise_db))
            if beacon.in_range:
                self._bluez.advertise(beacon.address, payload, min(max(rssi, -127), 20))
            at += beacon.interval_s + dice.uniform(0, ADV_DELAY_S)

"""Whatever happens to Bluetooth, in whatever order: the radio's job goes on, hears again, and ends in time."""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from tests.sensors.stage import Air, now, on_air

EVENTS = 25
HEARD_WITHIN_S, PER_CALL_S = 120.0, 50.0  # of the end of the storm, and for each call that still goes wrong then
ERRORS = ("org.bluez.Error.InProgress", "org.bluez.Error.Failed", "org.bluez.Error.NotReady")
MEMBERS = ("StartDiscovery", "StopDiscovery", "SetDiscoveryFilter", "GetManagedObjects", "Set")


class Storm:
    """Things that happen, at random."""

    def __init__(self, air: Air, seed: int) -> None:
        self.air = air
        self.bluez = air.bluez
        self.dice = random.Random(seed)  # noqa: S311  # it must repeat itself
        self.runs = True
        self.armed = 0

    async def blow(self) -> None:
        """Let one thing happen."""
        dice = self.dice
        await asyncio.sleep(dice.choice([0, 0.001, 0.5, 2, 8, dice.uniform(0, 10), dice.uniform(0, 90)]))
        match dice.choice(["power", "adapter", "crash", "stop", "start", "bus", "call", "call", "call"]):
            case "power":
                self.bluez.power(on=dice.random() < 0.5)
            case "adapter":
                dice.choice([self.bluez.remove_adapter, self.bluez.add_adapter])()
            case "crash" | "stop" as how:
                await self.bluez.stop(crash=how == "crash")
                self.runs = False
            case "start":
                await self.start()
            case "bus":
                self.air.bus.kill()
                await self.bluez.stop(crash=True)
                self.runs = False
                await asyncio.sleep(dice.uniform(0, 20))
                self.air.bus.start()
            case _:
                self.arm()

    def arm(self) -> None:
        """Let some calls go wrong."""
        dice = self.dice
        member, times = dice.choice(MEMBERS), dice.randrange(1, 4)
        self.armed += times
        match dice.choice(["silent", "slow", "error"]):
            case "silent":
                self.bluez.arm(member, silent=True, times=times)
            case "slow":
                self.bluez.arm(member, delay_s=dice.uniform(0, 25), times=times)
            case _:
                self.bluez.arm(member, error=dice.choice(ERRORS), times=times)

    async def start(self) -> None:
        """Start bluetoothd if it does not run."""
        if not self.runs:
            await self.bluez.start()
            self.runs = True

    async def calm(self) -> None:
        """Let all be as it should; of the calls that were armed to go wrong some may still do."""
        await self.start()
        self.bluez.add_adapter()
        self.bluez.power(on=True)


@pytest.mark.parametrize("seed", range(8))
def test_after_any_storm_the_tag_is_heard_again_and_the_job_ends_in_time(tmp_path: Path, seed: int) -> None:
    async def scene(air: Air) -> None:
        storm = Storm(air, seed)
        for _ in range(EVENTS):
            await storm.blow()
            assert not air.job.done()
        await storm.calm()
        began = now()
        count = len(air.heard)
        while len(air.heard) < count + 20 or air.radio.trouble():
            assert now() - began < HEARD_WITHIN_S + PER_CALL_S * storm.armed, air.radio.trouble()
            assert not air.job.done()
            await asyncio.sleep(0.5)
        if seed % 2:
            air.bluez.arm("StopDiscovery", silent=True, times=9)
        began = now()
        air.job.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await air.job
        assert now() - began <= 1.5

    on_air(tmp_path, scene, version=(5, 66) if seed % 3 else (5, 88))

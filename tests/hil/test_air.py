"""Beacons in the air: each at its own pace, all of it repeatable."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from hil.air import Air, Beacon
from hil.bluez import FakeBlueZ
from tests.hil.scan import ADDRESS, Scan, play, ruuvi


def hear_an_hour(directory: Path, seed: int) -> list[str]:
    directory.mkdir()
    lines = []

    async def scene(bluez: FakeBlueZ) -> None:
        counts = dict.fromkeys(range(3), 0)

        def payload(number: int) -> Callable[[], bytes]:
            def next_payload() -> bytes:
                counts[number] += 1
                return ruuvi(counts[number].to_bytes(2, "big"))

            return next_payload

        async with Scan() as scan, Air(bluez, seed) as air:
            beacons = [Beacon(f"02:00:00:00:00:{number:02X}", payload(number), 18.0 + number) for number in counts]
            for beacon in beacons:
                air.add(beacon)
            await asyncio.sleep(1800)
            beacons[0].in_range = False
            await asyncio.sleep(1800)
        lines.extend(scan.lines)

    play(directory, scene)
    return lines


def test_the_same_seed_gives_the_same_hour_on_the_air(tmp_path: Path) -> None:
    first = hear_an_hour(tmp_path / "1", seed=7)
    again = hear_an_hour(tmp_path / "2", seed=7)
    other = hear_an_hour(tmp_path / "3", seed=8)
    assert first == again
    assert first != other
    heard = [sum(f"02:00:00:00:00:{number:02X}" in line for line in first) for number in range(3)]
    assert heard == pytest.approx([100, 189, 180], abs=2)
    times = [float(line.split()[0]) for line in first if "02:00:00:00:00:01" in line]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) == pytest.approx(19.0, abs=0.001)
    assert max(gaps) == pytest.approx(19.01, abs=0.001)


def test_a_payload_that_raises_ends_the_air_loudly(tmp_path: Path) -> None:
    def broken() -> bytes:
        raise ZeroDivisionError

    async def scene(bluez: FakeBlueZ) -> None:
        async with Air(bluez, seed=1) as air:
            air.add(Beacon(ADDRESS, broken, 1.0))
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as raised:
        play(tmp_path, scene)
    assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError]

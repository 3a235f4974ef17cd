"""The radio, an unmodified bleak on an emulated BlueZ: who hears what, and how it ends."""

import asyncio
from pathlib import Path

import pytest

from drivers.contract import Advert
from gateway.sensors.radio import Radio
from hil.adverts import Advert as OnAir
from hil.adverts import encode
from hil.twins.ruuvi import COMPANY_ID, RuuviTag
from hil.vclock import run
from tests.sensors.stage import Air, now, on_air

BTHOME = "0000fcd2-0000-1000-8000-00805f9b34fb"


def test_an_advert_reaches_all_who_want_its_address_and_nobody_else(tmp_path: Path) -> None:
    async def scene(air: Air) -> None:
        mine, yours = RuuviTag("AA:00:00:00:00:01"), RuuviTag("AA:00:00:00:00:02")
        first: list[Advert] = []
        second: list[Advert] = []
        other: list[Advert] = []
        air.radio.hear(mine.address, first.append)
        air.radio.hear(mine.address, second.append)
        air.radio.hear(yours.address, other.append)
        await asyncio.sleep(1)
        air.bluez.advertise(mine.address, mine.heartbeat(), -48)
        air.bluez.advertise("AA:00:00:00:00:03", RuuviTag("AA:00:00:00:00:03").heartbeat(), -50)
        air.bluez.advertise(yours.address, encode(OnAir(service_data={BTHOME: b"\x40\x01\x64"})), -90)
        await asyncio.sleep(1)
        assert first == second == [Advert(mine.address, -48, {COMPANY_ID: mine.payload()}, {})]
        assert other == [Advert(yours.address, -90, {}, {BTHOME: b"\x40\x01\x64"})]

    on_air(tmp_path, scene)


def test_trouble_is_none_as_long_as_the_scan_runs(tmp_path: Path) -> None:
    async def scene(air: Air) -> None:
        trouble = air.radio.trouble()
        assert str(trouble) == "bluetooth hci0: the scan has not begun yet"
        assert trouble
        assert "bluetoothctl list" in trouble.hint
        await asyncio.sleep(1)
        assert air.radio.trouble() is None

    on_air(tmp_path, scene)


@pytest.mark.parametrize("version", [(5, 66), (5, 82), (5, 88)])
def test_a_steady_tag_that_says_the_same_again_is_heard_each_time(tmp_path: Path, version: tuple[int, int]) -> None:
    async def scene(air: Air) -> None:
        air.silent = True
        heard: list[Advert] = []
        steady = RuuviTag("AA:00:00:00:00:01")
        air.radio.hear(steady.address, heard.append)
        await asyncio.sleep(1)
        for _ in range(100):
            air.bluez.advertise(steady.address, steady.advert(), -60)
            await asyncio.sleep(1)
        assert len(heard) == 100
        assert air.radio.trouble() is None

    on_air(tmp_path, scene, version=version)


def test_what_a_tag_said_before_is_not_mixed_into_what_it_says_now(tmp_path: Path) -> None:
    async def scene(air: Air) -> None:
        heard: list[Advert] = []
        air.radio.hear("AA:00:00:00:00:01", heard.append)
        await asyncio.sleep(1)
        for company in (1, 2):
            air.bluez.advertise("AA:00:00:00:00:01", encode(OnAir(manufacturer_data={company: b"x"})), -60)
            await asyncio.sleep(1)
        assert [advert.manufacturer for advert in heard] == [{1: b"x"}, {2: b"x"}]

    on_air(tmp_path, scene)


def test_an_adapter_that_does_not_exist_is_named(tmp_path: Path) -> None:
    async def scene(air: Air) -> None:
        radio = Radio("hci7")
        job = asyncio.create_task(radio.run())
        await asyncio.sleep(100)
        assert "hci7" in str(radio.trouble())
        assert "not found" in str(radio.trouble())
        assert air.radio.trouble() is None
        job.cancel()
        await asyncio.wait([job])

    on_air(tmp_path, scene)


def test_twenty_minutes_without_trouble_lose_no_advert(tmp_path: Path) -> None:
    async def scene(air: Air) -> None:
        await asyncio.sleep(10)
        count = len(air.heard)
        await asyncio.sleep(1200)
        assert len(air.heard) - count == 1200
        assert air.radio.trouble() is None

    on_air(tmp_path, scene)


async def end(air: Air) -> float:
    """Cancel the radio's job, and return how long it takes to end."""
    began = now()
    air.job.cancel()
    await asyncio.wait([air.job])
    assert air.job.cancelled()
    return now() - began


def test_an_ended_radio_has_stopped_the_scan(tmp_path: Path) -> None:
    async def scene(air: Air) -> None:
        await air.until_heard(within=5)
        assert await end(air) < 0.1
        count = len(air.heard)
        await asyncio.sleep(10)
        assert len(air.heard) == count

    on_air(tmp_path, scene)


@pytest.mark.parametrize("member", ["StopDiscovery", "SetDiscoveryFilter"])
def test_it_ends_in_time_even_if_bluetoothd_hangs(tmp_path: Path, member: str) -> None:
    async def scene(air: Air) -> None:
        await air.until_heard(within=5)
        air.bluez.arm(member, silent=True, times=100)
        assert await end(air) <= 1.5  # 1.0 s was measured

    on_air(tmp_path, scene)


def test_it_ends_in_time_amid_a_start_that_is_never_answered(tmp_path: Path) -> None:
    async def scene(air: Air) -> None:
        air.bluez.arm("StartDiscovery", silent=True, times=100)
        air.bluez.arm("StopDiscovery", silent=True, times=100)
        await asyncio.sleep(5)
        assert await end(air) <= 1.5  # 0 s was measured

    on_air(tmp_path, scene)


@pytest.mark.parametrize("after", [0.0, 0.5, 20.0])
def test_it_ends_in_time_where_there_is_no_bus(tmp_path: Path, after: float) -> None:
    async def scene(air: Air) -> None:
        await asyncio.sleep(after)
        assert await end(air) <= 0.1

    on_air(tmp_path, scene, with_bus=False)


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "carrier-pigeon:coop=3"])
def test_a_bus_address_that_leads_nowhere_is_told_and_no_crash(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    async def main() -> None:
        radio = Radio("hci0")
        job = asyncio.create_task(radio.run())
        await asyncio.sleep(100)
        assert "no system D-Bus" in str(radio.trouble())
        assert not job.done()
        job.cancel()
        await asyncio.wait([job])

    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    run(main())

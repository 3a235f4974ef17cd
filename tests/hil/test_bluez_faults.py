"""The emulated BlueZ fails as BlueZ does, and brings out what bleak does not tell: that it is deaf."""

import asyncio
import logging
from pathlib import Path

import pytest
from bleak.exc import BleakBluetoothNotAvailableError, BleakBluetoothNotAvailableReason, BleakDBusError
from dbus_fast import Variant

from hil.bluez import FakeBlueZ
from hil.bus import BusCanary, PrivateBus
from hil.vclock import run
from tests.hil.scan import ADDRESS, DEVICE, HCI0, RUUVI_ONLY, Scan, ask, get, other_client, play, ruuvi

UNKNOWN = -127
"""What bleak reports where BlueZ has no RSSI."""


def test_a_power_cycle_makes_bleak_deaf_and_stop_raises(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        scan = Scan()
        await scan.scanner.start()
        bluez.advertise(ADDRESS, ruuvi(b"\x01"), -60)
        await asyncio.sleep(1)
        bluez.power(on=False)
        await asyncio.sleep(1)
        bluez.power(on=True)
        for _ in range(60):
            bluez.advertise(ADDRESS, ruuvi(b"\x02"), -60)
            await asyncio.sleep(1)
        assert scan.payloads == [b"\x01", b"\x01"]
        assert [advert.rssi for advert in scan.heard] == [-60, UNKNOWN]  # the second one is the RSSI going away
        with pytest.raises(BleakDBusError, match=r"Failed\] No discovery started"):
            await scan.scanner.stop()
        async with Scan() as again:
            bluez.advertise(ADDRESS, ruuvi(b"\x03"), -60)
            await asyncio.sleep(1)
        assert again.payloads == [b"\x03"]

    play(tmp_path, scene)


def test_a_power_cycle_drops_the_filters(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with other_client() as client:
            wanted = {"RSSI": Variant("n", -70)}
            assert await ask(client, HCI0, "org.bluez.Adapter1.SetDiscoveryFilter", "a{sv}", wanted) is None
            bluez.power(on=False)
            bluez.power(on=True)
            assert await ask(client, HCI0, "org.bluez.Adapter1.StartDiscovery") is None
            bluez.advertise(ADDRESS, ruuvi(), -80)
            assert await get(client, DEVICE, "org.bluez.Device1", "RSSI") == -80

    play(tmp_path, scene)


def test_a_passive_scan_outlives_a_power_cycle(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan("passive", RUUVI_ONLY) as scan:
            await asyncio.sleep(1)
            for count in (b"\x01", b"\x02", b"\x03"):
                bluez.power(on=count != b"\x02")
                bluez.advertise(ADDRESS, ruuvi(count), -60)
                await asyncio.sleep(1)
        assert scan.payloads == [b"\x01", b"\x03"]

    play(tmp_path, scene)


def test_a_passive_scan_ends_with_its_adapter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "bleak.backends.bluezdbus.advertisement_monitor")

    async def scene(bluez: FakeBlueZ) -> None:
        scan = Scan("passive", RUUVI_ONLY)
        await scan.scanner.start()
        await asyncio.sleep(1)
        bluez.remove_adapter()
        bluez.add_adapter()
        bluez.advertise(ADDRESS, ruuvi(), -60)
        await asyncio.sleep(1)
        assert scan.heard == []
        assert [record.message for record in caplog.records] == ["Activate", "Release"]
        with pytest.raises(BleakDBusError, match="DoesNotExist"):
            await scan.scanner.stop()

    play(tmp_path, scene)


def test_a_crash_makes_bleak_deaf_and_the_kernel_stays_busy_for_three_seconds(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        scan = Scan()
        await scan.scanner.start()
        await bluez.stop(crash=True)
        await bluez.start()
        bluez.advertise(ADDRESS, ruuvi(), -60)
        await asyncio.sleep(1)
        with pytest.raises(BleakDBusError, match="No discovery started"):
            await scan.scanner.stop()
        assert scan.heard == []
        with pytest.raises(BleakDBusError, match="InProgress"):
            await Scan().scanner.start()
        await asyncio.sleep(2.1)
        async with Scan() as again:
            bluez.advertise(ADDRESS, ruuvi(), -60)
            await asyncio.sleep(1)
        assert again.payloads == [b"\x05"]

    play(tmp_path, scene)


def test_a_restart_in_order_takes_the_objects_back_and_leaves_the_kernel_idle(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        scan = Scan()
        await scan.scanner.start()
        bluez.advertise(ADDRESS, ruuvi(), -60)
        await asyncio.sleep(1)
        await bluez.stop()
        await asyncio.sleep(1)
        assert scan.scanner.discovered_devices == []
        with pytest.raises(BleakBluetoothNotAvailableError):
            await Scan().scanner.start()
        await bluez.start()
        await asyncio.sleep(1)
        async with Scan() as again:
            bluez.advertise(ADDRESS, ruuvi(), -60)
            await asyncio.sleep(1)
        assert again.payloads == [b"\x05"]

    play(tmp_path, scene)


def test_an_armed_error_is_answered_as_often_as_armed(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        bluez.arm("StartDiscovery", error="org.bluez.Error.InProgress", times=2)
        for _ in range(2):
            with pytest.raises(BleakDBusError, match="InProgress"):
                await Scan().scanner.start()
        async with Scan():
            pass

    play(tmp_path, scene)


def test_bleak_recovers_from_a_stop_that_was_refused(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan():
            bluez.arm("StopDiscovery", error="org.bluez.Error.InProgress")
        async with other_client() as client:
            assert await get(client, HCI0, "org.bluez.Adapter1", "Discovering") is False
        async with Scan():
            pass

    play(tmp_path, scene)


def test_an_answer_can_be_late_or_never_come(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        began = asyncio.get_running_loop().time()
        bluez.arm("StartDiscovery", delay_s=5.0)
        async with Scan():
            assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
        bluez.arm("StartDiscovery", silent=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await Scan().scanner.start()

    play(tmp_path, scene)


def test_an_adapter_that_is_off_is_not_ready(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        bluez.power(on=False)
        with pytest.raises(BleakBluetoothNotAvailableError) as off:
            await Scan().scanner.start()
        assert off.value.args[1] is BleakBluetoothNotAvailableReason.POWERED_OFF
        with pytest.raises(BleakDBusError, match="NotReady"):
            await Scan(args={"adapter": "hci0"}).scanner.start()
        async with other_client() as client:
            error = await ask(client, HCI0, "org.bluez.Adapter1.SetDiscoveryFilter", "a{sv}", {})
            assert error == "org.bluez.Error.NotReady"
            powered = ("org.bluez.Adapter1", "Powered")
            on = Variant("b", True)  # noqa: FBT003  # that is what the property holds
            assert await ask(client, HCI0, "org.freedesktop.DBus.Properties.Set", "ssv", *powered, on) is None
            assert await get(client, HCI0, *powered) is True
        async with Scan():
            pass

    play(tmp_path, scene)


def test_an_adapter_can_be_pulled_and_plugged(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        scan = Scan()
        await scan.scanner.start()
        bluez.advertise(ADDRESS, ruuvi(b"\x01"), -60)
        await asyncio.sleep(1)
        bluez.advertise(ADDRESS, ruuvi(b"\x02"), -60)
        bluez.remove_adapter()
        bluez.advertise(ADDRESS, ruuvi(b"\x03"), -60)
        await asyncio.sleep(1)
        with pytest.raises(BleakDBusError, match="UnknownObject"):
            await scan.scanner.stop()
        assert scan.payloads == [b"\x01", b"\x02"]
        with pytest.raises(BleakBluetoothNotAvailableError) as gone:
            await Scan().scanner.start()
        assert gone.value.args[1] is BleakBluetoothNotAvailableReason.NO_BLUETOOTH
        bluez.add_adapter()
        await asyncio.sleep(1)
        async with Scan() as again:
            bluez.advertise(ADDRESS, ruuvi(), -60)
            await asyncio.sleep(1)
        assert again.payloads == [b"\x05"]

    play(tmp_path, scene)


@pytest.mark.parametrize("synced", [True, False])
def test_a_crash_loses_what_was_not_synced(tmp_path: Path, *, synced: bool) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        scan = Scan()
        await scan.scanner.start()
        for number in range(100):
            bluez.advertise(f"02:00:00:00:00:{number:02X}", ruuvi(), -60)
        if synced:
            await bluez.sync()
        await bluez.stop(crash=True)
        await asyncio.sleep(1)
        assert len(scan.heard) == (100 if synced else 0)

    play(tmp_path, scene)


def test_two_thousand_adverts_arrive_to_the_last(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan() as scan:
            for count in range(20):
                for number in range(100):
                    bluez.advertise(f"02:00:00:00:00:{number:02X}", ruuvi(bytes([count, number])), -60)
                await bluez.sync()
            await asyncio.sleep(1)
        assert scan.payloads == [bytes([count, number]) for count in range(20) for number in range(100)]

    play(tmp_path, scene)


def test_two_thousand_devices_at_once_do_not_fill_the_socket(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan() as scan:
            for number in range(2000):
                bluez.advertise(f"02:00:00:00:{number >> 8:02X}:{number & 255:02X}", ruuvi(), -60)
            await asyncio.sleep(1)
            assert len(scan.heard) == 2000
            await asyncio.sleep(30)
            assert scan.scanner.discovered_devices == []

    play(tmp_path, scene)


def test_the_bus_daemon_can_die_and_all_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = PrivateBus(tmp_path)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.start())

    async def main() -> None:
        bluez = FakeBlueZ(bus.address)
        await bluez.start()
        await Scan().scanner.start()
        bus.kill()
        await asyncio.sleep(1)
        bluez.advertise(ADDRESS, ruuvi(), -60)
        await bluez.sync()
        await bluez.stop(crash=True)
        with pytest.raises(OSError, match=r"No such file|refused"):
            await bluez.start()
        bus.start()
        await bluez.start()
        await asyncio.sleep(3)
        async with Scan() as again:
            bluez.advertise(ADDRESS, ruuvi(), -60)
            await asyncio.sleep(1)
        assert again.payloads == [b"\x05"]
        await bluez.stop()
        bus.stop()
        await asyncio.sleep(1)

    run(main(), BusCanary(bus.address))

"""The emulated BlueZ tells an unmodified bleak what BlueZ would."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from bleak.args.bluez import BlueZScannerArgs
from dbus_fast import Message, MessageType, Variant

from hil.adverts import Advert, encode
from hil.bluez import FakeBlueZ
from hil.bus_client import BusClient
from tests.hil.scan import ADDRESS, DEVICE, HCI0, RUUVI, RUUVI_ONLY, Scan, ask, get, other_client, play, ruuvi

OLD, NEW = (5, 66), (5, 88)

APPLE = 0x004C
EDDYSTONE = "0000feaa-0000-1000-8000-00805f9b34fb"
UNKNOWN_OBJECT = "org.freedesktop.DBus.Error.UnknownObject"
UUID_0499 = "00000499-0000-1000-8000-00805f9b34fb"

DUPLICATES: BlueZScannerArgs = {"filters": {"DuplicateData": True}}


def test_an_active_scan_hears_all_that_an_advert_says(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        advert = Advert(
            flags=6,
            local_name="pole",
            tx_power=-8,
            service_uuids=(EDDYSTONE,),
            manufacturer_data={RUUVI: b"\x05"},
            service_data={EDDYSTONE: b"\x20"},
        )
        async with Scan() as scan:
            bluez.advertise(ADDRESS, encode(advert), rssi=-61)
            await asyncio.sleep(1)
        assert list(scan.scanner.discovered_devices_and_advertisement_data) == [ADDRESS]
        (heard,) = scan.heard
        assert heard[:6] == ("pole", {RUUVI: b"\x05"}, {EDDYSTONE: b"\x20"}, [EDDYSTONE], -8, -61)

    play(tmp_path, scene)


def test_nothing_is_heard_without_a_scan(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        bluez.advertise(ADDRESS, ruuvi(), -60)
        async with Scan() as scan:
            await asyncio.sleep(1)
        bluez.advertise(ADDRESS, ruuvi(), -60)
        await asyncio.sleep(1)
        assert scan.heard == []

    play(tmp_path, scene)


def test_a_passive_scan_hears_what_its_patterns_match(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "bleak.backends.bluezdbus.advertisement_monitor")

    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan("passive", RUUVI_ONLY) as scan:
            await asyncio.sleep(1)
            for count in (b"\x01", b"\x02"):
                bluez.advertise(ADDRESS, ruuvi(count), -60)
                bluez.advertise("11:22:33:44:55:66", encode(Advert(manufacturer_data={APPLE: count})), -60)
                bluez.advertise("11:22:33:44:55:77", encode(Advert(service_data={UUID_0499: count})), -60)
                await asyncio.sleep(1)
            await asyncio.sleep(30)
            bluez.advertise(ADDRESS, ruuvi(b"\x03"), -60)
            await asyncio.sleep(1)
        bluez.advertise(ADDRESS, ruuvi(b"\x04"), -60)
        await asyncio.sleep(1)
        assert scan.payloads == [b"\x01", b"\x02", b"\x03"]
        assert [record.message for record in caplog.records] == ["Activate", *[f"DeviceFound {DEVICE}"] * 2]

    play(tmp_path, scene)


def test_a_passive_scan_tells_a_steady_payload_once(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan("passive", RUUVI_ONLY) as scan:
            for rssi in (-60, -60, -61, -69):
                bluez.advertise(ADDRESS, ruuvi(), rssi)
                await asyncio.sleep(1)
        assert [advert.rssi for advert in scan.heard] == [-60, -69]

    play(tmp_path, scene)


def test_a_monitor_that_is_there_when_registered_is_taken_up_and_dies_with_its_client(tmp_path: Path) -> None:
    monitor = {"Type": Variant("s", "or_patterns"), "Patterns": Variant("a(yyay)", [[0, 0xFF, b"\x99\x04"]])}
    calls = []

    async def scene(bluez: FakeBlueZ) -> None:
        def serve(message: Message) -> bool:
            if message.message_type is not MessageType.METHOD_CALL:
                return False
            calls.append(message.member)
            if message.member == "GetManagedObjects":
                tree = {"/app/monitor": {"org.bluez.AdvertisementMonitor1": monitor}}
                client.send(Message.new_method_return(message, "a{oa{sa{sv}}}", [tree]))
            return True

        manager = "org.bluez.AdvertisementMonitorManager1"
        client = BusClient(os.environ["DBUS_SYSTEM_BUS_ADDRESS"], serve)
        await client.connect()
        assert await ask(client, HCI0, f"{manager}.RegisterMonitor", "o", "/app") is None
        assert await ask(client, HCI0, f"{manager}.RegisterMonitor", "o", "/app") == "org.bluez.Error.AlreadyExists"
        assert await ask(client, HCI0, f"{manager}.UnregisterMonitor", "o", "/no") == "org.bluez.Error.DoesNotExist"
        bluez.advertise(ADDRESS, ruuvi(), -60)
        await asyncio.sleep(40)
        await client.close()
        await asyncio.sleep(1)
        bluez.advertise(ADDRESS, ruuvi(), -60)
        async with other_client() as watcher:
            assert await get(watcher, DEVICE, "org.bluez.Device1", "RSSI") == UNKNOWN_OBJECT

    play(tmp_path, scene)
    assert calls == ["GetManagedObjects", "Activate", "DeviceFound"]


@pytest.mark.parametrize(
    ("version", "args", "heard"),
    [
        (OLD, {}, [-60, -60, -61, -68, -68]),
        (NEW, {}, [-60, -68]),
        (NEW, DUPLICATES, [-60, -60, -60, -68, -68]),
        (NEW, {"filters": {"RSSI": -100}}, [-60, -60, -61, -68, -68]),
    ],
    ids=["5.66", "5.88", "5.88 with DuplicateData", "5.88 with an RSSI filter"],
)
def test_how_often_a_steady_device_is_told(
    tmp_path: Path, version: tuple[int, int], args: BlueZScannerArgs, heard: list[int]
) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan(args=args) as scan:
            for rssi in (-60, -60, -61, -68, -68):
                bluez.advertise(ADDRESS, ruuvi(), rssi)
                await asyncio.sleep(1)
        assert [advert.rssi for advert in scan.heard] == heard

    play(tmp_path, scene, version)


@pytest.mark.parametrize(("args", "companies"), [({}, [RUUVI, APPLE]), (DUPLICATES, [APPLE])])
def test_old_manufacturer_data_stays_unless_duplicates_are_asked_for(
    tmp_path: Path, args: BlueZScannerArgs, companies: list[int]
) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan(args=args) as scan:
            bluez.advertise(ADDRESS, ruuvi(), -60)
            await asyncio.sleep(1)
            bluez.advertise(ADDRESS, encode(Advert(manufacturer_data={APPLE: b"\x02"})), -60)
            await asyncio.sleep(1)
        assert list(scan.heard[-1].manufacturer_data) == companies

    play(tmp_path, scene)


def test_a_burst_within_one_turn_is_told_once_with_the_last_value(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan() as scan:
            for _ in range(2):
                for count in range(10):
                    bluez.advertise(ADDRESS, ruuvi(bytes([count])), -60)
                await asyncio.sleep(1)
        assert scan.payloads == [b"\x09", b"\x09"]

    play(tmp_path, scene)


@pytest.mark.parametrize("filters", [{"UUIDs": [EDDYSTONE]}, {"RSSI": -70}], ids=["UUIDs", "RSSI"])
def test_what_the_filter_does_not_want_is_not_told(tmp_path: Path, filters: Any) -> None:  # noqa: ANN401  # a filter each
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan(args={"filters": filters}) as scan:
            bluez.advertise("11:22:33:44:55:66", ruuvi(), -80)
            bluez.advertise(ADDRESS, encode(Advert(service_uuids=(EDDYSTONE,))), -60)
            await asyncio.sleep(1)
        assert [advert.rssi for advert in scan.heard] == [-60]

    play(tmp_path, scene)


def test_a_device_goes_thirty_seconds_after_it_was_last_heard(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan() as scan:
            for _ in range(3):
                bluez.advertise(ADDRESS, ruuvi(), -60)
                await asyncio.sleep(20)
                assert len(scan.scanner.discovered_devices) == 1
            await asyncio.sleep(9.9)
            assert len(scan.scanner.discovered_devices) == 1
            await asyncio.sleep(0.2)
            assert scan.scanner.discovered_devices == []

    play(tmp_path, scene)


def test_the_end_of_discovery_takes_rssi_and_tx_power_away(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with other_client() as client:
            async with Scan():
                bluez.advertise(ADDRESS, encode(Advert(tx_power=4)), -60)
                await asyncio.sleep(1)
                assert await get(client, DEVICE, "org.bluez.Device1", "RSSI") == -60
                assert await get(client, DEVICE, "org.bluez.Device1", "TxPower") == 4
            for name in ("RSSI", "TxPower"):
                error = await get(client, DEVICE, "org.bluez.Device1", name)
                assert error == "org.freedesktop.DBus.Error.InvalidArgs"

    play(tmp_path, scene)


def test_a_new_scan_hears_a_steady_device_again(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        for _ in range(2):
            async with Scan() as scan:
                bluez.advertise(ADDRESS, ruuvi(), -60)
                await asyncio.sleep(1)
            assert [advert.rssi for advert in scan.heard] == [-60]

    play(tmp_path, scene, NEW)


def test_a_session_belongs_to_one_client_and_dies_with_it(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with other_client() as watcher:
            async with other_client() as client:
                assert await ask(client, HCI0, "org.bluez.Adapter1.StartDiscovery") is None
                error = await ask(client, HCI0, "org.bluez.Adapter1.StartDiscovery")
                assert error == "org.bluez.Error.InProgress"
                assert await ask(watcher, HCI0, "org.bluez.Adapter1.StopDiscovery") == "org.bluez.Error.Failed"
                assert await get(watcher, HCI0, "org.bluez.Adapter1", "Discovering") is True
            await asyncio.sleep(1)
            assert await get(watcher, HCI0, "org.bluez.Adapter1", "Discovering") is False
        del bluez

    play(tmp_path, scene)


def test_the_objects_have_the_properties_and_types_of_bluez_5_66(tmp_path: Path) -> None:
    async def scene(bluez: FakeBlueZ) -> None:
        async with Scan(), other_client() as client:
            everything = Advert(6, "pole", -8, (EDDYSTONE,), {RUUVI: b"\x05"}, {EDDYSTONE: b"\x20"})
            bluez.advertise(ADDRESS, encode(everything), -60)
            objects = await ask(client, "/", "org.freedesktop.DBus.ObjectManager.GetManagedObjects")
        types = {
            path: {
                interface: {name: value.signature for name, value in properties.items()}
                for interface, properties in interfaces.items()
                if properties
            }
            for path, interfaces in objects.items()
        }
        adapter = "Address s AddressType s Name s Alias s Class u Powered b Discoverable b DiscoverableTimeout u \
            Pairable b PairableTimeout u Discovering b UUIDs as Modalias s Roles as"
        device = "Address s AddressType s Name s Alias s Paired b Bonded b Trusted b Blocked b LegacyPairing b RSSI n \
            Connected b UUIDs as Adapter o ManufacturerData a{qv} ServiceData a{sv} TxPower n ServicesResolved b \
            AdvertisingFlags ay"
        monitors = "SupportedMonitorTypes as SupportedFeatures as"
        assert types == {
            HCI0: {
                "org.bluez.Adapter1": by_name(adapter),
                "org.bluez.AdvertisementMonitorManager1": by_name(monitors),
            },
            DEVICE: {"org.bluez.Device1": by_name(device)},
        }
        assert objects[HCI0]["org.bluez.Adapter1"]["Modalias"].value == "usb:v1D6Bp0246d0542"

    def by_name(listed: str) -> dict[str, str]:
        words = listed.split()
        return dict(zip(words[::2], words[1::2], strict=True))

    play(tmp_path, scene)

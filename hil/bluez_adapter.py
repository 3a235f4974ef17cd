"""One Bluetooth adapter as bluetoothd shows it: who scans, which devices were heard, what their properties say.

Written after BlueZ 5.66 ``src/adapter.c`` and ``src/device.c``; ``doc/org.bluez.Adapter.rst`` describes the methods.
What a reader of adverts meets here, in BlueZ as in this:

* A discovery session belongs to a client of the bus, one each, and dies with it, or with a power cycle; nobody is told.
* Up to 5.87 every advert heard under a discovery filter makes ``RSSI`` count as changed, so each one is seen. From 5.88
  on only steps of 8 dB do, unless a filter names RSSI or Pathloss: a steady device falls silent. A passive scan
  without a filtered discovery beside it is that quiet in all versions.
* ``ManufacturerData`` and ``ServiceData`` keep old entries beside new ones. Under ``DuplicateData`` they are emptied by
  each advert that brings some, and so count as changed each time.
* When discovery ends, ``RSSI`` and ``TxPower`` lose their values. bleak takes that change for an advert, of -127 dBm.
* Every device is temporary: it goes 30 s after it was last heard.

Not compared with a real bluetoothd yet: that passive scans are so quiet and outlive a power cycle, and that power-off
takes RSSI away as StopDiscovery does.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dbus_fast import DBusError, Variant

from hil.adverts import Advert, parse
from hil.bluez_monitors import Monitors
from hil.bluez_objects import ObjectTree

ADAPTER = "org.bluez.Adapter1"
DEVICE = "org.bluez.Device1"
MONITOR_MANAGER = "org.bluez.AdvertisementMonitorManager1"

PATH = "/org/bluez/hci0"

TEMPORARY_S = 30.0
"""``TemporaryTimeout`` of ``main.conf``."""

RSSI_STEP_DB = 8
"""``RSSI_THRESHOLD``: smaller steps are not told where RSSI is not asked for."""

_FILTERS = {"UUIDs", "RSSI", "Pathloss", "Transport", "DuplicateData", "Discoverable", "Pattern"}

_YES, _NO = Variant("b", True), Variant("b", False)  # noqa: FBT003  # D-Bus booleans have no names

_Filter = Mapping[str, Any]


@dataclass
class _Device:
    path: str
    last_seen: float = 0.0
    rssi: int | None = None


class Adapter:
    """The adapter hci0, powered, as BlueZ has it after boot (``AutoEnable``).

    Args:
        objects: where it and its devices are shown.
        monitors: the passive scans of the clients.
        version: of BlueZ, such as (5, 66).
        busy_until: loop time until which the kernel still runs a discovery of a bluetoothd that crashed.
    """

    def __init__(self, objects: ObjectTree, monitors: Monitors, version: tuple[int, int], busy_until: float) -> None:
        self.monitors = monitors
        self._objects = objects
        self._version = version
        self._busy_until = busy_until
        self._powered = True
        self._filters: dict[str, _Filter] = {}
        self._sessions: dict[str, None] = {}
        self._devices: dict[str, _Device] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        objects.add(PATH, {ADAPTER: _adapter_properties(version), MONITOR_MANAGER: _monitor_manager_properties()})

    @property
    def discovering(self) -> bool:
        """Whether any client scans actively."""
        return bool(self._sessions)

    def set_filter(self, client: str, wanted: _Filter) -> None:
        """Keep a client's discovery filter, or with an empty one drop it (``SetDiscoveryFilter``).

        Raises:
            DBusError: NotReady, InvalidArguments.
        """
        self._want_power()
        if not wanted.keys() <= _FILTERS:
            raise DBusError("org.bluez.Error.InvalidArguments", "Invalid arguments in method call")
        if wanted:
            self._filters[client] = wanted
        else:
            self._filters.pop(client, None)

    def start_discovery(self, client: str) -> None:
        """Open the session of a client (``StartDiscovery``).

        Raises:
            DBusError: NotReady; InProgress if it has one already, or the kernel still scans for a daemon that crashed.
        """
        self._want_power()
        if client in self._sessions or asyncio.get_running_loop().time() < self._busy_until:
            raise DBusError("org.bluez.Error.InProgress", "Operation already in progress")
        self._sessions[client] = None
        if len(self._sessions) == 1:
            self._show("Discovering", _YES)

    def stop_discovery(self, client: str) -> None:
        """End the session of a client, and with it its filter (``StopDiscovery``).

        Raises:
            DBusError: NotReady; Failed if it has none.
        """
        self._want_power()
        if client not in self._sessions:
            raise DBusError("org.bluez.Error.Failed", "No discovery started")
        self.forget(client)

    def forget(self, client: str) -> None:
        """End what a client had under way."""
        self._filters.pop(client, None)
        if client in self._sessions:
            del self._sessions[client]
            if not self._sessions:
                self._end_discovery()

    def power(self, *, on: bool) -> None:
        """Switch on or off. Off ends all discovery without an error to anybody; on does not begin it again."""
        if on == self._powered:
            return
        self._powered = on
        self._filters.clear()
        if self._sessions:
            self._sessions.clear()
            self._end_discovery()
        self._show("Powered", Variant("b", on))

    def remove(self) -> None:
        """Take the adapter and its devices away, as when it is unplugged."""
        self.monitors.release()
        for address in list(self._devices):
            self._remove_device(address)
        self._objects.remove(PATH)

    def hear(self, address: str, address_type: str, payload: bytes, rssi: int) -> None:
        """Take up what the radio received, if anybody scans for it.

        Args:
            address: of the sender, upper case with colons.
            address_type: ``public`` or ``random``.
            payload: AD structures.
            rssi: dBm.
        """
        if not self._powered:
            return
        advert = parse(payload)
        monitors = self.monitors.matching(payload)
        if not monitors and not any(_wants(self._filters.get(client, {}), advert, rssi) for client in self._sessions):
            return
        device = self._devices.get(address) or self._add_device(address, address_type)
        device.last_seen = asyncio.get_running_loop().time()
        self._note(device, advert, rssi)
        for monitor in monitors:
            if device.path not in monitor.found:
                monitor.found.add(device.path)
                self.monitors.tell(monitor, "DeviceFound", device.path)

    def _want_power(self) -> None:
        if not self._powered:
            raise DBusError("org.bluez.Error.NotReady", "Resource Not Ready")

    def _show(self, name: str, value: Variant) -> None:
        self._objects.put(PATH, ADAPTER, name, value)

    def _end_discovery(self) -> None:
        for device in self._devices.values():
            device.rssi = None
            for name in ("RSSI", "TxPower"):
                if self._property(device, name) is not None:
                    self._objects.put(device.path, DEVICE, name, None)
        self._show("Discovering", _NO)

    def _add_device(self, address: str, address_type: str) -> _Device:
        device = _Device(f"{PATH}/dev_{address.replace(':', '_')}")
        self._devices[address] = device
        self._objects.add(device.path, {DEVICE: _device_properties(address, address_type)})
        self._expire_later(address, asyncio.get_running_loop().time())
        return device

    def _expire_later(self, address: str, seen: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[address] = loop.call_at(seen + TEMPORARY_S, self._expire, address, seen)

    def _expire(self, address: str, seen: float) -> None:
        """Remove the device, unless it was heard again since the timer was set."""
        last_seen = self._devices[address].last_seen
        if last_seen != seen:
            self._expire_later(address, last_seen)
        else:
            self._remove_device(address)

    def _remove_device(self, address: str) -> None:
        self._timers.pop(address).cancel()
        path = self._devices.pop(address).path
        self.monitors.lose(path)
        self._objects.remove(path)

    def _note(self, device: _Device, advert: Advert, rssi: int) -> None:
        """Bring the properties up to date, in BlueZ's order."""
        if device.rssi is None or abs(rssi - device.rssi) >= self._rssi_step():
            device.rssi = rssi
            self._objects.put(device.path, DEVICE, "RSSI", Variant("n", rssi))
        if advert.tx_power is not None:
            self._put_changed(device, "TxPower", Variant("n", advert.tx_power))
        if advert.local_name:
            self._put_changed(device, "Name", Variant("s", advert.local_name))
            self._put_changed(device, "Alias", Variant("s", advert.local_name))
        known = self._property(device, "UUIDs") or []
        self._put_changed(device, "UUIDs", Variant("as", list(dict.fromkeys([*known, *advert.service_uuids]))))
        self._collect(device, "ManufacturerData", "a{qv}", advert.manufacturer_data)
        self._collect(device, "ServiceData", "a{sv}", advert.service_data)
        self._put_changed(device, "AdvertisingFlags", Variant("ay", bytes([advert.flags or 0])))

    def _collect(self, device: _Device, name: str, signature: str, heard: Mapping[Any, bytes]) -> None:
        if not heard:
            return
        entries = {key: Variant("ay", data) for key, data in heard.items()}
        if any(self._filters.get(client, {}).get("DuplicateData") for client in self._sessions):
            self._objects.put(device.path, DEVICE, name, Variant(signature, entries))
        else:
            self._put_changed(device, name, Variant(signature, (self._property(device, name) or {}) | entries))

    def _put_changed(self, device: _Device, name: str, value: Variant) -> None:
        if self._property(device, name) != value.value:
            self._objects.put(device.path, DEVICE, name, value)

    def _property(self, device: _Device, name: str) -> Any:  # noqa: ANN401  # as many types as properties
        value = (self._objects.properties(device.path, DEVICE) or {}).get(name)
        return value.value if value is not None else None

    def _rssi_step(self) -> int:
        filters = [self._filters[client] for client in self._sessions if client in self._filters]
        if self._version < (5, 88):
            return 0 if filters else RSSI_STEP_DB
        return 0 if any({"RSSI", "Pathloss"} & wanted.keys() for wanted in filters) else RSSI_STEP_DB


def _wants(wanted: _Filter, advert: Advert, rssi: int) -> bool:
    """Tell whether a discovery filter lets the advert through (``is_filter_match``)."""
    uuids = wanted.get("UUIDs")
    return (not uuids or not set(uuids).isdisjoint(advert.service_uuids)) and rssi >= wanted.get("RSSI", -128)


def _adapter_properties(version: tuple[int, int]) -> dict[str, Variant]:
    major, minor = version
    return {
        "Address": Variant("s", "02:00:00:00:00:01"),
        "AddressType": Variant("s", "public"),
        "Name": Variant("s", "pole"),
        "Alias": Variant("s", "pole"),
        "Class": Variant("u", 0),
        "Powered": _YES,
        "Discoverable": _NO,
        "DiscoverableTimeout": Variant("u", 180),
        "Pairable": _NO,
        "PairableTimeout": Variant("u", 0),
        "Discovering": _NO,
        "UUIDs": Variant("as", ["00001800-0000-1000-8000-00805f9b34fb", "00001801-0000-1000-8000-00805f9b34fb"]),
        "Modalias": Variant("s", f"usb:v1D6Bp0246d{major:02X}{minor:02X}"),
        "Roles": Variant("as", ["central", "peripheral"]),
    }


def _monitor_manager_properties() -> dict[str, Variant]:
    return {"SupportedMonitorTypes": Variant("as", ["or_patterns"]), "SupportedFeatures": Variant("as", [])}


def _device_properties(address: str, address_type: str) -> dict[str, Variant]:
    unset = dict.fromkeys(
        ("Paired", "Bonded", "Trusted", "Blocked", "LegacyPairing", "Connected", "ServicesResolved"),
        _NO,
    )
    return {
        "Address": Variant("s", address),
        "AddressType": Variant("s", address_type),
        "Alias": Variant("s", address.replace(":", "-")),
        "Adapter": Variant("o", PATH),
        "UUIDs": Variant("as", []),
        **unset,
    }

"""A door: Bluetooth LE, by bleak over BlueZ. The only file that imports them.

bleak hears; this file notices when it does not. Measured with BlueZ 5.66: when the adapter is switched off and on, or
bluetoothd dies and comes back, bleak's scanner stays deaf for ever, without an exception. So a small watcher on the
same bus sees bluetoothd and the adapter come and go, and the adapter change its power, and the scan is begun anew each
time; and when nothing at all was heard for a while, too. Scans that stay deaf, and scans that bluetoothd refuses to
begin, get the adapter power-cycled: it says "in progress" for ever when it took longer over the first one than we
waited, and "not ready" when the adapter was left off.

``DuplicateData`` is asked for: from BlueZ 5.88 on a tag that says the same again would not be heard otherwise.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog
from bleak import BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakDBusError, BleakError
from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from drivers.contract import Advert, PortGone

BLUEZ = "org.bluez"
DBUS = "org.freedesktop.DBus"
START_S = 15.0
STOP_S = 1.0  # the gateway stops within a few seconds, whatever bluetoothd does
QUIET_S, LONGEST_QUIET_S = 60.0, 3600.0  # without any advertisement at all, before the scan is begun anew
LONGEST_ROUND_S = LONGEST_QUIET_S + 300.0
DEAF_SCANS = 3  # in a row, before the adapter is power-cycled
REFUSED_STARTS = 5  # the same; more, because after a crash of bluetoothd the kernel is busy for 3 s by itself
NO_RSSI = -127  # what bleak says where BlueZ has none
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
GONE_TRIES = 2  # in a row, before there is said to be no radio; one may meet a bluetoothd that comes up just now
HINT = "See `systemctl status bluetooth` and `bluetoothctl list`; the adapter is named in [bluetooth]."

log = structlog.get_logger()


class Deaf(Exception):
    """The scan does not run, or hears nothing; the message says why."""


DEAFENING = (Deaf, BleakError, DBusError, OSError, EOFError)
"""What bleak and the bus raise when there is nothing to hear with."""


class Radio:
    """One Bluetooth adapter, and who wants to hear which address.

    Attributes:
        rounds: how often it began a scan, looked at the one that runs, or waited to try again.
        longest_round_s: how long that takes at the most.
    """

    def __init__(self, adapter: str) -> None:
        """Set it; ``run`` scans. ``adapter`` is a name like hci0."""
        self._adapter = adapter
        self._path = f"/org/bluez/{adapter}"
        self._loop = asyncio.get_running_loop()
        self._takers: dict[str, list[Callable[[Advert], None]]] = {}
        self._upset = asyncio.Event()
        self._gone = asyncio.Event()
        self._why = "the scan has not begun yet"
        self._scans = False
        self._heard_at = 0.0
        self._failures = 0
        self._deaf = 0
        self._refused = 0
        self._quiet_s = QUIET_S
        self.rounds = 0
        self.longest_round_s = LONGEST_ROUND_S

    def hear(self, address: str, take: Callable[[Advert], None]) -> None:
        """Hand over the advertisements of one address (upper-case, colons)."""
        self._takers.setdefault(address, []).append(take)

    def forget(self, address: str, take: Callable[[Advert], None]) -> None:
        """Hand over no more of them."""
        self._takers[address].remove(take)

    def trouble(self) -> PortGone | None:
        """Tell why nothing is heard; None: the scan runs."""
        return PortGone(f"bluetooth {self._adapter}: {self._why}", hint=HINT) if self._why else None

    async def gone(self) -> None:
        """Wait until tries in a row found no bus, bluetoothd or adapter. What a power cycle may mend is not gone."""
        await self._gone.wait()

    async def run(self) -> None:
        """Scan for ever."""
        while True:
            try:
                async with asyncio.timeout(START_S):
                    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
            except (OSError, EOFError, DBusError, ValueError) as error:
                self._deafened(f"no system D-Bus: {str(error) or 'it does not answer'}")
            else:
                gone = asyncio.create_task(self._until_gone(bus))
                try:
                    await self._watch(bus)
                    while bus.connected:
                        await self._scan(bus)
                        if self._deaf >= DEAF_SCANS or self._refused >= REFUSED_STARTS:
                            await self._power_cycle(bus)
                            await asyncio.sleep(FIRST_PAUSE_S)
                        else:
                            await self._pause()
                except DEAFENING as error:
                    self._deafened(str(error))
                finally:
                    gone.cancel()
                    bus.disconnect()
            await self._pause()

    async def _pause(self) -> None:
        """Wait longer from time to time, but not past a sign that something changed."""
        self.rounds += 1
        pause = min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 10), LONGEST_PAUSE_S)
        self._failures += 1
        if self._failures >= GONE_TRIES and not (self._refused or self._deaf):
            self._gone.set()
        self._upset.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._upset.wait()
                self._failures = 0

    async def _scan(self, bus: MessageBus) -> None:
        """Scan until something is wrong."""
        scanner = BleakScanner(
            self._heard, scanning_mode="active", bluez={"adapter": self._adapter, "filters": {"DuplicateData": True}}
        )
        try:
            await self._bluetoothd_runs(bus)
            await self._start(scanner)
            await self._until_upset()
        except DEAFENING as error:
            self._deafened(str(error))
        finally:
            self._scans = False
            # It is over, one way or the other; bleak says "no discovery started" when bluetoothd forgot it.
            with contextlib.suppress(TimeoutError, *DEAFENING):
                async with asyncio.timeout(STOP_S):
                    await scanner.stop()

    async def _bluetoothd_runs(self, bus: MessageBus) -> None:
        """Raise Deaf where it does not: a call to it would wait half a minute for D-Bus to start it."""
        if not await self._call(bus, DBUS, "/", DBUS, "NameHasOwner", "s", [BLUEZ]):
            raise Deaf("bluetoothd does not run")

    async def _start(self, scanner: BleakScanner) -> None:
        self._upset.clear()  # from here on every sign may mean this very scan
        try:
            async with asyncio.timeout(START_S):
                await scanner.start()
        except TimeoutError:
            self._refused += 1
            raise Deaf(f"bluetoothd did not begin the scan within {START_S:.0f} s") from None
        except BleakDBusError:
            self._refused += 1
            raise
        self._refused = 0

    async def _until_upset(self) -> None:
        """Let it scan. Raises Deaf when there is a sign that it hears nothing any more, or it is quiet for long."""
        if not self._upset.is_set():
            log.info("bluetooth scan runs", adapter=self._adapter)
            self._why = ""
        self._scans = True
        self._heard_at = self._loop.time()
        while not self._upset.is_set():
            heard_at = self._heard_at
            self.rounds += 1
            try:
                async with asyncio.timeout_at(heard_at + self._quiet_s):
                    await self._upset.wait()
            except TimeoutError:
                if self._heard_at == heard_at:
                    self._deaf += 1
                    raise Deaf(f"nothing was heard for {self._quiet_s:.0f} s") from None
        self._failures = 0
        raise Deaf(self._why)

    async def _power_cycle(self, bus: MessageBus) -> None:
        if self._deaf:  # perhaps there is nothing to hear here: do not ask each minute for ever
            self._quiet_s = min(2 * self._quiet_s, LONGEST_QUIET_S)
        self._deaf = self._refused = 0
        log.warning("switching the bluetooth adapter off and on", adapter=self._adapter)
        try:
            for powered in (False, True):
                body = ["org.bluez.Adapter1", "Powered", Variant("b", powered)]
                await self._call(bus, BLUEZ, self._path, "org.freedesktop.DBus.Properties", "Set", "ssv", body)
        except DEAFENING as error:
            self._deafened(str(error))

    async def _until_gone(self, bus: MessageBus) -> None:
        with contextlib.suppress(Exception):  # whatever ended it, it is gone
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # has no annotations
        self._upset_by("the system D-Bus is gone")

    async def _watch(self, bus: MessageBus) -> None:
        """Ask the bus for the signals that mean a deaf scanner."""
        bus.add_message_handler(self._signal)
        rules = (
            f"type='signal',interface='{DBUS}',member='NameOwnerChanged',arg0='{BLUEZ}'",
            f"type='signal',sender='{BLUEZ}',member='PropertiesChanged',path='{self._path}'",
            f"type='signal',sender='{BLUEZ}',member='InterfacesAdded',arg0path='{self._path}'",
            f"type='signal',sender='{BLUEZ}',member='InterfacesRemoved',arg0path='{self._path}'",
        )
        for rule in rules:
            await self._call(bus, DBUS, "/", DBUS, "AddMatch", "s", [rule])

    def _signal(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "NameOwnerChanged" and message.body[0] == BLUEZ:
            self._upset_by("bluetoothd came up anew" if message.body[2] else "bluetoothd is gone")
        elif message.member in {"InterfacesAdded", "InterfacesRemoved"} and "org.bluez.Adapter1" in message.body[1]:
            self._upset_by("the adapter was " + message.member.removeprefix("Interfaces").lower())
        elif message.member == "PropertiesChanged" and message.path == self._path:
            changed = message.body[1]
            if "Powered" in changed:
                self._upset_by("the adapter was switched " + ("on" if changed["Powered"].value else "off"))
            elif self._scans and "Discovering" in changed and not changed["Discovering"].value:
                self._upset_by("the adapter stopped scanning")

    def _upset_by(self, why: str) -> None:
        self._deafened(why)
        self._upset.set()

    def _deafened(self, why: str) -> None:
        if why != self._why:
            log.warning("bluetooth does not hear", adapter=self._adapter, why=why)
        self._why = why

    def _heard(self, device: BLEDevice, data: AdvertisementData) -> None:
        if data.rssi == NO_RSSI:
            return  # nothing was heard: a scan ended, and BlueZ tells the last advert once more, without its RSSI
        self._heard_at = self._loop.time()
        self._deaf = self._failures = 0
        self._quiet_s = QUIET_S
        takers = self._takers.get(device.address.upper())
        if takers:
            advert = Advert(device.address.upper(), data.rssi, data.manufacturer_data, data.service_data)
            for take in takers:
                take(advert)

    async def _call(
        self, bus: MessageBus, to: str, path: str, interface: str, member: str, signature: str, body: list[object]
    ) -> object:
        """Call a method. Raises Deaf where it fails or is not answered."""
        message = Message(destination=to, path=path, interface=interface, member=member, signature=signature, body=body)
        try:
            async with asyncio.timeout(START_S):
                reply = await bus.call(message)
        except TimeoutError:
            raise Deaf(f"{to} does not answer {member}") from None
        if reply.message_type is MessageType.ERROR:
            raise Deaf(f"{member} failed: {reply.body}")
        return reply.body[0] if reply.body else None

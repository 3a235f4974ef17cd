"""An emulated bluetoothd: the ``org.bluez`` that an unmodified bleak finds on a private bus.

It hears adverts and nothing else; it has no connections and no GATT. It is a real client of a real ``dbus-daemon``, so
what a reader has to survive is here as in the field: the daemon that crashes, the adapter that is switched off, the
call that is never answered. In each of these bleak 3.1 goes deaf without a word, as it does on BlueZ 5.66.

``bluez_adapter`` says what BlueZ does with an advert, ``bluez_objects`` how the properties reach the bus,
``bluez_monitors`` how passive scanning is asked for. This module is the daemon around them: its methods, its faults,
its lives and deaths.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dbus_fast import DBusError, ErrorType, Message, MessageType, NameFlag, RequestNameReply, Variant, unpack_variants

from hil.bluez_adapter import ADAPTER, MONITOR_MANAGER, PATH, Adapter
from hil.bluez_monitors import Monitors
from hil.bluez_objects import OBJECT_MANAGER, PROPERTIES, ObjectTree
from hil.bus_client import BusClient, to_daemon

STALE_DISCOVERY_S = 3.0
"""How long StartDiscovery answers InProgress after a crash amid a discovery: the kernel still scans (seen on 5.66)."""

_LEAVERS = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg2=''"
"""The match rule for names that have no owner any more."""


@dataclass(frozen=True, slots=True)
class _Fault:
    error: str
    delay_s: float
    silent: bool


class FakeBlueZ:
    """The emulated daemon with one adapter, hci0. It may die and come back.

    Args:
        address: of the bus, as ``PrivateBus.address`` gives it.
        version: of BlueZ, such as (5, 66) or (5, 88); from 5.88 on fewer adverts are told.
    """

    def __init__(self, address: str, version: tuple[int, int] = (5, 66)) -> None:
        self._address = address
        self._version = version
        self._life: _Life | None = None
        self._plugged = True
        self._died_discovering = False
        self._faults: dict[str, deque[_Fault]] = {}

    async def start(self) -> None:
        """Come up: join the bus, take the name ``org.bluez``, show the adapter if it is plugged.

        Raises:
            OSError: nobody listens at the address.
            RuntimeError: somebody else has the name.
        """
        busy_until = asyncio.get_running_loop().time() + STALE_DISCOVERY_S if self._died_discovering else 0.0
        self._died_discovering = False
        life = _Life(self._address, self._version, busy_until, self._take_fault)
        await life.begin()
        self._life = life
        if self._plugged:
            life.add_adapter()

    async def stop(self, *, crash: bool = False) -> None:
        """End the daemon; harmless if it does not run.

        Args:
            crash: as by SIGKILL: no object is taken back, the name just loses its owner, and if a client was scanning,
                the next life finds the kernel busy for ``STALE_DISCOVERY_S``.
        """
        life, self._life = self._life, None
        if life is None:
            return
        if crash:
            self._died_discovering = life.adapter is not None and life.adapter.discovering
        else:
            life.remove_adapter()
            await life.sync()
        await life.end()

    def advertise(self, address: str, payload: bytes, rssi: int, address_type: str = "random") -> None:
        """Let the radio hear an advert now; lost if the daemon, the adapter or a scan is missing.

        Args:
            address: of the sender, upper case with colons.
            payload: AD structures, see ``hil.adverts``.
            rssi: dBm.
            address_type: ``public`` or ``random``.
        """
        if self._life is not None and self._life.adapter is not None:
            self._life.adapter.hear(address, address_type, payload, rssi)

    def power(self, *, on: bool) -> None:
        """Switch the adapter as ``rfkill`` or a reset does: scans end, and nobody is told."""
        if self._life is not None and self._life.adapter is not None:
            self._life.adapter.power(on=on)

    def remove_adapter(self) -> None:
        """Pull the adapter."""
        self._plugged = False
        if self._life is not None:
            self._life.remove_adapter()

    def add_adapter(self) -> None:
        """Plug the adapter; it comes up powered."""
        self._plugged = True
        if self._life is not None:
            self._life.add_adapter()

    def arm(self, member: str, *, error: str = "", delay_s: float = 0.0, silent: bool = False, times: int = 1) -> None:
        """Make the next calls of a method go wrong.

        Args:
            member: such as ``StartDiscovery``.
            error: the name of the error to answer with, such as ``org.bluez.Error.InProgress``.
            delay_s: how long the answer, right or wrong, takes.
            silent: give no answer and do nothing.
            times: how many calls; they queue behind those armed before.
        """
        self._faults.setdefault(member, deque()).extend([_Fault(error, delay_s, silent)] * times)

    async def sync(self) -> None:
        """Wait until the bus daemon has taken all that was to be told."""
        if self._life is not None:
            await self._life.sync()

    def _take_fault(self, member: str) -> _Fault:
        armed = self._faults.get(member)
        return armed.popleft() if armed else _Fault(error="", delay_s=0.0, silent=False)


class _Life:
    """One process of bluetoothd, from its start to its end."""

    def __init__(
        self, address: str, version: tuple[int, int], busy_until: float, take_fault: Callable[[str], _Fault]
    ) -> None:
        self.adapter: Adapter | None = None
        self._version = version
        self._busy_until = busy_until
        self._take_fault = take_fault
        self._client = BusClient(address, self._on_message)
        self._objects = ObjectTree(self._client.send)
        self._monitors = Monitors(self._client.send, self._client.call)
        self._answers: set[asyncio.Task[None]] = set()
        self._methods: dict[tuple[str | None, str | None], Callable[[Message], Awaitable[Message]]] = {
            (OBJECT_MANAGER, "GetManagedObjects"): self._get_managed_objects,
            (PROPERTIES, "Get"): self._get,
            (PROPERTIES, "GetAll"): self._get_all,
            (PROPERTIES, "Set"): self._set,
            (ADAPTER, "SetDiscoveryFilter"): self._set_discovery_filter,
            (ADAPTER, "StartDiscovery"): self._start_discovery,
            (ADAPTER, "StopDiscovery"): self._stop_discovery,
            (MONITOR_MANAGER, "RegisterMonitor"): self._register_monitor,
            (MONITOR_MANAGER, "UnregisterMonitor"): self._unregister_monitor,
        }

    async def begin(self) -> None:
        await self._client.connect()
        await self._client.call(to_daemon("AddMatch", "s", _LEAVERS))
        reply = await self._client.call(to_daemon("RequestName", "su", "org.bluez", NameFlag.DO_NOT_QUEUE.value))
        if reply.body != [RequestNameReply.PRIMARY_OWNER.value]:
            await self._client.close()
            raise RuntimeError(f"the name org.bluez is not to be had on this bus: {reply.body}")

    async def end(self) -> None:
        for answer in self._answers:
            answer.cancel()
        await self._client.close()

    async def sync(self) -> None:
        self._objects.flush()
        await self._client.sync()

    def add_adapter(self) -> None:
        if self.adapter is None:
            self.adapter = Adapter(self._objects, self._monitors, self._version, self._busy_until)

    def remove_adapter(self) -> None:
        if self.adapter is not None:
            self.adapter.remove()
            self.adapter = None

    def _on_message(self, message: Message) -> bool:
        if message.message_type is MessageType.SIGNAL:
            if message.member == "NameOwnerChanged":
                self._forget(message.body[0])
            else:
                self._monitors.follow(message)
        elif message.message_type is MessageType.METHOD_CALL and (message.interface, message.member) in self._methods:
            answer = asyncio.create_task(self._answer(message))
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)
            return True
        return False

    def _forget(self, client: str) -> None:
        self._monitors.forget(client)
        if self.adapter is not None:
            self.adapter.forget(client)

    async def _answer(self, call: Message) -> None:
        fault = self._take_fault(call.member or "")
        await asyncio.sleep(fault.delay_s)
        if fault.silent:
            return
        if not fault.error:
            reply = await self._perform(call)
        else:
            if call.member == "StopDiscovery":
                # BlueZ drops the session before it asks the kernel to stop: a refused stop has ended it all the same.
                await self._perform(call)
            reply = Message.new_error(call, fault.error, "as armed")
        self._objects.flush()
        self._client.send(reply)

    async def _perform(self, call: Message) -> Message:
        try:
            return await self._methods[call.interface, call.member](call)
        except DBusError as error:
            return Message.new_error(call, error.type, error.text)

    async def _get_managed_objects(self, call: Message) -> Message:
        return Message.new_method_return(call, "a{oa{sa{sv}}}", [self._objects.managed()])

    async def _get(self, call: Message) -> Message:
        interface, name = call.body
        properties = self._properties(call.path, interface)
        if name not in properties:
            raise DBusError(ErrorType.INVALID_ARGS, f"No such property '{name}'")
        return Message.new_method_return(call, "v", [properties[name]])

    async def _get_all(self, call: Message) -> Message:
        return Message.new_method_return(call, "a{sv}", [self._properties(call.path, call.body[0])])

    async def _set(self, call: Message) -> Message:
        interface, name, value = call.body
        if (interface, name) != (ADAPTER, "Powered"):
            raise DBusError(ErrorType.PROPERTY_READ_ONLY, f"Property '{name}' is not writable here")
        self._adapter_at(call.path).power(on=value.value)
        return Message.new_method_return(call)

    async def _set_discovery_filter(self, call: Message) -> Message:
        self._adapter_at(call.path).set_filter(call.sender or "", unpack_variants(call.body[0]))
        return Message.new_method_return(call)

    async def _start_discovery(self, call: Message) -> Message:
        self._adapter_at(call.path).start_discovery(call.sender or "")
        return Message.new_method_return(call)

    async def _stop_discovery(self, call: Message) -> Message:
        self._adapter_at(call.path).stop_discovery(call.sender or "")
        return Message.new_method_return(call)

    async def _register_monitor(self, call: Message) -> Message:
        await self._adapter_at(call.path).monitors.register(call.sender or "", call.body[0])
        return Message.new_method_return(call)

    async def _unregister_monitor(self, call: Message) -> Message:
        self._adapter_at(call.path).monitors.unregister(call.sender or "", call.body[0])
        return Message.new_method_return(call)

    def _properties(self, path: str | None, interface: str) -> dict[str, Variant]:
        properties = self._objects.properties(path or "", interface)
        if properties is None:
            raise DBusError(ErrorType.UNKNOWN_OBJECT, f"there is no {interface} at {path}")
        return properties

    def _adapter_at(self, path: str | None) -> Adapter:
        if self.adapter is None or path != PATH:
            raise DBusError(ErrorType.UNKNOWN_OBJECT, f"there is no adapter at {path}")
        return self.adapter

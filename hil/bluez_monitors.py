"""Passive scanning as bluetoothd offers it: advertisement monitors that clients export on their own connections.

A client names the root of a tree of its own (``RegisterMonitor``). bluetoothd reads that tree, follows it from then on,
and calls ``Activate`` on every monitor in it. bleak exports its monitor only after the reply to ``RegisterMonitor``,
so for bleak it is always the ``InterfacesAdded`` signal that brings the monitor.

Source: BlueZ ``doc/org.bluez.AdvertisementMonitor.rst`` and ``src/adv_monitor.c``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from dbus_fast import DBusError, Message, MessageFlag, MessageType

from hil.adverts import structures
from hil.bluez_objects import OBJECT_MANAGER
from hil.bus_client import to_daemon

MONITOR = "org.bluez.AdvertisementMonitor1"


@dataclass
class Monitor:
    """One exported monitor of the type ``or_patterns``.

    Attributes:
        client: the unique bus name of its owner.
        path: where its owner exports it.
        patterns: (offset in the data, AD type, bytes); one that matches is enough.
        found: paths of the devices its owner was told of.
    """

    client: str
    path: str
    patterns: list[tuple[int, int, bytes]]
    found: set[str] = field(default_factory=set)

    def matches(self, payload: bytes) -> bool:
        """Tell whether one of the patterns is in these AD structures."""
        return any(
            kind == ad_type and data[offset : offset + len(content)] == content
            for kind, data in structures(payload)
            for offset, ad_type, content in self.patterns
        )


class Monitors:
    """The monitors of all clients.

    Args:
        send: sends a message and expects no reply.
        call: sends a method call and returns the reply.
    """

    def __init__(self, send: Callable[[Message], None], call: Callable[[Message], Awaitable[Message]]) -> None:
        self._send = send
        self._call = call
        self._trees: dict[tuple[str, str], dict[str, Monitor]] = {}

    async def register(self, client: str, root: str) -> None:
        """Follow the tree below ``root`` on the client's connection.

        Raises:
            DBusError: AlreadyExists.
        """
        if (client, root) in self._trees:
            raise DBusError("org.bluez.Error.AlreadyExists", "Already Exists")
        self._trees[client, root] = {}
        self._match("AddMatch", client, root)
        reply = await self._call(Message(client, root, OBJECT_MANAGER, "GetManagedObjects"))
        if reply.message_type is MessageType.METHOD_RETURN:
            for path, interfaces in reply.body[0].items():
                self._adopt(client, root, path, interfaces)

    def unregister(self, client: str, root: str) -> None:
        """Follow the tree no longer.

        Raises:
            DBusError: DoesNotExist.
        """
        if self._trees.pop((client, root), None) is None:
            raise DBusError("org.bluez.Error.DoesNotExist", "Does Not Exist")
        self._match("RemoveMatch", client, root)

    def forget(self, client: str) -> None:
        """Drop what belonged to a client that left the bus."""
        for owner, root in list(self._trees):
            if owner == client:
                self.unregister(owner, root)

    def release(self) -> None:
        """Drop all and tell the owners, as on the removal of the adapter."""
        for monitor in self._all():
            self.tell(monitor, "Release")
        for client, root in list(self._trees):
            self.unregister(client, root)

    def follow(self, signal: Message) -> None:
        """Take up a signal of ``ObjectManager`` from a client's tree."""
        client, root = signal.sender or "", signal.path or ""
        if (client, root) not in self._trees:
            return
        if signal.member == "InterfacesAdded":
            self._adopt(client, root, *signal.body)
        elif signal.member == "InterfacesRemoved":
            self._trees[client, root].pop(signal.body[0], None)

    def lose(self, device: str) -> None:
        """Forget that the owners were told of this device: it was removed."""
        for monitor in self._all():
            monitor.found.discard(device)

    def matching(self, payload: bytes) -> list[Monitor]:
        """Return the monitors that want these AD structures."""
        return [monitor for monitor in self._all() if monitor.matches(payload)]

    def tell(self, monitor: Monitor, member: str, *device: str) -> None:
        """Call a method of a monitor; BlueZ does not wait for the reply either."""
        flags = MessageFlag.NO_REPLY_EXPECTED
        signature = "o" * len(device)
        call = Message(monitor.client, monitor.path, MONITOR, member, flags=flags, signature=signature, body=[*device])
        self._send(call)

    def _all(self) -> list[Monitor]:
        return [monitor for tree in self._trees.values() for monitor in tree.values()]

    def _adopt(self, client: str, root: str, path: str, interfaces: dict[str, Any]) -> None:
        if MONITOR not in interfaces:
            return
        properties = interfaces[MONITOR]
        patterns = [(offset, ad_type, bytes(content)) for offset, ad_type, content in properties["Patterns"].value]
        monitor = Monitor(client, path, patterns)
        if properties["Type"].value != "or_patterns":
            self.tell(monitor, "Release")
            return
        self._trees[client, root][path] = monitor
        self.tell(monitor, "Activate")

    def _match(self, member: str, client: str, root: str) -> None:
        """Ask the bus daemon for the signals of a tree, or ask no longer."""
        rule = f"type='signal',sender='{client}',path='{root}',interface='{OBJECT_MANAGER}'"
        self._send(to_daemon(member, "s", rule))

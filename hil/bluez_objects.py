"""The objects a D-Bus service shows: interfaces, properties, and the signals that tell of their changes.

Written after BlueZ's ``gdbus/object.c``, whose habits reach every client:

* Changes are collected during one turn of the loop. Ten changes of a property in one turn are one signal with the last
  value; the nine before are never seen.
* A new object is announced at the end of the turn, with the values it has then.
* A property that has no value does not exist: it is missing in ``GetAll``, and losing its value puts it on the list of
  invalidated properties.
"""

import asyncio
from collections.abc import Callable, Mapping

from dbus_fast import Message, Variant

OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
PROPERTIES = "org.freedesktop.DBus.Properties"

_Interfaces = dict[str, dict[str, Variant]]

_ON_EVERY_OBJECT: _Interfaces = {"org.freedesktop.DBus.Introspectable": {}, PROPERTIES: {}}


class ObjectTree:
    """The objects below ``/``, by path.

    Args:
        emit: sends a signal at once.
    """

    def __init__(self, emit: Callable[[Message], None]) -> None:
        self._emit = emit
        self._objects: dict[str, _Interfaces] = {}
        self._new: dict[str, None] = {}
        self._changed: dict[tuple[str, str], dict[str, None]] = {}
        self._end_of_turn: asyncio.Handle | None = None

    def __contains__(self, path: str) -> bool:
        return path in self._objects

    def add(self, path: str, interfaces: Mapping[str, Mapping[str, Variant]]) -> None:
        """Show a new object, given as properties by interface."""
        self._objects[path] = _ON_EVERY_OBJECT | {name: dict(values) for name, values in interfaces.items()}
        self._new[path] = None
        self._flush_soon()

    def remove(self, path: str) -> None:
        """Take an object away and say so now, after all that is still to be said."""
        self.flush()
        interfaces = self._objects.pop(path)
        self._signal("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", path, list(interfaces))

    def put(self, path: str, interface: str, name: str, value: Variant | None) -> None:
        """Set a property, or with None take its value away. It counts as changed even if it has the same value."""
        properties = self._objects[path][interface]
        if value is not None:
            properties[name] = value
        else:
            properties.pop(name, None)
        if path not in self._new:
            self._changed.setdefault((path, interface), {})[name] = None
            self._flush_soon()

    def properties(self, path: str, interface: str) -> dict[str, Variant] | None:
        """Return the properties by name, or None if there is no such object or interface."""
        return self._objects.get(path, {}).get(interface)

    def managed(self) -> dict[str, _Interfaces]:
        """Return a copy of all of it, as ``GetManagedObjects`` wants it."""
        return {path: _copy(interfaces) for path, interfaces in self._objects.items()}

    def flush(self) -> None:
        """Say now what has changed. A service does so before each reply, so that signals and replies keep order."""
        if self._end_of_turn is not None:
            self._end_of_turn.cancel()
            self._end_of_turn = None
        new, self._new = self._new, {}
        for path in new:
            self._signal("/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", path, _copy(self._objects[path]))
        changed, self._changed = self._changed, {}
        for (path, interface), names in changed.items():
            properties = self._objects[path][interface]
            valued = {name: properties[name] for name in names if name in properties}
            invalidated = [name for name in names if name not in properties]
            self._signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", interface, valued, invalidated)

    def _flush_soon(self) -> None:
        if self._end_of_turn is None:
            self._end_of_turn = asyncio.get_running_loop().call_soon(self.flush)

    def _signal(self, path: str, interface: str, member: str, signature: str, *body: object) -> None:
        self._emit(Message.new_signal(path, interface, member, signature, list(body)))


def _copy(interfaces: _Interfaces) -> _Interfaces:
    """Keep the values as they are now: a message is written some turns after it was made."""
    return {name: dict(properties) for name, properties in interfaces.items()}

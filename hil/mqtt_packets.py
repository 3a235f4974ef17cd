"""MQTT packets on the wire, for the scripted broker: MQTT 5.0 sections 2 and 3, MQTT 3.1.1 where it differs."""

import asyncio
from dataclasses import dataclass
from typing import Self

V5, V311 = 5, 4
WILL_FLAG, USER_FLAG, PASSWORD_FLAG = 0x04, 0x80, 0x40

# MQTT 5.0 section 2.2.2.2: property id to bytes of its number, or the kind of field it is
PROPERTY_BYTES = dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1)
PROPERTY_BYTES |= dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2) | dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4)
PROPERTY_TEXTS = {0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F}
PROPERTY_BINARY = {0x09, 0x16}
CONTENT_TYPE, RECEIVE_MAXIMUM, USER_PROPERTY, MAXIMUM_PACKET_SIZE = 0x03, 0x21, 0x26, 0x27


class BadPacket(Exception):
    """The client sent what the standard forbids."""


class Fields:
    """The fields of a packet, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """Read so many bytes."""
        if count > self.left:
            raise BadPacket(f"ends in the middle of a field: {self._data.hex(' ')}")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, count: int) -> int:
        """Read a number of so many bytes."""
        return int.from_bytes(self.take(count), "big")

    def varint(self) -> int:
        """Read a variable byte integer, section 1.5.5."""
        value = 0
        for shift in range(0, 28, 7):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004  # the last one
                return value
        raise BadPacket("a variable byte integer of more than four bytes")

    def binary(self) -> bytes:
        """Read binary data with its length."""
        return self.take(self.number(2))

    def text(self) -> str:
        """Read a string."""
        return self.binary().decode()

    def properties(self) -> dict[int, int | str | bytes | list[tuple[str, str]]]:
        """Read properties, section 2.2.2."""
        fields = Fields(self.take(self.varint()))
        found: dict[int, int | str | bytes | list[tuple[str, str]]] = {}
        users: list[tuple[str, str]] = []
        while fields.left:
            number = fields.varint()
            if number == USER_PROPERTY:
                users.append((fields.text(), fields.text()))
            elif number in found:
                raise BadPacket(f"property {number:02x} comes twice")
            elif number in PROPERTY_BYTES:
                found[number] = fields.number(PROPERTY_BYTES[number])
            elif number in PROPERTY_TEXTS:
                found[number] = fields.text()
            elif number in PROPERTY_BINARY:
                found[number] = fields.binary()
            else:
                raise BadPacket(f"property {number:02x} does not exist here")
        return found | ({USER_PROPERTY: users} if users else {})


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT, section 3.1.

    Attributes:
        version: 5, or 4 for 3.1.1.
        client: client id.
        clean: clean start, clean session.
        keepalive: seconds.
        will: topic and payload.
        will_retained: whether the will is to be kept.
        username: None where none was sent.
        password: None where none was sent.
    """

    version: int
    client: str
    clean: bool
    keepalive: int
    will: tuple[str, bytes] | None
    will_retained: bool
    username: str | None
    password: bytes | None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the body. Raises BadPacket."""
        fields = Fields(body)
        if fields.text() != "MQTT":
            raise BadPacket("the protocol is not MQTT")
        version, flags, keepalive = fields.number(1), fields.number(1), fields.number(2)
        if version == V5:
            fields.properties()
        client = fields.text()
        will = None
        if flags & WILL_FLAG:
            if version == V5:
                fields.properties()
            will = fields.text(), fields.binary()
        username = fields.text() if flags & USER_FLAG else None
        password = fields.binary() if flags & PASSWORD_FLAG else None
        if fields.left:
            raise BadPacket("CONNECT has bytes after its end")
        return cls(version, client, bool(flags & 0x02), keepalive, will, bool(flags & 0x20), username, password)


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH with QoS 1, section 3.3.

    Attributes:
        topic: where.
        payload: what.
        id: packet identifier.
        retain: whether it is to be kept.
        content_type: "" where none was sent.
        user: user properties.
    """

    topic: str
    payload: bytes
    id: int
    retain: bool
    content_type: str
    user: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, head: int, body: bytes, version: int) -> Self:
        """Read first byte and body. Raises BadPacket."""
        if head & 0x0E != 0x02:  # noqa: PLR2004  # the flags: DUP 0, QoS 1
            raise BadPacket(f"PUBLISH {head:02x}: a message is sent once on a connection, with QoS 1")
        fields = Fields(body)
        topic, number = fields.text(), fields.number(2)
        if not topic or not number:
            raise BadPacket("PUBLISH without topic or packet id")
        properties = fields.properties() if version == V5 else {}
        users = properties.get(USER_PROPERTY, [])
        return cls(
            topic,
            fields.take(fields.left),
            number,
            bool(head & 0x01),
            str(properties.get(CONTENT_TYPE, "")),
            tuple(users) if isinstance(users, list) else (),
        )


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read first byte and body of a packet."""
    head = (await reader.readexactly(1))[0]
    length = b""
    while not length or length[-1] & 0x80:
        length += await reader.readexactly(1)
    return head, await reader.readexactly(Fields(length).varint())


def connack(version: int, code: int, receive_maximum: int | None = None, packet_size: int | None = None) -> bytes:
    """Return a CONNACK; code 1 is the same in both versions, for "speak another version"."""
    if version != V5 or code == 1:
        return bytes((0x20, 2, 0, code))
    properties = b""
    if receive_maximum is not None:
        properties += bytes((RECEIVE_MAXIMUM,)) + receive_maximum.to_bytes(2, "big")
    if packet_size is not None:
        properties += bytes((MAXIMUM_PACKET_SIZE,)) + packet_size.to_bytes(4, "big")
    return bytes((0x20, 3 + len(properties), 0, code, len(properties))) + properties


def ack(version: int, number: int, code: int = 0) -> bytes:
    """Return a PUBACK; 3.1.1 has no code."""
    if version != V5 or code == 0:
        return b"\x40\x02" + number.to_bytes(2, "big")
    return b"\x40\x03" + number.to_bytes(2, "big") + bytes((code,))


def disconnect(code: int) -> bytes:
    """Return a DISCONNECT from the broker, which only MQTT 5 has."""
    return bytes((0xE0, 1, code))

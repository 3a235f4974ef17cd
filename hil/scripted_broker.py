"""An MQTT broker that does as it is told, packet by packet: acknowledges, refuses, stalls, breaks, talks garbage.

Written from the OASIS standards MQTT 5.0 and 3.1.1, as far as a client that publishes with QoS 1 meets them. It keeps
nothing and forwards nothing; it notes what came, what the client did against the standard, and which wills a real
broker would now send.

A script is a function of the packet that gives one deed, or several that are done in turn::

    broker = ScriptedBroker()
    broker.on_connect = lambda connect: Accept(receive_maximum=5)
    broker.on_publish = lambda publish: Ack(0x97) if publish.topic.endswith("air") else Ack()
    broker.on_ping = lambda: NOTHING
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hil.mqtt_packets import BadPacket, Connect, Fields, Publish, ack, connack, disconnect, read_packet

CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 8, 10, 12, 14
ANSWERS = {4, 5, 6, 7, 13}  # to what a broker sends; this one sends it only as garbage
PINGRESP = b"\xd0\0"
SMALL_BUFFER = 8192  # bytes the kernel takes for a broker that does not read
RECEIVE_MAXIMUM_EXCEEDED = 0x93
UNLIMITED = 65_535  # Receive Maximum where none is announced, MQTT 5 section 3.2.2.3.3
V5 = 5


@dataclass(frozen=True, slots=True)
class Accept:
    """CONNACK, with what the broker announces."""

    receive_maximum: int | None = None
    maximum_packet_size: int | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """CONNACK with this code, and the end."""

    code: int


@dataclass(frozen=True, slots=True)
class Ack:
    """PUBACK with this code (none in 3.1.1), so many seconds later, so many times."""

    code: int = 0
    after: float = 0.0
    times: int = 1


@dataclass(frozen=True, slots=True)
class Send:
    """These bytes, whatever they are."""

    data: bytes


NOTHING = Send(b"")
"""No answer."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """DISCONNECT with this reason, and the end."""

    code: int


@dataclass(frozen=True, slots=True)
class Close:
    """The end without a word (FIN)."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The end by RST: what is under way both ways is lost."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Reads nothing more."""


Deed = Accept | Refuse | Ack | Send | Disconnect | Close | Reset | Stall
Deeds = Deed | Sequence[Deed]


@dataclass(slots=True)
class Connection:
    """What is known of one client.

    Attributes:
        connect: its CONNECT.
        window: messages it may have without a PUBACK.
        in_flight: packet ids it has.
        accepted: it got a CONNACK of success.
    """

    connect: Connect
    window: int = UNLIMITED
    in_flight: set[int] = field(default_factory=set)
    accepted: bool = False


class ScriptedBroker:
    """The broker, in the event loop of the test.

    Attributes:
        port: where it listens; 0 until it is started.
        on_connect: what to do with a CONNECT.
        on_publish: what to do with a PUBLISH.
        on_ping: what to do with a PINGREQ.
        on_subscribe: the code for each topic of a SUBSCRIBE, from topic and QoS.
        connects: every CONNECT that came.
        published: every PUBLISH that came.
        acknowledged: those of them that got a PUBACK of success.
        in_flight: messages without a PUBACK of the client that sent last.
        most_in_flight: messages that any one client ever had without a PUBACK.
        unsubscribed: topics of every UNSUBSCRIBE that came.
        goodbyes: how many clients sent DISCONNECT.
        wills: what a broker would have published for clients that went without one: topic, payload.
        violations: what clients did against the standard.
        clients: connections that are open now.
    """

    def __init__(self) -> None:
        self.port = 0
        self.on_connect: Callable[[Connect], Deeds] = lambda _: Accept()
        self.on_publish: Callable[[Publish], Deeds] = lambda _: Ack()
        self.on_ping: Callable[[], Deeds] = lambda: Send(PINGRESP)
        self.on_subscribe: Callable[[str, int], int] = lambda _, qos: qos
        self.connects: list[Connect] = []
        self.published: list[Publish] = []
        self.acknowledged: list[Publish] = []
        self.in_flight = self.most_in_flight = 0
        self.unsubscribed: list[str] = []
        self.goodbyes = 0
        self.wills: list[tuple[str, bytes]] = []
        self.violations: list[str] = []
        self._place: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def clients(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

    async def start(self) -> None:
        """Listen on loopback: on a free port, and on the same one whenever it is back."""
        if self._place is None:
            self._place = _bound(0)
            self.port = self._place.getsockname()[1]
        sock = _bound(self.port)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does it for sockets of its own only
        self._server = await asyncio.start_server(self._connected, sock=sock)

    async def leave(self) -> None:
        """Be away: connections are dropped and new ones refused, but nobody else gets the port."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self.drop()
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Leave for good."""
        await self.leave()
        if self._place is not None:
            self._place.close()

    def drop(self) -> None:
        """Drop all connections."""
        for task in self._tasks:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine always runs in one
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        client: Connection | None = None
        try:
            client = await self._greet(reader)
            await self._do(self.on_connect(client.connect), client, writer)
            while await self._serve(client, reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError, _Ended):
            if client is not None and client.accepted and client.connect.will is not None:
                self.wills.append(client.connect.will)
        except BadPacket as error:
            self.violations.append(str(error))
        finally:
            writer.transport.abort()

    async def _greet(self, reader: asyncio.StreamReader) -> Connection:
        head, body = await read_packet(reader)
        if head != CONNECT << 4:
            raise BadPacket(f"the first packet is {head:02x}, not CONNECT")
        client = Connection(Connect.parse(body))
        self.connects.append(client.connect)
        return client

    async def _serve(self, client: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head, body = await read_packet(reader)
        kind = head >> 4
        if kind == PUBLISH:
            await self._take(Publish.parse(head, body, client.connect.version), client, writer)
        elif kind == SUBSCRIBE:
            writer.write(_suback(body, client.connect.version, self.on_subscribe))
        elif kind == UNSUBSCRIBE:
            topics, answer = _unsuback(body, client.connect.version)
            self.unsubscribed += topics
            writer.write(answer)
        elif kind == PINGREQ:
            await self._do(self.on_ping(), client, writer)
        elif kind == DISCONNECT:
            self.goodbyes += 1
            return False
        elif kind not in ANSWERS:
            raise BadPacket(f"a client does not send {head:02x}")
        return True

    async def _take(self, publish: Publish, client: Connection, writer: asyncio.StreamWriter) -> None:
        if publish.id in client.in_flight:
            raise BadPacket(f"packet id {publish.id} is in flight already")
        client.in_flight.add(publish.id)
        self.published.append(publish)
        self.in_flight = len(client.in_flight)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if len(client.in_flight) > client.window:
            self.violations.append(f"{len(client.in_flight)} in flight, Receive Maximum is {client.window}")
            await self._do(Disconnect(RECEIVE_MAXIMUM_EXCEEDED), client, writer)
        await self._do(self.on_publish(publish), client, writer, publish)

    async def _do(
        self, deeds: Deeds, client: Connection, writer: asyncio.StreamWriter, publish: Publish | None = None
    ) -> None:
        version = client.connect.version
        for deed in deeds if isinstance(deeds, Sequence) else (deeds,):
            match deed:
                case Accept():
                    client.accepted = True
                    client.window = deed.receive_maximum or UNLIMITED
                    writer.write(connack(version, 0, deed.receive_maximum, deed.maximum_packet_size))
                case Ack():
                    assert publish is not None  # noqa: S101  # only a PUBLISH is acknowledged
                    self._acknowledge(deed, client, writer, publish)
                case Send():
                    writer.write(deed.data)
                case Stall():
                    await asyncio.Event().wait()
                case Reset():
                    linger = struct.pack("ii", 1, 0)  # on, with no time: RST instead of FIN
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    raise _Ended
                case Refuse() | Disconnect() | Close():
                    await _end(writer, deed, version)

    def _acknowledge(self, deed: Ack, client: Connection, writer: asyncio.StreamWriter, publish: Publish) -> None:
        def now() -> None:
            client.in_flight.discard(publish.id)
            if not writer.is_closing():
                if deed.code < 0x80:  # noqa: PLR2004  # below, it is success
                    self.acknowledged.append(publish)
                writer.write(ack(client.connect.version, publish.id, deed.code) * deed.times)

        if deed.after:
            asyncio.get_running_loop().call_later(deed.after, now)
        else:
            now()


class _Ended(Exception):
    """The broker ends the connection."""


def _bound(port: int) -> socket.socket:
    """Return a socket that has the port, together with others of ours; it does not listen."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


async def _end(writer: asyncio.StreamWriter, deed: Refuse | Disconnect | Close, version: int) -> None:
    """Say the last word, let it out, end."""
    if isinstance(deed, Refuse):
        writer.write(connack(version, deed.code))
    elif isinstance(deed, Disconnect):
        writer.write(disconnect(deed.code))
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    raise _Ended


def _suback(body: bytes, version: int, code: Callable[[str, int], int]) -> bytes:
    fields = Fields(body)
    number = fields.number(2)
    if version == V5:
        fields.properties()
    granted = bytearray()
    while fields.left:
        topic = fields.text()
        granted.append(code(topic, fields.number(1) & 0x03))
    content = number.to_bytes(2, "big") + (b"\0" if version == V5 else b"") + granted
    return bytes((0x90, len(content))) + content


def _unsuback(body: bytes, version: int) -> tuple[list[str], bytes]:
    fields = Fields(body)
    number = fields.number(2)
    if version == V5:
        fields.properties()
    topics = []
    while fields.left:
        topics.append(fields.text())
    content = number.to_bytes(2, "big") + (b"\0" + bytes(len(topics)) if version == V5 else b"")
    return topics, bytes((0xB0, len(content))) + content

"""aiomqtt's client and paho's below it, with a connection that holds: TCP, TLS and WebSocket.

Found not to hold for aiomqtt (2.5.1):

* A connection that ends before CONNACK is waited for until the time-out. Here it fails at once.
* One that ends as the time for an answer is over raises a cancellation in the event loop. Here it does not.
* A cancellation that comes together with the answer to CONNECT or SUBSCRIBE is lost. Here it can be raised.
* A socket is watched by its number, also when it is closed by then and the number is another file's. Here it is not.
* A broker that sends more than can be read is read for ever, and nothing else has a turn. Here all others have one.
* A connect that is cancelled goes on in its thread and takes over the session. Here it ends before CONNECT is sent.

Found to cost time with paho, for each message: calls of the kernel, four for one that is acknowledged, a turn of the
event loop, and objects for what its PUBACK does not say. Here what is published in one turn of the event loop goes out
with one call, what lies there is read with one call, and what PUBACKs say is decoded once.

Found not to hold for paho's WebSocket (2.2.0):

* A frame that the network does not take whole is told as if nothing had gone out, upon which paho drops the packet
  and takes the next one for it. Here it is told as a send that would block, and paho goes on with it.
* The answer to the handshake is parsed without care, and waited for without an end. Here whatever a server answers,
  and however slowly, is at worst a connection that failed.
* Where the handshake fails, the connection stays open until the garbage collector comes. Here it is closed.
"""

import asyncio
import contextlib
import functools
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Literal

import aiomqtt
import paho.mqtt.client as paho
from aiomqtt.types import PahoSocket
from paho.mqtt._packet import PubackPacket, decode_puback
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.link.reason import UNSPECIFIED

HANDSHAKE_S = 10.0
AHEAD_BYTES = 4096
BACKFILL = "backfill", "1"
SHORT_PUBACK = {2, 3}  # bytes of one without properties
KEEPALIVE_TIMEOUT = 0x8D  # what paho makes of a ping without an answer


class Client(aiomqtt.Client):
    """aiomqtt's client.

    Attributes:
        closed_early: the connection ended before CONNACK.
        silent: it was ended here, because nothing came any more or because nobody wants it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # aiomqtt's signature
        super().__init__(*args, **kwargs)
        self._client.__class__ = _Paho  # aiomqtt makes it, and takes none
        self._given_up = False
        self.closed_early = self.silent = False

    @property
    def alert(self) -> Exception | None:
        """The alert by which the broker refused this pole's certificate after the handshake."""
        return getattr(self._tcp, "alert", None)

    @property
    def cut(self) -> bool:
        """Whether it was ended from outside and without a reason. It is to be asked once it has ended."""
        return not self.silent and reason_of(self._disconnected.exception()) == UNSPECIFIED

    def abort(self) -> None:
        """End the connection without a word; the broker then sends the will."""
        self.silent = True
        sock = self._tcp
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def give_up(self) -> None:
        """End a connection that is being made, as soon as its thread lets go of it."""
        self._given_up = True
        self.abort()

    def must_not_be_cancelled(self) -> None:
        """Raise the cancellation that wait_for, which aiomqtt uses, swallows where it comes together with the result.

        Python does so before 3.12. Who is not cancelled then waits for ever, and the gateway does not end.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError

    @property
    def _tcp(self) -> socket.socket | None:
        assert isinstance(self._client, _Paho)  # noqa: S101  # __init__ made it one
        return self._client.tcp

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,  # noqa: ANN401  # aiomqtt's signature
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():
            self.closed_early = True
            self._connected.set_exception(aiomqtt.MqttError("closed before CONNACK"))
            self._connected.exception()  # nobody looks any more where it comes after the time-out
            return
        if self._connected.cancelled():  # the time for an answer was over; aiomqtt would raise that here
            return
        self.silent |= reason_code.value == KEEPALIVE_TIMEOUT
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_socket_open(
        self,
        client: paho.Client,
        userdata: Any,  # noqa: ANN401  # aiomqtt's signature
        sock: PahoSocket,
    ) -> None:
        super()._on_socket_open(client, userdata, sock)
        more: asyncio.Handle | None = None

        def read() -> None:
            nonlocal more
            if more is not None:
                more.cancel()
                more = None
            if client.socket() is sock:
                self._go_on(client.loop_read)
            if client.socket() is sock and _pending(sock):
                more = self._loop.call_soon(read)

        self._loop.call_soon_threadsafe(self._loop.add_reader, sock.fileno(), read)  # in the place of aiomqtt's

    def _on_socket_register_write(
        self,
        client: paho.Client,
        userdata: Any,  # noqa: ANN401, ARG002  # aiomqtt's signature
        sock: PahoSocket,
    ) -> None:
        number = sock.fileno()

        def watch() -> None:
            if self._given_up:
                self.abort()
            elif client.socket() is sock:  # it is called a moment later
                self._loop.add_writer(number, self._go_on, client.loop_write)

        def write() -> None:
            if client.socket() is sock:
                self._go_on(client.loop_write)
            if client.socket() is sock and client.want_write():
                self._loop.add_writer(number, self._go_on, client.loop_write)

        if self._connected.done():
            self._loop.call_soon(write)
        else:  # this may be the thread that connects
            self._loop.call_soon_threadsafe(watch)

    def _go_on(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # whatever it is, it ends the link
            if not self._disconnected.done():
                self._disconnected.set_exception(error)


def reason_of(error: BaseException | None) -> int:
    """Return the reason code by which a connection ended; None: it ended in order."""
    if isinstance(error, aiomqtt.MqttCodeError):
        return code_of(error.rc)
    return UNSPECIFIED if error else 0


def code_of(reason: ReasonCode | int | None) -> int:
    """Return a reason code as a number."""
    return int(reason.value) if isinstance(reason, ReasonCode) else reason or 0


class _Paho(paho.Client):
    """paho's client with connections that hold.

    Attributes:
        tcp: the TCP or TLS socket below; None before there is one.
    """

    tcp: socket.socket | None = None

    def _packet_queue(
        self,
        command: int,
        packet: bytes | bytearray,
        mid: int,
        qos: int,
        info: paho.MQTTMessageInfo | None = None,
    ) -> MQTTErrorCode:
        """Append a message to the one before where that waits as well."""
        last = self._out_packet[-1] if self._out_packet else None
        if (
            last
            and _is_acknowledged(command, qos)
            and _is_acknowledged(last["command"], last["qos"])
            and not last["pos"]
        ):
            last["packet"] = bytes(last["packet"]) + packet
            last["to_process"] += len(packet)
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return super()._packet_queue(command, packet, mid, qos, info)

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = bytes(self._in_packet["packet"])
        if cmd != "PUBACK" or len(packet) not in SHORT_PUBACK:
            return super()._handle_pubackcomp(cmd)
        told = _puback(packet[2:], self._protocol)
        mid = int.from_bytes(packet[:2], "big")
        with self._out_message_mutex:
            if mid in self._out_messages:
                return self._do_on_publish(mid, told.reason, told.properties)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _create_socket(self) -> "paho.SocketLike":
        self.tcp = self._create_socket_connection()
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._ssl:
            self.tcp = self._ssl_wrap_socket(self.tcp)
        if self._transport != "websockets":
            return _ReadAhead(self.tcp)
        self.tcp.settimeout(self._connect_timeout)
        try:
            return _WebSocket(self.tcp, self._host, self._port, self._ssl, self._websocket_path, None)
        except (OSError, ValueError, IndexError) as error:
            self.tcp.close()
            raise paho.WebsocketConnectionError(
                f"{self._host}:{self._port} does not speak WebSocket at {self._websocket_path} ({error}); "
                'correct the port and the path in "url"'
            ) from error


@functools.lru_cache(maxsize=64)
def _puback(reason: bytes, version: int) -> PubackPacket:
    """Decode what a PUBACK says beside the number of its message."""
    return decode_puback(paho.PUBACK, bytes(2) + reason, MQTTProtocolVersion(version))


class _Packed(Properties):
    """Properties that are written once: the same few are sent again and again."""

    def __init__(self, properties: Properties) -> None:
        super().__init__(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
        object.__setattr__(self, "_bytes", properties.pack())  # type: ignore[no-untyped-call]  # paho's

    def pack(self) -> bytes:
        packed: bytes = object.__getattribute__(self, "_bytes")
        return packed


@functools.lru_cache(maxsize=64)
def properties_of(content_type: str, encoding: str, backfill: bool) -> Properties:  # noqa: FBT001  # a key of the cache
    """Return what is told of a message to readers of MQTT 5; see :class:`gateway.link.broker.Message`."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
    properties.ContentType = content_type
    if encoding:
        properties.UserProperty = ("ce", encoding)
    if backfill:
        properties.UserProperty = BACKFILL
    return _Packed(properties)


class _ReadAhead:
    """A socket that is read in large pieces; paho asks for a byte, a byte, and the rest."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""
        self.send = sock.send
        self.close = sock.close
        self.fileno = sock.fileno
        self.setblocking = sock.setblocking

    def recv(self, length: int) -> bytes:
        if not self._data:
            self._data = self._sock.recv(AHEAD_BYTES)
        piece, self._data = self._data[:length], self._data[length:]
        return piece

    def pending(self) -> int:
        """How much can be read before there is more on the network."""
        below = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return len(self._data) + below


def _pending(sock: PahoSocket) -> int:
    assert isinstance(sock, _ReadAhead | _WebSocket)  # noqa: S101  # _create_socket makes no other
    return sock.pending()


def _is_acknowledged(command: int, qos: int) -> bool:
    return command & 0xF0 == paho.PUBLISH and qos > 0


class _Hurried:
    """A socket while the handshake lasts: it has an end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._until = time.monotonic() + HANDSHAKE_S
        self.send = sock.send

    def recv(self, length: int) -> bytes:
        if time.monotonic() > self._until:
            raise TimeoutError(f"no end of its answer within {HANDSHAKE_S:.0f} s")
        return self._sock.recv(length)


class _WebSocket(paho._WebsocketWrapper):  # noqa: SLF001  # paho offers no other way
    def _do_handshake(self, extra_headers: "paho.WebSocketHeaders | None") -> None:
        whole = self._socket
        self._socket = _Hurried(whole)  # type: ignore[assignment]  # it has what the handshake needs
        super()._do_handshake(extra_headers)
        self._socket = whole

    def send(self, data: bytes | bytearray) -> int:
        sent = super().send(data)
        if not sent:
            raise BlockingIOError
        return sent

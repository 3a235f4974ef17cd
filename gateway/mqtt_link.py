"""A door: one connection to an MQTT broker, by aiomqtt. The only file that imports it.

aiomqtt is used through a subclass, because seven things were found not to hold for it (2.5.1):

* ``publish`` returns as if all were well when an MQTT 5 broker refuses the message (PUBACK reason >= 0x80). Here a
  refusal is :class:`Refused`.
* When the link breaks, those who wait for a PUBACK are not told. Here they are, at once.
* A broker's Receive Maximum is not kept; overrunning it ends the link. Here ``send`` keeps it, whoever sends.
* A connection that ends before CONNACK is waited for until the time-out. Here it fails at once.
* A link that breaks in the moment it is up is taken for up, for ever. Here it is broken.
* A cancellation that comes together with the answer to CONNECT or SUBSCRIBE is lost. Here it is raised.
* A socket is watched by its number, also when it is closed by then and the number is another file's. Here it is not.

One object is one TCP connection with a clean session: paho would otherwise send again what our own buffer sends
again. The oldest message without a PUBACK for ``ACK_S`` ends the link; MQTT forbids sending twice on one link.

The subclass overrides private methods, so the versions are pinned closely.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
from aiomqtt.exceptions import MqttConnectError
from aiomqtt.types import PahoSocket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

ACK_S = 30.0
KEEPALIVE_S = 20
MOST_UNHEARD = 100  # messages to us that wait; more are dropped
WINDOW = 20  # messages without a PUBACK; Mosquitto announces the same
REFUSAL = 0x80
CLOSE_S = 1.0
OVERHEAD_BYTES = 128  # of a PUBLISH beside topic and payload: headers, properties
# Reason codes, MQTT 5 section 2.4; paho gives those of 3.1.1 as these
UNSUPPORTED_VERSION = 0x84
PACKET_TOO_LARGE = 0x95
NOT_AUTHORISED = {0x86, 0x87, 0x8C}  # bad user name or password, not authorised, bad authentication method

Version = aiomqtt.ProtocolVersion

_quiet = logging.getLogger("polegate.mqtt")
_quiet.setLevel(logging.CRITICAL)


class UplinkDown(Exception):
    """The link is not there, or broke before the broker took the message. Keep it and send it again."""


class NotAuthorised(UplinkDown):
    """The broker does not let this pole in. A person must look; trying again soon does not help."""


class OtherVersion(UplinkDown):
    """The broker speaks another version of MQTT, or ended the connection without a word, as such brokers do."""


class Refused(Exception):
    """The broker got the message and does not take it.

    Attributes:
        code: MQTT 5 reason code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where the broker is and how to get in.

    Attributes:
        host: name or address.
        port: TCP port.
        tls: speak TLS; the name in the broker's certificate is then always checked.
        ca_file: who must have signed that certificate; None: any CA the machine trusts.
        client: client id; a second connection with it ends the first.
        username: sent where there is a password.
        password_file: None: no user and password.
    """

    host: str
    port: int
    tls: bool
    ca_file: Path | None
    client: str
    username: str
    password_file: Path | None

    def secrets(self) -> tuple[ssl.SSLContext | None, str | None]:
        """Read what lies in files, anew for each connection: TLS context and password. Raises UplinkDown."""
        try:
            tls = ssl.create_default_context(cafile=self.ca_file) if self.tls else None
            if tls is not None:
                tls.sslsocket_class = _TlsSocket
            password = self.password_file.read_text().strip() if self.password_file else None
        except (OSError, UnicodeDecodeError) as error:  # ssl.SSLError is an OSError
            raise UplinkDown(f"{self.ca_file or ''} {self.password_file or ''} cannot be read: {error}") from error
        return tls, password


class _TlsSocket(ssl.SSLSocket):
    """Closes itself where the handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # ssl's signature
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be published.

    Attributes:
        topic: where.
        payload: what.
        retain: the broker keeps it for those who come later.
        content_type: MIME type, told to readers of MQTT 5.
        encoding: "zstd" or "", told to readers of MQTT 5 as user property ``ce``.
    """

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str = "application/json"
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """What was published to us.

    Attributes:
        topic: where.
        payload: what.
        retain: it lay with the broker already when we came.
    """

    topic: str
    payload: bytes
    retain: bool


class Link(aiomqtt.Client):
    """One connection.

    Attributes:
        version: of MQTT.
        window: messages that may be without a PUBACK at a time.
    """

    def __init__(self, broker: Broker, *, will: Message | None, version: Version, unheard: int = MOST_UNHEARD) -> None:
        """Prepare it; ``connect`` connects. Raises UplinkDown.

        Args:
            broker: where it is.
            will: what the broker publishes when the link breaks.
            version: of MQTT.
            unheard: messages to us that may wait; more are dropped. 0: any number.
        """
        tls, password = broker.secrets()
        super().__init__(
            broker.host,
            broker.port,
            identifier=broker.client,
            username=broker.username if password is not None else None,
            password=password,
            protocol=version,
            tls_context=tls,
            keepalive=KEEPALIVE_S,
            will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=will.retain) if will else None,
            clean_session=None if version == Version.V5 else True,
            clean_start=True if version == Version.V5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            logger=_quiet,
            max_queued_incoming_messages=unheard,
        )
        self.version = version
        self.window = WINDOW
        self._slots = asyncio.Semaphore(WINDOW)
        self._largest: int | None = None
        self._closed_early = False
        self._acks: dict[int, asyncio.Future[int]] = {}
        self._disconnected.add_done_callback(self._ended)

    async def connect(self) -> None:
        """Connect, and return when the broker has let us in.

        It must not be cancelled to save time: the connection would be made all the same, in its thread, and
        would take over the session of the next one.

        Raises:
            NotAuthorised: user, password or certificate do not open this broker.
            OtherVersion: this may be a broker of another MQTT version.
            UplinkDown: any other reason.
        """
        ended = self._disconnected
        try:
            await self.__aenter__()
        except UnicodeError as error:  # from the resolver: no host can have that name
            raise UplinkDown(f"cannot connect to {self._hostname}: {error}") from error
        except MqttConnectError as error:
            code = _code_of(error.rc)
            if code in NOT_AUTHORISED:
                raise NotAuthorised(f"the broker refuses to let this pole in: {error.rc}") from error
            if code == UNSUPPORTED_VERSION:
                raise OtherVersion(f"the broker refuses this version of MQTT: {error.rc}") from error
            raise UplinkDown(f"the broker refuses the connection: {error.rc}") from error
        except aiomqtt.MqttError as error:
            self.abort()
            if self._closed_early:
                raise OtherVersion("the broker closed the connection without an answer") from error
            raise UplinkDown(f"cannot connect: {error}") from error
        self._must_not_be_cancelled()
        if ended.done():  # aiomqtt has made a new one, which nothing would ever end
            self._disconnected = ended
            raise UplinkDown(self._why())

    async def close(self) -> None:
        """Disconnect in order: the broker does not send the will."""
        if not self._disconnected.done():
            self._client.disconnect()
            await asyncio.wait([self._disconnected], timeout=CLOSE_S)
        self.abort()

    async def send(self, message: Message) -> None:
        """Publish with QoS 1 and return when the broker has it. More than ``window`` of these wait for each other.

        Raises:
            UplinkDown: the link broke first.
            Refused: the broker answered with a reason of 0x80 or more, or takes no message that large.
        """
        size = len(message.payload) + len(message.topic) + OVERHEAD_BYTES
        if self._largest is not None and size > self._largest:
            raise Refused(f"the broker takes {self._largest} bytes, this has {size}", PACKET_TOO_LARGE)
        async with self._slots:
            code = await self._publish(message)
        if code >= REFUSAL:
            raise Refused(f"the broker refuses with reason 0x{code:02x}", code)

    async def hear(self, *topics: str) -> AsyncGenerator[Received, None]:
        """Subscribe, and give what comes.

        Raises:
            UplinkDown: the link broke.
            Refused: the broker does not let us subscribe.
        """
        try:
            codes = await self.subscribe([(topic, 1) for topic in topics], timeout=ACK_S)
            self._must_not_be_cancelled()
            if (worst := max(map(_code_of, codes))) >= REFUSAL:
                raise Refused(f"the broker refuses a subscription with reason 0x{worst:02x}", worst)
            async for message in self.messages:
                payload = message.payload
                assert isinstance(payload, bytes)  # noqa: S101  # what comes is; what goes may be more
                yield Received(str(message.topic), payload, message.retain)
        except aiomqtt.MqttError as error:
            raise UplinkDown(self._why()) from error

    async def broken(self) -> str:
        """Wait until the link is broken, and tell why."""
        await asyncio.wait([self._disconnected])
        return self._why()

    def abort(self) -> None:
        """End the connection without a word; the broker then sends the will."""
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _must_not_be_cancelled(self) -> None:
        """Raise the cancellation that wait_for, which aiomqtt uses, swallows where it comes together with the result.

        Python does so before 3.12. Who is not cancelled then waits for ever, and the gateway does not end.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            self.abort()
            raise asyncio.CancelledError

    async def _publish(self, message: Message) -> int:
        if self._disconnected.done():
            raise UplinkDown(self._why())
        sent = self._client.publish(message.topic, message.payload, 1, message.retain, self._properties_of(message))
        ack: asyncio.Future[int] = self._loop.create_future()
        self._acks[sent.mid] = ack
        try:
            async with asyncio.timeout(ACK_S):
                return await ack
        except TimeoutError:
            self.abort()
            raise UplinkDown(f"the broker did not acknowledge within {ACK_S:.0f} s") from None
        finally:
            del self._acks[sent.mid]

    def _properties_of(self, message: Message) -> Properties | None:
        if self.version != Version.V5:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
        properties.ContentType = message.content_type
        if message.encoding:
            properties.UserProperty = ("ce", message.encoding)
        return properties

    def _why(self) -> str:
        error = self._disconnected.exception() if self._disconnected.done() else None
        return f"the link broke: {error}" if error else "the link is closed"

    def _ended(self, disconnected: asyncio.Future[None]) -> None:
        disconnected.exception()  # it is told to those who wait, below
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError(self._why()))
        for ack in self._acks.values():
            if not ack.done():
                ack.set_exception(UplinkDown(self._why()))
        # Where paho fell over what the broker sent, it would read the same again, and again fall
        self._client._sock_close()  # noqa: SLF001  # nothing public closes it without a word

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,  # noqa: ANN401  # aiomqtt's signature
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        super()._on_connect(client, userdata, flags, reason_code, properties)
        self.window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
        self._slots = asyncio.Semaphore(self.window)
        self._largest = getattr(properties, "MaximumPacketSize", None)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,  # noqa: ANN401  # aiomqtt's signature
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():
            self._closed_early = True
            self._connected.set_exception(aiomqtt.MqttError("closed before CONNACK"))
            self._connected.exception()  # nobody looks any more where it comes after the time-out
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_socket_register_write(
        self,
        client: paho.Client,
        userdata: Any,  # noqa: ANN401, ARG002  # aiomqtt's signature
        sock: PahoSocket,
    ) -> None:
        number = sock.fileno()

        def watch() -> None:
            if client.socket() is sock:  # it is called a moment later
                self._loop.add_writer(number, self._write)

        self._loop.call_soon_threadsafe(watch)

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:  # noqa: BLE001  # whatever it is, it ends the link
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    def _on_publish(
        self,
        client: paho.Client,  # noqa: ARG002  # aiomqtt's signature
        userdata: Any,  # noqa: ANN401, ARG002
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,  # noqa: ARG002
    ) -> None:
        ack = self._acks.get(mid)
        if ack is not None and not ack.done():
            ack.set_result(_code_of(reason_code))


def _code_of(reason: ReasonCode | int | None) -> int:
    return int(reason.value) if isinstance(reason, ReasonCode) else reason or 0

"""A door: one connection to an MQTT broker, by aiomqtt.

aiomqtt is used through a subclass, because some things were found not to hold for it (2.5.1);
gateway/link/mqtt_client.py mends those of the connection, and here it is those of messages:

* ``publish`` returns as if all were well when an MQTT 5 broker refuses the message (PUBACK reason >= 0x80). Here a
  refusal is :class:`Refused`.
* When the link breaks, those who wait for a PUBACK are not told. Here they are, at once.
* A broker's Receive Maximum is not kept; overrunning it ends the link. Here it is kept, whoever sends.
* All that comes lies in one queue, for one reader. Here each who subscribes hears his own topics.

With TLS 1.3 a broker refuses a certificate after the handshake, which looks like a broker of another MQTT version
that ends the connection. The alert that came with it tells them apart.

One object is one TCP connection with a clean session: paho would otherwise send again what our own buffer sends
again. MQTT forbids sending twice on one link, so one that lost a message, or all, must end:

* A message that was passed over, because one sent later has its PUBACK, and has none ``ACK_S`` later still, ends it.
  It alone is to blame. Clusters answer out of order, but not by that much.
* A link with messages under way on which nothing is acknowledged for ``ACK_S`` ends, and no message is to blame.

Nothing else does: a window may take minutes on a slow network, and while PUBACKs come the link does what it can.

The subclass overrides private methods, so the versions are pinned closely.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.link import tls
from gateway.link.broker import (
    Broker,
    CertificateRefused,
    ClosedEarly,
    Message,
    NotAcknowledged,
    NotAuthorised,
    NotTrusted,
    OtherVersion,
    Received,
    Refused,
    UplinkDown,
    ended_by,
)
from gateway.link.mqtt_client import BACKFILL, Client, code_of, properties_of, reason_of
from gateway.link.reason import DENIALS, NOT_AUTHORISED, PACKET_TOO_LARGE, TAKEN_OVER, UNSUPPORTED_VERSION
from gateway.link.tls import HandshakeFailed, Tls

ACK_S = 30.0
KEEPALIVE_S = 20
MOST_UNHEARD = 100  # messages to us that wait; more are dropped
MOST_TOPICS = 100  # of one SUBSCRIBE
WINDOW = 20  # messages without a PUBACK; Mosquitto announces the same
REFUSAL = 0x80
CLOSE_S = 1.0
OVERHEAD_BYTES = 128  # of a PUBLISH beside topic and payload: headers, properties
SEE_USER = "see username and password_file in [uplink], and that the broker knows this user"

Version = aiomqtt.ProtocolVersion

_quiet = logging.getLogger("polegate.mqtt")
_quiet.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, eq=False)
class _Ear:
    """One who hears some topics, and what he did not hear yet."""

    topics: tuple[str, ...]
    heard: "asyncio.Queue[Received]"


@dataclass(slots=True, eq=False)
class _Waiting:
    """A message without a PUBACK.

    Attributes:
        topic: where it goes.
        ack: what its sender waits for.
        sent_at: loop time.
        passed_at: loop time when one that was sent later was acknowledged first; None: none was.
    """

    topic: str
    ack: "asyncio.Future[None]"
    sent_at: float
    passed_at: float | None = None


class Link(Client):
    """One connection.

    Attributes:
        version: of MQTT.
        window: messages that may be without a PUBACK at a time.
        dropped: messages to us that came while as many as may waited.
        acked: messages that were acknowledged so far.
        unanswered: topics of the messages without a PUBACK when it broke; "a subscription" where one had no answer.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        will: Message | None,
        version: Version,
        tls: Tls | None = None,
        unheard: int = MOST_UNHEARD,
    ) -> None:
        """Prepare it; ``connect`` connects.

        Args:
            broker: where it is.
            will: what the broker publishes when the link breaks.
            version: of MQTT.
            tls: what was read of the broker's files before; None: they are read now.
            unheard: messages to us that may wait; more are dropped. 0: any number.

        Raises:
            NotTrusted: what lies in the files of TLS cannot be used.
            NotRead: the password cannot be read.
        """
        password = broker.read_password()
        tls = tls or broker.read_tls()
        super().__init__(
            broker.host,
            broker.port,
            identifier=broker.client,
            username=broker.username if password is not None else None,
            password=password,
            protocol=version,
            transport="websockets" if broker.path else "tcp",
            websocket_path=broker.path or None,
            tls_context=tls.context if tls else None,
            keepalive=KEEPALIVE_S,
            will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=will.retain) if will else None,
            clean_session=None if version == Version.V5 else True,
            clean_start=True if version == Version.V5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            logger=_quiet,
        )
        self._unheard = unheard
        self._ears: list[_Ear] = []
        self._broker = broker
        self.version = version
        self.window = WINDOW
        self._tells = version == Version.V5
        self._largest: int | None = None
        self._acks: dict[int, _Waiting] = {}  # the oldest first
        self.dropped = self.acked = 0
        self.unanswered: set[str] = set()
        self._acked_at = 0.0
        self._slot_is_free = asyncio.Event()
        self._senders = 0  # that wait for a slot
        self._watch: asyncio.TimerHandle | None = None
        self._disconnected.add_done_callback(self._ended)

    async def connect(self) -> None:
        """Connect, and return when the broker has let us in.

        It must not be cancelled to save time: it goes on in its thread, and the next one would have to wait for it.

        Raises:
            NotAuthorised: user and password do not open this broker.
            CertificateRefused: the certificate does not.
            NotTrusted: the broker's certificate is not one that this pole trusts, or there is no TLS.
            OtherVersion: this may be a broker of another MQTT version.
            UplinkDown: any other reason.
        """
        ended = self._disconnected
        try:
            await self.__aenter__()
        except UnicodeError as error:  # from the resolver: no host can have that name
            raise UplinkDown(f"cannot connect to {self._hostname}: {error}") from error
        except MqttConnectError as error:
            code = code_of(error.rc)
            if code in NOT_AUTHORISED:
                raise NotAuthorised(f"the broker refuses to let this pole in: {error.rc}; {SEE_USER}") from error
            if code == UNSUPPORTED_VERSION:
                raise OtherVersion(f"the broker refuses this version of MQTT: {error.rc}") from error
            raise UplinkDown(f"the broker refuses the connection: {error.rc}") from error
        except aiomqtt.MqttError as error:
            self.abort()
            raise self._not_connected(error) from error
        except asyncio.CancelledError:
            self.give_up()
            raise
        try:
            self.must_not_be_cancelled()
        except asyncio.CancelledError:
            self.abort()
            raise
        if ended.done():  # aiomqtt has made a new one, which nothing would ever end
            self._disconnected = ended
            raise UplinkDown(self.why())

    async def close(self) -> None:
        """Disconnect in order: the broker does not send the will."""
        if not self._disconnected.done():
            self.silent = True
            self._client.disconnect()
            await asyncio.wait([self._disconnected], timeout=CLOSE_S)
        self.abort()

    async def send(self, message: Message) -> None:
        """Publish with QoS 1 and return when the broker has it. More than ``window`` of these wait for each other.

        Raises:
            UplinkDown: the link broke first.
            Refused: the broker answered with a reason of 0x80 or more, or takes no message that large.
        """
        self._senders += 1
        try:
            while len(self._acks) >= self.window:
                await self._change()
        finally:
            self._senders -= 1
        await self.post(message)

    def post(self, message: Message) -> "asyncio.Future[None]":
        """Publish with QoS 1, and return what is done when the broker has it. There must be a ``free`` slot.

        The future may raise UplinkDown and Refused.

        Raises:
            UplinkDown: the link is broken.
            Refused: the broker takes no message that large.
        """
        if self._disconnected.done():
            raise UplinkDown(self.why())
        size = len(message.payload) + len(message.topic) + OVERHEAD_BYTES
        if self._largest is not None and size > self._largest:
            raise Refused(f"the broker takes {self._largest} bytes, this has {size}", PACKET_TOO_LARGE)
        properties = properties_of(message.content_type, message.encoding, message.backfill) if self._tells else None
        sent = self._client.publish(message.topic, message.payload, 1, message.retain, properties)
        ack: asyncio.Future[None] = self._loop.create_future()
        self._acks[sent.mid] = _Waiting(message.topic, ack, self._loop.time())
        if self._watch is None:
            self._watch = self._loop.call_later(ACK_S, self._look_at_oldest)
        return ack

    @property
    def free(self) -> int:
        """How many messages may be posted now, those apart for which others wait."""
        return self.window - len(self._acks) - self._senders

    async def until_free(self) -> None:
        """Return when a message may be posted, or when the link is broken."""
        while self.free <= 0 and not self._disconnected.done():
            await self._change()

    async def until_idle(self) -> None:
        """Return when the broker has acknowledged anything, and all there is, or when the link is broken."""
        while (self._acks or not self.acked) and not self._disconnected.done():
            await self._change()

    async def _change(self) -> None:
        self._slot_is_free.clear()
        await self._slot_is_free.wait()

    async def hear(self, *topics: str) -> AsyncGenerator[Received, None]:
        """Subscribe, and give what comes on these topics; unsubscribe in the end.

        Raises:
            UplinkDown: the link broke.
            Refused: the broker does not let us subscribe.
        """
        async with self.subscribed(*topics) as heard:
            async for received in heard:
                yield received

    @contextlib.asynccontextmanager
    async def subscribed(
        self, *topics: str, qos: int = 1, named: Sequence[str] = ()
    ) -> AsyncIterator[AsyncIterator[Received]]:
        """Subscribe, and give what comes on these topics from now on; unsubscribe in the end.

        Args:
            topics: what is heard.
            qos: 0 where there may be thousands of retained ones: of those of QoS 1 mosquitto drops all behind the
                first thousand, unless it is told otherwise.
            named: subscribe to these instead, which fall under ``topics``: for brokers that give nothing retained, or
                not all, to wildcards.

        Raises:
            UplinkDown: the link broke.
            Refused: the broker does not let us subscribe.
        """
        ear = _Ear(topics, asyncio.Queue(self._unheard))
        wanted = named or topics
        some = [wanted[at : at + MOST_TOPICS] for at in range(0, len(wanted), MOST_TOPICS)]
        self._ears.append(ear)
        try:
            for part in some:
                codes = await self.subscribe([(topic, qos) for topic in part], timeout=ACK_S)
                self.must_not_be_cancelled()
                if (worst := max(map(code_of, codes))) >= REFUSAL:
                    raise Refused(f"the broker refuses a subscription with reason 0x{worst:02x}", worst)
            yield self._each(ear)
        except aiomqtt.MqttError as error:
            raise UplinkDown(self.why()) from error
        finally:
            self._ears.remove(ear)
            if not self._disconnected.done():
                for part in some:
                    self._client.unsubscribe(list(part))

    async def _each(self, ear: _Ear) -> AsyncIterator[Received]:
        while True:
            yield await self._next(ear.heard)

    async def _next(self, heard: "asyncio.Queue[Received]") -> Received:
        """Wait for what comes. Raises UplinkDown where the link breaks and nothing more is left."""
        if heard.empty():
            coming = asyncio.ensure_future(heard.get())
            try:
                ends: tuple[asyncio.Future[Any], ...] = (coming, self._disconnected)
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    return coming.result()
            finally:
                coming.cancel()
            raise UplinkDown(self.why())
        return heard.get_nowait()

    @property
    def ended(self) -> asyncio.Future[None]:
        """What is done when the link is broken; for those who wait for something else besides."""
        return self._disconnected

    async def broken(self) -> str:
        """Wait until the link is broken, and tell why."""
        await asyncio.wait([self._disconnected])
        return self.why()

    def why(self) -> str:
        """Tell why the link is broken."""
        error = self._disconnected.exception() if self._disconnected.done() else None
        if error is None:
            return "the link is closed"
        if reason_of(error) == TAKEN_OVER:
            step = "give each pole an id of its own in [pole], and see that no second gateway runs with this one"
            return f'the link broke: {error}: another client came with the id "{self._broker.client}"; {step}'
        if reason_of(error) in DENIALS and self.unanswered:
            return f"the link broke: {error}, with {', '.join(sorted(self.unanswered))} under way"
        return f"the link broke: {error}"

    def _not_connected(self, error: aiomqtt.MqttError) -> UplinkDown:
        """Tell why there is no connection, from what aiomqtt leaves of it."""
        broker, failed = self._broker, error.__context__
        cause = failed.__cause__ if isinstance(failed, HandshakeFailed) else self.alert
        if cause is not None and broker.tls is not None:
            kind = CertificateRefused if tls.refuses_us(cause) else NotTrusted
            return kind(tls.explain(cause, broker.tls, broker.host, broker.port))
        if self.closed_early:
            step = "see the broker's log for whom it does not let in" if broker.tls else "see the broker's log"
            return ClosedEarly(f"the broker closed the connection without an answer; {step}")
        return UplinkDown(f"cannot connect: {error}")

    def _look_at_oldest(self) -> None:
        """End the link where a message was passed over, or nothing is acknowledged any more.

        The oldest is enough: what passes over another message passes over it too.
        """
        self._watch = None
        oldest = next(iter(self._acks.values()), None)
        if oldest is None or self._disconnected.done():
            return
        since = max(oldest.sent_at, self._acked_at) if oldest.passed_at is None else oldest.passed_at
        left = since + ACK_S - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look_at_oldest)
            return
        why = f"the broker acknowledged nothing for {ACK_S:.0f} s"
        if oldest.passed_at is not None:
            why = f"the broker did not acknowledge a message for {ACK_S:.0f} s, though it acknowledged later ones"
            if not oldest.ack.done():
                oldest.ack.set_exception(NotAcknowledged(why))
        self.abort()
        self._disconnected.set_exception(aiomqtt.MqttError(why))  # paho would only tell of an unspecified error

    def _ended(self, disconnected: asyncio.Future[None]) -> None:
        reason = reason_of(disconnected.exception())
        self.unanswered = {waiting.topic for waiting in self._acks.values()}
        self.unanswered |= {"a subscription" for _ in self._pending_subscribes}
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError(self.why()))
        for waiting in self._acks.values():
            if not waiting.ack.done():
                waiting.ack.set_exception(UplinkDown(self.why()) if self.silent else ended_by(self.why(), reason))
        self._acks.clear()
        self._slot_is_free.set()
        if self._watch is not None:
            self._watch.cancel()
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
        self._largest = getattr(properties, "MaximumPacketSize", None)

    def _on_message(
        self,
        client: paho.Client,  # noqa: ARG002  # aiomqtt's signature
        userdata: Any,  # noqa: ANN401, ARG002
        message: paho.MQTTMessage,
    ) -> None:
        backfill = BACKFILL in getattr(message.properties, "UserProperty", ())
        received = Received(message.topic, bytes(message.payload), message.retain, backfill)
        for ear in self._ears:
            if any(paho.topic_matches_sub(topic, received.topic) for topic in ear.topics):
                try:
                    ear.heard.put_nowait(received)
                except asyncio.QueueFull:
                    self.dropped += 1

    def _on_unsubscribe(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Take no notice: nobody waits for it."""

    def _on_publish(
        self,
        client: paho.Client,  # noqa: ARG002  # aiomqtt's signature
        userdata: Any,  # noqa: ANN401, ARG002
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,  # noqa: ARG002
    ) -> None:
        self.acked += 1
        self._acked_at = self._loop.time()
        self._slot_is_free.set()
        waiting = self._acks.get(mid)
        if waiting is None:
            return
        for earlier in itertools.takewhile(lambda each: each is not waiting, self._acks.values()):
            if earlier.passed_at is None:
                earlier.passed_at = self._acked_at
        del self._acks[mid]
        if waiting.ack.done():
            return
        code = code_of(reason_code)
        if code >= REFUSAL:
            waiting.ack.set_exception(Refused(f"the broker refuses with reason 0x{code:02x}", code))
        else:
            waiting.ack.set_result(None)

"""A client of MQTT over mutual TLS that does what it is told, and tells what the broker said.

A mosquitto 2.0.11 answers the first message that it refuses, and ends the link on the second: one attempt a client.
"""

import queue
import ssl
import time
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from tests.link.pki import Authority, Pair

ANSWER_S = 20.0
LOOP_S = 0.05
REFUSAL = 0x80


class NotConnected(Exception):
    """The broker does not let it in."""


class Client:
    """One client. ``with`` connects it."""

    def __init__(
        self,
        port: int,
        broker: Authority,
        own: Pair | None,
        *,
        name: str = "",
        will: str = "",
        version: MQTTProtocolVersion = mqtt.MQTTv5,
    ) -> None:
        """Set it.

        Args:
            port: where the broker listens.
            broker: who signed the broker's certificate.
            own: its certificate; None: it has none.
            name: its client id.
            will: topic of a retained last will.
            version: of MQTT; in 3.1.1 a broker cannot say that it refused a message.
        """
        self._port = port
        self._said: queue.Queue[Any] = queue.Queue()
        self.heard: list[tuple[str, bytes]] = []
        context = ssl.create_default_context(cafile=str(broker.cert))
        if own:
            context.load_cert_chain(own.cert, own.key)
        client = self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=version, reconnect_on_failure=False
        )
        client.tls_set_context(context)
        if will:
            client.will_set(will, b"forged", qos=1, retain=True)
        client.on_connect = lambda _c, _u, _f, reason, _p: self._said.put(reason)
        client.on_publish = lambda _c, _u, _m, reason, _p: self._said.put(reason)
        client.on_subscribe = lambda _c, _u, _m, reasons, _p: self._said.put(reasons[0])
        client.on_message = lambda _c, _u, message: self.heard.append((message.topic, bytes(message.payload)))
        client.on_disconnect = lambda *_: self._said.put(REFUSAL)  # it may end the link instead of an answer

    def __enter__(self) -> Self:
        """Connect. Raises NotConnected."""
        try:
            self._client.connect("127.0.0.1", self._port)
        except OSError as error:  # ssl.SSLError is one
            raise NotConnected(str(error)) from error
        if self._answer() >= REFUSAL:
            raise NotConnected("refused")
        return self

    def __exit__(self, *_: object) -> None:
        """Leave in order."""
        self._client.disconnect()
        self._client.loop(LOOP_S)

    def drop(self) -> None:
        """Go without a word, so that the broker publishes the last will."""
        sock = self._client.socket()
        assert sock is not None
        sock.close()

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> bool:
        """Tell whether the broker took it."""
        self._client.publish(topic, payload, qos=1, retain=retain)
        return self._answer() < REFUSAL

    def subscribe(self, topic: str) -> bool:
        """Tell whether the broker says it will deliver."""
        self._client.subscribe(topic, qos=1)
        return self._answer() < REFUSAL

    def hear(self) -> None:
        """Take what comes for a moment."""
        self._client.loop(LOOP_S)

    def settle(self) -> None:
        """Take all that the broker has for it by now: what comes before the answer to a question."""
        self.subscribe("fence")

    def _answer(self) -> int:
        give_up = time.monotonic() + ANSWER_S
        while self._said.empty():
            if not self._client.socket():  # the link was ended before
                return REFUSAL
            self._client.loop(LOOP_S)
            assert time.monotonic() < give_up
        reason = self._said.get()
        return reason.value if isinstance(reason, ReasonCode) else int(reason)

"""Several brokers that are one: what nodes of NATS, of RabbitMQ and a single mosquitto have in common."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from hil.broker import Broker, mosquitto
from hil.process import Process

WHOLE_S = 120.0
LOOK_S = 0.25
ROUND_TRIP_S = 5.0
PROBE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Nodes on loopback.

    Attributes:
        name: what the nodes run.
        nodes: in the order in which they are started.
        mqtt: the newest version of MQTT that they speak.
        durable: what a node acknowledged is safe when that node is killed.
        retained_everywhere: a retained message is found on each node, not only on the one that got it.
        beside: processes that the nodes need, started before them.
        caught_up: tells whether each node has what the others have.
    """

    name: str
    nodes: Sequence[Broker]
    mqtt: str
    durable: bool
    retained_everywhere: bool
    beside: Sequence[Process] = ()
    caught_up: Callable[[], bool] = lambda: True

    def start(self) -> None:
        """Start all nodes, and wait until messages go through each."""
        for process in self.beside:
            process.start()
        for node in self.nodes:  # one after the other: RabbitMQ 3.10 forgets a node that comes while it finds itself
            node.start()
        for node in self.nodes:
            self._wait_for(node)

    def restart(self, node: Broker) -> None:
        """Start a node that was killed, and wait until it is one of them again."""
        node.start()
        self._wait_for(node)

    def stop(self) -> None:
        """End all that runs."""
        for node in self.nodes:
            node.kill()
        for process in self.beside:
            process.stop()

    def _wait_for(self, node: Broker) -> None:
        give_up = time.monotonic() + WHOLE_S
        while not (self.caught_up() and passes(node.port)):
            if time.monotonic() > give_up:
                raise TimeoutError(f"node {self.nodes.index(node)} of {self.name} does not work; see its log")
            time.sleep(LOOK_S)


def alone(folder: Path) -> Cluster:
    """Return a mosquitto as a cluster of one. It acknowledges before it writes."""
    return Cluster(name="mosquitto", nodes=[mosquitto(folder)], mqtt="5", durable=False, retained_everywhere=True)


def passes(port: int) -> bool:
    """Tell whether a message with QoS 1 goes to a node and comes back from it."""
    topic = f"{PROBE}/{port}"
    came = []

    def on_connect(client: mqtt.Client, *_: object) -> None:
        client.subscribe(topic, qos=1)

    def on_subscribe(client: mqtt.Client, *_: object) -> None:
        client.publish(topic, qos=1)

    def on_message(_client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        came.append(message)

    client = mqtt.Client(CallbackAPIVersion.VERSION2, f"{PROBE}-{port}", protocol=mqtt.MQTTv311)
    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    give_up = time.monotonic() + ROUND_TRIP_S
    try:
        client.connect("127.0.0.1", port)
        while not came and client.loop(LOOK_S) == mqtt.MQTT_ERR_SUCCESS and time.monotonic() < give_up:
            pass
    except OSError:
        return False
    finally:
        client.disconnect()
    return bool(came)

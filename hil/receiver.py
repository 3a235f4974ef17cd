"""A receiver at the other end of the broker: keeps what came, and proves from (epoch, seq) that all of it did.

It is what a partner's platform would be, and knows of the gateway only the topics and the packs.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hil.senml import Record, plain, read

SESSION_S = 3600
SEND_S = 10.0


@dataclass(slots=True)
class Heard:
    """What came of one pole.

    Attributes:
        state: its latest state message.
        states: all its statuses, in order.
        catalogues: the latest catalogue of each dataset.
        editions: all catalogues by the hash that packs name them by.
        records: all records, in order of arrival.
        latest: the last record of each name.
        packs: dataset to the (epoch, seq) of its packs, with how often each came.
        after: dataset to {epoch: (epoch, seq) of the last stored pack before it}.
        payload_bytes: of all packs.
        came_at: seconds of time.monotonic() when each pack came, copies too.
        events: what it told beside that, in order.
    """

    state: dict[str, Any] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    catalogues: dict[str, dict[str, Any]] = field(default_factory=dict)
    editions: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    latest: dict[str, Record] = field(default_factory=dict)
    packs: dict[str, dict[tuple[int, int], int]] = field(default_factory=lambda: defaultdict(dict))
    after: dict[str, dict[int, tuple[int, int]]] = field(default_factory=lambda: defaultdict(dict))
    payload_bytes: int = 0
    came_at: list[float] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def take(self, kind: str, payload: bytes) -> None:
        """Take a message; ``kind`` is the topic below the pole."""
        if kind == "state":
            self.state = json.loads(payload)
            self.states.append(self.state["status"])
        elif kind.startswith("catalogue/"):
            catalogue = json.loads(plain(payload))
            self.catalogues[kind.removeprefix("catalogue/")] = catalogue
            self.editions[catalogue["version"]["instance"]] = catalogue
        elif kind.startswith("event/"):
            self.events.append(json.loads(payload))
        elif kind.startswith("data/"):
            self._take_pack(kind.removeprefix("data/"), payload)

    def holes(self) -> dict[str, list[tuple[int, int]]]:
        """Return, by dataset, the packs that must exist and did not come.

        Within an epoch all numbers up to the highest must be there. The first pack of an epoch names the last one
        before it that had reached the disk: up to that one, the older epoch must be complete as well.
        """
        missing: dict[str, list[tuple[int, int]]] = {}
        for dataset, came in self.packs.items():
            highest: dict[int, int] = {}
            for epoch, seq in [*came, *self.after[dataset].values()]:
                highest[epoch] = max(seq, highest.get(epoch, 0))
            lost = [(e, n) for e, most in highest.items() for n in range(1, most + 1) if (e, n) not in came]
            if lost:
                missing[dataset] = lost
        return missing

    def repeats(self) -> int:
        """Return how many packs came more than once."""
        return sum(count - 1 for came in self.packs.values() for count in came.values())

    def values(self, name: str) -> list[Any]:
        """Return all values of a name, in order of time."""
        return [r.value for r in sorted(self.records, key=lambda r: r.time) if r.name == name]

    def _take_pack(self, dataset: str, payload: bytes) -> None:
        records = read(payload)
        labels = records[0].labels
        number = (labels["epoch"], labels["seq"])
        self.payload_bytes += len(payload)
        self.came_at.append(time.monotonic())
        came = self.packs[dataset]
        came[number] = came.get(number, 0) + 1
        if came[number] > 1:
            return
        if after := labels.get("after"):
            epoch, seq = after.split(":")
            self.after[dataset][labels["epoch"]] = (int(epoch), int(seq))
        self.records += records
        self.latest.update((record.name, record) for record in records)


class Receiver:
    """Subscribes to all poles of a broker, or to some topics below the prefix.

    It outlives the broker, and resumes its session when it is back.
    """

    def __init__(
        self,
        port: int,
        *,
        prefix: str = "pole/1",
        name: str = "receiver",
        topics: Sequence[str] = ("#",),
        version: MQTTProtocolVersion = mqtt.MQTTv5,
    ) -> None:
        self._prefix = prefix
        self._changed = threading.Condition()
        self._poles: dict[str, Heard] = defaultdict(Heard)
        self._v5 = version == mqtt.MQTTv5
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, name, clean_session=None if self._v5 else False, protocol=version
        )
        self._client.on_message = self._on_message
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.reconnect_delay_set(1, 1)
        self._subscribed = threading.Event()
        self._fence = f"{prefix}/{name}/fence"
        self._fenced = threading.Event()
        self._port = port
        self._topics = [(f"{prefix}/{topic}", 1) for topic in topics]

    def __enter__(self) -> Self:
        """Connect and subscribe."""
        if self._v5:
            session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
            session.SessionExpiryInterval = SESSION_S
            self._client.connect("127.0.0.1", self._port, keepalive=10, clean_start=False, properties=session)
        else:
            self._client.connect("127.0.0.1", self._port, keepalive=10)
        self._client.loop_start()
        if not self._subscribed.wait(10):
            raise TimeoutError("the broker did not take the subscription")
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def heard(self, pole: str) -> Heard:
        """Return what came of a pole so far; it goes on growing."""
        return self._poles[pole]

    def wait(self, true: Callable[[], bool], within: float, what: str) -> None:
        """Wait until something that came makes ``true`` true. Raises TimeoutError naming ``what``."""
        with self._changed:
            if not self._changed.wait_for(true, within):
                raise TimeoutError(f"not within {within:.0f} s: {what}")

    def command(self, pole: str, name: str, content: object, *, retain: bool = False) -> None:
        """Send a command to a pole."""
        topic = f"{self._prefix}/{pole}/command/{name}"
        self._client.publish(topic, json.dumps(content), qos=1, retain=retain).wait_for_publish(SEND_S)

    def fence(self, within: float = 10.0) -> None:
        """Wait until all that the broker has acknowledged is here. Raises TimeoutError.

        Before a broker is killed: it acknowledges before it writes, and what it loses then is not the gateway's loss.
        """
        self._fenced.clear()
        self._client.publish(self._fence, qos=1)
        if not self._fenced.wait(within):
            raise TimeoutError(f"the broker did not pass on a message within {within:.0f} s")

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(self._topics)

    def _on_subscribe(self, *_: object) -> None:
        self._subscribed.set()

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == self._fence:
            self._fenced.set()
            return
        pole, _, kind = message.topic.removeprefix(f"{self._prefix}/").partition("/")
        with self._changed:
            self._poles[pole].take(kind, bytes(message.payload))
            self._changed.notify_all()

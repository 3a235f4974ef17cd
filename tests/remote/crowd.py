"""Poles as light as can be: they answer documents as the test says, and report as poles do.

They speak from a thread of their own, so that a command can run in the one of the test.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway.remote import document, envelope
from gateway.remote.document import Document
from gateway.remote.verdict import Code
from gateway.words.messages import ConfigStream, ConfigTrial, ConfigVerdict, Reported

LIMIT_S = 60.0
NONE = ConfigStream(seq=0, sha="", active_seq=0, active="", waits=False)
Answer = Callable[[str, Document], tuple[Code, str]]


def well(pole: str, found: Document) -> tuple[Code, str]:
    """Take all."""
    del pole, found
    return Code.COMMITTED, ""


@dataclass
class Pole:
    """One of them.

    Attributes:
        name: its id.
        groups: streams that it takes beside that of the fleet and its own.
        streams: how they stand.
        ran: numbers it has run, and their settings.
    """

    name: str
    groups: tuple[str, ...] = ()
    streams: dict[str, ConfigStream] = field(default_factory=dict)
    ran: list[tuple[int, str]] = field(default_factory=list)
    last: ConfigVerdict | None = None
    trial: ConfigTrial | None = None

    def report(self) -> bytes:
        """Tell how it stands."""
        return Reported(
            root=0, streams=self.streams, trial=self.trial, last=self.last, drift={}, effective="0"
        ).encoded()


class Crowd:
    """All of them, on one connection.

    Attributes:
        poles: by name.
        answer: what becomes of a document at a pole.
        holds: they stay on trial until ``release``.
        published: what came on the topics of documents, in order.
    """

    def __init__(self, port: int, names: Iterable[str], answer: Answer = well, groups: tuple[str, ...] = ()) -> None:
        self.poles = {name: Pole(name, groups) for name in names}
        self.answer = answer
        self.holds = False
        self.published: list[Document] = []
        self._port = port
        self._held: list[tuple[Pole, Document, str]] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.max_inflight_messages_set(1000)
        self._client.on_message = self._hear
        self._client.on_subscribe = lambda *_: self._ready.set()

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        sent = [self.say(pole) for pole in self.poles.values()]
        for each in sent:
            each.wait_for_publish(LIMIT_S)
        topics = ["fleet/1/config/all", "fleet/1/config/group/+", "pole/1/+/config/desired"]
        self._client.subscribe([(topic, 1) for topic in topics])
        assert self._ready.wait(LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, pole: Pole) -> mqtt.MQTTMessageInfo:
        """Report."""
        return self.publish(f"pole/1/{pole.name}/config/reported", pole.report())

    def publish(self, topic: str, payload: bytes) -> mqtt.MQTTMessageInfo:
        """Publish, retained."""
        return self._client.publish(topic, payload, 1, retain=True)

    def running(self, settings: str) -> set[str]:
        """Name the poles that have these settings in force."""
        return {pole.name for pole in self.poles.values() if pole.ran and pole.ran[-1][1] == settings}

    def ever_ran(self, settings: str) -> set[str]:
        """Name the poles that have run these settings, be it on trial."""
        return {pole.name for pole in self.poles.values() if settings in {text for _, text in pole.ran}}

    def release(self) -> None:
        """Let all trials end."""
        with self._lock:
            self.holds = False
            for held in self._held:
                self._end(*held)
            self._held.clear()

    def _hear(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:  # noqa: ANN401  # paho's
        del client, userdata
        if not message.payload:
            return  # it was cleared, which says nothing
        sealed = envelope.read(bytes(message.payload))
        found, sha = document.parsed(sealed.payload), document.digest(sealed.payload)
        with self._lock:
            self.published.append(found)
            for pole in self.poles.values():
                if found.stream in ("fleet", f"pole/{pole.name}", *pole.groups):
                    self._take(pole, found, sha)

    def _take(self, pole: Pole, found: Document, sha: str) -> None:
        before = pole.streams.get(found.stream, NONE)
        if found.seq <= before.seq:
            return
        new = {"seq": found.seq, "sha": sha, "waits": True, "fate": "", "why": ""}
        pole.streams[found.stream] = before.model_copy(update=new)
        if found.rollout and not found.rollout.takes(pole.name):
            pole.last = _verdict(found, sha, Code.DEFERRED_COHORT, "this pole is not in the share that takes it")
            self.say(pole)
            return
        pole.trial = ConfigTrial(stream=found.stream, seq=found.seq, sha=sha, attempt=1, confirmed=False, left_s=60)
        if self.holds:
            self.say(pole)
            self._held.append((pole, found, sha))
        else:
            self._end(pole, found, sha)

    def _end(self, pole: Pole, found: Document, sha: str) -> None:
        before = pole.ran[-1:]
        pole.ran.append((found.seq, found.settings))
        code, why = self.answer(pole.name, found)
        standing = pole.streams[found.stream]
        if code is Code.COMMITTED:
            changes: dict[str, object] = {"active": sha, "active_seq": found.seq}
        else:
            pole.ran += before or [(0, "")]
            changes = {"fate": code.name, "why": why}
        pole.streams[found.stream] = standing.model_copy(update={"waits": False, **changes})
        pole.last = _verdict(found, sha, code, why)
        pole.trial = None
        self.say(pole)


def _verdict(found: Document, sha: str, code: Code, text: str) -> ConfigVerdict:
    return ConfigVerdict(stream=found.stream, seq=found.seq, sha=sha, code=code, name=code.name, text=text)

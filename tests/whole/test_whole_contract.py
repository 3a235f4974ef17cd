"""A receiver that knows nothing but config/asyncapi.json understands all that a living pole says."""

import asyncio
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from hil.broker import mosquitto
from hil.daemon import Daemon
from hil.pole import DUST, NAME, SILENT, Pole
from hil.senml import plain, resolve
from tests.words.contract import CONFIG, faults, must_be, theirs

LIMIT_S = 60.0
DOCUMENT = json.loads((CONFIG / "asyncapi.json").read_text())


def _pattern(channel: dict[str, Any]) -> re.Pattern[str]:
    """Return what the topics of a channel look like; a parameter is one level, or one of those it names."""
    address = channel["address"]
    for name, parameter in channel["parameters"].items():
        values = "|".join(parameter.get("enum", ["[A-Za-z0-9_-]+"]))
        address = address.replace(f"{{{name}}}", f"(?P<{name}>{values})")
    return re.compile(address)


CHANNELS = {name: _pattern(channel) for name, channel in DOCUMENT["channels"].items()}
"""The narrow ones are those without a parameter at the end; none overlaps with another."""


class Stranger:
    """Reads all messages by the document.

    Attributes:
        said: kind of message to what came, in order.
        wrong: what does not fit the document.
    """

    def __init__(self, port: int) -> None:
        self.said: dict[str, list[Any]] = defaultdict(list)
        self.wrong: list[str] = []
        self._changed = threading.Condition()
        self._port = port
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="stranger", protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)

    def __enter__(self) -> Self:
        """Connect."""
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that is said."""

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(true, LIMIT_S)

        assert await asyncio.to_thread(wait), {name: len(told) for name, told in self.said.items()}

    def ask(self, request: dict[str, object]) -> None:
        """Send a command."""
        self._client.publish(f"pole/1/{NAME}/command/replay", json.dumps(request), qos=1)

    def alarms(self, subject: str) -> list[tuple[str, str]]:
        """Return the alarms of one subject."""
        return [(alarm["state"], alarm["code"]) for alarm in self.said["alarm"] if alarm["subject"] == subject]

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        fits = [name for name, pattern in CHANNELS.items() if pattern.fullmatch(message.topic)]
        with self._changed:
            if len(fits) != 1:
                self.wrong.append(f"{message.topic} is {fits}")
                return
            if fits != ["replay"]:  # which is our own
                self._hold_against_the_document(fits[0], message)
            self.said[fits[0]].append(json.loads(plain(bytes(message.payload))))
            self._changed.notify_all()

    def _hold_against_the_document(self, name: str, message: mqtt.MQTTMessage) -> None:
        said, bindings = DOCUMENT["components"]["messages"][name], DOCUMENT["operations"][name]["bindings"]["mqtt"]
        assert message.properties is not None
        packed = plain(bytes(message.payload)) != message.payload
        facts = {
            "content type": (getattr(message.properties, "ContentType", None), said["contentType"]),
            "qos": (message.qos, bindings["qos"]),
            "encoding": (("ce", "zstd") in getattr(message.properties, "UserProperty", []), packed),
            "may be packed": (packed and "headers" not in said, False),
        }
        if name == "state" and json.loads(message.payload) == {"status": "gone"}:
            del facts["content type"]  # the broker publishes the will without properties
        self.wrong += [f"{message.topic}: {what}: {is_}" for what, (is_, must) in facts.items() if is_ != must]


def test_all_that_a_living_pole_says_is_as_the_document_and_the_schemas_say(tmp_path: Path) -> None:
    async def main() -> None:
        broker = mosquitto(tmp_path)
        broker.start()
        with Stranger(broker.port) as stranger:
            async with Pole(tmp_path) as pole:
                daemon = Daemon(tmp_path, env=pole.env)
                settings = pole.configuration(broker.port)
                daemon.config.write_text(settings.replace("[dataset.energy]", 'history = "1h"\n[dataset.energy]'))
                daemon.start()
                try:
                    await _live(stranger, pole)
                    daemon.kill()
                    await stranger.until(lambda: stranger.said["state"][-1]["status"] == "gone")
                    daemon.start()
                    await stranger.until(lambda: stranger.said["state"][-1]["status"] == "online")
                finally:
                    await asyncio.to_thread(daemon.stop)
                await stranger.until(lambda: stranger.said["state"][-1]["status"] == "stopped")
        broker.stop()
        _judge(stranger, pole)

    asyncio.run(main())


async def _live(stranger: Stranger, pole: Pole) -> None:
    """Let things happen to the pole."""
    ids = {station.id for station in pole.stations}
    await stranger.until(lambda: ids <= {name.split("/")[1] for name in _named(stranger)})
    expected = pole.expected()  # only now: a device that did not speak yet has nothing to expect
    await stranger.until(lambda: expected <= _described(stranger) and expected <= _named(stranger))
    pole.silence()
    pole.pull(DUST)
    await stranger.until(lambda: len(stranger.alarms(SILENT)) == len(stranger.alarms(DUST)) == 1)
    pole.silence()
    pole.pull(DUST)
    await stranger.until(lambda: stranger.said["data"][-1][0]["cat"] in _datasets(stranger))
    labels = stranger.said["data"][-1][0]
    dataset = _datasets(stranger)[labels["cat"]]
    stranger.ask({"id": "mine", "dataset": dataset, "epoch": labels["epoch"], "from": 1, "to": 2})
    stranger.ask({"id": "not a request"})
    await stranger.until(lambda: len(stranger.said["replayed"]) == 2)  # one of each


def _judge(stranger: Stranger, pole: Pole) -> None:
    assert stranger.wrong == []
    assert set(stranger.said) == set(CHANNELS) - {"lost", "reported"}, (
        "lost packs and documents have tests of their own"
    )
    for name, told in stranger.said.items():
        for content in told:
            if name != "replay":
                must_be(name, content)
    for thing in stranger.said["catalogue"]:
        assert faults(theirs("thing-description-1.1"), thing) == []
    assert stranger.alarms(SILENT)[0] == ("raise", "no-reply")
    assert stranger.alarms(DUST)[0] == ("raise", "port-gone")
    states = {state["status"] for state in stranger.said["state"]}
    assert states == {"online", "stopped", "gone"}
    whole = [state for state in stranger.said["state"] if state["status"] != "gone"]
    assert {state["epoch"] for state in whole} == {1, 2}
    assert set(whole[-1]["devices"]) == {station.id for station in pole.stations}
    assert whole[-1]["buffer"]["written"] >= 0


def _datasets(stranger: Stranger) -> dict[str, str]:
    """Return which dataset a catalogue describes, by what packs call it."""
    return {thing["version"]["instance"]: thing["dcterms:identifier"] for thing in stranger.said["catalogue"]}


def _described(stranger: Stranger) -> set[str]:
    """Name the channels that a catalogue describes."""
    return {
        channel["polegate:name"] for thing in stranger.said["catalogue"] for channel in thing["properties"].values()
    }


def _named(stranger: Stranger) -> set[str]:
    """Name the channels that packs have values of."""
    return {record.name for pack in stranger.said["data"] for record in resolve(pack)}

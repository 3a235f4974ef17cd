"""A broker with a pole's packs, and programs that receive them: ``polegate tail`` and the examples."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway.words.payload import packed
from gateway.words.reading import Reading
from gateway.words.senml import encode
from hil.broker import Broker, mosquitto
from hil.daemon import polegate
from hil.process import Process

NS = 1_000_000_000
NEW_YEAR = 1_767_225_600  # 2026, seconds since 1970
LIMIT_S = 20.0
MARK = "pole/1/marker/data/air"


class Program(Process):
    """A receiver as a process."""

    def __init__(self, command: Sequence[str], log: Path, **env: str) -> None:
        super().__init__(command, log, env={**os.environ, **env})

    def wait(self, true: Callable[[], bool]) -> None:
        """Wait until what it printed makes ``true`` true. Raises TimeoutError with the output."""
        give_up = time.monotonic() + LIMIT_S
        while not true():
            if time.monotonic() > give_up or not self.running:
                raise TimeoutError(self.output())
            time.sleep(0.02)

    def ready(self) -> None:
        """Wait until it has subscribed: it then gets the pack that was there before."""
        self.wait(lambda: "marker" in self.output())

    def lines(self, text: str = "") -> list[str]:
        """Return what it printed of others than the marker, as far as a text stands in it."""
        whole = self.output().rpartition("\n")[0]
        return [line for line in whole.splitlines() if text in line and "marker" not in line]

    def objects(self) -> list[dict[str, Any]]:
        """Return the JSON objects that it printed."""
        return [json.loads(line) for line in self.lines("{") if line.startswith("{")]

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        return self.stop(signal.SIGINT)


class Stage:
    """The broker, what is published to it, and who hears that."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        """Leave a pack with the broker."""
        self.folder = folder
        self.broker = broker
        self._programs: list[Program] = []
        self.publish(MARK, b'[{"n":"marker","v":1,"epoch":1,"seq":1}]', retain=True)

    def publish(self, topic: str, *payloads: bytes, retain: bool = False) -> None:
        """Publish, and wait until the broker has it all."""
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self.broker.port)
        client.loop_start()
        for sent in [client.publish(topic, payload, qos=1, retain=retain) for payload in payloads]:
            sent.wait_for_publish(LIMIT_S)
        client.disconnect()
        client.loop_stop()

    def send(self, *seqs: int, epoch: int = 1, dataset: str = "air", **labels: int | str) -> None:
        """Publish packs of the pole as the gateway writes them."""
        payloads = [pack(seq, epoch=epoch, dataset=dataset, **labels) for seq in seqs]
        self.publish(f"pole/1/pole-7/data/{dataset}", *payloads)

    def tail(self, *options: str, **env: str) -> Program:
        """Start ``polegate tail``."""
        url = f"mqtt://127.0.0.1:{self.broker.port}"
        return self.start("tail", polegate(), "tail", "--broker", url, *options, **env)

    def start(self, name: str, *command: str, **env: str) -> Program:
        """Start a program."""
        program = Program(command, self.folder / f"{name}.log", **env)
        program.start()
        self._programs.append(program)
        return program

    def close(self) -> None:
        """End what was started."""
        for program in self._programs:
            program.kill()


def pack(seq: int, *, epoch: int = 1, dataset: str = "air", **labels: int | str) -> bytes:
    """Return a pack of one value, which is its number."""
    raw = encode(
        [Reading("dust", dataset, seq * NS, {"pm10": seq})],
        pole="pole-7",
        unit_of=lambda _, __: "ug/m3",
        utc_offset=NEW_YEAR * NS,
        labels={"epoch": epoch, "seq": seq, "cat": "0123abcd", **labels},
    )
    return packed(raw)


@contextlib.contextmanager
def stage(folder: Path, extra: str = "") -> Iterator[Stage]:
    """Start a broker; it ends in the end, and all programs that were started."""
    broker = mosquitto(folder, extra)
    broker.start()
    it = Stage(folder, broker)
    try:
        yield it
    finally:
        it.close()
        broker.stop()

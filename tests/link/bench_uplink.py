"""What the uplink is measured with, in processes of their own; :mod:`hil.bench.uplink` makes ratios of it.

``python -m tests.link.bench_uplink pile COUNT FILE`` makes a buffer's file with the packs of COUNT windows of ten
seconds.
``python -m tests.link.bench_uplink certify FOLDER`` makes ``authority.pem`` there, and ``broker.conf`` for a broker.
``python -m tests.link.bench_uplink publish FILE PORT [CA]`` publishes the payloads in such a file with as little Python
as paho allows, as many under way at a time as the gateway has, and prints packs a second and microseconds of CPU a
pack.
"""

import asyncio
import json
import socket
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from gateway.link.mqtt_link import WINDOW
from gateway.store.pack_raw import Salvage
from tests.link.pki import Authority
from tests.store.bench_buffer import DISTINCT, Packs
from tests.store.bench_rows import windows

LOOP_S = 1.0
DATASETS = 4
REFUSAL = 0x80


async def pile(count: int, path: Path) -> None:
    """Make the file."""
    store = Packs(path, DATASETS)
    await store.open()
    distinct = min(count, DISTINCT)
    await store.pile(windows(distinct, DATASETS), count // distinct)
    await store.buffer.close()


def certify(folder: Path) -> None:
    """Make an authority, and a broker's certificate."""
    (folder / "broker.conf").write_text(Authority(folder).issue("broker").lines)


def publish(path: Path, port: int, ca: str | None) -> dict[str, float]:
    """Publish all payloads, and return the figures."""
    payloads = [(f"bare/data/{found.pack.dataset}", found.pack.blob) for found in Salvage(path)]
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bare", protocol=mqtt.MQTTv5)
    client.max_inflight_messages_set(WINDOW)
    if ca:
        client.tls_set(ca)
    acknowledged = 0

    def count(_client: mqtt.Client, _data: object, _id: int, reason: ReasonCode, _properties: object) -> None:
        nonlocal acknowledged
        assert reason.value < REFUSAL
        acknowledged += 1

    client.on_publish = count
    client.connect("127.0.0.1", port)
    sock = client.socket()
    assert isinstance(sock, socket.socket)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not client.is_connected():
        client.loop(LOOP_S)
    sent = 0
    began, cpu = time.perf_counter(), time.process_time()
    while acknowledged < len(payloads):
        for topic, payload in payloads[sent : acknowledged + WINDOW]:
            client.publish(topic, payload, qos=1)
            sent += 1
        client.loop(LOOP_S)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    client.disconnect()
    return {"packs_per_s": len(payloads) / seconds, "cpu_us": cpu / len(payloads) * 1e6}


def main() -> None:
    """Do what the arguments say."""
    task, *rest = sys.argv[1:]
    if task == "pile":
        asyncio.run(pile(int(rest[0]), Path(rest[1])))
    elif task == "certify":
        certify(Path(rest[0]))
    else:
        print(json.dumps(publish(Path(rest[0]), int(rest[1]), rest[2] if rest[2:] else None)))  # noqa: T201  # for the bench


if __name__ == "__main__":
    main()

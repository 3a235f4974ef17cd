"""The load by hand: the least Python for the same readings. It forgets all when the broker is away.

``python -m hil.bench.bare_loop together|singly BROKER_PORT DEVICE_PORT...`` polls each device once a second until it is
killed, and publishes its readings together or each in a message of its own.
"""

import json
import socket
import struct
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from hil.bench.load import REGISTERS

REQUEST = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, REGISTERS)
ANSWER_BYTES = 9 + 2 * REGISTERS


def poll(device: int, sock: socket.socket) -> list[dict[str, str | float]]:
    """Read all registers of a device."""
    sock.sendall(REQUEST)
    answer = sock.recv(ANSWER_BYTES, socket.MSG_WAITALL)
    words = struct.unpack(f">{REGISTERS}H", answer[9:])
    at = round(time.time(), 3)
    return [{"n": f"bench/device-{device}/c{n}", "u": "V", "t": at, "v": w / 10} for n, w in enumerate(words)]


def main() -> None:
    """Poll for ever."""
    how = sys.argv[1]
    broker_port, *device_ports = map(int, sys.argv[2:])
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bare", protocol=mqtt.MQTTv5)
    client.connect("127.0.0.1", broker_port)
    client.loop_start()
    sockets = [socket.create_connection(("127.0.0.1", port)) for port in device_ports]
    due = time.monotonic()
    while True:
        for device, sock in enumerate(sockets):
            readings = poll(device, sock)
            for content in [readings] if how == "together" else readings:
                client.publish("bare/data", json.dumps(content), qos=1)
        due += 1.0
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()

"""MQTT brokers as processes on loopback: the embedded one of the demo, and Debian's mosquitto of the tests."""

import getpass
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

from hil.process import Process

READY_S = 10.0
MESSAGE_BYTES = 1_048_576

RUMQTTD = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {largest}
max_inflight_count = 100
dynamic_filters = true
"""

# user: started by root it would become one that cannot write the folder, and would keep nothing
MOSQUITTO = """\
user {user}
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
max_queued_messages 0
max_inflight_messages 100
{extra}
"""


# Beside another listener: a mosquitto 2.0.11 that has none but this says that it can start none, and ends
WEB_SOCKET = """\
listener {port} 127.0.0.1
socket_domain ipv4
protocol websockets
{extra}
"""


class Broker:
    """A broker that can be started, stopped and killed on one port.

    Attributes:
        port: where it listens.
        web_port: where it listens for WebSocket; 0: nowhere.
    """

    def __init__(self, process: Process, port: int, web_port: int = 0, *, ready_s: float = READY_S) -> None:
        self._process = process
        self._ready_s = ready_s
        self.port = port
        self.web_port = web_port

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process.running

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process.start()
        give_up = time.monotonic() + self._ready_s
        while not all(_listens(port) for port in (self.port, self.web_port) if port):
            if time.monotonic() > give_up or not self._process.running:
                raise TimeoutError(f"the broker does not listen: {self._process.output()[-500:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in order."""
        self._process.stop()

    def reload(self) -> None:
        """Have it read its files again."""
        os.kill(self._process.pid, signal.SIGHUP)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()


def embedded(folder: Path) -> Broker:
    """Return the broker that comes in a wheel (iotcore, which is rumqttd). MQTT 5; it forgets all when it ends."""
    port = free_port()
    config = folder / "rumqttd.toml"
    config.write_text(RUMQTTD.format(port=port, largest=MESSAGE_BYTES))
    command = [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "ERROR"]
    return Broker(Process(command, folder / "broker.log"), port)


def mosquitto(folder: Path, extra: str = "", web: str | None = None) -> Broker:
    """Return Debian's mosquitto, set to keep sessions on disk at once.

    Args:
        folder: where it may write.
        extra: lines of its configuration.
        web: the same for a second port on which it speaks WebSocket; None: there is none.
    """
    port, web_port = free_port(), 0
    config = folder / "mosquitto.conf"
    text = MOSQUITTO.format(user=getpass.getuser(), port=port, folder=folder, extra=extra)
    if web is not None:
        web_port = free_port()
        text += WEB_SOCKET.format(port=web_port, extra=web)
    config.write_text(text)
    return Broker(Process([program("mosquitto"), "-c", str(config)], folder / "broker.log"), port, web_port)


def program(name: str, path: str = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") -> str:
    """Return where a Debian package has put a program. Raises FileNotFoundError."""
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; make installs it")
    return found


def free_port() -> int:
    """Return a TCP port of loopback that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0

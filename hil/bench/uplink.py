"""A backlog drained through the real daemon to mosquitto on loopback, against a bare paho loop; and alarms meanwhile.

The loop publishes the same payloads, with as many under way at a time, and does nothing else
(``tests.link.bench_uplink``). They take turns, and the median counts.

Latency of an alarm is the time from its reading to a subscriber, by the clock of the machine: a pack of alarms is
sealed 0.2 s after its first reading. It is measured over an uplink of 4 Mbit/s, with an empty buffer and with a backlog
of 72 hours going out.
"""

import asyncio
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from hil import broker
from hil.bench.proc import cpu_s
from hil.daemon import Daemon
from hil.faults import Faults
from hil.modbus_tcp import ModbusTcp
from hil.relay import Relay
from hil.senml import read
from hil.twins.modbus import ModbusSlave

TURNS = 5
WINDOWS = 4_000  # of ten seconds; four packs each
BACKLOG_WINDOWS = 26_000  # 72 hours
ALARMS_S = 40.0
UPLINK_BYTES_PER_S = 500_000
LOOK_S = 0.02
MANY_PACKS = 1000
GIVE_UP_S = 120.0

CONFIG = """\
[pole]
id = "bench"
[uplink]
url = "{url}"
backfill = "{share}"
{more}
[buffer]
path = "{folder}/buffer.db"
max_bytes = 1073741824
"""
DEVICE = """
[port.bus]
path = "tcp://127.0.0.1:{port}"
[[device]]
id = "door"
driver = "modbus"
port = "bus"
profile = "door"
every = 0.1
dataset = "alarm"
"""
PROFILE = """\
maker = "x"
model = "x"
source = "x"
dataset = "alarm"
function = 3
[[register]]
channel = "open"
address = 0
unit = "count"
title = "x"
"""

Figures = dict[str, float]


async def measure(folder: Path, polegate: str) -> Figures:
    """Run the scenario. Takes some two minutes."""
    plain, secure = folder / "plain", folder / "secure"
    plain.mkdir()
    secure.mkdir()
    await _python("certify", str(secure))
    brokers = broker.mosquitto(plain), broker.mosquitto(secure, (secure / "broker.conf").read_text())
    backlog = await _pile(folder / "some.db", WINDOWS)
    for each in brokers:
        each.start()
    try:
        figures = await _drains(plain, polegate, brokers[0].port, backlog)
        tls = await _drains(secure, polegate, brokers[1].port, backlog, secure / "authority.pem")
        figures |= {f"{name}_tls": value for name, value in tls.items()}
        figures |= await _alarms(plain, polegate, brokers[0].port)
    finally:
        for each in brokers:
            each.stop()
    return figures


async def _drains(folder: Path, polegate: str, port: int, backlog: Path, ca: Path | None = None) -> Figures:
    ours, bare = [], []
    url = f"mqtts://127.0.0.1:{port}" if ca else f"mqtt://127.0.0.1:{port}"
    for _ in range(TURNS):
        ours.append(await _drain(folder, polegate, url, backlog, f'ca_file = "{ca}"' if ca else ""))
        bare.append(await _python("publish", str(backlog), str(port), *([str(ca)] if ca else [])))
    median = {
        who: {key: statistics.median(each[key] for each in figures) for key in ("packs_per_s", "cpu_us")}
        for who, figures in (("ours", ours), ("bare", bare))
    }
    return {
        "drain_packs_per_s": median["ours"]["packs_per_s"],
        "drain_ratio_vs_paho": median["ours"]["packs_per_s"] / median["bare"]["packs_per_s"],
        "cpu_per_pack_ratio_vs_paho": median["ours"]["cpu_us"] / median["bare"]["cpu_us"],
    }


async def _drain(folder: Path, polegate: str, url: str, backlog: Path, more: str) -> Figures:
    daemon = _daemon(folder, polegate, url, "100%", backlog, more=more)
    daemon.start()
    try:
        packs = await _packs_when(daemon, lambda up, _: up)
        began, cpu = time.perf_counter(), cpu_s(daemon.pid)
        await _packs_when(daemon, lambda _, left: not left)
        seconds, cpu = time.perf_counter() - began, cpu_s(daemon.pid) - cpu
    finally:
        await asyncio.to_thread(daemon.stop)
    return {"packs_per_s": packs / seconds, "cpu_us": cpu / packs * 1e6}


async def _packs_when(daemon: Daemon, enough: Callable[[bool, int], bool]) -> int:
    """Wait until it is so with the link and the packs that wait, and return how many do."""
    give_up = time.monotonic() + GIVE_UP_S
    while time.monotonic() < give_up:
        status = daemon.status()
        if status and enough(status["uplink"]["up"], status["buffer"]["packs"]):
            packs: int = status["buffer"]["packs"]
            return packs
        await asyncio.sleep(LOOK_S)
    raise TimeoutError(f"the backlog does not go out: {daemon.output()[-500:]}")


async def _alarms(folder: Path, polegate: str, port: int) -> Figures:
    """Measure how long alarms take, with an empty buffer and with 72 hours in it."""
    door = ModbusSlave(
        unit=1,
        faults=Faults(1, "door"),
        registers={3: lambda _: {0: 1}},
        truth=lambda _: {"open": 1.0},
        turnaround_s=0.0,
    )
    server, relay = ModbusTcp([door]), Relay(port)
    await server.start()
    await relay.start()
    relay.speed = UPLINK_BYTES_PER_S
    url = f"mqtt://127.0.0.1:{relay.port}"
    figures: Figures = {}
    try:
        for name, backlog in (("idle", None), ("draining", await _pile(folder / "long.db", BACKLOG_WINDOWS))):
            daemon = _daemon(folder, polegate, url, "50%", backlog, DEVICE.format(port=server.port))
            took = await _latencies(daemon, port)
            centiles = statistics.quantiles(took, n=100)
            print(f"{len(took)} alarms {name}")
            figures |= {f"alarm_latency_{name}_p50_s": centiles[49], f"alarm_latency_{name}_p99_s": centiles[98]}
    finally:
        await server.close()
        await relay.close()
    for part in ("p50", "p99"):
        figures[f"alarm_latency_ratio_{part}"] = (
            figures[f"alarm_latency_draining_{part}_s"] / figures[f"alarm_latency_idle_{part}_s"]
        )
    return figures


async def _latencies(daemon: Daemon, port: int) -> list[float]:
    """Return how long the alarms of some seconds took; the backlog, where there is one, must not be at its end then."""
    took: list[float] = []

    def came(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        now = time.time()
        took.append(now - min(record.time for record in read(bytes(message.payload))))

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="alarms", protocol=mqtt.MQTTv5)
    client.on_message = came
    client.connect("127.0.0.1", port)
    client.subscribe("pole/1/bench/data/alarm", qos=1)
    client.loop_start()
    daemon.start()
    try:
        had = await _packs_when(daemon, lambda up, _: up)
        took.clear()
        await asyncio.sleep(ALARMS_S)
        left = await _packs_when(daemon, lambda *_: True)
        print(f"backlog {had} packs, {left} left")
        if had > MANY_PACKS > left:
            raise RuntimeError("the backlog was gone before the time was over")
        return list(took)
    finally:
        await asyncio.to_thread(daemon.stop)
        client.disconnect()
        client.loop_stop()


def _daemon(
    folder: Path, polegate: str, url: str, share: str, backlog: Path | None, devices: str = "", more: str = ""
) -> Daemon:
    """Lay out a gateway with a backlog of its own."""
    place = folder / f"gateway-{len(list(folder.glob('gateway-*')))}"
    (place / "profiles").mkdir(parents=True)
    if backlog is not None:
        shutil.copy(backlog, place / "buffer.db")
    daemon = Daemon(place, command=polegate)
    daemon.config.write_text(CONFIG.format(url=url, share=share, folder=place, more=more) + devices)
    (place / "profiles" / "door.toml").write_text(PROFILE)
    return daemon


async def _pile(path: Path, windows: int) -> Path:
    await _python("pile", str(windows), str(path))
    return path


async def _python(*arguments: str) -> Figures:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.link.bench_uplink", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"{arguments} ended with {child.returncode}")
    figures: Figures = json.loads(out or b"{}")
    return figures

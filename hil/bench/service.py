"""What the service costs and exposes: its start, memory and CPU under the unit's limits, its package, its unit.

The limits of the unit are those of a cgroup; what else the unit asks of systemd, the sandbox, is not there, and costs
nothing that could be seen in these figures. Starts are cold where the page cache may be dropped before each ("cold 1"
in what is printed). A bare Python interpreter takes its turn beside each start, within the same limits.
"""

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from hil import broker
from hil.bench import load
from hil.bench.proc import cpu_s, rss_mb, tasks
from hil.daemon import Daemon
from hil.exposure import exposure
from hil.limits import Limited, limits_of
from hil.modbus_tcp import ModbusTcp
from hil.receiver import Receiver

SYSTEMD = Path("systemd")
UNIT = SYSTEMD / "polegate.service"
ARCHITECTURES = "amd64", "arm64", "armhf"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
RUNS = 5
DEVICES = 5  # of 20 registers, once a second
SETTLE_S = 15.0
SECONDS = 60.0
GIVE_UP_S = 60.0
AT_ONCE = "[dataset.energy]\nsend_every = 0.01\n"  # a pack is sealed as soon as it has a reading

Figures = dict[str, float]


def sizes_mb(folder: Path) -> Figures:
    """Return how large the packages in a folder are, by architecture."""
    return {f"deb_mb_{deb.stem.rpartition('_')[2]}": deb.stat().st_size / 1e6 for deb in folder.glob("*.deb")}


async def measure(folder: Path, polegate: str) -> Figures:
    """Run the scenario: one minute to build the packages, and some three."""
    this = asyncio.current_task()
    assert this is not None  # noqa: S101  # a coroutine that runs has a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # else the cgroups would stay
    command = [sys.executable, str(SYSTEMD / "debian" / "build.py"), "--out", str(folder), *ARCHITECTURES]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603, ASYNC221  # nothing else runs here
    return await _within_limits(folder, polegate) | sizes_mb(folder) | {"unit_exposure": exposure(UNIT)}


async def _within_limits(folder: Path, polegate: str) -> Figures:
    mosquitto = broker.mosquitto(folder)
    mosquitto.start()
    with Limited(limits_of(UNIT)) as limits:
        print(f"{limits.note}; cold {int(_drop_caches())}")
        python = limits.command(str(Path(polegate).with_name("python")), folder / "python")
        daemon = Daemon(
            folder,
            env={"NOTIFY_SOCKET": str(folder / "notify.sock")},
            command=limits.command(polegate, folder / "polegate"),
        )
        try:
            async with _devices() as ports:
                figures = await _starts(daemon, python, mosquitto.port, ports)
                load.configure(daemon, mosquitto.port, ports)
                loaded = await _running(daemon)
                load.configure(daemon, mosquitto.port, [])
                idle = await _running(daemon)
            for name in ("rss_mb", "cpu_percent"):
                figures |= {f"service_{name}_idle": idle[name], f"service_{name}_100_per_s": loaded[name]}
            figures["service_rss_ratio_vs_python"] = loaded["rss_mb"] / figures.pop("python_rss_mb")
            figures["service_tasks"] = loaded["tasks"]
            figures["service_memory_refusals"] = limits.memory_refusals()
        finally:
            await asyncio.to_thread(daemon.stop)
            mosquitto.stop()
    return figures


@contextlib.asynccontextmanager
async def _devices() -> AsyncIterator[list[int]]:
    servers = [ModbusTcp([load.slave(number)]) for number in range(DEVICES)]
    for server in servers:
        await server.start()
    try:
        yield [server.port for server in servers]
    finally:
        for server in servers:
            await server.close()


async def _starts(daemon: Daemon, python: str, broker_port: int, ports: list[int]) -> Figures:
    """Start the gateway and a bare Python in turn, each from a cold cache."""
    load.configure(daemon, broker_port, ports)
    daemon.config.write_text(daemon.config.read_text() + AT_ONCE)
    ready, first, bare, memory = [], [], [], []
    with Receiver(broker_port) as receiver:
        for _ in range(RUNS):
            to_ready, to_first = await _start(daemon, receiver)
            ready.append(to_ready)
            first.append(to_first)
            seconds, rss = await asyncio.to_thread(_bare, python)
            bare.append(seconds)
            memory.append(rss)
    return {
        "service_cold_ready_s": statistics.median(ready),
        "service_cold_first_pack_s": statistics.median(first),
        "service_cold_ready_ratio_vs_python": statistics.median(ready) / statistics.median(bare),
        "python_rss_mb": statistics.median(memory),
    }


async def _start(daemon: Daemon, receiver: Receiver) -> tuple[float, float]:
    """Return the seconds from exec to READY, and to the first pack at the broker."""
    heard = receiver.heard("bench")
    before = sum(map(len, heard.packs.values()))
    with _notifications(daemon.folder / "notify.sock") as sock:
        _drop_caches()
        began = time.monotonic()
        daemon.start()
        async with asyncio.timeout(GIVE_UP_S):
            while b"READY=1" not in await asyncio.get_running_loop().sock_recv(sock, 4096):
                pass
        ready = time.monotonic() - began
        enough = lambda: sum(map(len, heard.packs.values())) > before  # noqa: E731  # said once
        await asyncio.to_thread(receiver.wait, enough, GIVE_UP_S, "a first pack")
        first = time.monotonic() - began
        await asyncio.to_thread(daemon.stop)
    return ready, first


@contextlib.contextmanager
def _notifications(path: Path) -> Iterator[socket.socket]:
    """Listen as systemd does."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(str(path))
        yield sock


def _bare(python: str) -> tuple[float, float]:
    """Return the seconds from exec until a bare Python runs a line, and its memory."""
    _drop_caches()
    began = time.monotonic()
    with subprocess.Popen([python, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1) as process:  # noqa: S603  # ours
        assert process.stdout  # noqa: S101  # a pipe
        process.stdout.readline()
        seconds, memory = time.monotonic() - began, rss_mb(process.pid)
        process.communicate(b"\n")
    return seconds, memory


async def _running(daemon: Daemon) -> Figures:
    """Let it run, and return its memory, its CPU as a share of one core, and its threads."""
    daemon.start()
    await asyncio.sleep(SETTLE_S)
    cpu = cpu_s(daemon.pid)
    await asyncio.sleep(SECONDS)
    figures = {
        "rss_mb": rss_mb(daemon.pid),
        "cpu_percent": (cpu_s(daemon.pid) - cpu) / SECONDS * 100,
        "tasks": tasks(daemon.pid),
    }
    await asyncio.to_thread(daemon.stop)
    return figures


def _drop_caches() -> bool:
    """Have the kernel forget what it has read; tell whether it did."""
    os.sync()
    try:
        DROP_CACHES.write_text("3")
    except OSError:
        return False
    return True

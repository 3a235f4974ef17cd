"""A pole with the package installed, emulated devices, and a broker, all on one loopback."""

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from hil import broker
from hil.machine import Machine, why_not
from hil.modbus_tcp import ModbusTcp
from hil.receiver import Heard, Receiver
from hil.twins.modbus import sdm630
from hil.twins.sds011 import Sds011
from hil.uart import Uart
from hil.wire import Wire

ROOT = Path(__file__).parent.parent.parent
ROOTS = ROOT / ".system"  # made by make test-system
ARCH = "amd64" if os.uname().machine == "x86_64" else "arm64"
POLE = "pole-7"
DIALOUT = 20  # the group has the same number on every Debian
LIMIT_S = 60.0
CONFIG = """\
[pole]
id = "pole-7"
[uplink]
url = "mqtt://127.0.0.1:{broker}"
[port.cabinet]
path = "tcp://127.0.0.1:{meter}"
[port.dust]
path = "/dev/ttyUSB0"
[dataset.energy]
send_every = 0.2
commit_within = 0.5
[dataset.air]
send_every = 0.2
commit_within = 0.5
[[device]]
id = "meter"
driver = "modbus"
port = "cabinet"
profile = "eastron-sdm630"
every = 0.2
[[device]]
id = "dust"
driver = "sds011"
port = "dust"
every = 0
"""


def builder() -> ModuleType:
    """Import what ``make deb`` runs."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "systemd" / "debian" / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["build"] = module
    spec.loader.exec_module(module)
    return module


def built(arch: str, out: Path) -> Path:
    """Build the package, quicker than ``make deb``: nothing is compressed, and the libraries stay for the next time."""
    build = builder()
    recipe = build.LOCK.read_bytes() + (build.HERE / "build.py").read_bytes()
    wheels = ROOTS / "wheels" / f"{arch}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    fetched = wheels if wheels.exists() else out / "wheels"
    package: Path = build.build(arch, out, wheels=fetched, compression="none")
    if not wheels.exists():
        new = Path(shutil.copytree(fetched, wheels.with_name(f"{wheels.name}.{os.getpid()}")))
        with contextlib.suppress(OSError):  # the other worker was quicker
            new.rename(wheels)
        shutil.rmtree(new, ignore_errors=True)
    return package


def bases() -> list[Path]:
    """Name the root folders there are."""
    return [base for name in ("bookworm", "trixie") if (base := ROOTS / name).is_dir()]


def cannot() -> str:
    """Tell why nothing can be proved here; "" where it can."""
    if why := why_not():
        return why
    if not bases() or shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn or a root folder is missing; make test-system brings both"
    return ""


MARKS = [pytest.mark.system, pytest.mark.skipif(bool(cannot()), reason=cannot()), pytest.mark.timeout(300)]


@dataclass
class Site:
    """What is around the pole's computer.

    Attributes:
        broker: a mosquitto.
        receiver: hears all.
        configuration: of a gateway here.
        binds: the serial port, for the machine.
    """

    broker: broker.Broker
    receiver: Receiver
    configuration: str
    binds: dict[Path, str]

    def heard(self) -> Heard:
        """Return what the receiver has heard so far; it goes on growing."""
        return self.receiver.heard(POLE)


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Put it up."""
    mosquitto = broker.mosquitto(folder)
    mosquitto.start()
    try:
        with _devices(folder) as (meter, port), Receiver(mosquitto.port) as receiver:
            yield Site(mosquitto, receiver, CONFIG.format(broker=mosquitto.port, meter=meter), {port: "/dev/ttyUSB0"})
    finally:
        mosquitto.stop()


@contextlib.contextmanager
def _devices(folder: Path) -> Iterator[tuple[int, Path]]:
    """Run a meter on TCP and a sensor on a serial port, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = ModbusTcp([sdm630(1)])
    wire = Wire(folder / "dust")

    async def up() -> Uart:
        await server.start()
        uart = Uart(wire, Sds011())
        uart.plug()
        return uart

    async def down(uart: Uart) -> None:
        uart.close()
        await server.close()

    uart = asyncio.run_coroutine_threadsafe(up(), loop).result(LIMIT_S)
    port = wire.link.resolve()
    os.chown(port, -1, DIALOUT)
    port.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP)
    try:
        yield server.port, port
    finally:
        asyncio.run_coroutine_threadsafe(down(uart), loop).result(LIMIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def install(machine: Machine, package: Path) -> None:
    """Install the package as a technician does, but that dpkg brings no single file to the disk: no power goes here."""
    shutil.copy(package, machine.root / "root")
    how = "--yes", "--no-install-recommends", "--allow-downgrades", "--option=DPkg::Options::=--force-unsafe-io"
    machine.run("apt-get", "install", *how, f"/root/{package.name}")


def status(machine: Machine) -> str:
    """Return what the gateway tells systemd."""
    return machine.shows("polegate", "StatusText")


def main_pid(machine: Machine) -> int:
    return int(machine.shows("polegate", "MainPID"))


def restarted(machine: Machine, times: int) -> Callable[[], bool]:
    return lambda: machine.shows("polegate", "NRestarts") == str(times) and main_pid(machine) > 0


def packs_come(machine: Machine, site: Site, count: int = 3) -> None:
    """Wait for new packs of both datasets, and that none is missing."""
    heard = site.heard()
    enough = {dataset: len(heard.packs[dataset]) + count for dataset in ("air", "energy")}
    machine.wait(lambda: all(len(heard.packs[name]) >= all_ for name, all_ in enough.items()), LIMIT_S, "no packs come")
    assert not heard.holes()


def drop_in(machine: Machine, text: str) -> None:
    """Change the unit as ``systemctl edit`` does."""
    folder = "/etc/systemd/system/polegate.service.d"
    machine.run("mkdir", "--parents", folder)
    machine.write(f"{folder}/test.conf", text)
    machine.run("systemctl", "daemon-reload")


def repacked(package: Path, version: str, folder: Path, change: Callable[[Path], object] = lambda _: None) -> Path:
    """Make another version of a package; ``change`` is given the folder of its code."""
    tree = folder / version
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(tree)], check=True)  # noqa: S603, S607  # ours
    control = tree / "DEBIAN" / "control"
    (metadata,) = (tree / builder().SITE).glob("polegate-*.dist-info/METADATA")
    for file in (control, metadata):
        file.write_text(re.sub("^Version: .*", f"Version: {version}", file.read_text(), count=1, flags=re.MULTILINE))
    change(tree / builder().SITE)
    new = folder / f"polegate_{version}_{ARCH}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(new)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # ours
    shutil.rmtree(tree)
    return new

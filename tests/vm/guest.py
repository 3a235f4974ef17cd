"""A machine with a kernel of its own, in QEMU.

It goes on from a state in which it had just booted, which takes a second, or boots from power-off. To cut its power is
to kill QEMU: what the guest's kernel had not written yet is gone. Of the disk stays what was written and flushed, and
of what was written and not flushed all that needed no new place in the image.

The network is QEMU's own (slirp): the guest reaches loopback of the test machine as 10.0.2.2, and nobody reaches it.
"""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from hil.process import Process

HOST = "10.0.2.2"
"""The test machine, as the guest sees it."""

BOOT_S = 300.0
LOOK_S = 0.1
ACCELERATION = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    "tcg": ("-accel", "tcg", "-cpu", "qemu64"),  # the least to emulate
}
KERNEL = (
    "root=/dev/vda rw rootflags=commit=300 console=ttyS0 quiet panic=-1 "
    "net.ifnames=0 mitigations=off random.trust_cpu=on no_timer_check "
    # It writes to the disk by itself as seldom as it can: who does not sync is found out
    "sysctl.vm.dirty_writeback_centisecs=0 sysctl.vm.dirty_expire_centisecs=60000"
)


class Guest:
    """The machine. ``with`` starts it; ``cut`` and ``boot`` follow as the test likes.

    Attributes:
        console: what its kernel wrote.
    """

    def __init__(self, folder: Path, image: Path, disk: Path, acceleration: str, state: Path | None = None) -> None:
        """Set it.

        Args:
            folder: where it may write.
            image: the folder with kernel and initial RAM disk.
            disk: what its disk holds at first; it stays as it is.
            acceleration: a key of ACCELERATION.
            state: where it goes on from, with that disk; None: it boots.
        """
        self._image = image
        self._state = state
        self._acceleration = acceleration
        self._disk = folder / "disk.qcow2"
        self._sockets = Path(tempfile.mkdtemp(prefix="polegate-vm-"))  # a path that fits into a socket's address
        self._process = Process(["false"], folder / "qemu.log")
        self._agent, self._qmp = Channel(), Channel()
        self.console = folder / "console.log"
        folder.mkdir(parents=True, exist_ok=True)
        overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(disk.resolve()), str(self._disk)]
        subprocess.run(overlay, check=True, capture_output=True)  # noqa: S603  # ours

    def __enter__(self) -> Self:
        """Start it."""
        try:
            if self._state is None:
                self.boot()
            else:
                self._resume(self._state)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.cut()
        shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def disk(self) -> Path:
        """What differs from the disk it was given."""
        return self._disk

    def boot(self, within: float = BOOT_S) -> None:
        """Switch it on and wait until somebody answers in it."""
        self.switch_on()
        self._agent.open(self._sockets / "agent", self._process)
        self._agent.ask({"run": ["true"], "text": ""}, within)

    def switch_on(self) -> None:
        """Switch it on."""
        self._start()

    def cut(self) -> None:
        """Cut its power."""
        self._process.kill()
        self._agent.close()
        self._qmp.close()

    def run(self, *command: str, check: bool = True, text: str = "") -> str:
        """Run a command in it, as root, and return what it wrote; with ``text`` as its input."""
        told = self._agent.ask({"run": command, "text": text}, BOOT_S)
        if check and told["code"]:
            raise RuntimeError(f"{command}: {told['code']}\n{told['out']}\n{told['err']}")
        out: str = told["out"]
        return out

    def write(self, path: str, text: str) -> None:
        """Write a file in it as an editor does: nobody sees half of it, and it is there after a power cut."""
        command = 'mkdir -p "$(dirname "$1")" && cat >"$1.new" && sync "$1.new" && mv "$1.new" "$1" && sync "$1"'
        self.run("sh", "-c", command, "sh", path, text=text)

    def status(self) -> dict[str, Any]:
        """Return what the gateway tells of itself; empty while it does not answer."""
        told: dict[str, Any] = json.loads(self._agent.ask({"hear": "/run/polegate/status.sock"}, BOOT_S)["out"] or "{}")
        return told

    def shows(self, unit: str, name: str) -> str:
        """Return what ``systemctl show`` tells of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def log(self, *arguments: str) -> str:
        """Return its journal."""
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", *arguments, check=False)

    def wait(self, true: Callable[[], object], within: float, what: str) -> None:
        """Wait until something is true; what the machine has logged comes with the error."""
        give_up = time.monotonic() + within
        while not true():
            if time.monotonic() > give_up:
                raise TimeoutError(f"{what}\n{self.log()[-6000:]}")
            time.sleep(LOOK_S)

    def air(self) -> "Channel":
        """Return the way to its Bluetooth controller, which takes lines; the caller closes it."""
        air = Channel()
        air.open(self._sockets / "air", self._process)
        return air

    def qmp(self, command: str, **arguments: object) -> Any:  # noqa: ANN401  # of each command another
        """Have QEMU do something: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html."""
        told = self._qmp.ask({"execute": command, "arguments": arguments}, BOOT_S)
        while "event" in told or "QMP" in told:
            told = self._qmp.next(BOOT_S)
        if "error" in told:
            raise RuntimeError(f"{command}: {told['error']}")
        return told["return"]

    def save(self, state: Path) -> None:
        """Stop it, write down the state in which it is, and end it; its disk belongs to that state."""
        self.qmp("stop")
        self.qmp("migrate", uri=f"exec:cat >{state}")
        self._until_migrated()
        self._process.stop()
        self.cut()

    def _resume(self, state: Path) -> None:
        self._start("-incoming", f"exec:cat {state}")
        self._until_migrated()
        self._agent.open(self._sockets / "agent", self._process)
        self.qmp("cont")
        self.run("date", "--utc", f"--set=@{time.time():.0f}")

    def _start(self, *more: str) -> None:
        command = [
            "qemu-system-x86_64", "-machine", "q35", *ACCELERATION[self._acceleration], "-m", "512", "-smp", "1",
            "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", str(self._image / "vmlinuz"), "-initrd", str(self._image / "initrd"), "-append", KERNEL,
            "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
            # The test machine keeps what QEMU has given it, so it need not sync
            "-drive", f"file={self._disk},if=virtio,format=qcow2,cache=unsafe",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-rng-pci", "-device", "qemu-xhci,id=usb", "-device", "virtio-serial",
        ]  # fmt: skip
        for name in ("agent", "air"):
            command += ["-chardev", f"socket,id={name},path={self._sockets / name},server=on,wait=off"]
            command += ["-device", f"virtserialport,chardev={name},name=polegate.{name}"]
        command += ["-qmp", f"unix:{self._sockets / 'qmp'},server=on,wait=off", *more]
        self._process = Process(command, self._process.log)
        self._process.start()
        self._qmp.open(self._sockets / "qmp", self._process)
        self.qmp("qmp_capabilities")

    def _until_migrated(self) -> None:
        give_up = time.monotonic() + BOOT_S
        while (told := self.qmp("query-migrate").get("status")) != "completed":
            if told == "failed" or time.monotonic() > give_up:
                raise RuntimeError(f"its state: {told}\n{self._process.output()[-2000:]}")
            time.sleep(LOOK_S)


class Channel:
    """One of QEMU's sockets, with a line of JSON each way."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._waiting = b""

    def open(self, path: Path, process: Process) -> None:
        """Connect as soon as QEMU listens."""
        self.close()
        self._socket = socket.socket(socket.AF_UNIX)
        give_up = time.monotonic() + BOOT_S
        while self._socket.connect_ex(str(path)):
            if not process.running or time.monotonic() > give_up:
                raise RuntimeError(f"QEMU does not run: {process.output()[-2000:]}")
            time.sleep(LOOK_S)

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()
        self._waiting = b""

    def ask(self, question: object, within: float) -> dict[str, Any]:
        """Send a line and return the next one that comes. Raises TimeoutError."""
        self._socket.sendall(json.dumps(question).encode() + b"\n")
        return self.next(within)

    def next(self, within: float) -> dict[str, Any]:
        """Return the next line. Raises TimeoutError, ConnectionError."""
        self._socket.settimeout(within)
        while b"\n" not in self._waiting:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("QEMU has ended")
            self._waiting += data
        line, _, self._waiting = self._waiting.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def send(self, line: str) -> None:
        """Send a line to which nobody answers."""
        self._socket.sendall(line.encode() + b"\n")

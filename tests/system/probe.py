"""Runs inside the sandbox of the service, and writes as JSON what it was allowed: "ok", or the name of the error."""

import ctypes
import errno
import json
import mmap
import os
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

STATE = Path(os.environ["STATE_DIRECTORY"])
RUNTIME = Path(os.environ["RUNTIME_DIRECTORY"])
CREDENTIALS = Path(os.environ["CREDENTIALS_DIRECTORY"])
libc = ctypes.CDLL(None, use_errno=True)
PROT_RWX = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC


def call(name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def device(number: int, minor: int) -> Callable[[], None]:
    return lambda: os.close(os.open(f"/dev/probe-{number}-{minor}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))


def database() -> None:
    with sqlite3.connect(STATE / "probe.db") as sql:
        sql.execute("PRAGMA journal_mode=WAL")
        sql.execute("CREATE TABLE IF NOT EXISTS t (x)")


def bus() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("/run/dbus/system_bus_socket")
        sock.sendall(b"\0AUTH EXTERNAL\r\n")
        sock.recv(100)
        sock.sendall(b"DATA\r\n")
        if not sock.recv(100).startswith(b"OK"):
            raise PermissionError(errno.EACCES, "not authenticated")


def thread() -> None:
    worker = threading.Thread(target=lambda: None)
    worker.start()
    worker.join()


def listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        socket.create_connection(sock.getsockname()[:2]).close()


def script() -> None:
    path = STATE / "script"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    subprocess.run([path], check=True)  # noqa: S603  # it should not run


def write(path: str) -> Callable[[], object]:
    return lambda: Path(path).write_text("x")


def opens(family: int, kind: int = socket.SOCK_STREAM) -> Callable[[], object]:
    return lambda: socket.socket(family, kind).close()


def clock() -> None:
    if libc.adjtimex(ctypes.create_string_buffer(512)) < 0:
        raise OSError(ctypes.get_errno() or errno.EPERM, "adjtimex")


def capabilities() -> None:
    told = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    if any(int(told[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")):
        return
    raise PermissionError(errno.EPERM, "none")


PROBES: dict[str, Callable[[], object]] = {
    "a database in the state folder": database,
    "a file in the runtime folder": lambda: (RUNTIME / "probe").write_text("x"),
    "the configuration": lambda: Path("/etc/polegate/pole.toml").read_text(),
    "a credential": (CREDENTIALS / "mqtt-key").read_text,
    "the system D-Bus": bus,
    "TCP": listen,
    "a look-up of a name": lambda: socket.getaddrinfo("localhost", 1),
    "a thread": thread,
    "the id of this boot": lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
    "the time since boot": lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    "the temporary folder": lambda: Path("/tmp/probe").write_text("x"),  # noqa: S108  # a private one
    "a USB adapter": device(188, 0),
    "an adapter of class ACM": device(166, 0),
    "a UART": device(204, 64),
    "a UART of another kind": device(4, 67),
    "the kernel's log": device(1, 11),
    "a disk": device(7, 0),
    "the key as root has it": lambda: Path("/etc/polegate/pole.key").read_text(),
    "to write the configuration": write("/etc/polegate/pole.toml"),
    "to write programs": write("/usr/lib/polegate/probe"),
    "to choose the release": write("/var/lib/polegate-release/probe"),
    "to write /etc": write("/etc/probe"),
    "to see the boot folder": lambda: os.listdir("/boot"),  # noqa: PTH208  # the same
    "to see home folders": lambda: Path("/root/.profile").read_text(),
    "to run what lies in the state folder": script,
    "memory that is written and run": lambda: mmap.mmap(-1, 4096, prot=PROT_RWX).close(),
    "raw sockets": opens(socket.AF_INET, socket.SOCK_RAW),
    "packet sockets": opens(socket.AF_PACKET, socket.SOCK_RAW),
    "netlink": opens(socket.AF_NETLINK, socket.SOCK_RAW),
    "Bluetooth sockets": opens(31, socket.SOCK_RAW),
    "another user": lambda: os.setuid(0),
    "a namespace": lambda: call("unshare", 0x10000000),
    "a mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "another name of the machine": lambda: socket.sethostname("probe"),
    "real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "to trace a process": lambda: call("ptrace", 16, os.getppid(), None, None),
    "to ask for the kernel's clock state": clock,
    "to set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "keys of others": lambda: call("syscall", 248, b"user", b"probe", b"x", 1, -3),
    "to see other processes": lambda: Path("/proc/1/status").read_text(),
    "any capability": capabilities,
}


def main() -> None:
    told = {}
    for name, probe in PROBES.items():
        try:
            probe()
        except OSError as error:
            told[name] = errno.errorcode.get(error.errno or 0, str(error))
        except Exception as error:  # noqa: BLE001  # it is told
            told[name] = repr(error)
        else:
            told[name] = "ok"
    (STATE / "probe.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()

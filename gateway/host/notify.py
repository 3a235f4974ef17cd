"""A door: systemd's notification socket and watchdog (sd_notify(3), sd_watchdog_enabled(3)); nothing without them.

And what it gives to a service: a folder in RAM, sockets to listen at.
"""

import os
import socket
import time
from pathlib import Path

FIRST_SOCKET = 3  # SD_LISTEN_FDS_START


def notify(state: str) -> None:
    """Tell systemd, for instance ``READY=1``. It never waits and never fails."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
    except OSError:  # the manager is gone or does not read: its loss, not the pole's
        return


def notify_reloading() -> None:
    """Tell that the configuration is read again; ``READY=1`` ends it."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify(f"RELOADING=1\nMONOTONIC_USEC={now}")


def watchdog_s() -> float | None:
    """Return the seconds after which systemd ends this process if it is not fed; None: there is no watchdog."""
    period, process = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    if not period or (process and process != str(os.getpid())):
        return None
    return int(period) / 1e6


def runtime_folder() -> Path | None:
    """Return the folder that systemd gives to this service alone, in RAM; None where there is none."""
    folder = os.environ.get("RUNTIME_DIRECTORY")
    return Path(folder.split(":")[0]) if folder else None


def listening() -> list[socket.socket]:
    """Return the sockets that systemd listens at for this process (sd_listen_fds(3)), if it does."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=number) for number in range(FIRST_SOCKET, FIRST_SOCKET + count)]

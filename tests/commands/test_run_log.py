"""``polegate run`` with a log that cannot be written: lines are lost, and it goes on."""

import socket
from pathlib import Path

import pytest

from hil.daemon import Daemon, polegate

POLE = """\
[pole]
id = "pole-7"
[uplink]
url = "mqtt://127.0.0.1:1"
[buffer]
path = "{}/buffer.db"
[port.a]
path = "/dev/nothing"  # a warning, before the log begins
[[device]]
id = "dust"
driver = "sds011"
port = "a"
"""
LIMIT_S = 20.0


@pytest.mark.parametrize(
    "errors",
    [
        "exec 2>/dev/full",
        "exec 2>/dev/full; export PYTHONUNBUFFERED=1",
        'mkfifo "$0.pipe"; exec 3<>"$0.pipe" 2>"$0.pipe" 3>&-',  # nobody reads it any more
        "exec 2>&-",
    ],
)
def test_a_gateway_whose_log_cannot_be_written_goes_on(tmp_path: Path, errors: str) -> None:
    shell = tmp_path / "polegate"
    shell.write_text(f'#!/bin/sh\n{errors}\nexec {polegate()} "$@"\n')
    shell.chmod(0o700)
    daemon = Daemon(tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}, command=str(shell))
    daemon.config.write_text(POLE.format(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIMIT_S)
        daemon.start()
        assert manager.recv(4096) == b"READY=1\nSTATUS=running"
        assert daemon.stop() == 0
        assert manager.recv(4096) == b"STOPPING=1"

"""Runs in the guest: does what it is told over a virtio port. A request and an answer are one line of JSON each.

It needs Python's own library and nothing else.
"""

import json
import os
import socket
import subprocess
import time
from typing import Any

PORT = "/dev/virtio-ports/polegate.agent"


def run(command: list[str], text: str) -> dict[str, Any]:
    """Run a command to its end."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603  # told by the test
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def hear(path: str) -> dict[str, Any]:
    """Return all that a socket says; nothing where nobody listens."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            with sock.makefile("r") as file:
                return {"out": file.read()}
    except OSError:
        return {"out": ""}


def main() -> None:
    """Serve until the power goes."""
    port = os.open(PORT, os.O_RDWR)
    waiting = b""
    while True:
        data = os.read(port, 65536)
        if not data:
            time.sleep(0.05)  # the test machine is not connected yet
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            told = hear(asked["hear"]) if "hear" in asked else run(asked["run"], asked["text"])
            answer = json.dumps(told).encode() + b"\n"
            while answer:
                answer = answer[os.write(port, answer) :]


if __name__ == "__main__":
    main()

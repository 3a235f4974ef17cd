"""The gateway as a process: the real ``polegate run``, with a folder of its own."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hil.process import Process

STATUS_S = 2.0


def polegate() -> str:
    """Return the command as it is installed beside this Python."""
    return str(Path(sys.executable).parent / "polegate")


class Daemon(Process):
    """One gateway: its configuration, database, log and status socket lie in ``folder``."""

    def __init__(self, folder: Path, *, env: Mapping[str, str] | None = None, command: str | None = None) -> None:
        self.folder = folder
        self.config = folder / "pole.toml"
        self.database = folder / "buffer.db"
        runtime = folder / "run"
        runtime.mkdir(exist_ok=True)
        super().__init__(
            [command or polegate(), "run", "--config", str(self.config)],
            folder / "gateway.log",
            env={**os.environ, "RUNTIME_DIRECTORY": str(runtime), **(env or {})},
        )
        self._socket = runtime / "status.sock"

    def status(self) -> dict[str, Any] | None:
        """Return what the gateway tells of itself; None while it does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(STATUS_S)
                sock.connect(str(self._socket))
                with sock.makefile("rb") as file:
                    told: dict[str, Any] = json.loads(file.read() or b"null")
                    return told
        except (OSError, ValueError):
            return None

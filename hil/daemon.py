"""The gateway as a process: the real ``polegate run``, with a folder of its own."""

import json
import os
import shutil
import socket
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hil.process import Process

STATUS_S = 2.0
SHM = Path("/dev/shm")  # noqa: S108  # the runtime folder that systemd gives lies in RAM


def polegate() -> str:
    """Return the command as it is installed beside this Python."""
    return str(Path(sys.executable).parent / "polegate")


class Daemon(Process):
    """One gateway: its configuration, database and log lie in ``folder``.

    Attributes:
        folder: that.
        config: the configuration, to be written before it is started.
        database: where the configuration should put it.
        runtime: what systemd would give it in RAM, with the status socket and the journal.
    """

    def __init__(self, folder: Path, *, env: Mapping[str, str] | None = None, command: str | None = None) -> None:
        self.folder = folder
        self.config = folder / "pole.toml"
        self.database = folder / "buffer.db"
        self.runtime = Path(tempfile.mkdtemp(prefix="polegate-run-", dir=SHM if SHM.is_dir() else folder))
        weakref.finalize(self, shutil.rmtree, self.runtime, ignore_errors=True)
        super().__init__(
            [command or polegate(), "run", "--config", str(self.config)],
            folder / "gateway.log",
            env={**os.environ, "RUNTIME_DIRECTORY": str(self.runtime), **(env or {})},
        )
        self._socket = self.runtime / "status.sock"

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

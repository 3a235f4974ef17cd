"""Processes of the bench. They die with it, write to files, and end when they are told to."""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

END_S = 10.0


class Process:
    """One process, started and ended any number of times; its output is appended to a file."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._command = ["setpriv", "--pdeathsig", "KILL", *command]
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self.log = log

    @property
    def pid(self) -> int:
        """Its number, 0 while it does not run."""
        return self._process.pid if self.running and self._process else 0

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the bench's own commands
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; what does not end in time is killed. Returns the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(END_S)

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self.stop(signal.SIGKILL)

    def output(self) -> str:
        """Return all it wrote."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

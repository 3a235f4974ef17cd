"""A cgroup with the limits of a unit, for what is measured: systemd's own, but without systemd.

With cgroup v2 all limits hold. Where the kernel has the controllers in v1, as in many containers, there is no
``MemoryHigh``; the others hold.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CGROUPS = Path("/sys/fs/cgroup")
LIMIT = re.compile(r"^(MemoryHigh|MemoryMax|TasksMax)=(\d+)([MG]?)$", re.MULTILINE)
BYTES = {"": 1, "M": 1 << 20, "G": 1 << 30}
V2 = {"MemoryHigh": "memory.high", "MemoryMax": "memory.max", "TasksMax": "pids.max"}
V1 = {"MemoryMax": ("memory", "memory.limit_in_bytes"), "TasksMax": ("pids", "pids.max")}


def limits_of(unit: Path) -> dict[str, int]:
    """Read the limits of a unit: bytes of memory, tasks."""
    return {name: int(number) * BYTES[suffix] for name, number, suffix in LIMIT.findall(unit.read_text())}


@dataclass
class Limited:
    """Cgroups that hold a process to limits. ``with`` makes them; afterwards they are gone, and so must the process be.

    Attributes:
        limits: see ``limits_of``.
        note: which of them hold, and how.
    """

    limits: dict[str, int]
    note: str = "no limits: cgroups cannot be made here, which needs root"

    def __enter__(self) -> Self:
        """Make them, if that can be had."""
        self._folders: list[Path] = []
        try:
            if (CGROUPS / "cgroup.controllers").exists():
                self._make_v2()
            else:
                self._make_v1()
        except OSError:
            self.__exit__()
        return self

    def __exit__(self, *_: object) -> None:
        """Take them away."""
        for folder in self._folders:
            folder.rmdir()
        self._folders = []

    def command(self, program: str, script: Path) -> str:
        """Write a script that runs a program within the limits, with the arguments it is given; return its path."""
        enter = "".join(f"echo $$ > {folder}/cgroup.procs\n" for folder in self._folders)
        script.write_text(f'#!/bin/sh\n{enter}exec "{program}" "$@"\n')
        script.chmod(0o755)
        return str(script)

    def memory_refusals(self) -> int:
        """Return how often the memory limit stood in the way of an allocation."""
        for folder in self._folders:
            if (folder / "memory.failcnt").exists():
                return int((folder / "memory.failcnt").read_text())
            if (folder / "memory.events").exists():
                events = dict(line.split() for line in (folder / "memory.events").read_text().splitlines())
                return int(events["max"]) + int(events["high"])
        return 0

    def _make_v2(self) -> None:
        (CGROUPS / "cgroup.subtree_control").write_text("+memory +pids")
        folder = self._add(CGROUPS)
        for name, limit in self.limits.items():
            (folder / V2[name]).write_text(str(limit))
        self.note = f"limits of cgroup v2: {', '.join(self.limits)}"

    def _make_v1(self) -> None:
        held = [name for name in self.limits if name in V1]
        for name in held:
            controller, file = V1[name]
            (self._add(CGROUPS / controller) / file).write_text(str(self.limits[name]))
        self.note = f"limits of cgroup v1: {', '.join(held)}"

    def _add(self, above: Path) -> Path:
        folder = above / f"polegate-bench-{os.getpid()}.d"
        folder.mkdir()
        self._folders.append(folder)
        return folder

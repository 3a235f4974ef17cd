"""The bench's machine: it ends with whoever started it, however he ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hil.machine import CGROUPS
from tests.system import scene

pytestmark = scene.MARKS

START = """
import sys
from pathlib import Path
from hil.machine import Machine
with Machine(Path(sys.argv[1]), [Path(sys.argv[2])]) as machine:
    machine.run("systemctl", "is-system-running")
    print(machine.name, flush=True)
    sys.stdin.read()
"""


def test_a_run_that_is_killed_with_all_of_its_group_leaves_no_machine(base: Path, tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: S603  # ours
        [sys.executable, "-c", START, str(tmp_path), str(base)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=scene.ROOT,
        start_new_session=True,
    ) as run:
        assert run.stdout
        name = run.stdout.readline().strip()
        cgroups = list(CGROUPS.glob(f"**/{name}.d"))
        assert cgroups
        assert (tmp_path / "root").is_mount()
        os.killpg(run.pid, signal.SIGKILL)
    give_up = time.monotonic() + scene.LIMIT_S
    while any(cgroup.exists() for cgroup in cgroups) or (tmp_path / "root").is_mount():
        assert time.monotonic() < give_up
        time.sleep(0.05)

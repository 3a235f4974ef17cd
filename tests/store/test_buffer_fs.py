"""The buffer on a full disk, and on one that may only be read: real file systems, mounted for the test alone."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.store.buffer_fs import SCENES

UNSHARE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))


@pytest.mark.parametrize("scene", SCENES)
def test_it_goes_on(tmp_path: Path, scene: str) -> None:
    if subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode:  # noqa: S603
        pytest.skip("a mount namespace is not permitted here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as ram:  # the runtime folder of a service is in RAM
        done = subprocess.run(  # noqa: S603
            [*UNSHARE, sys.executable, "-m", "tests.store.buffer_fs", scene, str(tmp_path), ram],
            check=False,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
    assert done.returncode == 0, done.stdout + done.stderr

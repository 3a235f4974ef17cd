"""The limits of a unit hold what the bench runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hil.limits import CGROUPS, Limited, limits_of

UNIT = Path(__file__).parent.parent.parent / "systemd" / "polegate.service"
EAT = "b = bytearray(int(float(__import__('sys').argv[1]) * (1 << 20))); print(len(b))"


def test_they_are_those_of_the_unit() -> None:
    assert limits_of(UNIT) == {"MemoryHigh": 192 << 20, "MemoryMax": 256 << 20, "TasksMax": 64}


def test_what_takes_more_memory_is_ended_and_what_takes_less_is_not(tmp_path: Path) -> None:
    with Limited({"MemoryMax": 64 << 20, "TasksMax": 64}) as limits:
        if limits.note.startswith("no limits"):
            pytest.skip(limits.note)
        python = limits.command(sys.executable, tmp_path / "python")
        little = subprocess.run([python, "-c", EAT, "16"], check=False)  # noqa: S603  # ours
        much = subprocess.run([python, "-c", EAT, "200"], check=False)  # noqa: S603  # the same
        assert (little.returncode, much.returncode) == (0, -9)
        assert limits.memory_refusals() > 0
    mine = f"polegate-bench-{os.getpid()}.d"
    assert [*CGROUPS.glob(mine), *CGROUPS.glob(f"*/{mine}")] == []

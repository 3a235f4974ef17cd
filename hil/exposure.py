"""What systemd thinks of a unit: how much of the machine it exposes."""

import re
import subprocess
from pathlib import Path

OVERALL = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")


def exposure(unit: Path) -> float:
    """Return the exposure level of a unit, from 0 (safe) to 10, as ``systemd-analyze security`` reckons it."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  # ours
    found = OVERALL.search(told)
    assert found, told  # noqa: S101  # it is the last line
    return float(found[1])

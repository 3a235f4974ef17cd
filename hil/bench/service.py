"""What the service costs and exposes: the size of its package, and what systemd thinks of its unit."""

import subprocess
import sys
from pathlib import Path

from hil.exposure import exposure

SYSTEMD = Path("systemd")
ARCHITECTURES = "amd64", "arm64", "armhf"


def sizes_mb(folder: Path) -> dict[str, float]:
    """Return how large the packages in a folder are, by architecture."""
    return {f"deb_mb_{deb.stem.rpartition('_')[2]}": deb.stat().st_size / 1e6 for deb in folder.glob("*.deb")}


async def measure(folder: Path, polegate: str) -> dict[str, float]:
    """Run the scenario: builds the packages, which takes a minute."""
    del polegate
    command = [sys.executable, str(SYSTEMD / "debian" / "build.py"), "--out", str(folder), *ARCHITECTURES]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603, ASYNC221  # nothing else runs here
    return sizes_mb(folder) | {"unit_exposure": exposure(SYSTEMD / "polegate.service")}

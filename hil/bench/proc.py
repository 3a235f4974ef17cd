"""What the kernel counts of a process."""

from pathlib import Path

NS = 1e9


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all its threads, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / NS


def written_bytes(pid: int) -> int:
    """Return the bytes it caused to be written to storage (``write_bytes`` of proc(5), whole pages)."""
    return _number(Path(f"/proc/{pid}/io"), "write_bytes")


def rss_mb(pid: int) -> float:
    """Return its resident memory, MB of 10^6 bytes."""
    return _number(Path(f"/proc/{pid}/status"), "VmRSS") * 1024 / 1e6


def tasks(pid: int) -> int:
    """Return how many threads it has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _number(file: Path, name: str) -> int:
    line = next(line for line in file.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])

"""The buffer against stores with one row per reading: same machine, same run, same readings. A reading is one value.

=====  ===============================================================================================
A      a commit for each reading, rollback journal, synchronous=FULL, pages of 4 KiB
B      a commit for each window of ten seconds (500 readings), WAL, synchronous=FULL, pages of 4 KiB
ours   packer and buffer of the gateway; a commit for each window as well, with a pack of each dataset
=====  ===============================================================================================

The readings are the same in two shapes. In one, all belong to one dataset: 500 readings are one pack, which is what the
aims were set for. In the other they belong to four datasets, as on a pole: four packs, each with a quarter of it. Those
figures end with ``_four_datasets``.

Ours encodes when it fills, B when it drains. Each layout runs in a process of its own
(``tests.store.bench_buffer``), so that CPU and memory are its own; they take turns, and the median counts.

Bytes are those of a device: what is written to the loop device under an ext4 with a journal, so that what the file
system adds is counted. Where none can be mounted they are what the kernel counts of the process (``/proc/self/io``).

The backlog is 72 hours at 50 readings/s: packs of nearly three hours, stored again and again under other numbers. That
of B has eleven hours; its file grows by the same with each. Where the page cache may be dropped the start is cold:
"cold 1" in what is printed.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

SHAPES = {1: "", 4: "_four_datasets"}  # how many datasets, and how the figures end
POLE = 4
TURNS = 5
LIFE, SINGLE = 800, 4  # windows; those of A take their time
BACKLOG = {"packs": 26_000, "rows": 6_000}
DRAINED = 1_000
FEW, MANY = 100, 500
ONLINE = 40
IMAGE_BYTES = 2 << 30  # most of it is never written
FSYNCS = {"fsync", "fdatasync"}
DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL")

Figures = dict[str, float]


async def measure(folder: Path, _polegate: str) -> Figures:
    """Run the scenario. Takes some three minutes."""
    this = asyncio.current_task()
    assert this is not None  # noqa: S101  # a coroutine that runs has a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # else the mount would stay
    async with _disk(folder) as disk:
        print(f"device bytes from: {disk.counter}")
        figures: Figures = {}
        for datasets, suffix in SHAPES.items():
            ratios = await _lives(disk, datasets) | await _backlogs(disk, datasets)
            figures |= {f"{name}{suffix}": value for name, value in ratios.items()}
        figures |= await _online(disk)
        if shutil.which("strace"):
            figures |= await _fsyncs(disk)
        else:
            print("fsyncs are not counted: there is no strace")
    return figures


@dataclass(frozen=True, slots=True)
class Disk:
    """Where the files lie.

    Attributes:
        folder: for them.
        counter: of the bytes that are written to it.
    """

    folder: Path
    counter: Path

    async def child(
        self, task: str, layout: str, datasets: int, count: int, *, file: str = "", before: tuple[str, ...] = ()
    ) -> Figures:
        """Have a process measure something.

        Args:
            task: what; see ``tests.store.bench_buffer``, as ``layout``, ``datasets`` and ``count``.
            layout: of the store.
            datasets: in which the readings are.
            count: how much.
            file: name of the store that stays; without one it goes.
            before: what the command begins with.
        """
        path = self.folder / (file or "passing")
        python = (
            sys.executable,
            "-m",
            "tests.store.bench_buffer",
            task,
            layout,
            str(datasets),
            str(count),
            path,
            self.counter,
        )
        figures: Figures = json.loads(await _output(*DIE_WITH_US, *before, *DIE_WITH_US, *python))
        if not file:
            self.forget("passing")
        print(
            f"{task} {layout} {datasets} {count}: {', '.join(f'{name} {value:.4g}' for name, value in figures.items())}"
        )
        return figures

    def forget(self, file: str) -> None:
        """Remove a store."""
        for part in self.folder.glob(f"{file}*"):
            part.unlink()


@contextlib.asynccontextmanager
async def _disk(folder: Path) -> AsyncIterator[Disk]:
    """Mount a file system of our own, where that is allowed."""
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    try:
        counter = Path("/proc/self/io")
        if await _done(
            "mkfs.ext4", "-q", "-b", "4096", "-O", "has_journal", "-E", "lazy_itable_init=0,lazy_journal_init=0", image
        ) and await _done("mount", "-o", "loop,noatime", image, mount):
            number = mount.stat().st_dev
            counter = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")
        yield Disk(mount, counter)
    finally:
        if mount.is_mount():
            await _done("umount", mount) or await _done("umount", "--lazy", mount)


async def _lives(disk: Disk, datasets: int) -> Figures:
    """Fill and drain."""
    ours, rows = await _turns(disk, "life", datasets, LIFE)
    single = await disk.child("fill", "row-commit", datasets, SINGLE)
    return {
        "buffer_bytes_ratio_vs_rows": ours["bytes"] / rows["bytes"],
        "buffer_bytes_ratio_vs_row_commit": ours["bytes"] / single["bytes"],
        "buffer_cpu_ratio_vs_rows": (ours["fill_us"] + ours["drain_us"]) / (rows["fill_us"] + rows["drain_us"]),
    }


async def _backlogs(disk: Disk, datasets: int) -> Figures:
    """Pile up, start with it, drain it."""
    piled = {layout: await disk.child("backlog", layout, datasets, n, file=layout) for layout, n in BACKLOG.items()}
    started = await _turns(disk, "start", datasets, keep=True)
    drained = await _turns(disk, "drain", datasets, DRAINED, keep=True)
    for layout in BACKLOG:
        disk.forget(layout)
    return {
        "buffer_file_ratio_vs_rows": piled["packs"]["file_bytes"] / piled["rows"]["file_bytes"],
        "buffer_start_s": started[0]["start_s"],
        "buffer_rss_mb_over_rows": started[0]["rss_mb"] - started[1]["rss_mb"],
        "buffer_drain_ratio_vs_rows": drained[1]["drain_us"] / drained[0]["drain_us"],
    }


async def _online(disk: Disk) -> Figures:
    return {"buffer_online_bytes": (await disk.child("online", "packs", POLE, ONLINE))["bytes"]}


async def _fsyncs(disk: Disk) -> Figures:
    """Count the calls; what it takes to open the file does not count."""
    few, calls_few = await _traced(disk, "commits", FEW)
    many, calls_many = await _traced(disk, "commits", MANY)
    _, calls_none = await _traced(disk, "online", 0)
    _, calls_online = await _traced(disk, "online", ONLINE)
    return {
        "fsyncs_per_commit": (calls_many - calls_few) / (many["commits"] - few["commits"]),
        "buffer_online_fsyncs": calls_online - calls_none,
    }


async def _turns(
    disk: Disk, task: str, datasets: int, count: int = 0, *, keep: bool = False
) -> tuple[Figures, Figures]:
    """Have our layout and B do the same in turn; return the medians of both."""
    taken: dict[str, dict[str, list[float]]] = {layout: defaultdict(list) for layout in ("packs", "rows")}
    for _ in range(TURNS):
        for layout, figures in taken.items():
            child = await disk.child(task, layout, datasets, count, file=layout if keep else "")
            for name, value in child.items():
                figures[name].append(value)
    ours, rows = ({name: statistics.median(values) for name, values in each.items()} for each in taken.values())
    return ours, rows


async def _traced(disk: Disk, task: str, count: int) -> tuple[Figures, int]:
    """Return what a process measures, and how often it called fsync."""
    log = disk.folder / "strace"
    before = ("strace", "-f", "-c", "-e", f"trace={','.join(FSYNCS)}", "-o", str(log))
    figures = await disk.child(task, "packs", POLE, count, before=before)
    lines = [line.split() for line in log.read_text().splitlines()]  # % time, seconds, usecs/call, calls, syscall
    return figures, sum(int(words[3]) for words in lines if words and words[-1] in FSYNCS)


async def _done(*command: str | Path) -> bool:
    """Run a command and tell whether it could be done."""
    try:
        await _output(*command)
    except (OSError, RuntimeError):
        return False
    return True


async def _output(*command: str | Path) -> bytes:
    """Run a command and return what it prints. Raises RuntimeError, OSError."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return output

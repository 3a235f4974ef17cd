"""What the tests of the buffer share: packs, and an event loop whose disk takes time."""

import asyncio
import contextlib
import resource
import shutil
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar, TypeVarTuple
from unittest import mock

from gateway.host.one_thread import Certain
from gateway.store import pack_sql
from gateway.store.buffer import Buffer
from gateway.store.pack_file import PackFile
from gateway.store.pack_room import Terms
from gateway.words.reading import Pack
from hil.vclock import VirtualLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Key = tuple[str, int, int]

PAGE_BYTES = 512
OLD_PAGE_BYTES = 1024  # those of a file that an older gateway made
WAL_BYTES = 1024 * 1024  # the part of the cap that the write-ahead log takes
ROOMY = 64 * 1024 * 1024


def pack(n: int, dataset: str = "air", *, epoch: int = 1, size: int = 300, readings: int = 10) -> Pack:
    """Make a pack whose blob could not be mistaken for another's."""
    blob = f"{dataset}/{epoch}/{n} ".encode()
    return Pack(dataset, epoch, n, readings, n * 1_000_000_000, blob.ljust(size, b"."))


def key(of: Pack) -> Key:
    """Name a pack."""
    return of.dataset, of.epoch, of.n


@contextlib.contextmanager
def pages_of(size: int) -> Iterator[None]:
    """Have files made with pages of so many bytes."""
    pragmas = pack_sql.PRAGMAS.replace(f"page_size={PAGE_BYTES}", f"page_size={size}")
    with mock.patch.object(pack_sql, "PRAGMAS", pragmas):
        yield


@contextlib.contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """Have the kernel refuse all writes beyond ``size`` bytes of a file, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class SlowDisk(VirtualLoop):
    """A virtual loop on which what a thread does takes time, and is done in the middle of it, one after the other.

    So what the event loop does meanwhile comes before or after it, as it does with a real thread.

    Attributes:
        job_s: how long each takes; 0: it is done on the spot.
    """

    def __init__(self, job_s: float) -> None:
        super().__init__()
        self.job_s = job_s
        self._jobs: deque[Callable[[], None]] = deque()
        self._busy = False

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run the function when those before it are through."""
        if not self.job_s:
            return super().run_in_executor(executor, func, *args)
        future: Certain[T] = Certain(loop=self)

        def do() -> None:
            done: asyncio.Future[T] = super(SlowDisk, self).run_in_executor(executor, func, *args)
            self.call_later(self.job_s / 2, tell, done)

        def tell(done: asyncio.Future[T]) -> None:
            if error := done.exception():
                future.set_exception(error)
            else:
                future.set_result(done.result())
            self._next()

        self._jobs.append(do)
        if not self._busy:
            self._next()
        return future

    def _next(self) -> None:
        self._busy = bool(self._jobs)
        if self._jobs:
            self.call_later(self.job_s / 2, self._jobs.popleft())


def live(
    path: Path,
    scene: Callable[[Buffer], Awaitable[None]],
    *,
    max_bytes: int = ROOMY,
    job_s: float = 0.0,
    terms: Mapping[str, Terms] | None = None,
    disk_first: bool = False,
    forget_before: Callable[[], int] | None = None,
) -> None:
    """Play a scene with a buffer that was opened and runs, and close it in the end."""

    async def main() -> None:
        buffer = Buffer(path, max_bytes, terms=terms, disk_first=disk_first, forget_before=forget_before)
        await buffer.open("boot", 0, 0)
        running = asyncio.create_task(buffer.run())
        try:
            await scene(buffer)
        finally:
            running.cancel()
            await asyncio.wait([running])
            await buffer.close()

    with asyncio.Runner(loop_factory=lambda: SlowDisk(job_s)) as runner:
        runner.run(main())


async def on_the_thread(buffer: Buffer, damage: str) -> None:
    """Damage the file behind the back of the buffer."""
    disk = buffer._disk  # noqa: SLF001  # nobody else has the file open
    await disk._thread.do(lambda: disk._file._sql.execute(damage))  # noqa: SLF001


def contents(path: Path) -> list[Key]:
    """Name the packs in a copy of the file as it is now, in the order of their numbers."""
    with tempfile.TemporaryDirectory() as folder:
        for part in filter(Path.is_file, path.parent.glob(f"{path.name}*")):
            shutil.copy(part, folder)
        file = PackFile(Path(folder) / path.name, ROOMY)
        file.open("boot")
        try:
            return [key(row.pack) for row in file.read(0, 1_000_000)[0]]
        finally:
            file.close()

"""The status socket: it answers whoever asks, and nobody can make it wait."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.host.status_socket import NAME, serve
from hil.vclock import run

END_S = 5.0
LARGE = {"padding": "x" * 4_000_000}  # more than the kernel holds for a reader that does not read


@contextlib.asynccontextmanager
async def serving(folder: Path, snapshot: Callable[[], dict[str, Any]]) -> AsyncIterator[Path]:
    job = asyncio.create_task(serve(folder, snapshot))
    await asyncio.sleep(0.1)
    try:
        yield folder / NAME
    finally:
        job.cancel()
        await asyncio.wait([job], timeout=END_S)
        assert job.done()


def play(scene: Callable[[], Awaitable[None]]) -> None:
    """Run a scene; nothing may be left over."""

    async def main() -> None:
        unseen: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        before = open_files()
        await scene()
        await asyncio.sleep(END_S)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert open_files() == before
        assert unseen == []

    run(main())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def deaf(path: Path) -> socket.socket:
    """Connect, and never read."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


async def ask(path: Path) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    told: dict[str, Any] = json.loads(await reader.read())
    writer.close()
    await writer.wait_closed()
    return told


def test_who_connects_is_told_how_the_gateway_is_at_that_moment(tmp_path: Path) -> None:
    async def scene() -> None:
        facts = {"readings": 1, "pole": "Köln-7"}
        async with serving(tmp_path, lambda: facts) as path:
            assert await ask(path) == {"readings": 1, "pole": "Köln-7"}
            facts["readings"] = 2
            assert await ask(path) == {"readings": 2, "pole": "Köln-7"}

    play(scene)


def test_one_answer_is_one_line(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path, lambda: {"a": "b\nc"}) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            assert await reader.read() == b'{"a": "b\\nc"}\n'
            writer.close()
            await writer.wait_closed()

    play(scene)


def test_several_may_ask_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path, lambda: LARGE) as path:
            assert await asyncio.gather(*(ask(path) for _ in range(20))) == [LARGE] * 20

    play(scene)


def test_readers_that_never_read_disturb_nobody_and_are_not_waited_for_at_the_end(tmp_path: Path) -> None:
    async def scene() -> None:
        with contextlib.ExitStack() as stack:
            async with serving(tmp_path, lambda: LARGE) as path:
                for _ in range(50):
                    stack.enter_context(deaf(path))
                assert await ask(path) == LARGE

    play(scene)


def test_a_reader_that_never_reads_is_let_go_after_a_while(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path, lambda: LARGE) as path:
            before = open_files()
            with deaf(path):
                await asyncio.sleep(0.1)
                assert open_files() == before + 2  # its end and ours
                await asyncio.sleep(END_S)
                assert open_files() == before + 1

    play(scene)


def test_a_reader_that_goes_away_in_the_middle_is_nobodys_trouble(tmp_path: Path) -> None:
    async def scene() -> None:
        async with serving(tmp_path, lambda: LARGE) as path:
            for _ in range(20):
                _, writer = await asyncio.open_unix_connection(path)
                writer.transport.abort()
            assert await ask(path) == LARGE

    play(scene)


def test_the_socket_of_a_run_that_was_killed_is_replaced_and_ours_is_removed(tmp_path: Path) -> None:
    async def scene() -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / NAME))
        async with serving(tmp_path, lambda: {"alive": True}) as path:
            assert await ask(path) == {"alive": True}

    play(scene)
    assert list(tmp_path.iterdir()) == []

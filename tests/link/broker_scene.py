"""A scene with a scripted broker: on virtual time, which paho is made to read as well."""

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.link.broker import Broker, Message
from gateway.link.tls import TlsFiles
from hil.modbus_tcp import TcpCanary
from hil.scripted_broker import ScriptedBroker
from hil.vclock import run

WILL = Message("pole/1/pole-7/state", b'{"status": "gone"}', retain=True)

Scene = Callable[[ScriptedBroker], Awaitable[None]]


def play(scene: Scene) -> None:
    """Run a scene; nothing may be left over: no task, no file descriptor, no error nobody saw."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        unseen: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: unseen.append(context))
        broker = ScriptedBroker()
        gc.collect()  # what an earlier test left is not to be closed in the middle of this one
        open_before = open_files()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("paho.mqtt.client.time_func", loop.time)
            await broker.start()
            try:
                await scene(broker)
            finally:
                await broker.close()
        await asyncio.sleep(2)  # whatever ends, ends by now
        gc.collect()  # an exception nobody looked at is told when its future goes
        assert broker.violations == [], broker.violations
        assert unseen == [], unseen
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert open_files() - open_before == Counter()

    run(main(), TcpCanary())


@contextlib.asynccontextmanager
async def another_broker() -> AsyncIterator[ScriptedBroker]:
    """Run one more."""
    broker = ScriptedBroker()
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()
        assert broker.violations == []


def open_files() -> Counter[str]:
    """Count this process's open files by name; a socket has its number in it."""
    names: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor that lists them
            names[str(entry.readlink())] += 1
    return names


def where(
    port: int,
    *,
    host: str = "127.0.0.1",
    password_file: Path | None = None,
    tls: TlsFiles | None = None,
    path: str = "",
) -> Broker:
    """Describe a broker on loopback, as pole-7 sees it."""
    return Broker(
        host=host,
        port=port,
        tls=tls,
        path=path,
        client="pole-7",
        username="pole-7",
        password_file=str(password_file) if password_file else None,
    )

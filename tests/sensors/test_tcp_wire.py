"""A line over TCP: Modbus TCP devices that are not there, close, hang, answer late, or talk without an end."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from drivers.contract import BadFrame, NoReply, PortGone
from gateway.sensors.line import MOST_HELD, REOPEN_S, Line, LinePort
from gateway.sensors.tcp_wire import CONNECT_S, UNACKNOWLEDGED_MS, TcpWire
from hil.faults import SerialFault
from hil.modbus_tcp import ModbusTcp, TcpCanary
from hil.twins.modbus import noise, sdm630
from hil.vclock import run
from tests.sensors.stage import ENERGY, line_on, meter, now, only, open_files, read

HOST = "127.0.0.1"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def modbus(port: int = 0) -> AsyncIterator[ModbusTcp]:
    """Serve an energy meter as unit 1 and a noise meter as unit 2."""
    server = ModbusTcp([sdm630(1), noise(2)])
    await server.start(port)
    try:
        yield server
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def peer(serve: Serve) -> AsyncIterator[int]:
    """Let something else listen, and return its port."""
    ended: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        ended.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended)
        await asyncio.sleep(0.1)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HOST, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_a_device_with_tcp_is_read_as_one_on_a_serial_line() -> None:
    async def main() -> None:
        async with modbus() as server, line_on(TcpWire(HOST, server.port)) as line:
            for _ in range(3):
                energy = await read(line, meter(1, ENERGY))
                assert energy == pytest.approx(server.slaves[1].truth(), rel=1e-6)
                assert await read(line, meter(2)) == server.slaves[2].truth()
                await asyncio.sleep(10)

    run(main(), TcpCanary())


def test_a_device_that_is_not_there_is_told_at_once_and_found_when_it_comes() -> None:
    async def main() -> None:
        port = free_port()
        async with line_on(TcpWire(HOST, port)) as line:
            for _ in range(5):
                before = now()
                with pytest.raises(PortGone, match=f"{HOST}:{port} cannot be reached: Connection refused") as refused:
                    await read(line, meter(2))
                assert "[port]" in refused.value.hint
                assert now() == before
                await asyncio.sleep(10)
            async with modbus(port) as server:
                await asyncio.sleep(REOPEN_S + 0.1)
                assert await read(line, meter(2)) == server.slaves[2].truth()

    run(main(), TcpCanary())


@pytest.mark.parametrize("host", ["192.168.1..20", "m" * 64])
def test_a_host_with_a_name_that_none_can_have_is_gone(host: str) -> None:
    with pytest.raises(PortGone, match="cannot be reached: no host can have that name") as gone:
        asyncio.run(TcpWire(host, 502).open(lambda _data: None, lambda _error: None))
    assert "[port]" in gone.value.hint


def test_a_connection_that_is_closed_fails_the_asker_at_once_and_is_made_anew() -> None:
    async def main() -> None:
        async with modbus() as server, line_on(TcpWire(HOST, server.port)) as line:
            for _ in range(3):
                assert await read(line, meter(2)) == server.slaves[2].truth()
                server.slaves[2].faults.arm(SerialFault("close"))
                before = now()
                with pytest.raises(PortGone, match="closed the connection"):
                    await read(line, meter(2))
                assert now() - before < 0.01  # the server took 4 ms to close it
                await asyncio.sleep(REOPEN_S)
            assert server.slaves[2].faults.counts == {"close": 3}

    run(main(), TcpCanary())


def test_a_device_that_takes_requests_and_answers_none_costs_one_time_out_each() -> None:
    async def main() -> None:
        async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            while await reader.read(1000):
                pass

        async with peer(swallow) as port, line_on(TcpWire(HOST, port)) as line:
            await line.opened()
            for _ in range(3):
                before = now()
                with pytest.raises(NoReply):
                    await read(line, meter(2, timeout=0.5))
                assert now() - before == pytest.approx(0.5)  # and no pause before the next: its number tells it apart

    run(main(), TcpCanary())


def test_a_connection_on_which_nothing_is_answered_is_made_anew() -> None:
    async def main() -> None:
        connections = 0

        async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while await reader.read(1000):
                pass

        async with peer(swallow) as port, line_on(TcpWire(HOST, port)) as line:
            await line.opened()
            words = []
            for _ in range(100):
                try:
                    await read(line, meter(2, timeout=0.5))
                except (NoReply, PortGone) as error:
                    words.append(error.word)
            assert words[:60] == ["no-reply"] * 60  # half a minute: a bridge with a dead device behind it is no reason
            assert "port-gone" in words
            assert connections == 2

    run(main(), TcpCanary())


@pytest.mark.parametrize("late", [0.31, 0.5, 1.0, 5.0])
def test_a_late_answer_is_never_taken_for_the_next_one(late: float) -> None:
    async def main() -> None:
        channels = ("voltage_l1", "active_power", "energy_total")  # three requests of the same size
        device = meter(1, only(*channels))
        async with modbus() as server, line_on(TcpWire(HOST, server.port)) as line:
            truth = server.slaves[1].truth
            server.slaves[1].faults.arm(SerialFault("late", late))
            lost = 0
            for _ in range(25):
                since = now()
                try:
                    values = await read(line, device)
                except (NoReply, BadFrame):  # nothing came, or the late answer of the one before
                    lost += 1
                else:
                    for channel in channels:
                        seen = [truth(at)[channel] for at in (since, now())]
                        assert any(values[channel] == pytest.approx(value, rel=1e-6) for value in seen)
            assert 1 <= lost <= 1 + late / 0.3

    run(main(), TcpCanary())


def test_a_late_answer_that_comes_instead_of_the_next_one_is_told_as_that() -> None:
    async def main() -> None:
        async with modbus() as server, line_on(TcpWire(HOST, server.port)) as line:
            server.slaves[1].faults.arm(SerialFault("late", 0.35))
            with pytest.raises(NoReply, match=r"no reply in time$"):
                await read(line, meter(1, only("voltage_l1")))
            server.slaves[2].faults.arm(SerialFault("silent"))
            with pytest.raises(NoReply, match="a late one of unit 1 to an earlier question: ") as told:
                await read(line, meter(2))
            assert "`timeout`" in told.value.hint

    run(main(), TcpCanary())


def test_an_answer_with_another_number_is_none() -> None:
    async def main() -> None:
        async with modbus() as server, line_on(TcpWire(HOST, server.port)) as line:
            server.slaves[2].faults.arm(SerialFault("wrong_transaction"))
            with pytest.raises(BadFrame, match="no answer"):
                await read(line, meter(2))
            assert await read(line, meter(2)) == server.slaves[2].truth()

    run(main(), TcpCanary())


def test_an_answer_in_pieces_is_put_together() -> None:
    async def main() -> None:
        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                request = await reader.readexactly(12)
                for byte in request[:4] + b"\x00\x05\x02\x03\x02\x02\x45":  # 58.1 dB
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.01)

        async with peer(trickle) as port, line_on(TcpWire(HOST, port)) as line:
            for _ in range(3):
                assert await read(line, meter(2)) == {"sound_level": 58.1}

    run(main(), TcpCanary())


def test_a_device_that_closes_every_connection_at_once_is_not_hammered() -> None:
    connections = 0

    async def main() -> None:
        async def close(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1

        async with peer(close) as port, line_on(TcpWire(HOST, port)):
            await asyncio.sleep(600)

    with capture_logs() as lines:
        run(main(), TcpCanary())
    assert connections == pytest.approx(600 / REOPEN_S, abs=2)
    assert len(lines) <= 2 * 11  # once a minute: it is open, it is gone


def test_a_device_that_talks_without_an_end_is_held_in_bounded_memory() -> None:
    async def main() -> None:
        async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"\x00\x01\x00\x00" * 20_000)
                await writer.drain()
                await asyncio.sleep(0.001)

        sizes: list[int] = []

        def seek(buffer: bytes) -> None:
            sizes.append(len(buffer))

        async with peer(flood) as port, line_on(TcpWire(HOST, port)) as line:
            with pytest.raises(BadFrame, match=f"{MOST_HELD} bytes came that are no answer: .* \\.\\.\\.$"):
                await LinePort(line, "it", 0.1).ask(b"?", seek, size=10, tagged=True)
        assert max(sizes) == MOST_HELD

    run(main(), TcpCanary())


def test_a_host_that_does_not_answer_is_given_up_after_some_seconds() -> None:
    async def main() -> None:
        with socket.create_server((HOST, 0), backlog=0) as deaf, contextlib.ExitStack() as waiting:
            port = deaf.getsockname()[1]
            for _ in range(4):  # its queue is full then, and the kernel drops who comes
                sock = waiting.enter_context(socket.socket())
                sock.settimeout(0)
                sock.connect_ex((HOST, port))
            wire = TcpWire(HOST, port)
            before = now()
            with pytest.raises(PortGone, match=f"{HOST}:{port} does not answer within {CONNECT_S:.0f} s"):
                await wire.open(lambda _data: None, lambda _error: None)
            assert now() - before == pytest.approx(CONNECT_S)

    run(main())


def peers_of(port: int) -> list[int]:
    """Return duplicates of our sockets that are connected to a port."""
    found = []
    for fd in map(int, (path.name for path in Path("/proc/self/fd").iterdir())):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
            if sock.getpeername()[1:2] == (port,):
                found.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


def test_a_peer_that_vanished_without_a_word_is_noticed_by_the_kernel_in_seconds() -> None:
    async def main() -> None:
        async with modbus() as server, line_on(TcpWire(HOST, server.port)) as line:
            await line.opened()
            assert peers_of(server.port) == [UNACKNOWLEDGED_MS]

    run(main(), TcpCanary())


def test_an_ended_line_closes_its_connection() -> None:
    async def main() -> None:
        ends: list[bytes | str] = []

        async def note(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            try:
                ends.append(await reader.read(100))
            except ConnectionResetError:
                ends.append("reset")

        async with peer(note) as port:
            with capture_logs() as lines:
                async with line_on(TcpWire(HOST, port)) as line:
                    await line.opened()
                    await asyncio.sleep(1)
                    assert ends == []
                await asyncio.sleep(1)
            assert ends in ([b""], ["reset"])
            assert [entry["event"] for entry in lines] == ["port is open"]  # what we close ourselves is not lost

    run(main(), TcpCanary())


def test_a_line_ended_amid_connecting_leaves_nothing_behind() -> None:
    async def main() -> None:
        with socket.create_server((HOST, 0), backlog=0) as deaf, contextlib.ExitStack() as waiting:
            port = deaf.getsockname()[1]
            for _ in range(4):
                sock = waiting.enter_context(socket.socket())
                sock.settimeout(0)
                sock.connect_ex((HOST, port))
            before = open_files()
            job = asyncio.create_task(Line("it", TcpWire(HOST, port)).run())
            await asyncio.sleep(1)
            assert open_files() == before + 1
            job.cancel()
            await asyncio.wait([job])
            assert open_files() == before

    run(main())

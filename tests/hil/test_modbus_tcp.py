"""Modbus slaves behind a TCP socket: headers, order, and what goes wrong."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from hil.faults import SerialFault
from hil.modbus_tcp import ModbusTcp, TcpCanary
from hil.twins.modbus import noise, sdm630
from hil.vclock import run

VOLTS = bytes.fromhex("0400000002")
LEVEL = bytes.fromhex("0300000001")


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, transaction: int, unit: int, pdu: bytes, protocol: int = 0) -> None:
        """Send a request."""
        header = transaction.to_bytes(2, "big") + protocol.to_bytes(2, "big") + (len(pdu) + 1).to_bytes(2, "big")
        self.writer.write(header + bytes((unit,)) + pdu)

    async def receive(self) -> tuple[int, int, bytes]:
        """Return transaction, unit and PDU of the next answer that comes within two seconds."""
        async with asyncio.timeout(2):
            header = await self.reader.readexactly(7)
            assert header[2:4] == b"\0\0"
            pdu = await self.reader.readexactly(int.from_bytes(header[4:6], "big") - 1)
            return int.from_bytes(header[:2], "big"), header[6], pdu


def play(scene: Callable[[ModbusTcp, Client], Awaitable[None]]) -> None:
    """Run a scene with an SDM630 as unit 1 and a noise meter as unit 2."""

    async def main() -> None:
        server = ModbusTcp([sdm630(1), noise(2)])
        await server.start()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(server.close)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            await scene(server, Client(reader, writer))

    run(main(), TcpCanary())


def test_several_units_answer_on_one_port() -> None:
    async def scene(server: ModbusTcp, client: Client) -> None:
        for transaction, unit, pdu in ((0x1234, 1, VOLTS), (0xFFFF, 2, LEVEL)):
            client.send(transaction, unit, pdu)
            assert await client.receive() == (transaction, unit, server.slaves[unit].answer(pdu))

    play(scene)


def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    async def scene(server: ModbusTcp, client: Client) -> None:
        server.slaves[1].faults.arm(SerialFault("late", 0.5))
        for transaction in range(5):
            client.send(transaction, 1 + transaction % 2, VOLTS)
        answers = [await client.receive() for _ in range(5)]
        assert [answer[0] for answer in answers] == [0, 1, 2, 3, 4]
        assert asyncio.get_running_loop().time() == pytest.approx(0.5 + 5 * 0.004)

    play(scene)


def test_a_request_in_two_pieces_is_one_request() -> None:
    async def scene(_: ModbusTcp, client: Client) -> None:
        whole = bytes.fromhex("000100000006 01 0400000002")
        client.writer.write(whole[:5])
        await asyncio.sleep(1)
        client.writer.write(whole[5:])
        assert (await client.receive())[:2] == (1, 1)

    play(scene)


def test_a_unit_that_does_not_exist_is_said_so_and_a_dead_one_is_not() -> None:
    async def scene(server: ModbusTcp, client: Client) -> None:
        client.send(1, 9, VOLTS)
        assert await client.receive() == (1, 9, b"\x84\x0b")
        server.slaves[1].alive = False
        client.send(2, 1, VOLTS)
        with pytest.raises(TimeoutError):
            await client.receive()

    play(scene)


def test_faults_strike_once() -> None:
    async def scene(server: ModbusTcp, client: Client) -> None:
        faults = server.slaves[1].faults
        faults.arm(SerialFault("silent"))
        client.send(1, 1, VOLTS)
        with pytest.raises(TimeoutError):
            await client.receive()
        faults.arm(SerialFault("wrong_transaction"))
        client.send(2, 1, VOLTS)
        assert (await client.receive())[0] == 2 ^ 0x5555
        faults.arm(SerialFault("exception", 6))
        client.send(3, 1, VOLTS)
        assert await client.receive() == (3, 1, b"\x84\x06")
        faults.arm(SerialFault("wrong_fc"))
        client.send(4, 1, VOLTS)
        assert (await client.receive())[2][:1] == b"\x03"
        client.send(5, 1, VOLTS)
        assert await client.receive() == (5, 1, server.slaves[1].answer(VOLTS))
        assert faults.counts == {"silent": 1, "wrong_transaction": 1, "exception": 1, "wrong_fc": 1}
        assert server.slaves[1].counts == {"seen": 5, "answered": 4}

    play(scene)


def test_a_closed_connection_can_be_made_again() -> None:
    async def scene(server: ModbusTcp, client: Client) -> None:
        server.slaves[1].faults.arm(SerialFault("close"))
        client.send(1, 1, VOLTS)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.receive()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.closing(writer):
            again = Client(reader, writer)
            again.send(2, 1, VOLTS)
            assert (await again.receive())[0] == 2

    play(scene)


@pytest.mark.parametrize("garbage", ["0001 0001 0006 01 0400000002", "0001 0000 0001 01", "0001 0000 00ff 01"])
def test_a_stream_out_of_step_is_closed(garbage: str) -> None:
    async def scene(_: ModbusTcp, client: Client) -> None:
        client.writer.write(bytes.fromhex(garbage))
        with pytest.raises(asyncio.IncompleteReadError):
            await client.receive()

    play(scene)


def test_a_server_that_was_closed_comes_back_on_its_port() -> None:
    async def scene(server: ModbusTcp, client: Client) -> None:
        port = server.port
        await server.close()
        with pytest.raises(asyncio.IncompleteReadError):
            await client.receive()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await server.start(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            again = Client(reader, writer)
            again.send(7, 2, LEVEL)
            assert (await again.receive())[0] == 7

    play(scene)

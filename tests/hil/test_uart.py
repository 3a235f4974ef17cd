"""One device on one wire: answering, talking, replaying, going wrong."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from hil.faults import Kind, SerialFault
from hil.line import Mode
from hil.uart import Answers, Replay, Talks, Uart
from hil.vclock import run
from hil.wire import Wire
from tests.hil.port import Port

CHAR_S = 10 / 9600
TICK = b"tick 0123456789\n"

Scene = Callable[[Uart, Port], Coroutine[None, None, None]]


class Echo:
    """Answers each line in capitals."""

    turnaround_s = 0.01

    def __init__(self) -> None:
        self.line = b""

    def hear(self, data: bytes) -> bytes:
        """Answer when a line is complete."""
        self.line += data
        if not self.line.endswith(b"\n"):
            return b""
        line, self.line = self.line, b""
        return line.upper()


class Both(Echo):
    """Answers, and ticks once a second."""

    period = 1.0

    def speak(self) -> bytes:
        """Tick."""
        return TICK


def play(
    link: Path,
    device: Answers | Talks,
    scene: Scene,
    *,
    mode: Mode = "fifo",
    seed: int = 1,
    baud: int | None = None,
) -> None:
    async def main() -> None:
        with contextlib.closing(Uart(Wire(link), device, seed=seed, mode=mode, baud=baud)) as uart:
            uart.plug()
            with Port(link) as port:
                await scene(uart, port)

    run(main())


def test_an_answer_takes_both_ways_time(tmp_path: Path) -> None:
    async def scene(uart: Uart, port: Port) -> None:
        assert await port.ask(b"hello\n") == b"HELLO\n"
        assert port.trace[0][0] == pytest.approx(6 * CHAR_S + 0.01 + CHAR_S, abs=1e-8)
        assert port.trace[-1][0] == pytest.approx(6 * CHAR_S + 0.01 + 6 * CHAR_S, abs=1e-8)
        assert uart.counts == {"heard": 6, "answered": 1}

    play(tmp_path / "port", Echo(), scene, mode="uart")


def test_a_device_frames_what_comes_in_pieces_by_itself(tmp_path: Path) -> None:
    async def scene(_: Uart, port: Port) -> None:
        assert await port.ask(b"hel") == b""
        assert await port.ask(b"lo\n") == b"HELLO\n"

    play(tmp_path / "port", Echo(), scene)


def test_at_another_speed_both_hear_noise(tmp_path: Path) -> None:
    device = Both()

    async def scene(uart: Uart, port: Port) -> None:
        assert await port.ask(b"hello\n", 0.9) == b""
        assert (len(device.line), device.line != b"hello\n") == (6, True)
        await asyncio.sleep(0.5)
        assert (len(port.received), port.received != TICK) == (len(TICK), True)
        port.serial.baudrate = 19_200
        device.line = b""
        await asyncio.sleep(0.1)
        assert await port.ask(b"hello\n") == b"HELLO\n"
        await asyncio.sleep(0.5)
        assert port.received.endswith(TICK)
        assert uart.counts["spoken"] == 2

    play(tmp_path / "port", device, scene, baud=19_200)


def test_a_talker_keeps_its_period_and_does_not_drift(tmp_path: Path) -> None:
    async def scene(uart: Uart, port: Port) -> None:
        await asyncio.sleep(10.5)
        assert port.received == TICK * 10
        ends = [at for at, data in port.trace if data.endswith(b"\n")]
        assert ends == pytest.approx([n + (16 + 4) * CHAR_S for n in range(1, 11)], abs=1e-8)
        assert uart.counts["spoken"] == 10

    play(tmp_path / "port", Both(), scene)


def test_gateway_and_device_may_talk_at_the_same_time(tmp_path: Path) -> None:
    async def scene(uart: Uart, port: Port) -> None:
        await asyncio.sleep(1.0 + 2 * CHAR_S)
        received = await port.ask(b"hi\n")
        assert received == TICK + b"HI\n"
        assert uart.counts["garbled"] == 0

    play(tmp_path / "port", Both(), scene)


def test_a_device_does_not_talk_over_itself(tmp_path: Path) -> None:
    async def scene(uart: Uart, port: Port) -> None:
        await asyncio.sleep(4.5)
        # 2000 characters take 2.08 s: each third tick finds it free again.
        assert uart.counts == {"spoken": 2, "dropped": 2}
        await asyncio.sleep(2.0)
        assert port.received == (b"a" * 2000) + (b"b" * 2000)

    play(tmp_path / "port", Replay([b"a" * 2000, b"b" * 2000], 1.0), scene)


def test_a_recording_is_played_once_or_for_ever(tmp_path: Path) -> None:
    async def scene(_: Uart, port: Port) -> None:
        await asyncio.sleep(2.2)
        assert port.received == b"onetwothree"

    async def endless(_: Uart, port: Port) -> None:
        await asyncio.sleep(2.2)
        assert port.received == b"onetwothree" * 3 + b"one"

    play(tmp_path / "port", Replay([b"one", b"two", b"three"], 0.2), scene)
    play(tmp_path / "port", Replay([b"one", b"two", b"three"], 0.2, for_ever=True), endless)


def test_a_dead_device_neither_hears_nor_talks(tmp_path: Path) -> None:
    async def scene(uart: Uart, port: Port) -> None:
        uart.alive = False
        assert await port.ask(b"hello\n", wait=2.5) == b""
        uart.alive = True
        assert await port.ask(b"hello\n", wait=0.3) == b"HELLO\n"
        assert await port.ask(b"", wait=1.0) == TICK

    play(tmp_path / "port", Both(), scene)


@pytest.mark.parametrize(
    ("kind", "arg", "shows"),
    [
        ("silent", 1, lambda bad: bad == b""),
        ("flip", 1, lambda bad: len(bad) == 16 and sum(a != b for a, b in zip(bad, TICK, strict=True)) == 1),
        ("truncate", 6, lambda bad: bad == TICK[:-6]),
        ("truncate", 20, lambda bad: bad == b""),
        ("pre_noise", 2, lambda bad: len(bad) == 18 and bad.endswith(TICK)),
        ("pre_zero", 1, lambda bad: bad == b"\0" + TICK),
        ("post_noise", 3, lambda bad: len(bad) == 19 and bad.startswith(TICK)),
        ("garbage", 1, lambda bad: len(bad) == 16 and sum(a != b for a, b in zip(bad, TICK, strict=True)) > 8),
        ("dup", 1, lambda bad: bad == TICK * 2),
        ("close", 1, lambda bad: bad == TICK),  # it has no meaning here
    ],
)
def test_a_fault_is_seen_on_the_wire_once(
    tmp_path: Path, kind: Kind, arg: float, shows: Callable[[bytes], bool]
) -> None:
    async def scene(uart: Uart, port: Port) -> None:
        uart.faults.arm(SerialFault(kind, arg))
        assert shows(await port.ask(b"", wait=1.5))
        assert await port.ask(b"", wait=1.0) == TICK
        assert uart.faults.counts == ({} if kind == "close" else {kind: 1})

    play(tmp_path / "port", Both(), scene)


def test_a_late_message_comes_late(tmp_path: Path) -> None:
    async def scene(uart: Uart, port: Port) -> None:
        uart.faults.arm(SerialFault("late", 0.25))
        await asyncio.sleep(2.5)
        ends = [at for at, data in port.trace if data.endswith(b"\n")]
        assert ends == pytest.approx([1.25 + 20 * CHAR_S, 2.0 + 20 * CHAR_S], abs=1e-8)

    play(tmp_path / "port", Both(), scene)


def test_a_babbler_garbles_the_device(tmp_path: Path) -> None:
    async def scene(uart: Uart, port: Port) -> None:
        await asyncio.sleep(0.9)
        heard = await port.ask(b"", wait=1.0)
        assert heard == TICK
        uart.babble(0.2)
        heard = await port.ask(b"", wait=1.0)
        assert TICK not in heard
        assert uart.counts["garbled"] == 32
        assert await port.ask(b"", wait=1.0) == TICK

    play(tmp_path / "port", Both(), scene)


def test_it_talks_on_when_the_adapter_is_replugged(tmp_path: Path) -> None:
    async def scene(uart: Uart, port: Port) -> None:
        await asyncio.sleep(1.0 + 4.5 * CHAR_S)
        uart.unplug()
        await asyncio.sleep(0.001)
        assert str(port.error).startswith("device reports readiness to read but returned no data")
        await asyncio.sleep(1.5)
        uart.plug()
        with Port(uart.wire.link) as again:
            assert await again.ask(b"", wait=1.0) == TICK

    play(tmp_path / "port", Both(), scene)


def faulty_minutes(link: Path, seed: int) -> str:
    digest = hashlib.sha256()

    async def scene(uart: Uart, port: Port) -> None:
        uart.faults.arm(SerialFault("flip", 2, times=None, p=0.3))
        uart.faults.arm(SerialFault("late", 0.6, times=None, p=0.3))
        for _ in range(50):
            await port.ask(b"a question\n", wait=2.3)
            uart.babble(0.05)
            digest.update(repr(port.trace).encode())

    play(link, Both(), scene, seed=seed)
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_bytes_at_the_same_times(tmp_path: Path) -> None:
    link = tmp_path / "port"
    first = faulty_minutes(link, seed=7)
    assert faulty_minutes(link, seed=7) == first
    assert faulty_minutes(link, seed=8) != first

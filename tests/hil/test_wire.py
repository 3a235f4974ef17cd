"""A pty as a USB-serial adapter."""

import asyncio
import contextlib
from pathlib import Path

import pytest
import serial

from hil.timer import Timer
from hil.vclock import run
from hil.wire import Wire
from tests.hil.port import Port

NAME = "serial/by-id/usb-HIL_RS485_0001-if00-port0"


def test_bytes_go_both_ways_unchanged(tmp_path: Path) -> None:
    every_byte = bytes(range(256))

    async def main() -> tuple[bytes, bytes]:
        wire = Wire(tmp_path / NAME)
        heard = bytearray()
        wire.on_bytes = heard.extend
        wire.plug()
        with Port(wire.link) as port:
            wire.send(every_byte)
            port.serial.write(every_byte)
            await asyncio.sleep(0.1)
            wire.unplug()
            return port.received, bytes(heard)

    assert run(main()) == (every_byte, every_byte)


def test_the_wire_sees_the_settings_of_its_opener(tmp_path: Path) -> None:
    async def main() -> list[tuple[int, float]]:
        wire = Wire(tmp_path / NAME)
        wire.plug()
        seen = []
        for baud, stopbits in ((9600, 1), (19200, 2), (250_000, 1)):
            with Port(wire.link, baud, stopbits=stopbits):
                seen.append((wire.baud, wire.char_s))
        wire.unplug()
        return seen

    assert run(main()) == [(9600, 10 / 9600), (19200, 11 / 19200), (250_000, 10 / 250_000)]


def test_settings_outlive_the_plug(tmp_path: Path) -> None:
    async def main() -> float:
        wire = Wire(tmp_path / NAME)
        wire.plug()
        with Port(wire.link, 1200):
            assert wire.baud == 1200
        wire.unplug()
        return wire.char_s

    assert run(main()) == 10 / 1200


def test_unplugged_while_read_looks_like_a_pulled_adapter(tmp_path: Path) -> None:
    async def main() -> None:
        wire = Wire(tmp_path / NAME)
        wire.plug()
        with Port(wire.link) as port:
            wire.unplug()
            await asyncio.sleep(0.1)
            # Texts and types of hil.md 2.1, where a QEMU FTDI gave the same.
            assert str(port.error).startswith("device reports readiness to read but returned no data")
            with pytest.raises(serial.SerialException, match="Input/output error"):
                port.serial.write(b"x")
            with pytest.raises(OSError, match="Input/output error"):
                _ = port.serial.in_waiting
            assert not wire.link.is_symlink()
            with pytest.raises(serial.SerialException, match="No such file"):
                serial.Serial(str(wire.link))

    run(main())


@pytest.mark.parametrize("held_open", [True, False])
def test_a_replugged_adapter_has_another_number(tmp_path: Path, *, held_open: bool) -> None:
    async def main() -> tuple[Path, Path]:
        wire = Wire(tmp_path / NAME)
        wire.plug()
        before = wire.link.readlink()
        with Port(wire.link) if held_open else contextlib.nullcontext():
            wire.unplug()
            wire.plug()
        after = wire.link.readlink()
        with Port(wire.link) as port:
            wire.send(b"again")
            await asyncio.sleep(0.1)
            assert port.received == b"again"
        wire.unplug()
        return before, after

    before, after = run(main())
    assert before != after


def test_bytes_nobody_reads_are_lost_without_blocking(tmp_path: Path) -> None:
    async def main() -> tuple[int, bytes]:
        wire = Wire(tmp_path / NAME)
        wire.plug()
        wire.send(b"first")
        for _ in range(100):
            wire.send(bytes(1000))
        kept = 100_005 - wire.lost
        wire.unplug()
        wire.send(b"into the void")
        return kept, bytes(wire.lost)

    kept, lost = run(main())
    assert 4096 <= kept < 100_000
    assert len(lost) == 100_005 - kept


def test_what_waited_for_an_earlier_opener_is_not_read_by_the_next(tmp_path: Path) -> None:
    async def main() -> bytes:
        wire = Wire(tmp_path / NAME)
        wire.plug()
        wire.send(b"stale")
        await asyncio.sleep(0.1)
        with Port(wire.link) as port:
            await asyncio.sleep(0.1)
            wire.unplug()
            return port.received

    assert run(main()) == b""


def test_plugging_twice_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        wire = Wire(tmp_path / NAME)
        wire.plug()
        try:
            with pytest.raises(RuntimeError, match="already plugged"):
                wire.plug()
        finally:
            wire.unplug()
            wire.unplug()

    run(main())


def test_on_a_real_loop_a_timer_is_not_early_and_not_a_millisecond_late() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        late = []
        for _ in range(20):
            # asyncio's own timer sleeps whole milliseconds: 3 ms for 2.1, so it is always 0.9 late.
            due = loop.time() + 0.0021
            rung = asyncio.Event()
            timer = Timer(rung.set)
            timer.set(due + 1.0)
            timer.set(due)
            await rung.wait()
            late.append(loop.time() - due)
            timer.close()
        return late

    late = asyncio.run(main())
    assert all(seconds >= 0 for seconds in late)
    assert min(late) < 0.0005


def test_a_timer_set_to_nothing_does_not_ring() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        rung: list[float] = []
        timer = Timer(lambda: rung.append(loop.time()))
        timer.set(loop.time() + 0.001)
        timer.set(None)
        await asyncio.sleep(0.003)
        timer.set(loop.time() - 1.0)
        await asyncio.sleep(0.003)
        timer.close()
        return rung

    assert len(asyncio.run(main())) == 1
    assert run(main()) == [pytest.approx(0.003)]


def test_a_timer_put_off_when_it_had_just_expired_rings_at_the_new_time_only() -> None:
    async def main() -> tuple[float, list[float]]:
        loop = asyncio.get_running_loop()
        rung: list[float] = []
        later = loop.time() + 0.01
        second = Timer(lambda: rung.append(loop.time()))
        first = Timer(lambda: second.set(later))
        first.set(loop.time() + 0.001)
        second.set(loop.time() + 0.0011)
        while loop.time() < later - 0.008:
            pass  # both expire before the loop looks
        await asyncio.sleep(0.015)
        first.close()
        second.close()
        return later, rung

    later, rung = asyncio.run(main())
    assert len(rung) == 1
    assert rung[0] >= later

"""Opening a serial port: set as asked, ours alone, and what a technician reads when it cannot be opened."""

import asyncio
import os
from pathlib import Path
from typing import Literal

import pytest

from drivers.contract import LineSettings, PortGone
from gateway.sensors.serial_wire import SerialWire
from hil.rs485 import silence_s
from hil.vclock import run
from hil.wire import Wire
from tests.sensors.stage import open_files


class End:
    """What a wire handed over: bytes, and why it was lost."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: list[PortGone] = []

    def on_data(self, data: bytes) -> None:
        """Take bytes."""
        self.data += data


async def opened(path: Path, settings: LineSettings | None = None) -> tuple[SerialWire, End]:
    """Open a port."""
    wire, end = SerialWire(str(path), settings or LineSettings()), End()
    await wire.open(end.on_data, end.lost.append)
    return wire, end


@pytest.mark.parametrize("baud", [1200, 4800, 9600, 19200, 38400, 115200, 250_000])
@pytest.mark.parametrize("stop_bits", [1, 2])
def test_speed_stop_bits_and_the_time_of_a_character_are_as_asked(
    tmp_path: Path, baud: int, stop_bits: Literal[1, 2]
) -> None:
    async def main() -> None:
        adapter = Wire(tmp_path / "port")
        adapter.plug()
        wire, _ = await opened(adapter.link, LineSettings(baud=baud, stop_bits=stop_bits))
        assert adapter.baud == baud
        assert wire.character_s == pytest.approx(adapter.char_s)
        assert wire.silence_s == pytest.approx(silence_s(baud, adapter.char_s))
        wire.close()
        adapter.unplug()

    run(main())


def test_a_parity_bit_makes_a_character_longer() -> None:
    assert SerialWire("", LineSettings(9600, "even", 1)).character_s == pytest.approx(11 / 9600)
    assert SerialWire("", LineSettings(9600, "odd", 2)).character_s == pytest.approx(12 / 9600)


def test_every_byte_goes_through_unchanged_both_ways(tmp_path: Path) -> None:
    async def main() -> None:
        every_byte = bytes(range(256))
        adapter = Wire(tmp_path / "port")
        came: list[bytes] = []
        adapter.on_bytes = came.append
        adapter.plug()
        wire, end = await opened(adapter.link)
        wire.write(every_byte)
        adapter.send(every_byte)
        await asyncio.sleep(1)
        assert b"".join(came) == every_byte
        assert end.data == every_byte
        wire.close()
        adapter.unplug()

    run(main())


def test_a_pulled_adapter_is_told_once_to_the_reader(tmp_path: Path) -> None:
    async def main() -> None:
        adapter = Wire(tmp_path / "port")
        adapter.plug()
        wire, end = await opened(adapter.link)
        adapter.unplug()
        await asyncio.sleep(1)
        (error,) = end.lost
        assert str(error) == f"{adapter.link} was pulled"
        assert "plugged in" in error.hint
        wire.write(b"to nobody")
        wire.close()
        assert len(end.lost) == 1

    run(main())


def test_a_write_to_a_pulled_adapter_is_told_before_the_reader_knows(tmp_path: Path) -> None:
    async def main() -> None:
        adapter = Wire(tmp_path / "port")
        adapter.plug()
        wire, end = await opened(adapter.link)
        adapter.unplug()
        wire.write(b"\x01")
        assert [str(error) for error in end.lost] == [f"{adapter.link} cannot be written: Input/output error"]
        await asyncio.sleep(1)
        assert len(end.lost) == 1

    run(main())


def test_an_adapter_that_takes_nothing_more_is_gone() -> None:
    async def main() -> None:
        master, slave = os.openpty()  # nobody reads the other end
        wire, end = await opened(Path(os.ttyname(slave)))
        for _ in range(1000):
            wire.write(bytes(255))
        assert len(end.lost) == 1
        os.close(master)
        os.close(slave)

    run(main())


async def refusal(path: Path, settings: LineSettings | None = None) -> PortGone:
    """Return why a port cannot be opened."""
    with pytest.raises(PortGone) as refused:
        await opened(path, settings)
    return refused.value


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    error = run(refusal(tmp_path / "usb-FTDI-if00-port0"))
    assert str(error) == f"{tmp_path}/usb-FTDI-if00-port0 is not there"
    assert "plugged in" in error.hint


def test_a_port_that_is_in_use_names_the_command_that_shows_by_whom(tmp_path: Path) -> None:
    async def main() -> None:
        adapter = Wire(tmp_path / "port")
        adapter.plug()
        wire, _ = await opened(adapter.link)
        error = await refusal(adapter.link)
        assert str(error) == f"{adapter.link} is in use"
        assert f"fuser -v {adapter.link}" in error.hint
        wire.close()
        again, _ = await opened(adapter.link)  # a refused opener does not hold it
        again.close()
        adapter.unplug()

    run(main())


def test_a_file_that_is_no_port_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a tty")
    assert "cannot be opened" in str(run(refusal(path)))
    assert "cannot be opened" in str(run(refusal(tmp_path)))


def test_a_port_that_lacks_the_parity_is_refused_and_not_a_crash(tmp_path: Path) -> None:
    async def main() -> None:
        adapter = Wire(tmp_path / "port")
        adapter.plug()
        even = LineSettings(parity="even")
        wire, _ = await opened(adapter.link, even)
        wire.close()
        # The kernel drops parity on a pty, and says so (EINVAL) to whoever asks for it a second time.
        error = await refusal(adapter.link, even)
        assert str(error) == f"{adapter.link} cannot be set to 9600 baud 8E1: (22, 'Invalid argument')"
        assert "manuals" in error.hint
        plain, _ = await opened(adapter.link)
        plain.close()
        adapter.unplug()

    run(main())


def test_a_baud_that_no_port_can_have_is_refused_and_not_a_crash(tmp_path: Path) -> None:
    async def main() -> None:
        adapter = Wire(tmp_path / "port")
        adapter.plug()
        error = await refusal(adapter.link, LineSettings(baud=99_999_999_999))  # as anybody's driver may say
        assert str(error).startswith(f"{adapter.link} cannot be set to 99999999999 baud 8N1: ")
        assert "manuals" in error.hint
        adapter.unplug()

    run(main())


def test_a_port_that_may_not_be_opened_names_the_command_that_lets_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "port").touch()
    monkeypatch.setattr("serial.serialposix.os.open", refuse)  # root, who may run this, may open everything
    error = run(refusal(tmp_path / "port"))
    assert str(error) == f"{tmp_path}/port may not be opened"
    assert "usermod -aG dialout" in error.hint


def test_opening_and_closing_leaves_no_file_open(tmp_path: Path) -> None:
    async def main() -> None:
        adapter = Wire(tmp_path / "port")
        adapter.plug()
        before = open_files()
        for _ in range(5):
            wire, _ = await opened(adapter.link)
            await refusal(adapter.link)
            await refusal(tmp_path / "nothing")
            wire.close()
            wire.close()
        assert open_files() == before
        adapter.unplug()

    run(main())

"""A port that comes and goes: whoever asks is told at once, and nobody's help is needed to go on."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from drivers.contract import LineSettings, PortGone
from gateway.sensors.line import REOPEN_S
from gateway.sensors.serial_wire import SerialWire
from hil.rs485 import Rs485
from hil.twins.modbus import noise
from hil.vclock import run
from hil.wire import Wire
from tests.sensors.stage import line_on, meter, now, read, rs485


def test_a_port_that_is_not_there_is_told_at_once_and_opened_when_it_comes(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Rs485(Wire(tmp_path / "port"), [noise(1)])
        async with line_on(SerialWire(str(tmp_path / "port"), LineSettings())) as line:
            for _ in range(13):
                with pytest.raises(PortGone, match="port is not there"):
                    await read(line, meter(1))
                await asyncio.sleep(0.9)
            assert now() == pytest.approx(11.7)  # no ask took any time
            pair.plug()
            await asyncio.sleep(REOPEN_S)
            assert await read(line, meter(1)) == pair.slaves[1].truth()
        pair.close()

    run(main())


def test_who_asks_before_the_port_was_tried_is_not_told_that_it_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Rs485(Wire(tmp_path / "port"), [noise(1)])
        pair.plug()
        async with line_on(SerialWire(str(tmp_path / "port"), LineSettings())) as line:
            assert await read(line, meter(1)) == pair.slaves[1].truth()
        pair.close()

    run(main())


# Before the request is out, amid it, while the slave thinks, amid the answer.
@pytest.mark.parametrize("after", [0.001, 0.006, 0.017, 0.022])
def test_a_pulled_adapter_fails_the_asker_at_once(tmp_path: Path, after: float) -> None:
    async def main() -> None:
        async with rs485(tmp_path / "port", [noise(1)]) as (pair, line):
            await asyncio.sleep(10)
            asking = asyncio.create_task(read(line, meter(1)))
            await asyncio.sleep(after)
            pair.unplug()
            with pytest.raises(PortGone):
                await asking
            assert now() - 10 - after < 0.004

    run(main())


def test_an_adapter_that_is_pulled_as_the_request_goes_out_fails_the_asker_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        def pull(way: str, _: bytes) -> None:
            if way == ">":
                pair.unplug()

        async with rs485(tmp_path / "port", [noise(1)], tap=pull) as (pair, line):
            await asyncio.sleep(10)
            with pytest.raises(PortGone, match="cannot be written"):
                await read(line, meter(1))
            assert now() == pytest.approx(10)

    run(main())


def test_an_adapter_that_is_back_before_anybody_looked_still_fails_the_asker_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with rs485(tmp_path / "port", [noise(1)]) as (pair, line):
            await asyncio.sleep(10)
            asking = asyncio.create_task(read(line, meter(1)))
            await asyncio.sleep(0.017)
            pair.unplug()
            pair.plug()
            with pytest.raises(PortGone, match="was pulled"):
                await asking
            assert now() == pytest.approx(10.017)
            assert await read(line, meter(1)) == pair.slaves[1].truth()

    run(main())


def test_a_replugged_adapter_is_found_under_its_new_number(tmp_path: Path) -> None:
    async def main() -> None:
        numbers = set()
        link = tmp_path / "port"
        async with rs485(link, [noise(1)]) as (pair, line):
            for away in (0.0, 0.5, 30.0, 600.0):
                numbers.add(link.readlink())
                pair.unplug()
                await asyncio.sleep(away)
                pair.plug()
                await asyncio.sleep(REOPEN_S + 0.1)
                assert await read(line, meter(1)) == pair.slaves[1].truth()
            numbers.add(link.readlink())
        assert len(numbers) > 1

    run(main())


def test_the_log_tells_a_loss_once_and_a_return_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with rs485(tmp_path / "port", [noise(1)]) as (pair, _):
            await asyncio.sleep(100)
            pair.unplug()
            await asyncio.sleep(30)
            pair.plug()
            await asyncio.sleep(30)

    with capture_logs() as lines:
        run(main())
    assert [(line["log_level"], line["port"]) for line in lines] == [
        ("info", "bus"),
        ("warning", "bus"),
        ("info", "bus"),
    ]
    assert lines[1]["event"].endswith("port was pulled")
    assert "plugged in" in lines[1]["hint"]


def test_a_port_that_comes_and_goes_all_the_time_is_told_once_a_minute(tmp_path: Path) -> None:
    async def main() -> None:
        async with rs485(tmp_path / "port", [noise(1)]) as (pair, _):
            for _ in range(200):
                pair.unplug()
                await asyncio.sleep(1.5)
                pair.plug()
                await asyncio.sleep(1.5)

    with capture_logs() as lines:
        run(main())
    assert 10 <= len([line for line in lines if line["log_level"] == "warning"]) <= 11  # ten minutes
    assert len(lines) <= 23


def test_an_ended_line_leaves_its_port_to_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with rs485(tmp_path / "port", [noise(1)]) as (pair, line):
            await read(line, meter(1))
            for _ in range(3):
                async with line_on(SerialWire(str(tmp_path / "port"), LineSettings())) as other:
                    with pytest.raises(PortGone, match="is in use"):
                        await read(other, meter(1))
            pair.unplug()
        pair = Rs485(Wire(tmp_path / "port"), [noise(1)])
        pair.plug()
        for _ in range(3):
            async with line_on(SerialWire(str(tmp_path / "port"), LineSettings())) as line:
                assert await read(line, meter(1)) == pair.slaves[1].truth()
        pair.close()

    run(main())

"""Who speaks on a line, and when: one at a time, in order, after a silence, and not to a device that may be late."""

import asyncio
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivers.contract import BadFrame, NoReply
from drivers.modbus import Modbus
from gateway.sensors.line import BABBLE_S, LATE_S, Line, LinePort
from hil.faults import SerialFault
from hil.rs485 import Rs485, silence_s
from hil.twins.modbus import ModbusSlave, noise, sdm630
from hil.vclock import run
from tests.sensors.stage import meter, now, only, read, rs485


@dataclass
class Record:
    """What the gateway and the slaves put on the wires: from when to when."""

    requests: list[tuple[float, float, bytes]] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)

    def follow(self, pair: Rs485) -> None:
        """Note each request as it leaves the gateway, and how long it takes on the wires."""
        pass_on, char_s = pair.wire.on_bytes, pair.wire.char_s

        def note(data: bytes) -> None:
            self.requests.append((now(), now() + len(data) * char_s, data))
            pass_on(data)

        pair.wire.on_bytes = note

    def tap(self, way: str, _data: bytes) -> None:
        """Note each character that arrives; through a plain UART that is when its last bit is over."""
        if way == "<":
            self.answered_at.append(now())

    @property
    def silences(self) -> list[float]:
        """How long nobody had spoken before each request but the first."""
        ends = sorted([end for _, end, _ in self.requests] + self.answered_at)
        return [start - max(end for end in ends if end <= start) for start, _, _ in self.requests[1:]]


@pytest.mark.parametrize("baud", [1200, 9600, 19200, 115200])
def test_every_request_begins_after_a_frame_s_silence_and_wastes_no_more(tmp_path: Path, baud: int) -> None:
    async def main() -> None:
        record = Record()
        units = range(1, 6)
        async with rs485(tmp_path / "port", map(noise, units), baud=baud, tap=record.tap) as (pair, line):
            record.follow(pair)
            for _ in range(5):
                await asyncio.gather(*(read(line, meter(unit)) for unit in units))
            wanted = silence_s(pair.wire.baud, pair.wire.char_s)
        assert len(record.requests) == 25
        assert record.silences == [pytest.approx(wanted, abs=1e-6)] * 24

    run(main())


def test_after_opening_too_nobody_speaks_before_a_frame_s_silence(tmp_path: Path) -> None:
    async def main() -> None:
        record = Record()
        async with rs485(tmp_path / "port", [noise(1)]) as (pair, line):
            record.follow(pair)
            pair.unplug()
            await asyncio.sleep(5)
            pair.plug()
            await line.opened()
            opened = now()
            await read(line, meter(1))
            assert record.requests[0][0] - opened >= 3.5 * pair.wire.char_s

    run(main())


def test_one_asks_at_a_time_in_the_order_they_came(tmp_path: Path) -> None:
    async def main() -> None:
        record = Record()
        units = [3, 1, 5, 2, 4]
        async with rs485(tmp_path / "port", map(noise, units), tap=record.tap) as (pair, line):
            pair.slaves[5].alive = False
            record.follow(pair)
            await asyncio.gather(*(read(line, meter(unit)) for unit in units), return_exceptions=True)
            assert pair.counts["garbled"] == 0
        assert [data[0] for _, _, data in record.requests] == units
        for (_, end, _), (start, _, _) in itertools.pairwise(record.requests):
            assert start > end + 3.5 * 10 / 9600

    run(main())


def test_a_cancelled_asker_gives_its_turn_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with rs485(tmp_path / "port", [noise(1), noise(2), noise(3)]) as (pair, line):
            pair.slaves[1].alive = False
            first, second, third = (asyncio.create_task(read(line, meter(unit))) for unit in (1, 2, 3))
            await asyncio.sleep(0.1)
            second.cancel()  # it waits for its turn
            await asyncio.sleep(0.1)
            first.cancel()  # it waits for its answer
            async with asyncio.timeout(0.1):
                assert await third == pair.slaves[3].truth()
            assert await read(line, meter(2)) == pair.slaves[2].truth()

    run(main())


def test_a_cancelled_request_is_let_out_before_the_next_begins(tmp_path: Path) -> None:
    async def main() -> None:
        record = Record()
        async with rs485(tmp_path / "port", [noise(2)], baud=1200) as (pair, line):
            record.follow(pair)
            await asyncio.sleep(1)
            asking = asyncio.create_task(read(line, meter(1)))  # nobody
            await asyncio.sleep(0.01)
            asking.cancel()  # its eight characters take 67 ms
            assert await read(line, meter(2)) == pair.slaves[2].truth()
            (_, end, _), (start, _, _) = record.requests
            assert start == pytest.approx(end + 3.5 * pair.wire.char_s)

    run(main())


@pytest.mark.parametrize("baud", [1200, 9600, 115200])
def test_a_time_out_begins_when_the_request_is_out_and_leaves_the_answer_its_time(tmp_path: Path, baud: int) -> None:
    async def main() -> None:
        turnaround = 0.3 - 1e-4 - silence_s(baud, 10 / baud)
        async with rs485(tmp_path / "port", [noise(1, turnaround_s=turnaround)], baud=baud) as (pair, line):
            await asyncio.sleep(1)
            assert await read(line, meter(1)) == pair.slaves[1].truth()  # it began its answer just in time
            pair.slaves[1].alive = False
            began = now()
            with pytest.raises(NoReply):
                await read(line, meter(1))
            waited = silence_s(baud, 10 / baud)  # after the answer before
            assert now() - began == pytest.approx(waited + (8 + 7) * 10 / baud + 0.3, abs=1e-3)

    run(main())


def test_two_sections_that_read_the_same_unit_share_the_wait_for_its_late_answer(tmp_path: Path) -> None:
    async def main() -> None:
        energy, street = sdm630(1), noise(2)
        over: list[tuple[str, float]] = []

        async def ask(line: Line, slave: ModbusSlave, device: Modbus, channel: str) -> None:
            try:
                assert (await read(line, device))[channel] == pytest.approx(slave.truth()[channel], rel=1e-6)
                over.append((channel, now()))
            except NoReply:
                over.append(("nothing", now()))

        async with rs485(tmp_path / "port", [energy, street]) as (_, line):
            energy.faults.arm(SerialFault("late", 0.5))
            await asyncio.gather(
                ask(line, energy, meter(1, only("voltage_l1")), "voltage_l1"),
                ask(line, energy, meter(1, only("voltage_l2")), "voltage_l2"),  # waits for its turn meanwhile
                ask(line, street, meter(2), "sound_level"),
                ask(line, energy, meter(1, only("voltage_l3")), "voltage_l3"),
            )
        assert [channel for channel, _ in over] == ["nothing", "sound_level", "voltage_l2", "voltage_l3"]
        when = dict(over)
        assert when["sound_level"] < when["nothing"] + 0.1  # the other unit does not wait
        assert when["voltage_l2"] > when["nothing"] + LATE_S

    run(main())


def test_a_line_that_is_never_silent_is_told_and_not_talked_over(tmp_path: Path) -> None:
    async def main() -> None:
        record = Record()
        async with rs485(tmp_path / "port", [noise(1)]) as (pair, line):
            record.follow(pair)
            began = now()
            pair.babble(5.0)
            await asyncio.sleep(0.1)
            with pytest.raises(BadFrame, match="not silent"):
                await read(line, meter(1))
            assert now() - began == pytest.approx(0.1 + BABBLE_S, abs=0.01)
            assert record.requests == []
            await asyncio.sleep(4.5)
            assert await read(line, meter(1)) == pair.slaves[1].truth()

    run(main())


def test_a_device_that_warms_up_leaves_the_line_to_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with rs485(tmp_path / "port", [noise(1)]) as (_, line):
            warming = asyncio.create_task(LinePort(line, "a dust sensor", 0.3).wait(30))
            await asyncio.sleep(1)
            began = now()
            await read(line, meter(1))
            assert now() - began < 0.1
            await warming
            assert now() == pytest.approx(30)

    run(main())

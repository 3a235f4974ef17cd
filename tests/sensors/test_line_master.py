"""The strict master: whatever happens on the wires, a value that comes out is the value that was asked for."""

import asyncio
import math
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from drivers.contract import BadFrame, DeviceError, NoReply, NotReady, Span, Values
from drivers.modbus import with_crc
from gateway.sensors.line import LATE_S, MISSED_S, LinePort
from hil.faults import Kind, SerialFault
from hil.line import Mode
from hil.twins.modbus import ModbusSlave, noise, sdm630
from hil.vclock import run
from tests.sensors.stage import ENERGY, meter, now, only, read, rs485


def are_right(values: Values, slave: ModbusSlave, since: float) -> bool:
    """Tell whether each value was the slave's in a second since then; a float32 carries seven digits."""
    seconds = range(math.floor(since), math.floor(now()) + 1)
    return bool(values) and all(
        any(value == pytest.approx(slave.truth(at)[name], rel=1e-6) for at in seconds) for name, value in values.items()
    )


@pytest.mark.parametrize("baud", [9600, 19200, 115200])
@pytest.mark.parametrize("mode", ["uart", "fifo", "ftdi16", "ftdi1"])
def test_every_register_is_read_right_at_every_speed_and_through_every_adapter(
    tmp_path: Path, mode: Mode, baud: int
) -> None:
    async def main() -> None:
        energy, street = sdm630(1), noise(2)
        async with rs485(tmp_path / "port", [energy, street], mode=mode, baud=baud) as (_, line):
            for _ in range(3):
                since = now()
                values = await read(line, meter(1, ENERGY))
                assert values.keys() == energy.truth().keys()
                assert are_right(values, energy, since)
                assert are_right(await read(line, meter(2)), street, since)
                await asyncio.sleep(10)

    run(main())


def test_a_late_answer_is_never_taken_for_the_next_one(tmp_path: Path) -> None:
    async def main() -> None:
        energy = sdm630(1)
        async with rs485(tmp_path / "port", [energy]) as (_, line):
            for late in (0.35, 0.7, 1.2):
                energy.faults.arm(SerialFault("late", late))
                with pytest.raises(NoReply):
                    await read(line, meter(1, only("voltage_l1")))
                for channel in ("voltage_l2", "voltage_l3", "current_l1"):  # the same request but for the address
                    since = now()
                    assert are_right(await read(line, meter(1, only(channel))), energy, since)
        assert energy.faults.counts == {"late": 3}
        assert energy.counts["answered"] == 12

    run(main())


def test_a_late_answer_of_another_length_is_passed_over_even_amid_the_next_exchange(tmp_path: Path) -> None:
    async def main() -> None:
        energy = sdm630(1)
        async with rs485(tmp_path / "port", [energy]) as (_, line):
            energy.faults.arm(SerialFault("late", 0.3 + LATE_S + 0.05))
            with pytest.raises(NoReply):
                await read(line, meter(1, only("voltage_l1", "voltage_l2", "voltage_l3")))
            assert are_right(await read(line, meter(1, only("frequency"))), energy, now() - 1)
        assert energy.counts == {"seen": 2, "answered": 2}

    run(main())


def test_a_late_answer_of_another_slave_is_passed_over(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = noise(1, seed=1), noise(2, seed=2, turnaround_s=0.1)
        async with rs485(tmp_path / "port", [first, second]) as (pair, line):
            first.faults.arm(SerialFault("late", 0.35))
            with pytest.raises(NoReply):
                await read(line, meter(1))
            assert are_right(await read(line, meter(2)), second, now() - 0.5)
            assert pair.counts["garbled"] == 0  # it came before the second one spoke

    run(main())


def test_a_cancelled_question_leaves_no_answer_behind(tmp_path: Path) -> None:
    async def main() -> None:
        energy = sdm630(1)
        async with rs485(tmp_path / "port", [energy]) as (_, line):
            for patience in (0.0, 0.003, 0.014, 0.02):  # before it, amid the request, the answer, its last bytes
                asking = asyncio.create_task(read(line, meter(1, only("voltage_l1"))))
                await asyncio.sleep(patience)
                asking.cancel()
                for channel in ("voltage_l2", "current_l1"):
                    since = now()
                    assert are_right(await read(line, meter(1, only(channel))), energy, since)
                assert asking.cancelled()

    run(main())


@pytest.mark.parametrize(("pause_s", "answers", "is_late"), [(2, 0, True), (2, 1, False), (MISSED_S + 0.1, 0, False)])
def test_an_answer_of_who_missed_one_is_late_unless_it_has_answered_since_or_that_is_long_ago(
    tmp_path: Path, pause_s: float, answers: int, *, is_late: bool
) -> None:
    async def main() -> None:
        first, second = noise(1), noise(2)
        async with rs485(tmp_path / "port", [first, second]) as (_, line):
            second.faults.arm(SerialFault("silent"))
            with pytest.raises(NoReply):
                await read(line, meter(2))
            await asyncio.sleep(pause_s)
            for _ in range(answers):
                await read(line, meter(2))
            first.faults.arm(SerialFault("wrong_id"))  # the answer comes in the second one's name
            said = "but a late one of unit 2 to an earlier question: 02 03 02" if is_late else "no answer: 02 03 02"
            with pytest.raises(NoReply if is_late else BadFrame, match=said):
                await read(line, meter(1))

    run(main())


@pytest.mark.parametrize(("unit", "told"), [(1, 0), (9, 1)], ids=["at its own answer", "at another's first"])
def test_a_driver_that_fails_as_it_seeks_its_answer_is_no_bug_of_the_device_asked_after_it(
    tmp_path: Path, unit: int, told: int
) -> None:
    def seek(buffer: bytes) -> Span | None:
        raise IndexError(len(buffer))

    async def main() -> None:
        street = noise(1)
        async with rs485(tmp_path / "port", [street]) as (_, line):
            question = with_crc(bytes([unit, 3, 0, 0, 0, 1]))
            with pytest.raises(IndexError if unit == street.unit else NoReply):
                await LinePort(line, "stumbler", 0.3).ask(question, seek, size=7)
            street.faults.arm(SerialFault("garbage", times=2))
            for _ in range(2):
                with pytest.raises(BadFrame, match="no answer"):
                    await read(line, meter(1))

    with capture_logs() as lines:
        run(main())
    assert [line["device"] for line in lines if line["log_level"] == "error"] == ["stumbler"] * told


def test_a_question_that_its_asker_gave_up_says_nothing_of_how_slow_the_device_is(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = noise(1), noise(2)
        async with rs485(tmp_path / "port", [first, second]) as (_, line):
            second.faults.arm(SerialFault("silent"))
            asking = asyncio.create_task(read(line, meter(2)))
            await asyncio.sleep(0.1)
            asking.cancel()
            first.faults.arm(SerialFault("wrong_id"))
            with pytest.raises(BadFrame, match="no answer: 02 03 02"):
                await read(line, meter(1))

    run(main())


ONE_POLL_IS_LOST: list[tuple[Kind, float, type[DeviceError]]] = [
    ("wrong_fc", 1, BadFrame),
    ("wrong_id", 1, BadFrame),
    ("truncate", 1, BadFrame),
    ("truncate", 6, BadFrame),
    ("garbage", 1, BadFrame),
    ("silent", 1, NoReply),
    ("exception", 2, BadFrame),
    ("exception", 6, NotReady),
]


@pytest.mark.parametrize(("kind", "arg", "error"), ONE_POLL_IS_LOST)
def test_an_answer_that_is_none_costs_one_poll(
    tmp_path: Path, kind: Kind, arg: float, error: type[DeviceError]
) -> None:
    async def main() -> None:
        energy = sdm630(1)
        device = meter(1, only("voltage_l1"))
        async with rs485(tmp_path / "port", [energy]) as (_, line):
            energy.faults.arm(SerialFault(kind, arg))
            with pytest.raises(error):
                await read(line, device)
            since = now()
            assert are_right(await read(line, device), energy, since)

    run(main())


def test_an_exception_tells_what_the_device_said_and_costs_no_pause(tmp_path: Path) -> None:
    async def main() -> None:
        energy = sdm630(1)
        async with rs485(tmp_path / "port", [energy]) as (_, line):
            energy.faults.arm(SerialFault("exception", 2))
            with pytest.raises(BadFrame, match="exception 2: illegal data address"):
                await read(line, meter(1, ENERGY))
            since = now()
            await read(line, meter(1, only("voltage_l1")))
            assert now() - since < 0.05  # it was an answer: no late one can follow

    run(main())


@pytest.mark.parametrize(("kind", "count"), [("pre_noise", 1), ("pre_noise", 3), ("pre_zero", 1), ("post_noise", 2)])
def test_noise_around_an_answer_costs_nothing(tmp_path: Path, kind: Kind, count: int) -> None:
    async def main() -> None:
        street = noise(1)
        async with rs485(tmp_path / "port", [street]) as (_, line):
            street.faults.arm(SerialFault(kind, count, times=None))
            for _ in range(20):
                since = now()
                assert are_right(await read(line, meter(1)), street, since)
                await asyncio.sleep(1)

    run(main())


def test_an_answer_that_comes_twice_is_taken_once(tmp_path: Path) -> None:
    async def main() -> None:
        energy = sdm630(1)
        async with rs485(tmp_path / "port", [energy]) as (_, line):
            lost = 0
            for channel in ("voltage_l1", "voltage_l2", "voltage_l3", "current_l1") * 5:
                energy.faults.arm(SerialFault("dup"))
                for _ in range(2):  # the second of them meets the duplicate on the wires
                    since = now()
                    try:
                        assert are_right(await read(line, meter(1, only(channel))), energy, since)
                    except (BadFrame, NoReply):
                        lost += 1
                await asyncio.sleep(2)
            assert lost <= 20

    run(main())


def test_no_flipped_bit_ever_makes_a_value(tmp_path: Path) -> None:
    async def main() -> tuple[int, int]:
        energy, street = sdm630(1), noise(2)
        for slave in (energy, street):
            for bits in (1, 2, 3, 7):
                slave.faults.arm(SerialFault("flip", bits, times=None, p=0.15))
        good = lost = 0
        async with rs485(tmp_path / "port", [energy, street]) as (_, line):
            for _ in range(400):
                for slave, device in ((energy, meter(1, only("voltage_l1", "frequency"))), (street, meter(2))):
                    since = now()
                    try:
                        values = await read(line, device)
                    except (BadFrame, NoReply):
                        lost += 1
                    else:
                        assert are_right(values, slave, since)
                        good += 1
                await asyncio.sleep(0.3)
        return good, lost

    good, lost = run(main())
    assert good > 200
    assert lost > 200


def test_babble_costs_the_polls_it_talks_over_and_no_wrong_value(tmp_path: Path) -> None:
    async def main() -> None:
        street = noise(1)
        lost = []
        async with rs485(tmp_path / "port", [street]) as (pair, line):
            for poll in range(20):
                if poll in {5, 12}:
                    pair.babble(0.5)
                since = now()
                try:
                    assert are_right(await read(line, meter(1)), street, since)
                except (BadFrame, NoReply):
                    lost.append(poll)
                await asyncio.sleep(0.2)
            assert set(lost) <= {5, 6, 12, 13}

    run(main())


@pytest.mark.parametrize("mode", ["uart", "fifo", "ftdi16"])
def test_an_adapter_that_hears_itself_does_not_disturb(tmp_path: Path, mode: Mode) -> None:
    async def main() -> None:
        energy, street = sdm630(1), noise(2)
        async with rs485(tmp_path / "port", [energy, street], mode=mode, echo=True) as (_, line):
            for _ in range(10):
                since = now()
                assert are_right(await read(line, meter(1, ENERGY)), energy, since)
                assert are_right(await read(line, meter(2)), street, since)
                await asyncio.sleep(1)
            street.alive = False
            with pytest.raises(NoReply, match="only the question came back"):
                await read(line, meter(2))

    run(main())

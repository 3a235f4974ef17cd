"""The Modbus slaves behind any transport: registers, refusals, and truths that are what was sent."""

import asyncio
import math
import struct
from collections.abc import Callable
from typing import TypeVar

import pytest

from hil.faults import seeded
from hil.truth import Truth, Wander, shortest
from hil.twins.modbus import ModbusSlave, crc16, noise, sdm630
from hil.vclock import run

T = TypeVar("T")

CHANNELS = {
    "voltage_l1": 0x00,
    "voltage_l2": 0x02,
    "voltage_l3": 0x04,
    "current_l1": 0x06,
    "current_l2": 0x08,
    "current_l3": 0x0A,
    "active_power_l1": 0x0C,
    "active_power_l2": 0x0E,
    "active_power_l3": 0x10,
    "apparent_power_l1": 0x12,
    "apparent_power_l2": 0x14,
    "apparent_power_l3": 0x16,
    "reactive_power_l1": 0x18,
    "reactive_power_l2": 0x1A,
    "reactive_power_l3": 0x1C,
    "power_factor_l1": 0x1E,
    "power_factor_l2": 0x20,
    "power_factor_l3": 0x22,
    "active_power": 0x34,
    "frequency": 0x46,
    "energy_import": 0x48,
    "energy_export": 0x4A,
    "energy_total": 0x156,
}


def after(seconds: float, look: Callable[[], T]) -> T:
    """Return what ``look`` returns when so much time has passed."""

    async def main() -> T:
        await asyncio.sleep(seconds)
        return look()

    return run(main())


def read(slave: ModbusSlave, function: int, start: int, count: int) -> bytes:
    return slave.answer(struct.pack(">BHH", function, start, count))


@pytest.mark.parametrize(
    ("frame", "good"),
    [  # vectors/modbus-rtu.json: Eastron manual, Senseair, pymodbus 7361275; the false one is a published mistake
        ("01040000000271cb", True),
        ("010404436633341b38", True),  # protocols.md, modbus/sdm
        ("0103000c00020408", True),
        ("011000160002043f8000007f75", True),
        ("fe04020388d5c5", False),
        ("fe0400000004e5c6", True),
        ("fe0600017c066cc7", True),
        ("fe06001f00b4ac74", True),
        ("fe03001f0001a1c3", True),
        ("0003007c00020402", True),
        ("0083029131", True),
        ("110304008d008efbbd", True),
        ("ff03007c0002100d", True),
        ("ff8302a101", True),
    ],
)
def test_the_checksum_is_that_of_published_frames(frame: str, *, good: bool) -> None:
    content = bytes.fromhex(frame)
    assert (crc16(content[:-2]).to_bytes(2, "little") == content[-2:]) is good


def test_the_shortest_decimal_of_a_float32_is_what_people_write() -> None:
    # protocols.md: 01 04 04 43 66 33 34 1B 38 is 230.2 V; its neighbours need more digits.
    assert shortest(struct.unpack(">f", bytes.fromhex("43663334"))[0]) == 230.20001
    assert shortest(struct.unpack(">f", bytes.fromhex("43663333"))[0]) == 230.2
    assert shortest(0.1) == 0.1
    assert shortest(math.pi) == 3.1415927
    assert shortest(16777217.0) == 16777216.0
    assert shortest(9.5249e12) == 9.5249e12  # 9.524899e12 is the same float32


def test_the_integral_of_a_wandering_value_is_its_sum() -> None:
    wander = Wander(seeded(1, "a value"), mean=0.0, swing=10.0)
    step_s = 0.01
    total = sum(wander.at((n + 0.5) * step_s) * step_s for n in range(20_000))
    assert wander.integral(200.0) == pytest.approx(total, abs=1e-3)
    assert abs(total) > 1
    assert max(abs(wander.at(at)) for at in range(10_000)) <= 10


def test_every_channel_of_the_meter_is_where_the_manual_says() -> None:
    meter = sdm630(1, seed=3)

    def look() -> tuple[Truth, Truth]:
        sent = {}
        for channel, address in CHANNELS.items():
            answer = read(meter, 4, address, 2)
            assert answer[:2] == b"\x04\x04"
            sent[channel] = shortest(struct.unpack(">f", answer[2:])[0])
        return sent, meter.truth()

    sent, truth = after(77.7, look)
    assert sent == truth


def test_the_meter_is_plausible_and_adds_up() -> None:
    meter = sdm630(1, seed=5)
    truth = after(3600.0, meter.truth)
    for phase in ("l1", "l2", "l3"):
        assert 225 < truth[f"voltage_{phase}"] < 235
        apparent = truth[f"voltage_{phase}"] * truth[f"current_{phase}"]
        assert truth[f"apparent_power_{phase}"] == pytest.approx(apparent, rel=1e-6)
        assert truth[f"active_power_{phase}"] == pytest.approx(apparent * truth[f"power_factor_{phase}"], rel=1e-6)
        squares = truth[f"active_power_{phase}"] ** 2 + truth[f"reactive_power_{phase}"] ** 2
        assert math.sqrt(squares) == pytest.approx(apparent, rel=1e-6)
    assert truth["active_power"] == pytest.approx(sum(truth[f"active_power_l{n}"] for n in (1, 2, 3)), rel=1e-6)
    assert truth["energy_total"] == pytest.approx(truth["energy_import"] + truth["energy_export"], abs=2e-4)


def test_energy_is_the_integral_of_power() -> None:
    meter = sdm630(1, seed=5)
    power = [meter.truth(at)["active_power"] for at in range(7200)]
    used = meter.truth(7200)["energy_import"] - meter.truth(0)["energy_import"]
    assert used == pytest.approx(sum(power) / 3.6e6, abs=0.002)  # float32 of 1234 kWh: 0.0001, and 0.001 rounding
    kwh = [meter.truth(at)["energy_import"] for at in range(0, 7200, 60)]
    assert kwh == sorted(kwh)


def test_values_move_and_follow_the_seed() -> None:
    assert sdm630(1, seed=1).truth(10) == sdm630(1, seed=1).truth(10)
    assert sdm630(1, seed=1).truth(10) != sdm630(1, seed=1).truth(11)
    assert sdm630(1, seed=1).truth(10) != sdm630(1, seed=2).truth(10)
    assert sdm630(1, seed=1).truth(10) != sdm630(2, seed=1).truth(10)
    assert len({noise(1).truth(at)["sound_level"] for at in range(600)}) > 50


def test_the_noise_meter_sends_tenths_of_a_decibel() -> None:
    meter = noise(2, seed=9)
    answer, truth = after(5.5, lambda: (read(meter, 3, 0, 1), meter.truth()))
    assert answer[:2] == b"\x03\x02"
    assert truth == {"sound_level": int.from_bytes(answer[2:], "big") / 10}
    assert all(40 < meter.truth(at)["sound_level"] < 80 for at in range(1000))


def test_setup_of_the_meter_is_in_holding_registers() -> None:
    # vectors/modbus-rtu.json, sdm-read-pulse-req: 01 03 00 0C 00 02
    answer = after(0.0, lambda: sdm630(1).answer(bytes.fromhex("03000c0002")))
    assert answer == b"\x03\x04" + struct.pack(">f", 100.0)


@pytest.mark.parametrize(
    ("request_pdu", "answer"),
    [
        ("06 0000 0001", "86 01"),  # function it does not know
        ("10 0016 0002 04 3f800000", "90 01"),
        ("04 0000 0000", "84 03"),  # no registers
        ("04 0000 003d", "84 03"),  # 61: more than 30 parameters
        ("04 0000 007e", "84 03"),
        ("04 0000", "84 03"),  # cut short
        ("04 0000 0002 00", "84 03"),
        ("04 017c 0002", "84 02"),  # behind the map's end
        ("04 017a 0004", "84 02"),  # across it
        ("04 ffff 0002", "84 02"),
        ("03 0000 0002", "83 02"),
        ("04 ffff 0000", "84 03"),  # the count is looked at first (V1.1b3, figure 14)
    ],
)
def test_what_the_meter_refuses(request_pdu: str, answer: str) -> None:
    assert after(0.0, lambda: sdm630(1).answer(bytes.fromhex(request_pdu))) == bytes.fromhex(answer)


def test_sixty_registers_are_answered_and_unused_ones_are_zero() -> None:
    answer = after(0.0, lambda: read(sdm630(1), 4, 0, 60))
    assert len(answer) == 2 + 120
    assert answer[2 + 2 * 0x24 : 2 + 2 * 0x34] == bytes(32)


def test_other_slaves_give_up_to_125_registers() -> None:
    assert after(0.0, lambda: read(noise(1), 3, 0, 125)) == b"\x83\x02"
    assert after(0.0, lambda: read(noise(1), 3, 0, 126)) == b"\x83\x03"

"""Modbus: register maps against slaves that were written from the same documents by another reader."""

import asyncio
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.contract import Asked, BadFrame, DeviceError, NoReply, NotReady, Values
from hil.twins.modbus import ModbusSlave, crc16, noise, sdm630
from hil.vclock import run
from tests.drivers.driver_bench import TwinPort
from tests.drivers.vector_files import device, profile
from tests.examples import examples

CLOSE = 1.5 * 2.0**-23  # the driver may be one last bit of a float32 off for a shorter decimal, the twin half a one


# Meters, by the profiles that are installed

Framing = Literal["rtu", "tcp"]


class Behind:
    """A slave behind one of the two framings, as its own documents draw them."""

    def __init__(self, slave: ModbusSlave, framing: Framing) -> None:
        self._slave = slave
        self._framing = framing

    def hear(self, request: bytes) -> bytes:
        """Return the frame of the answer."""
        if self._framing == "rtu":
            unit, pdu, checksum = request[0], request[1:-2], request[-2:]
            assert checksum == struct.pack("<H", crc16(request[:-2]))
            assert unit == self._slave.unit
            answer = bytes([unit]) + self._slave.answer(pdu)
            return answer + struct.pack("<H", crc16(answer))
        transaction, protocol, length, unit = struct.unpack(">HHHB", request[:7])
        assert (protocol, length, unit) == (0, len(request) - 6, self._slave.unit)
        answer = self._slave.answer(request[7:])
        return struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer


METERS: dict[str, Callable[[], ModbusSlave]] = {
    "eastron-sdm630": lambda: sdm630(17, seed=7),
    "rs485-noise-meter": lambda: noise(200, seed=7),
}
WAYS: list[tuple[Literal["serial", "tcp"], Framing | None, Framing]] = [
    ("serial", None, "rtu"),
    ("tcp", None, "tcp"),
    ("tcp", "rtu", "rtu"),  # a bridge that passes the frames of the line through
]


@pytest.mark.parametrize("name", METERS)
@pytest.mark.parametrize(("transport", "framing", "wire"), WAYS)
def test_a_meter_reads_as_it_is(
    name: str, transport: Literal["serial", "tcp"], framing: Framing | None, wire: Framing
) -> None:
    async def main() -> None:
        slave = METERS[name]()
        meter = device("modbus", unit=slave.unit, profile=profile(name), framing=framing)
        assert isinstance(meter, Asked)
        port = TwinPort(Behind(slave, wire).hear, transport=transport)
        for _ in range(60):
            assert await meter.poll(port) == pytest.approx(slave.truth(), rel=CLOSE, abs=0)
            await asyncio.sleep(1)
        assert set(slave.truth()) == set(meter.expected())
        assert port.tagged == [wire == "tcp"] * len(port.sent)

    run(main())


def test_the_profile_of_the_noise_meter_gives_the_tenths_that_were_sent() -> None:
    async def main() -> None:
        slave = noise(1, seed=3)
        meter = device("modbus", unit=1, profile=profile("rs485-noise-meter"))
        assert isinstance(meter, Asked)
        for _ in range(200):
            assert (
                await meter.poll(TwinPort(Behind(slave, "rtu").hear)) == slave.truth()
            )  # 58.3, never 58.300000000000004
            await asyncio.sleep(1)

    run(main())


# What is an answer


def rtu(unit: int, pdu: bytes) -> bytes:
    frame = bytes([unit]) + pdu
    return frame + struct.pack("<H", crc16(frame))


def mbap(transaction: int, unit: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


RIGHT = bytes.fromhex("04 04 43663334")
WRONG = {
    "another unit": rtu(2, RIGHT),
    "another function": rtu(1, b"\x03" + RIGHT[1:]),
    "fewer registers": rtu(1, bytes.fromhex("04 02 4366")),
    "more registers": rtu(1, bytes.fromhex("04 06 436633344366")),
    "a count that is not its own": rtu(1, bytes.fromhex("04 06 43663334")),
    "an exception of another function": rtu(1, b"\x83\x02"),
    "its own request": rtu(1, bytes.fromhex("04 0000 0002")),
    "a checksum of its own": rtu(1, RIGHT)[:-1] + b"\x00",
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
def test_what_is_no_answer_to_this_request_is_not_taken_for_one(answer: bytes) -> None:
    meter = device("modbus", "sdm_volts")
    assert isinstance(meter, Asked)
    with pytest.raises(BadFrame, match="no answer"):
        asyncio.run(meter.poll(TwinPort(lambda _: answer)))
    both = TwinPort(lambda _: answer + rtu(1, RIGHT))  # the real one behind it is
    assert asyncio.run(meter.poll(both)) == {"voltage_l1": 230.2}


def test_over_tcp_a_late_answer_is_told_by_its_transaction() -> None:
    meter = device("modbus", "sdm_volts")
    assert isinstance(meter, Asked)
    transactions: list[int] = []

    def hear(request: bytes) -> bytes:
        transactions.append(int.from_bytes(request[:2], "big"))
        return mbap(transactions[-1] - 1, 1, bytes.fromhex("04 04 42c80000")) + mbap(transactions[-1], 1, RIGHT)

    port = TwinPort(hear, transport="tcp")
    for _ in range(3):
        assert asyncio.run(meter.poll(port)) == {"voltage_l1": 230.2}
    assert transactions == [transactions[0], transactions[0] + 1, transactions[0] + 2]


@pytest.mark.parametrize(
    ("code", "error"),
    [(2, BadFrame), (4, BadFrame), (5, NotReady), (6, NotReady), (10, NoReply), (11, NoReply), (99, BadFrame)],
)
@pytest.mark.parametrize("transport", ["serial", "tcp"])
def test_a_refusal_is_told_by_its_code(
    transport: Literal["serial", "tcp"], code: int, error: type[DeviceError]
) -> None:
    meter = device("modbus", "sdm_volts")
    assert isinstance(meter, Asked)

    def hear(request: bytes) -> bytes:
        refusal = bytes([0x84, code])
        return rtu(1, refusal) if transport == "serial" else mbap(int.from_bytes(request[:2], "big"), 1, refusal)

    with pytest.raises(error, match=f"exception {code}") as refused:
        asyncio.run(meter.poll(TwinPort(hear, transport=transport)))
    assert ("converter" in refused.value.hint) is (error is NoReply)
    with pytest.raises(BadFrame if error is BadFrame else NotReady, match=f"exception {code}") as decoded:
        meter.decode(rtu(1, bytes([0x84, code])))  # a frame that is there is no reply that is not
    assert decoded.value.hint == refused.value.hint


# Registers

NUMBERS = {
    "uint16": (">H", 0, 0xFFFF),
    "int16": (">h", -(2**15), 2**15 - 1),
    "uint32": (">I", 0, 0xFFFF_FFFF),
    "int32": (">i", -(2**31), 2**31 - 1),
    "uint64": (">Q", 0, 2**64 - 1),
    "int64": (">q", -(2**63), 2**63 - 1),
}


def poll(registers: list[dict[str, Any]], memory: dict[int, bytes], **fields: Any) -> Values:  # noqa: ANN401  # of a profile
    """Read a slave that holds two bytes in each register."""

    def hear(request: bytes) -> bytes:
        unit, function, start, count = struct.unpack(">BBHH", request[:-2])
        assert count <= fields.get("most_registers", 125)
        assert all(address in memory for address in range(start, start + count)), "nobody asked for these"
        return rtu(unit, bytes([function, 2 * count]) + b"".join(memory[start + index] for index in range(count)))

    meter = device("modbus", unit=9, profile=made(registers, **fields))
    assert isinstance(meter, Asked)
    return asyncio.run(meter.poll(TwinPort(hear)))


def made(registers: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:  # noqa: ANN401  # of a profile
    rows = [{"unit": "", "title": "x", **register} for register in registers]
    return {"maker": "m", "model": "m", "source": "s", "dataset": "d", "register": rows, **fields}


def words(raw: bytes, order: str) -> list[bytes]:
    pairs = [raw[at : at + 2] for at in range(0, len(raw), 2)]
    return pairs[::-1] if order == "low-first" else pairs


@st.composite
def memories(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[int, bytes], str, dict[str, int]]:
    """Registers of all whole-number types, side by side or with gaps, and what a reader must find in them."""
    order = draw(st.sampled_from(["high-first", "low-first"]))
    rows, memory, wanted, address = [], dict[int, bytes](), dict[str, int](), draw(st.integers(0, 60_000))
    for index, kind in enumerate(draw(st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, max_size=20))):
        layout, least, most = NUMBERS[kind]
        number = draw(st.integers(least, most))
        scale = draw(st.sampled_from([1, 10, 1.0]))
        address += draw(st.integers(0, 2))
        rows.append({"channel": f"c{index}", "address": address, "type": kind, "scale": scale, "offset": 3})
        for pair in words(struct.pack(layout, number), order):
            memory[address] = pair
            address += 1
        wanted[f"c{index}"] = number * int(scale) + 3
    return draw(st.permutations(rows)), memory, order, wanted


@examples(200)
@given(memory=memories(), most=st.integers(4, 125))
def test_whole_numbers_of_every_type_come_through_to_the_last_digit(
    memory: tuple[list[dict[str, Any]], dict[int, bytes], str, dict[str, int]], most: int
) -> None:
    rows, registers, order, wanted = memory
    values = poll(rows, registers, word_order=order, most_registers=most)
    assert values == wanted
    assert all(isinstance(value, int) for value in values.values())


STEPS = ["0.1", "0.01", "0.001", "0.005", "0.0025", "0.25", "0.5", "0.000001"]


@examples(300)
@given(raw=st.integers(-(2**31), 2**31 - 1), step=st.sampled_from(STEPS), offset=st.sampled_from(["0", "-60", "-0.05"]))
def test_a_scaled_number_is_the_decimal_that_is_meant(raw: int, step: str, offset: str) -> None:
    row = {"channel": "c", "address": 0, "type": "int32", "scale": float(step), "offset": float(offset)}
    values = poll([row], dict(enumerate(words(struct.pack(">i", raw), ""))))
    assert values == {"c": float(raw * Decimal(step) + Decimal(offset))}


@pytest.mark.parametrize("order", ["high-first", "low-first"])
def test_float32_is_read_in_both_word_orders(order: str) -> None:
    memory = dict(enumerate(words(bytes.fromhex("43663334"), order)))
    rows = [{"channel": "c", "address": 0, "type": "float32"}]
    assert poll(rows, memory, word_order=order) == {"c": 230.2}
    assert poll([{**rows[0], "scale": 1000}], memory, word_order=order) == {"c": 230_200.0}
    assert poll([{**rows[0], "scale": 0.3}], memory, word_order=order) == {"c": 69.06}  # not 69.05999999999999


def test_a_code_for_no_reading_is_no_reading() -> None:
    rows = [
        {"channel": name, "address": at, "type": "int16", "invalid": [0x8000, 0x7FFF]} for at, name in enumerate("abc")
    ]
    assert poll(rows, {0: b"\x80\x00", 1: b"\x7f\xff", 2: b"\xff\xff"}) == {"a": None, "b": None, "c": -1}


@pytest.mark.parametrize(("kind", "bits"), [("int16", 16), ("int32", 32), ("int64", 64)])
def test_the_code_of_a_signed_register_may_be_written_as_a_number_or_as_its_bits(kind: str, bits: int) -> None:
    least = -(1 << bits - 1)
    memory = dict(enumerate(words(least.to_bytes(bits // 8, "big", signed=True), "")))
    for code in (least, 1 << bits - 1):
        assert poll([{"channel": "c", "address": 0, "type": kind, "invalid": [code]}], memory) == {"c": None}


def test_all_channels_of_an_answer_are_read_wherever_it_begins() -> None:
    rows = [{"channel": name, "address": at} for at, name in enumerate("abcd", start=100)]
    meter = device("modbus", unit=9, profile=made(rows))
    request = rtu(9, struct.pack(">BHH", 3, 101, 2))
    assert meter.decode(request + rtu(9, bytes.fromhex("03 04 0001 0002"))) == {"b": 1, "c": 2}
    assert meter.decode(rtu(9, bytes.fromhex("03 08 0001 0002 0003 0004"))) == {"a": 1, "b": 2, "c": 3, "d": 4}
    with pytest.raises(BadFrame, match="hold no channel"):
        meter.decode(rtu(9, struct.pack(">BHH", 3, 7, 1)) + rtu(9, bytes.fromhex("03 02 0001")))


# Profiles

A, B = {"channel": "a", "address": 0, "type": "uint32"}, {"channel": "b", "address": 1}
FAULTY = {
    "overlaps": ([A, B], '"b" at 1 overlaps "a", which takes 0 to 1'),
    "stands twice": ([A, {**A, "address": 7}], 'channel "a" stands twice'),
    "unknown unit": ([{**A, "unit": "celsius"}], 'did you mean "Cel"'),
    "nothing in it": ([], "has no [[register]]"),
    "a code below an int16": ([{**A, "type": "int16", "invalid": [-32_769]}], "number 1 must be -32768 to 65535"),
    "a code above an int16": ([{**A, "type": "int16", "invalid": [65_536]}], "number 1 must be -32768 to 65535"),
    "a negative code of an uint32": ([{**A, "invalid": [-1]}], "must be 0 to 4294967295: raw values of uint32"),
    "a value for the bits": ([{**A, "type": "float32", "invalid": [-9999]}], "must be 0 to 4294967295"),
    "a code of any length": ([{**A, "invalid": [0, 10**5000]}], "number 2 must be"),
    "infinite scale": ([{**A, "scale": float("inf")}], "finite number"),
    "beyond the last": ([{**A, "address": 65_536}], "less than or equal to 65535"),
    "a typing mistake": ([{**A, "adress": 3}], "Extra inputs are not permitted"),
}


@pytest.mark.parametrize(("registers", "says"), FAULTY.values(), ids=FAULTY)
def test_a_profile_that_cannot_be_is_refused_in_words(registers: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        device("modbus", profile=made(registers))
    assert says in str(caught.value)

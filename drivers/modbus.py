"""Modbus, RTU on a shared RS-485 line or TCP: any device, by a register map.

The map is data: ``config/profiles/<maker>-<model>.toml``, one ``[[register]]`` a channel. Registers that lie
side by side are read in one request. Two framings carry the same request and answer::

    RTU   unit | function | data | CRC-16, low byte first
    TCP   transaction | 0 | length | unit | function | data          (MBAP, all big-endian words)

An answer must fit its request in unit, function and length, and its CRC or transaction number must be right,
wherever in the incoming bytes it begins: a driver chip that switches on often puts a byte of noise before it. On
RTU nothing else ties an answer to a request; the line keeps a late one from being taken for the next.

Sources: "MODBUS over Serial Line" V1.02; "MODBUS Application Protocol" V1.1b3; "MODBUS Messaging on TCP/IP
Implementation Guide" V1.0b.
"""

import functools
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from drivers.contract import (
    QUALITY,
    Asked,
    BadFrame,
    Channel,
    LineSettings,
    Name,
    NoReply,
    NotReady,
    Port,
    Seek,
    Span,
    Value,
    Values,
)
from drivers.decimals import float32, places
from drivers.units import UNITS, suggestion

WORDS = {
    "uint16": 1,
    "int16": 1,
    "uint32": 2,
    "int32": 2,
    "uint64": 4,
    "int64": 4,
    "float32": 2,
}
REGISTERS = 0x10000  # that a device can have
EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, still working",
    6: "busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target does not respond",
}
BUSY = (5, 6)
UNREACHED = (10, 11)
HINT_UNREACHED = (
    "The converter answers, the device behind it does not. Check the power of the device, `unit`, the wires A and B, "
    "and the speed and the time-out that are set in the converter."
)
SLAVES = range(1, 248)
"""Addresses on a serial line: "MODBUS over Serial Line" V1.02, section 2.2. TCP has 0 and 255 too."""
TRANSACTIONS = itertools.cycle(range(1, 0x10000))
"""One count for all devices: two of them may ask the same unit over one connection."""

MBAP = struct.Struct(">HHHB")  # transaction, protocol, length of what follows, unit


class Register(BaseModel):
    """One ``[[register]]`` of a profile: where a channel lies and how to read it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    channel: Name
    address: int = Field(ge=0, le=0xFFFF, description="As it is sent: the first register is 0.")
    type: Literal["uint16", "int16", "uint32", "int32", "uint64", "int64", "float32"] = "uint16"
    unit: str
    title: str
    lwm2m: str | None = None
    scale: float = Field(1.0, description="The value is raw x scale + offset.")
    offset: float = 0.0
    invalid: Annotated[tuple[int, ...], Field(strict=False)] = Field(
        (), description="Raw values with which the device says that it has no reading; of float32 its bits."
    )

    @field_validator("channel")
    @classmethod
    def _channel_is_free(cls, name: str) -> str:
        if name == QUALITY:
            raise ValueError(f'"channel" must not be "{name}": records of why a device gives no values have that name')
        return name

    @field_validator("unit")
    @classmethod
    def _unit_is_known(cls, symbol: str) -> str:
        if symbol and symbol not in UNITS:
            raise ValueError(f'"{symbol}" is not a unit of SenML{suggestion(symbol)}')
        return symbol

    @field_validator("scale")
    @classmethod
    def _scale_leaves_something(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError('"scale" must not be 0: every value would be the same')
        return scale

    @field_validator("invalid")
    @classmethod
    def _invalid_can_come(cls, codes: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        """Data sheets put the code of a signed register as -32768 or as 8000 hex: keep the bits."""
        if (kind := info.data.get("type")) is None:  # it is told already
            return codes
        bits = 16 * WORDS[kind]
        least, most = -(1 << bits - 1) if kind.startswith("int") else 0, (1 << bits) - 1
        for number, code in enumerate(codes, 1):
            if not least <= code <= most:
                raise ValueError(f'"invalid" number {number} must be {least} to {most}: raw values of {kind}')
        return tuple(code % (1 << bits) for code in codes)

    @property
    def end(self) -> int:
        """The address after the last register of this channel."""
        return self.address + WORDS[self.type]

    def value(self, words: bytes, *, low_word_first: bool) -> Value:
        """Convert its registers (2 bytes each, as they came)."""
        if low_word_first:
            words = b"".join(words[at : at + 2] for at in range(len(words) - 2, -1, -2))
        raw = int.from_bytes(words, "big")
        if raw in self.invalid:
            return None
        if self.type == "float32":
            number = float32(words)
            if number is None or (self.scale, self.offset) == (1, 0):
                return number
            return float(f"{number * self.scale + self.offset:.7g}")  # what a single can tell apart
        if self.type.startswith("int"):
            raw = int.from_bytes(words, "big", signed=True)
        if self.scale.is_integer() and self.offset.is_integer():
            return raw * int(self.scale) + int(self.offset)  # stays whole, and exact in 64 bits
        return round(raw * self.scale + self.offset, max(places(self.scale), places(self.offset)))


def _at(index: int, message: str) -> PydanticCustomError:
    """Say which register is to blame."""
    return PydanticCustomError("value_error", "{error}", {"error": message, "at": ("register", index)})


class Block(NamedTuple):
    """Registers read in one request."""

    start: int
    words: int
    registers: tuple[Register, ...]


class Profile(BaseModel):
    """A register map: one file in ``config/profiles/``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    maker: str
    model: str
    source: str = Field(description="Document and version the map was taken from.")
    recorded: bool = Field(default=False, description="true: checked against the hardware, not only the datasheet.")
    dataset: Name
    function: Literal[3, 4] = Field(3, description="3: holding registers, 4: input registers.")
    word_order: Literal["high-first", "low-first"] = "high-first"
    most_registers: int = Field(125, ge=1, le=125, description="Registers the device gives in one answer.")
    baud: int = Field(9600, ge=50, le=4_000_000)
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    registers: Annotated[tuple[Register, ...], Field(alias="register", strict=False)]

    @model_validator(mode="after")
    def _registers_fit(self) -> Self:
        if not self.registers:
            raise ValueError("the profile has no [[register]]")
        seen: set[str] = set()
        for index, register in enumerate(self.registers):
            if register.channel in seen:
                raise _at(index, f'channel "{register.channel}" stands twice; give each register a name of its own')
            seen.add(register.channel)
            if register.end > REGISTERS:
                raise _at(index, f'"{register.channel}" goes beyond the last register, which is {REGISTERS - 1}')
            if WORDS[register.type] > self.most_registers:
                short = f"the device gives {self.most_registers} in one answer"
                raise _at(index, f'"{register.channel}" takes {WORDS[register.type]} registers; {short}')
        in_order = sorted(enumerate(self.registers), key=lambda item: item[1].address)
        for (_, low), (index, high) in itertools.pairwise(in_order):
            if high.address < low.end:
                where = f"{low.address}" if low.end - low.address == 1 else f"{low.address} to {low.end - 1}"
                raise _at(index, f'"{high.channel}" at {high.address} overlaps "{low.channel}", which takes {where}')
        return self

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The requests that read all of it: registers without a gap, as many as the device gives."""
        return tuple(_blocks(sorted(self.registers, key=lambda register: register.address), self.most_registers))

    def start_of(self, count: int) -> int:
        """Where an answer of that many registers was read from: the first block of that size, else the lowest."""
        return next((block.start for block in self.blocks if block.words == count), self.blocks[0].start)

    @functools.cached_property
    def channels(self) -> dict[str, Channel]:
        """What each register means."""
        return {r.channel: Channel(r.title, r.unit, r.lwm2m) for r in self.registers}

    def read(self, block: Block, data: bytes) -> dict[str, Value]:
        """Convert the data of the answer to one request."""
        values: dict[str, Value] = {}
        for register in block.registers:
            words = data[2 * (register.address - block.start) : 2 * (register.end - block.start)]
            values[register.channel] = register.value(words, low_word_first=self.word_order == "low-first")
        return values


def _blocks(registers: Sequence[Register], most: int) -> Iterator[Block]:
    run: list[Register] = []
    for register in registers:
        if run and (register.address != run[-1].end or register.end - run[0].address > most):
            yield Block(run[0].address, run[-1].end - run[0].address, tuple(run))
            run = []
        run.append(register)
    yield Block(run[0].address, run[-1].end - run[0].address, tuple(run))


class Modbus(Asked):
    """A ``[[device]]`` with ``driver = "modbus"``."""

    driver: Literal["modbus"]
    unit: int = Field(1, ge=0, le=255, description="Unit id (slave address) of the device; 1 to 247 on a serial line.")
    profile: Profile = Field(description="Name of a register map, profiles/NAME.toml.")
    framing: Literal["rtu", "tcp"] | None = Field(
        None, description='How requests are framed; "rtu" on a serial line, "tcp" over TCP unless it says otherwise.'
    )

    @property
    def home(self) -> str:
        """The dataset of the section, else of the profile."""
        return self.dataset or self.profile.dataset

    def make(self) -> str:
        """As the profile says."""
        return f"{self.profile.maker} {self.profile.model}"

    def line(self) -> LineSettings:
        """As the profile says."""
        return LineSettings(self.profile.baud, self.profile.parity, self.profile.stop_bits)

    def misfits(self, transport: Literal["serial", "tcp"]) -> dict[str, str]:
        """A slave address: 0 is for all slaves at once, and none answers; those from 248 are reserved."""
        if self.unit in SLAVES or (transport == "tcp" and self.framing != "rtu"):
            return {}
        where = "on a serial port" if transport == "serial" else 'with framing = "rtu"'
        step = "write the slave address that the device is set to"
        return {"unit": f'"unit" must be {SLAVES[0]} to {SLAVES[-1]} {where}, not {self.unit}; {step}'}

    def place(self) -> str:
        """The unit id: two sections may read the same device."""
        return f"unit {self.unit}"

    def channel(self, name: str) -> Channel:
        """As the profile says."""
        return self.profile.channels[name]

    def expected(self) -> tuple[str, ...]:
        """All of the profile."""
        return tuple(self.profile.channels)

    async def poll(self, port: Port) -> Values:
        """Read all blocks, one request after the other."""
        exchange = self._exchange_tcp if (self.framing or port.transport) == "tcp" else self._exchange_rtu
        values: dict[str, Value] = {}
        for block in self.profile.blocks:
            request = struct.pack(">BHH", self.profile.function, block.start, block.words)
            values |= self.profile.read(block, data_of(await exchange(port, request, 2 + 2 * block.words)))
        return values

    async def _exchange_rtu(self, port: Port, request: bytes, size: int) -> bytes:
        frame = with_crc(bytes([self.unit]) + request)
        return (await port.ask(frame, seek_rtu(self.unit, request), size=size + 3))[1:-2]

    async def _exchange_tcp(self, port: Port, request: bytes, size: int) -> bytes:
        transaction = next(TRANSACTIONS)
        frame = MBAP.pack(transaction, 0, 1 + len(request), self.unit) + request
        seek = seek_tcp(transaction, self.unit, request)
        return (await port.ask(frame, seek, size=size + MBAP.size, tagged=True))[MBAP.size :]

    def decode(self, frame: bytes) -> Values:
        """Read one RTU answer, or a request and the answer to it one after the other.

        An answer alone does not say where it was read from; it is taken for the first request of its size.
        """
        asked, answer = split_request(frame)
        if len(answer) < SHORTEST_ANSWER:
            raise BadFrame(f"an RTU answer has at least {SHORTEST_ANSWER} bytes, this has {len(answer)}")
        if answer != with_crc(answer[:-2]):
            raise BadFrame(f"CRC is {answer[-2:].hex(' ')}, the bytes give {with_crc(answer[:-2])[-2:].hex(' ')}")
        if answer[1] & 0x7F != self.profile.function:
            raise BadFrame(f"function {answer[1] & 0x7F}; the profile reads with function {self.profile.function}")
        try:
            data = data_of(answer[1:-2])
        except NoReply as error:  # the device said nothing; this frame of its converter is sound
            raise NotReady(str(error), hint=error.hint) from error
        count = len(data) // 2
        start = self.profile.start_of(count) if asked is None else asked
        inside = tuple(r for r in self.profile.registers if start <= r.address and r.end <= start + count)
        if not inside:
            raise BadFrame(f"{count} registers from {start} hold no channel of the profile")
        return self.profile.read(Block(start, count, inside), data)


SHORTEST_ANSWER = 5  # unit, function, code, CRC
REQUEST = struct.Struct(">BBHHH")  # unit, function, start, count, CRC


def with_crc(frame: bytes) -> bytes:
    """Append the CRC-16 of "MODBUS over Serial Line" V1.02, appendix B: ``01 03 00 00 00 0a`` + ``c5 cd``."""
    crc = 0xFFFF
    for byte in frame:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return frame + crc.to_bytes(2, "little")


def _crc_of_byte(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


CRC_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


def split_request(frame: bytes) -> tuple[int | None, bytes]:
    """Split a recorded request off the answer behind it: where it reads from, and the rest. Raises NotReady."""
    if len(frame) < REQUEST.size or frame[1] not in (3, 4) or frame[: REQUEST.size] != with_crc(frame[:6]):
        return None, frame
    _, _, start, count, _ = REQUEST.unpack(frame[: REQUEST.size])
    if len(frame) == REQUEST.size:
        raise NotReady(f"a request for {count} registers from {start}", hint="Give the answer to it as well.")
    return start, frame[REQUEST.size :]


def data_of(pdu: bytes) -> bytes:
    """Return the registers in an answer (function, byte count, data). Raises BadFrame, NotReady, NoReply."""
    function, count = pdu[0], pdu[1]
    if function & 0x80:
        said = f"the device answers with exception {count}: {EXCEPTIONS.get(count, 'not in the standard')}"
        if count in BUSY:
            raise NotReady(said)
        if count in UNREACHED:
            raise NoReply(said, hint=HINT_UNREACHED)
        raise BadFrame(said, hint="Check that the profile fits this model and firmware.")
    if count != len(pdu) - 2 or count % 2 or not count:
        raise BadFrame(f"the answer says {count} bytes of registers and carries {len(pdu) - 2}")
    return pdu[2:]


def seek_rtu(unit: int, request: bytes) -> Seek:
    """Look for the answer to a read request (the PDU): right unit, function, length and CRC, at any offset."""
    function, _, count = struct.unpack(">BHH", request)
    heads = {
        bytes([unit, function, 2 * count]): 5 + 2 * count,
        bytes([unit, function | 0x80]): SHORTEST_ANSWER,
    }

    def seek(buffer: bytes) -> Span | None:
        for head, size in heads.items():
            start = buffer.find(head)
            while 0 <= start <= len(buffer) - size:
                frame = buffer[start : start + size]
                if frame == with_crc(frame[:-2]):
                    return start, start + size
                start = buffer.find(head, start + 1)
        return None

    return seek


def seek_tcp(transaction: int, unit: int, request: bytes) -> Seek:
    """Look for the answer to a read request: right transaction, unit, function and length."""
    function, _, count = struct.unpack(">BHH", request)
    heads = {
        MBAP.pack(transaction, 0, 3 + 2 * count, unit) + bytes([function, 2 * count]): MBAP.size + 2 + 2 * count,
        MBAP.pack(transaction, 0, 3, unit) + bytes([function | 0x80]): MBAP.size + 2,
    }

    def seek(buffer: bytes) -> Span | None:
        for head, size in heads.items():
            start = buffer.find(head)
            if 0 <= start <= len(buffer) - size:
                return start, start + size
        return None

    return seek

"""The devices on a UART: their frames on the wire, decoded here by hand, against what they say is true."""

import asyncio
import contextlib
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

import pytest

from hil.truth import Truth, shortest
from hil.twins import pms5003, sds011, sps30
from hil.twins.pms5003 import Pms5003
from hil.twins.sds011 import Sds011
from hil.twins.sps30 import Sps30
from hil.uart import Answers, Talks, Uart
from hil.vclock import run
from hil.wire import Wire
from tests.hil.port import Port

Device = TypeVar("Device", bound=Answers | Talks)

START = bytes.fromhex("7e 00 00 02 01 03 f9 7e")  # protocols.md, sps30
STOP = bytes.fromhex("7e 00 01 00 fe 7e")
READ = bytes.fromhex("7e 00 03 00 fc 7e")


def play(
    link: Path, make: Callable[[], Device], scene: Callable[[Device, Port], Coroutine[None, None, None]], baud: int
) -> None:
    async def main() -> None:
        device = make()
        with contextlib.closing(Uart(Wire(link), device)) as uart:
            uart.plug()
            with Port(link, baud) as port:
                await scene(device, port)

    run(main())


# SPS30


def shdlc(frame: bytes) -> tuple[int, int, bytes]:
    """Return command, state and data of an answer, after every check."""
    assert frame[0] == frame[-1] == 0x7E
    for byte in (0x7E, 0x11, 0x13):
        assert byte not in frame[1:-1]
    content = frame[1:-1]
    for byte in (0x7E, 0x11, 0x13, 0x7D):
        content = content.replace(bytes((0x7D, byte ^ 0x20)), bytes((byte,)))
    assert sum(content) & 0xFF == 0xFF
    assert content[0] == 0
    assert content[3] == len(content) - 5
    return content[1], content[2], content[4:-1]


def command(number: int, data: bytes = b"", address: int = 0) -> bytes:
    content = bytes((address, number, len(data))) + data
    content += bytes((~sum(content) & 0xFF,))
    for byte in (0x7D, 0x7E, 0x11, 0x13):
        content = content.replace(bytes((byte,)), bytes((0x7D, byte ^ 0x20)))
    return b"\x7e" + content + b"\x7e"


def test_the_test_and_the_manual_make_the_same_requests() -> None:
    assert (command(0, b"\x01\x03"), command(1), command(3)) == (START, STOP, READ)


def test_sps30_measures_once_a_second_when_started(tmp_path: Path) -> None:
    async def scene(sensor: Sps30, port: Port) -> None:
        assert shdlc(await port.ask(READ, wait=0.2)) == (3, 0x43, b"")
        assert shdlc(await port.ask(START, wait=0.2)) == (0, 0, b"")
        assert shdlc(await port.ask(READ, wait=0.2)) == (3, 0, b"")  # no sample in the first second
        assert sensor.truth() == {}
        for _ in range(100):
            await asyncio.sleep(0.8)
            number, state, data = shdlc(await port.ask(READ, wait=0.1))
            assert (number, state) == (3, 0)
            values = [shortest(value) for value in struct.unpack(">10f", data)]
            names = ("pm1", "pm2_5", "pm4", "pm10", "n0_5", "n1", "n2_5", "n4", "n10", "typical_size")
            assert sensor.truth() == dict(zip(names, values, strict=True))
            assert values[:4] == sorted(values[:4])
            assert values[4:9] == sorted(values[4:9])
            assert shdlc(await port.ask(READ, wait=0.1)) == (3, 0, b"")  # read already
        assert shdlc(await port.ask(START, wait=0.1)) == (0, 0x43, b"")
        assert shdlc(await port.ask(STOP, wait=0.1)) == (1, 0, b"")
        assert shdlc(await port.ask(STOP, wait=0.1)) == (1, 0x43, b"")

    play(tmp_path / "port", lambda: Sps30(seed=4), scene, 115200)


def test_sps30_forgets_that_it_was_started_when_it_is_reset(tmp_path: Path) -> None:
    async def scene(sensor: Sps30, port: Port) -> None:
        await port.ask(START)
        assert shdlc(await port.ask(command(0xD3))) == (0xD3, 0, b"")
        assert shdlc(await port.ask(READ)) == (3, 0x43, b"")
        await port.ask(START)
        sensor.reset()  # the power was away
        assert shdlc(await port.ask(READ)) == (3, 0x43, b"")

    play(tmp_path / "port", Sps30, scene, 115200)


@pytest.mark.parametrize(
    ("request_frame", "answer"),
    [
        (command(0xD0, b"\x00"), (0xD0, 0, b"00080000\0")),
        (command(0xD0, b"\x03"), (0xD0, 0, b"7D0B2C46A9E1F358\0")),
        (command(0xD0, b"\x07"), (0xD0, 0x04, b"")),
        (command(0xD1), (0xD1, 0, bytes((2, 2, 0, 7, 0, 2, 0)))),
        (command(0x42), (0x42, 0x02, b"")),
        (command(0x00, b"\x01"), (0, 0x01, b"")),
        (command(0x00, b"\x01\x05"), (0, 0x04, b"")),
        (command(0x01, b"\x7e" * 255), (1, 0x01, b"")),  # uart-frame-errors.json: everything stuffed, and understood
    ],
)
def test_sps30_answers(tmp_path: Path, request_frame: bytes, answer: tuple[int, int, bytes]) -> None:
    async def scene(_: Sps30, port: Port) -> None:
        assert shdlc(await port.ask(request_frame)) == answer

    play(tmp_path / "port", Sps30, scene, 115200)


@pytest.mark.parametrize(
    "request_frame",
    [
        READ[:-2] + b"\x00\x7e",  # checksum
        command(3, address=1),
        bytes.fromhex("7e 00 03 01 fb 7e"),  # length says one byte more
        bytes.fromhex("7e ff 7e"),
        b"\x7e\x7e\x7e",
    ],
)
def test_sps30_is_silent_to_what_is_no_frame_for_it(tmp_path: Path, request_frame: bytes) -> None:
    async def scene(_: Sps30, port: Port) -> None:
        assert await port.ask(request_frame) == b""
        assert shdlc(await port.ask(READ)) == (3, 0x43, b"")

    play(tmp_path / "port", Sps30, scene, 115200)


def test_sps30_frames_are_those_of_a_real_one() -> None:
    # uart-particulate-co2.json, SPS30-1630991110 (PyPMS 45c3bf0); uart-frame-errors.json (python-shdlc-driver 83161dd)
    captured = "7e0003002840b9c67f41036c8b411e4ae24123aa92420c5b7c422efdba4238cab3423ab2c9423afde93f4a1025d67e"
    assert sps30.frame(0, 3, 0, shdlc(bytes.fromhex(captured))[2]).hex() == captured
    assert sps30.frame(0, 1, 0, b"\x7e" * 255).hex() == "7e000100ff" + "7d5e" * 255 + "7d5d" + "7e"


# PMS5003


def plantower(frame: bytes) -> list[int]:
    """Return the thirteen words of a frame, after every check."""
    assert len(frame) == 32
    assert frame[:4] == bytes.fromhex("424d001c")
    assert int.from_bytes(frame[30:], "big") == sum(frame[:30])
    return list(struct.unpack(">13H", frame[4:30]))


def as_plantower_reads(words: list[int]) -> Truth:
    names = ("n0_3", "n0_5", "n1", "n2_5", "n5", "n10")
    truth: Truth = dict(zip(("pm1", "pm2_5", "pm10"), words[3:6], strict=True))
    return truth | {name: count / 100 for name, count in zip(names, words[6:12], strict=True)}


def test_pms5003_talks_every_second(tmp_path: Path) -> None:
    async def scene(sensor: Pms5003, port: Port) -> None:
        seen = set()
        await asyncio.sleep(0.5)
        for _ in range(120):
            frame = await port.ask(b"", wait=1.0)
            words = plantower(frame)
            assert as_plantower_reads(words) == sensor.truth()
            assert words[6:12] == sorted(words[6:12], reverse=True)
            assert words[:3] != words[3:6]  # the factory's values are not the ones to report
            seen.add(frame)
        assert len(seen) > 40

    play(tmp_path / "port", lambda: Pms5003(seed=2), scene, 9600)


def test_pms5003_obeys_its_commands(tmp_path: Path) -> None:
    # Commands: protocols.md; answers: PyPMS 45c3bf0, plantower/pmsx003.
    async def scene(sensor: Pms5003, port: Port) -> None:
        passive, active = bytes.fromhex("424de100000170"), bytes.fromhex("424de100010171")
        read, sleep, wake = (bytes.fromhex(text) for text in ("424de200000171", "424de400000173", "424de400010174"))
        assert await port.ask(read, wait=0.2) == b""  # nothing to ask for in active mode
        assert await port.ask(passive, wait=0.2) == bytes.fromhex("424d0004e1000174")
        assert await port.ask(b"", wait=3.0) == b""
        for _ in range(3):
            frame = await port.ask(read, wait=0.2)
            assert as_plantower_reads(plantower(frame)) == sensor.truth()
        assert await port.ask(active, wait=0.2) == bytes.fromhex("424d0004e1010175")
        assert len(await port.ask(b"", wait=2.0)) == 64
        await port.ask(passive, wait=0.2)
        assert await port.ask(sleep, wait=0.2) == bytes.fromhex("424d0004e4000177")
        assert await port.ask(read, wait=2.0) == b""
        assert len(await port.ask(wake, wait=2.0)) == 64  # awake is active

    play(tmp_path / "port", Pms5003, scene, 9600)


def test_pms5003_finds_a_command_in_rubbish(tmp_path: Path) -> None:
    async def scene(_: Pms5003, port: Port) -> None:
        passive = bytes.fromhex("424de100000170")
        assert await port.ask(b"\x42\x42\x4d\xe1\x00" + passive, wait=0.3) == bytes.fromhex("424d0004e1000174")
        assert await port.ask(passive[:-1] + b"\0", wait=0.3) == b""

    play(tmp_path / "port", Pms5003, scene, 9600)


def test_pms5003_sends_zeros_while_it_warms_up(tmp_path: Path) -> None:
    async def scene(sensor: Pms5003, port: Port) -> None:
        # as test_decode_error-PMSx003-empty-message of PyPMS, with the version that every recorded frame has
        zeros = bytes.fromhex("424d001c0000000000000000000000000000000000000000000000009700") + bytes([0x01, 0x42])
        assert await port.ask(b"", wait=2.5) == zeros * 2
        assert sensor.truth() == {}
        assert sum(plantower(await port.ask(b"", wait=1.0))) > 0

    play(tmp_path / "port", lambda: Pms5003(warm_up_s=2.5), scene, 9600)


@pytest.mark.parametrize(
    "captured",
    [  # uart-particulate-co2.json, PMSx003 (PyPMS 45c3bf0)
        "424d001c00000007000700000007000700d20046002d001e00000000970002c1",
        "424d001c000000060006000000060006009f0035001a0012000000009700025a",
    ],
)
def test_pms5003_frames_are_those_of_a_real_one(captured: str) -> None:
    words = plantower(bytes.fromhex(captured))
    assert pms5003.frame(words).hex() == captured
    assert as_plantower_reads(words)["n0_3"] in (2.1, 1.59)


# SDS011


def nova(frame: bytes) -> Truth:
    """Return what a frame says, after every check."""
    assert len(frame) == 10
    assert (frame[:2], frame[9]) == (b"\xaa\xc0", 0xAB)
    assert frame[8] == sum(frame[2:8]) % 256
    pm2_5, pm10 = struct.unpack("<HH", frame[2:6])
    return {"pm2_5": pm2_5 / 10, "pm10": pm10 / 10}


def nova_command(number: int, *data: int, unit: int = 0xFFFF) -> bytes:
    body = bytes((number, *data)).ljust(13, b"\0") + unit.to_bytes(2, "big")
    return b"\xaa\xb4" + body + bytes((sum(body) % 256,)) + b"\xab"


def test_sds011_talks_every_second(tmp_path: Path) -> None:
    async def scene(sensor: Sds011, port: Port) -> None:
        await asyncio.sleep(0.5)
        seen = set()
        for _ in range(120):
            frame = await port.ask(b"", wait=1.0)
            assert nova(frame) == sensor.truth()
            seen.add(frame)
        assert len(seen) > 40

    play(tmp_path / "port", lambda: Sds011(seed=2), scene, 9600)


def test_sds011_answers_queries_and_falls_silent_when_told(tmp_path: Path) -> None:
    async def scene(sensor: Sds011, port: Port) -> None:
        query = nova_command(4)
        # V1.3's example: AA B4 04 00 .. FF FF 02 AB
        assert query == bytes.fromhex("aab404 000000000000000000000000 ffff 02 ab")
        assert nova(await port.ask(query, wait=0.2)) == sensor.truth()
        assert await port.ask(nova_command(2, 1, 1), wait=0.2) == bytes.fromhex("aac5 02010100 a160 05 ab")
        assert await port.ask(b"", wait=3.0) == b""
        assert await port.ask(nova_command(2), wait=0.2) == bytes.fromhex("aac5 02000100 a160 04 ab")
        assert nova(await port.ask(nova_command(4, unit=0xA160), wait=0.2)) == sensor.truth()
        assert await port.ask(nova_command(4, unit=0xA161), wait=0.2) == b""
        assert await port.ask(query[:-2] + b"\0\xab", wait=0.2) == b""
        assert await port.ask(nova_command(99), wait=0.2) == b""
        assert nova(await port.ask(b"\xaa\xb4\xaa" + query, wait=0.2)) == sensor.truth()
        await port.ask(nova_command(2, 1, 0), wait=0.2)
        assert len(await port.ask(b"", wait=3.0)) == 30

    play(tmp_path / "port", Sds011, scene, 9600)


def test_sds011_frames_are_those_of_a_real_one() -> None:
    # uart-particulate-co2.json, SDS01x-1601230280 (PyPMS 45c3bf0)
    assert sds011.frame(0xC0, bytes.fromhex("06000600"), unit=bytes.fromhex("58d9")).hex() == "aac00600060058d93dab"


def test_truth_can_be_asked_for_later(tmp_path: Path) -> None:
    async def scene(sensor: Sds011, port: Port) -> None:
        frames = [(await port.ask(b"", wait=1.0), asyncio.get_running_loop().time()) for _ in range(5)]
        for frame, at in frames[1:]:
            assert sensor.truth(at - 0.5) == nova(frame)
        assert sensor.truth(0.5) == {}

    play(tmp_path / "port", Sds011, scene, 9600)


@pytest.mark.parametrize("make", [Pms5003, Sds011])
def test_a_seed_gives_the_same_story(tmp_path: Path, make: Callable[..., Talks]) -> None:
    def story(seed: int) -> list[tuple[float, bytes]]:
        told: list[tuple[float, bytes]] = []

        async def scene(_: Talks, port: Port) -> None:
            await asyncio.sleep(5.5)
            told.extend(port.trace)

        play(tmp_path / "port", lambda: make(seed=seed), scene, 9600)
        return told

    assert story(1) == story(1)
    assert story(1) != story(2)

"""One RS-485 pair: when characters come, what faults and collisions make of them."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from hil.faults import Kind, SerialFault
from hil.line import Mode
from hil.rs485 import Rs485
from hil.twins.modbus import ModbusSlave, crc16, noise, sdm630
from hil.vclock import run
from hil.wire import Wire
from tests.hil.port import Port

CHAR_S = 10 / 9600
TURNAROUND_S = 0.004
VOLTS = bytes.fromhex("01040000000271cb")  # modbus-rtu.json: sdm-read-volts-req

Scene = Callable[[Rs485, Port], Coroutine[None, None, None]]


def with_crc(body: bytes) -> bytes:
    return body + crc16(body).to_bytes(2, "little")


def play(link: Path, scene: Scene, *, seed: int = 1, mode: Mode = "uart", echo: bool = False, baud: int = 9600) -> None:
    """Run a scene with an SDM630 as unit 1 and a noise meter as unit 2."""

    async def main() -> None:
        slaves: list[ModbusSlave] = [sdm630(1, seed=seed), noise(2, seed=seed)]
        with contextlib.closing(Rs485(Wire(link), slaves, seed=seed, mode=mode, echo=echo)) as line:
            line.plug()
            with Port(link, baud) as port:
                await scene(line, port)

    run(main())


def is_good(reply: bytes, unit: int = 1) -> bool:
    return len(reply) > 4 and reply[0] == unit and with_crc(reply[:-2]) == reply


def test_a_reply_takes_its_characters_time(tmp_path: Path) -> None:
    async def scene(_: Rs485, port: Port) -> None:
        await asyncio.sleep(1.0)
        reply = await port.ask(with_crc(bytes.fromhex("01040000000a")))
        assert len(reply) == 25
        started = 1.0 + 8 * CHAR_S + 3.5 * CHAR_S + TURNAROUND_S
        assert [len(data) for _, data in port.trace] == [1] * 25
        assert port.trace[0][0] == pytest.approx(started + CHAR_S, abs=1e-8)
        assert port.trace[-1][0] == pytest.approx(started + 25 * 10 / 9600, abs=1e-8)

    play(tmp_path / "port", scene)


def test_above_19200_baud_the_silence_is_fixed(tmp_path: Path) -> None:
    async def scene(_: Rs485, port: Port) -> None:
        await port.ask(VOLTS)
        char_s = 10 / 115200
        assert port.trace[-1][0] == pytest.approx(17 * char_s + 0.00175 + TURNAROUND_S, abs=1e-8)

    play(tmp_path / "port", scene, baud=115200)


def test_a_fifo_hands_on_fourteen_at_a_time(tmp_path: Path) -> None:
    async def scene(_: Rs485, port: Port) -> None:
        await port.ask(with_crc(bytes.fromhex("01040000000a")))
        started = 11.5 * CHAR_S + TURNAROUND_S
        assert [len(data) for _, data in port.trace] == [14, 11]
        assert port.trace[0][0] == pytest.approx(started + 14 * CHAR_S, abs=1e-8)
        assert port.trace[1][0] == pytest.approx(started + (25 + 4) * CHAR_S, abs=1e-8)

    play(tmp_path / "port", scene, mode="fifo")


@pytest.mark.parametrize(("mode", "latency_s"), [("ftdi16", 0.016), ("ftdi1", 0.001)])
def test_an_ftdi_hands_on_when_its_latency_timer_expires(tmp_path: Path, mode: Mode, latency_s: float) -> None:
    async def scene(_: Rs485, port: Port) -> None:
        await port.ask(with_crc(bytes.fromhex("01040000000a")))
        over = 11.5 * CHAR_S + TURNAROUND_S + 25 * CHAR_S
        ticks = [at / latency_s for at, _ in port.trace]
        assert ticks == pytest.approx([round(tick) for tick in ticks], abs=1e-6)
        assert over <= port.trace[-1][0] < over + latency_s

    play(tmp_path / "port", scene, mode=mode)


def test_an_ftdi_sends_a_full_packet_at_once(tmp_path: Path) -> None:
    async def scene(_: Rs485, port: Port) -> None:
        await port.ask(with_crc(bytes.fromhex("01040000003c")))
        assert [len(data) for _, data in port.trace] == [62, 62, 1]
        assert port.trace[1][0] - port.trace[0][0] == pytest.approx(62 * 10 / 115200, abs=1e-8)
        assert port.trace[2][0] - port.trace[1][0] == pytest.approx(0.016, abs=1e-8)

    play(tmp_path / "port", scene, mode="ftdi16", baud=115200)


def test_nobody_answers_for_an_unknown_unit_nor_for_all(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        assert await port.ask(with_crc(bytes.fromhex("070400000002"))) == b""
        assert await port.ask(with_crc(bytes.fromhex("000400000002"))) == b""
        assert line.counts == {"requests": 2, "unknown": 1, "broadcast": 1}

    play(tmp_path / "port", scene)


def test_a_damaged_request_is_not_answered(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        assert await port.ask(VOLTS[:-1] + b"\0") == b""
        assert await port.ask(VOLTS[:3]) == b""
        assert line.counts == {"requests": 2, "unreadable": 2}

    play(tmp_path / "port", scene)


def test_at_another_speed_nobody_understands(tmp_path: Path) -> None:
    async def main() -> None:
        with contextlib.closing(Rs485(Wire(tmp_path / "port"), [sdm630(1)], baud=19_200)) as line:
            line.plug()
            with Port(tmp_path / "port", 9600) as port:
                assert await port.ask(VOLTS) == b""
                assert line.counts == {"requests": 1, "unreadable": 1}
                port.serial.baudrate = 19_200
                assert is_good(await port.ask(VOLTS))

    run(main())


def test_a_pause_inside_a_request_breaks_it_in_two(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        port.serial.write(VOLTS[:4])
        await asyncio.sleep(4 * CHAR_S + 3 * CHAR_S)
        assert is_good(await port.ask(VOLTS[4:]))
        port.serial.write(VOLTS[:4])
        await asyncio.sleep(4 * CHAR_S + 4 * CHAR_S)
        assert await port.ask(VOLTS[4:]) == b""
        assert line.counts == {"requests": 3, "unreadable": 2}

    play(tmp_path / "port", scene)


def test_what_is_written_faster_than_the_line_waits_its_turn(tmp_path: Path) -> None:
    async def scene(_: Rs485, port: Port) -> None:
        port.serial.write(VOLTS[:3])
        await asyncio.sleep(0)
        port.serial.write(VOLTS[3:5])
        await asyncio.sleep(CHAR_S)
        assert is_good(await port.ask(VOLTS[5:]))
        assert port.trace[0][0] == pytest.approx(11.5 * CHAR_S + TURNAROUND_S + CHAR_S, abs=1e-8)

    play(tmp_path / "port", scene)


def test_an_adapter_that_hears_itself_gets_its_own_characters_first(tmp_path: Path) -> None:
    async def scene(_: Rs485, port: Port) -> None:
        received = await port.ask(VOLTS)
        assert received[:8] == VOLTS
        assert is_good(received[8:])
        assert port.trace[7][0] == pytest.approx(8 * CHAR_S, abs=1e-8)

    play(tmp_path / "port", scene, echo=True)


def test_a_dead_slave_is_silent_until_it_lives_again(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        slave = line.slaves[1]
        slave.alive = False
        assert await port.ask(VOLTS) == b""
        slave.alive = True
        assert is_good(await port.ask(VOLTS))
        assert slave.counts == {"seen": 1, "answered": 1}
        assert line.counts == {"requests": 2, "unknown": 1}

    play(tmp_path / "port", scene)


def differing_bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


@pytest.mark.parametrize(
    ("kind", "arg", "shows"),
    [
        ("silent", 1, lambda bad, _: bad == b""),
        ("flip", 3, lambda bad, good: len(bad) == len(good) and differing_bits(bad, good) == 3),
        ("truncate", 4, lambda bad, good: bad == good[:-4]),
        ("pre_noise", 2, lambda bad, good: len(bad) == len(good) + 2 and bad[2:] == good),
        ("pre_zero", 1, lambda bad, good: bad == b"\0" + good),
        ("post_noise", 2, lambda bad, good: len(bad) == len(good) + 2 and bad[:-2] == good),
        ("garbage", 1, lambda bad, good: len(bad) == len(good) and differing_bits(bad, good) > 8),
        ("wrong_id", 1, lambda bad, good: bad == with_crc(b"\x02" + good[1:-2])),
        ("wrong_fc", 1, lambda bad, good: bad == with_crc(b"\x01\x04" + good[2:-2])),
        ("exception", 6, lambda bad, _: bad == with_crc(b"\x01\x83\x06")),
        ("dup", 1, lambda bad, good: bad == good + good),
    ],
)
def test_a_fault_is_seen_on_the_wire_once(
    tmp_path: Path, kind: Kind, arg: float, shows: Callable[[bytes, bytes], bool]
) -> None:
    ask = with_crc(bytes.fromhex("010300140002"))  # a holding register: the same bytes every time

    async def scene(line: Rs485, port: Port) -> None:
        good = await port.ask(ask)
        line.slaves[1].faults.arm(SerialFault(kind, arg))
        assert shows(await port.ask(ask), good)
        assert await port.ask(ask) == good
        assert line.slaves[1].faults.counts == {kind: 1}

    play(tmp_path / "port", scene)


def test_a_duplicate_follows_after_the_silence(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        line.slaves[1].faults.arm(SerialFault("dup"))
        await port.ask(VOLTS)
        assert port.trace[9][0] - port.trace[8][0] == pytest.approx(4.5 * CHAR_S, abs=1e-8)

    play(tmp_path / "port", scene)


def test_a_late_answer_is_whole_and_the_next_one_waits_for_it(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        line.slaves[1].faults.arm(SerialFault("late", 0.3))
        assert await port.ask(VOLTS, wait=0.29) == b""
        both = await port.ask(with_crc(bytes.fromhex("010400000001")))
        assert is_good(both[:9])
        assert is_good(both[9:])
        assert (both[2], both[11]) == (4, 2)  # byte counts: first the answer to the first question

    play(tmp_path / "port", scene)


def test_faults_with_dice_strike_about_as_often_as_told(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        line.slaves[1].faults.arm(SerialFault("silent", times=None, p=0.25))
        answers = [await port.ask(VOLTS, wait=0.1) for _ in range(200)]
        silent = answers.count(b"")
        assert 30 < silent < 70
        assert line.slaves[1].faults.counts == {"silent": silent}
        assert line.slaves[1].counts == {"seen": 200, "answered": 200 - silent}
        line.slaves[1].faults.clear()
        assert all([await port.ask(VOLTS, wait=0.1) for _ in range(20)])

    play(tmp_path / "port", scene)


def test_an_unknown_kind_of_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="'slient' is not a fault; there are silent, late, "):
        SerialFault("slient")  # type: ignore[arg-type]  # what a typing mistake at run time looks like


def test_two_slaves_talking_at_once_garble_each_other(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        # Unit 1 starts while unit 2 is in its third character of seven.
        line.slaves[1].faults.arm(SerialFault("late", 0.1))
        port.serial.write(VOLTS)
        starts = 11.5 * CHAR_S + TURNAROUND_S + 0.1
        await asyncio.sleep(starts - 2.5 * CHAR_S - 11.5 * CHAR_S - TURNAROUND_S)
        received = await port.ask(with_crc(bytes.fromhex("020300000001")))
        clear = line.slaves[2].answer(bytes.fromhex("0300000001"))
        assert received[:2] == b"\x02" + clear[:1]
        assert received[2:7] != with_crc(b"\x02" + clear)[2:]
        # What is heard is as long as the time somebody talked; only the late one's tail is clear again.
        assert len(received) in (11, 12)
        assert not is_good(received[:7], unit=2)
        assert line.counts["garbled"] in (10, 11)

    play(tmp_path / "port", scene)


def test_a_request_over_an_answer_spoils_both(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        line.slaves[1].faults.arm(SerialFault("late", 0.1))
        port.serial.write(VOLTS)
        await asyncio.sleep(11.5 * CHAR_S + TURNAROUND_S + 0.1 - 4 * CHAR_S)
        received = await port.ask(with_crc(bytes.fromhex("020300000001")))
        assert len(received) == 5  # deaf while it sends: four characters of the nine are missed
        assert line.counts["unreadable"] == 1
        assert line.counts["garbled"] == 8
        assert is_good(await port.ask(VOLTS))

    play(tmp_path / "port", scene)


def test_an_adapter_is_deaf_to_an_answer_while_it_sends(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        port.serial.write(with_crc(bytes.fromhex("01040000000a")))
        await asyncio.sleep(11.5 * CHAR_S + TURNAROUND_S + 10.5 * CHAR_S)
        assert len(port.received) == 10
        await port.ask(with_crc(bytes.fromhex("020300000001")))
        assert len(port.received) == 25 - 10 - 9  # eight characters touch nine
        assert line.counts["unreadable"] == 1

    play(tmp_path / "port", scene)


def test_a_babbler_drowns_everybody_for_its_time(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        line.babble(0.5)
        noise_heard = await port.ask(VOLTS, wait=0.6)
        assert not is_good(noise_heard[-9:])
        assert 0.5 / CHAR_S - 10 < len(noise_heard) < 0.5 / CHAR_S + 10
        assert line.counts["unreadable"] == 1
        assert is_good(await port.ask(VOLTS))

    play(tmp_path / "port", scene)


def test_pulled_in_the_middle_of_an_answer_the_port_hangs_up(tmp_path: Path) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        port.serial.write(with_crc(bytes.fromhex("01040000000a")))
        await asyncio.sleep(20 * CHAR_S + TURNAROUND_S)
        before = line.wire.link.readlink()
        line.unplug()
        await asyncio.sleep(0.1)
        assert str(port.error).startswith("device reports readiness to read but returned no data")
        assert len(port.received) == 8
        line.plug()
        assert line.wire.link.readlink() != before
        with Port(line.wire.link) as again:
            assert is_good(await again.ask(VOLTS))

    play(tmp_path / "port", scene)


@pytest.mark.parametrize("echo", [False, True])
def test_pulled_in_the_middle_of_a_request_nobody_hears_it(tmp_path: Path, *, echo: bool) -> None:
    async def scene(line: Rs485, port: Port) -> None:
        port.serial.write(VOLTS)
        await asyncio.sleep(4 * CHAR_S)
        line.unplug()
        line.plug()
        with Port(line.wire.link) as again:
            await asyncio.sleep(0.2)
            assert again.received == b""
            assert line.counts["requests"] == 0
            assert is_good((await again.ask(VOLTS))[8 * echo :])

    play(tmp_path / "port", scene, echo=echo)


def faulty_hour(link: Path, seed: int) -> str:
    """Return the digest of what came and when, over 200 polls of a bad line."""
    digest = hashlib.sha256()

    async def scene(line: Rs485, port: Port) -> None:
        for slave in line.slaves.values():
            slave.faults.arm(SerialFault("flip", 2, times=None, p=0.3))
            slave.faults.arm(SerialFault("late", 0.11, times=None, p=0.2))
            slave.faults.arm(SerialFault("pre_noise", 1, times=None, p=0.2))
        for _ in range(100):
            for request in (VOLTS, with_crc(bytes.fromhex("020300000001"))):
                await port.ask(request, wait=0.1)
                digest.update(repr(port.trace).encode())
        assert line.counts["garbled"] > 0

    play(link, scene, seed=seed)
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_bytes_at_the_same_times(tmp_path: Path) -> None:
    link = tmp_path / "port"
    first = faulty_hour(link, seed=7)
    assert faulty_hour(link, seed=7) == first
    assert faulty_hour(link, seed=8) != first


def test_in_real_time_an_answer_is_never_early(tmp_path: Path) -> None:
    async def main() -> float:
        with contextlib.closing(Rs485(Wire(tmp_path / "port"), [sdm630(1)])) as line:
            line.plug()
            with Port(tmp_path / "port", 115200) as port:
                written = asyncio.get_running_loop().time()
                assert is_good(await port.ask(VOLTS, wait=0.05))
                return port.trace[-1][0] - written

    assert asyncio.run(main()) > 17 * 10 / 115200 + 0.00175 + TURNAROUND_S

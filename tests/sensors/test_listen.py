"""The job that hears devices which talk by themselves: what it keeps, what it calls silence, what noise costs."""

import asyncio
import contextlib
import functools
import itertools
import operator
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from structlog.testing import capture_logs

from drivers.contract import Advert, Advertised, BadFrame, Channel, NotReady, PortGone, Span, Streamed, Values
from drivers.nmea0183 import Nmea0183
from drivers.pms5003 import Pms5003
from drivers.ruuvi import Ruuvi
from gateway.sensors.listen import Ear, unread
from gateway.sensors.serial_wire import SerialWire
from gateway.words.reading import Quality
from hil.faults import SerialFault
from hil.twins.nmea0183 import Nmea0183 as Receiver
from hil.twins.pms5003 import Pms5003 as DustSensor
from hil.twins.pms5003 import frame
from hil.twins.ruuvi import RuuviTag
from hil.uart import Replay, Talks, Uart
from hil.vclock import run
from hil.wire import Wire
from tests.sensors.stage import Shelf, line_on, now

ADDRESS = "CB:B8:33:4C:88:4F"


def gnss(every: float = 10.0) -> Nmea0183:
    """Return the driver of a GNSS receiver."""
    return Nmea0183(id="gnss", driver="nmea0183", port="uart", every=every)


def sentence(body: str) -> bytes:
    """Return a line of NMEA 0183."""
    return f"${body}*{functools.reduce(operator.xor, body.encode()):02X}\r\n".encode()


FIX = "GPGGA,120000,6011.1,N,02456.2,E,1,8,0.9,20,M,,M,,"


def dust(every: float = 0.0) -> Pms5003:
    """Return the driver of a dust sensor."""
    return Pms5003(id="dust", driver="pms5003", port="uart", every=every)


@contextlib.asynccontextmanager
async def heard(
    link: Path, twin: Talks, device: Streamed, *, plugged: bool = True, sizes: list[int] | None = None
) -> AsyncIterator[tuple[Uart, Shelf]]:
    """Hear a twin on a wire; ``sizes`` takes how many bytes were held each time a frame was sought."""
    with contextlib.closing(Uart(Wire(link), twin, seed=1)) as uart:
        if plugged:
            uart.plug()
        async with line_on(SerialWire(str(link), device.line())) as line:
            shelf = Shelf(device)
            ear = Ear(device, shelf.account)

            def seek(buffer: bytes) -> Span | None:
                if sizes is not None:
                    sizes.append(len(buffer))
                return ear.seek(buffer)

            line.stream(seek, device.LONGEST, ear.frame)
            job = asyncio.create_task(ear.listen(line.trouble))
            try:
                yield uart, shelf
                assert not job.done()
            finally:
                job.cancel()
                await asyncio.wait([job])


def test_a_talker_that_sends_its_channels_in_different_sentences_keeps_all_of_them(tmp_path: Path) -> None:
    async def main() -> None:
        receiver = Receiver()
        async with heard(tmp_path / "uart", receiver, gnss(every=10)) as (_, shelf):
            await asyncio.sleep(100)
        channels = {"latitude", "longitude", "altitude", "speed", "course", "fix_quality", "satellites", "hdop"}
        assert {name for reading in shelf.readings for name in reading.values} == channels
        for channel in channels:
            times = shelf.times(channel)
            assert len(times) == 10
            assert {int(at // 10) for at in times} == set(range(10))  # one in each slot
            said = [(reading.at, reading.values[channel]) for reading in shelf.readings if channel in reading.values]
            for at, value in said:  # the first of its slot, as it was sent a moment ago
                assert value == pytest.approx(receiver.truth(at / 1e9)[channel], abs=1e-7)

    run(main())


def test_every_0_keeps_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with heard(tmp_path / "uart", DustSensor(), dust(every=0)) as (uart, shelf):
            await asyncio.sleep(60.5)
            assert len(shelf.times("pm2_5")) == uart.counts["spoken"] == 60
        async with heard(tmp_path / "uart", DustSensor(), dust(every=2)) as (_, shelf):
            await asyncio.sleep(60.5)
            assert len(shelf.times("pm2_5")) == pytest.approx(30, abs=1)

    run(main())


def said(pause_s: float, every: float, jitter_s: float = 0.005) -> tuple[int, list[float]]:
    """Say a thousand frames, each a little early or late; return how many slots that is, and when one was kept."""

    async def main() -> Shelf:
        shelf, chance = Shelf(dust(every)), random.Random(1)  # noqa: S311  # no secret
        ear = Ear(dust(every), shelf.account)
        for turn in range(1000):
            await asyncio.sleep(10 + turn * pause_s + chance.gauss(0, jitter_s) - now())
            assert ear.frame(GOOD)
        return shelf

    return round(1000 * pause_s / max(pause_s, every)), run(main()).times("pm2_5")


@pytest.mark.parametrize("every", [1.0, 2.0, 3.0, 10.0])
def test_a_talker_that_is_a_little_early_or_late_loses_no_reading(every: float) -> None:
    slots, times = said(1.0, every)
    assert len(times) == pytest.approx(slots, abs=1)
    assert all(after - before == pytest.approx(every, abs=0.05) for before, after in itertools.pairwise(times))


@pytest.mark.parametrize("pause_s", [0.999, 1.001])
def test_a_talker_whose_clock_is_not_ours_loses_no_more_than_it_is_fast(pause_s: float) -> None:
    slots, times = said(pause_s, 1.0)
    assert slots - 2 <= len(times) <= slots + 1


@pytest.mark.parametrize("every", [0.7, 1e-310])
def test_a_talker_that_pauses_longer_than_asked_is_kept_whole(every: float) -> None:
    assert len(said(1.0, every)[1]) == 1000


def test_after_a_hole_no_more_is_kept_than_before() -> None:
    async def main() -> None:
        shelf = Shelf(dust(every=5))
        ear = Ear(dust(every=5), shelf.account)
        for pause_s in [1] * 19 + [42] + [1] * 20:
            assert ear.frame(GOOD)
            await asyncio.sleep(pause_s)
        assert shelf.times("pm2_5") == [0, 5, 10, 15, 61, 66, 71, 76]

    run(main())


def test_a_channel_that_is_said_later_joins_those_of_its_sentence() -> None:
    async def main() -> None:
        shelf = Shelf(gnss(every=10))
        ear = Ear(gnss(every=10), shelf.account)
        for second in range(60):
            assert ear.frame(sentence("GPGGA,,,,,,0,0,,,M,,M,," if second < 33 else FIX))
            await asyncio.sleep(1)
        assert shelf.times("satellites") == [0, 10, 20, 30, 40, 50]
        assert shelf.times("hdop") == [33, 40, 50]

    run(main())


Trouble = Callable[[Uart], object]
SILENCES: list[tuple[str, Trouble]] = [
    ("no-reply", lambda uart: setattr(uart, "alive", False)),
    ("port-gone", lambda uart: uart.unplug()),
    ("bad-frame", lambda uart: uart.faults.arm(SerialFault("garbage", times=None))),
    ("bad-frame", lambda uart: uart.faults.arm(SerialFault("flip", 1, times=None))),
]


@pytest.mark.parametrize(("word", "trouble"), SILENCES)
def test_a_silence_is_one_lapse_with_the_right_word_and_ends_with_the_first_good_frame(
    tmp_path: Path, word: str, trouble: Trouble
) -> None:
    async def main() -> None:
        async with heard(tmp_path / "uart", DustSensor(), dust(every=600)) as (uart, shelf):
            uart.faults.arm(SerialFault("flip"))  # one bad frame, long before
            await asyncio.sleep(30.5)
            began = now()
            trouble(uart)
            await asyncio.sleep(100)
            assert [(what, why) for _, what, why in shelf.lapses()] == [("", word)]
            assert shelf.lapses()[0][0] - began <= 1.1 * Pms5003.SILENT_AFTER_S + 0.1
            assert shelf.health.trouble
            back = now()
            uart.alive = True
            uart.faults.clear()
            if not uart.wire.plugged:
                uart.plug()
            await asyncio.sleep(10)
            assert [why for _, _, why in shelf.lapses()] == [word, "ok"]
            last = shelf.readings[-1]
            assert last.values["quality"] == Quality(4, "ok")
            assert "pm2_5" in last.values  # the first good frame is kept, however long the slots are
            assert last.at / 1e9 - back < 2.5  # a port is looked for once a second, the sensor talks once a second
            assert not shelf.health.trouble

    run(main())


@pytest.mark.parametrize("noise", [0, 3])
def test_a_sensor_that_warms_up_is_not_ready_even_if_there_was_noise_at_power_up(tmp_path: Path, noise: int) -> None:
    async def main() -> None:
        async with heard(tmp_path / "uart", DustSensor(warm_up_s=45), dust()) as (uart, shelf):
            if noise:
                uart.faults.arm(SerialFault("pre_noise", noise))
            await asyncio.sleep(60)
        assert [why for _, _, why in shelf.lapses()] == ["not-ready", "ok"]
        assert shelf.times("pm2_5")[0] == pytest.approx(45, abs=2)

    run(main())


POSITION = sentence("GPGLL,6011.1,N,02456.2,E,120000,A")
IN_VIEW = b"$GPGSV,3,3,10,24,06,166,35,28,09,271,36*7D\r\n"


def test_a_talker_that_says_only_what_is_not_read_is_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with heard(tmp_path / "uart", Replay([IN_VIEW], 1.0, for_ever=True), gnss()) as (_, shelf):
            await asyncio.sleep(40)
        assert [why for _, _, why in shelf.lapses()] == ["not-ready"]
        assert "none with a value that is read; the last: $GPGSV,3,3,10,24" in shelf.health.text

    run(main())


def test_a_talker_whose_turns_end_with_what_is_not_read_is_silent_when_it_falls_silent(tmp_path: Path) -> None:
    async def main() -> None:
        turns = Replay([POSITION, IN_VIEW] * 10, 0.3)
        async with heard(tmp_path / "uart", turns, gnss(every=0)) as (_, shelf):
            await asyncio.sleep(60)
        assert shelf.health.good == 10
        assert [why for _, _, why in shelf.lapses()] == ["no-reply"]
        assert "address" not in shelf.health.hint

    run(main())


def test_a_frame_without_a_value_is_shown_in_hex_where_it_is_no_text() -> None:
    assert "the last: aa 00 ff" in str(unread(b"\xaa\x00\xff"))
    assert str(unread(b"\x01" * 33)).endswith("01 01 ...")


def test_a_whole_frame_without_a_reading_is_no_noise_and_a_damaged_one_is() -> None:
    async def main() -> None:
        device = dust()
        ear = Ear(device, Shelf(device).account)
        assert ear.frame(GOOD) is True
        assert ear.frame(frame([0] * 13)) is True  # it warms up
        assert ear.frame(GOOD[:-1] + b"\xff") is False

    run(main())


def test_noise_without_a_frame_in_it_is_told_by_its_size(tmp_path: Path) -> None:
    async def main() -> None:
        async with heard(tmp_path / "uart", Replay([b"\xf0" * 7], 1.0, for_ever=True), dust()) as (_, shelf):
            await asyncio.sleep(15)
        assert shelf.lapses()[0][2] == "bad-frame"
        assert "bytes came, and no frame was in them" in shelf.health.trouble

    run(main())


def test_a_port_that_never_was_there_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with heard(tmp_path / "uart", DustSensor(), dust(), plugged=False) as (_, shelf):
            await asyncio.sleep(60)
        assert [why for _, _, why in shelf.lapses()] == ["port-gone"]
        assert "is not there" in shelf.health.trouble

    run(main())


def test_lost_frames_among_good_ones_are_counted_and_no_lapse(tmp_path: Path) -> None:
    async def main() -> None:
        sensor = DustSensor()
        async with heard(tmp_path / "uart", sensor, dust()) as (uart, shelf):
            for kind in ("flip", "truncate", "garbage"):
                uart.faults.arm(SerialFault(kind, 1, times=None, p=0.15))
            await asyncio.sleep(300.5)
        assert shelf.lapses() == []
        struck = sum(uart.faults.counts.values())
        assert struck > 100
        assert shelf.health.lost["bad-frame"] > 30
        assert len(shelf.readings) >= uart.counts["spoken"] - struck  # none is lost but the damaged ones
        for reading in shelf.readings:
            truth = sensor.truth(reading.at / 1e9)
            assert {name: truth[name] for name in reading.values} == reading.values

    run(main())


GOOD = frame([5, 6, 7, 5, 6, 7, 900, 250, 40, 8, 2, 1, 0x9700])
IN_FRONT = [
    b"",
    b"\x42",
    b"\x42\x4d",
    b"\x42\x4d\x00\x1c",
    b"\x42\x4d\x00\x1c" * 5,
    bytes(31),
    GOOD[:-1],
    GOOD[:5],
    GOOD[:16] + b"\xff" + GOOD[17:],
    GOOD[1:],
]


@pytest.mark.parametrize("in_front", IN_FRONT, ids=lambda junk: f"{len(junk)}-{junk[:4].hex()}")
def test_a_good_frame_right_behind_a_damaged_one_is_found(tmp_path: Path, in_front: bytes) -> None:
    async def main() -> None:
        async with heard(tmp_path / "uart", Replay([in_front + GOOD + GOOD], 1.0), dust()) as (_, shelf):
            await asyncio.sleep(5)
        assert len(shelf.readings) == 2
        assert shelf.readings[0].values == shelf.readings[1].values
        assert shelf.readings[0].values["pm2_5"] == 6

    run(main())


@pytest.mark.parametrize("device", [dust(), gnss(every=0)], ids=["dust", "gnss"])
def test_endless_noise_is_held_in_bounded_memory_and_followed_by_the_first_good_frame(
    tmp_path: Path, device: Streamed
) -> None:
    async def main() -> None:
        sizes: list[int] = []
        twin: Talks = DustSensor() if isinstance(device, Pms5003) else Receiver()
        async with heard(tmp_path / "uart", twin, device, sizes=sizes) as (uart, shelf):
            uart.babble(20)
            await asyncio.sleep(19.9)
            assert max(sizes) <= device.LONGEST + 14  # what the adapter hands over at a time
            assert [why for _, _, why in shelf.lapses()] == ["bad-frame"]
            await asyncio.sleep(2)
            assert [why for _, _, why in shelf.lapses()] == ["bad-frame", "ok"]

    run(main())


def test_a_tag_is_heard_by_its_own_part_of_the_advert_alone() -> None:
    async def main() -> None:
        tag = RuuviTag(ADDRESS)
        device = Ruuvi(id="tag", driver="ruuvi", address=ADDRESS, every=0)
        shelf = Shelf(device)
        ear = Ear(device, shelf.account)
        for count in range(1, 4):
            tag.sequence = count
            ear.advert(Advert(ADDRESS, -60, {0x004C: b"\x02\x15", 0x0499: tag.payload()}, {}))
        ear.advert(Advert(ADDRESS, -60, {0x004C: b"\x02\x15"}, {}))
        ear.advert(Advert(ADDRESS, -60, {}, {"0000fcd2-0000-1000-8000-00805f9b34fb": b"\x40"}))
        assert [reading.values["sequence"] for reading in shelf.readings] == [1, 2, 3]
        ear.advert(Advert(ADDRESS, -60, {0x0499: b"\x99"}, {}))
        assert shelf.health.lost == {"bad-frame": 1}

    run(main())


@pytest.mark.parametrize(("radio", "word"), [(None, "no-reply"), (PortGone("hci0: bluetoothd is gone"), "port-gone")])
def test_a_tag_that_falls_silent_is_lost_once_for_its_own_or_the_radio_s_reason(
    radio: PortGone | None, word: str
) -> None:
    async def main() -> None:
        tag = RuuviTag(ADDRESS)
        device = Ruuvi(id="tag", driver="ruuvi", address=ADDRESS, every=3600)
        shelf = Shelf(device)
        ear = Ear(device, shelf.account)
        job = asyncio.create_task(ear.listen(lambda: radio))
        await asyncio.sleep(30)
        ear.advert(Advert(ADDRESS, -60, {0x0499: tag.payload()}, {}))
        await asyncio.sleep(600)
        ((at, _, why),) = shelf.lapses()
        assert 90 <= at <= 96.1  # SILENT_AFTER_S is 60, looked at to a tenth
        assert why == word
        assert ("battery" in shelf.health.hint) is (radio is None)  # it has no wires
        ear.advert(Advert(ADDRESS, -60, {0x0499: tag.payload()}, {}))
        assert shelf.readings[-1].values.keys() == {"quality", *tag.truth()}
        job.cancel()
        await asyncio.wait([job])

    run(main())


class Stumbler(Streamed, Advertised):
    """A driver that raises where it is told to."""

    driver: Literal["stumbler"]
    DATASET: ClassVar = "air"
    MAKE: ClassVar = "nobody's"
    CHANNELS: ClassVar = {"level": Channel("level", "m")}
    LONGEST: ClassVar = 64
    SILENT_AFTER_S: ClassVar = 10.0
    where: str

    def _stumble(self, where: str) -> None:
        if self.where == where:
            raise KeyError(where)

    def seek(self, buffer: bytes) -> Span | None:
        """Find a line."""
        self._stumble("seek")
        return (0, buffer.find(b"\n") + 1) if b"\n" in buffer else None

    def payload(self, advert: Advert) -> bytes | None:
        """Pick the only part."""
        self._stumble("payload")
        return advert.manufacturer[1]

    def decode(self, frame: bytes) -> Values:
        """Count the characters."""
        self._stumble("decode")
        if not frame.strip():
            raise NotReady("an empty line") if frame else BadFrame("no line")
        if frame == b"worthless":
            return {"level": [len(frame)]}  # type: ignore[dict-item]  # that is the bug
        return {"level": len(frame)}


def stumbler(where: str, every: float = 0.0) -> Stumbler:
    """Return a driver that raises there."""
    section: dict[str, Any] = {"id": "x", "driver": "stumbler", "port": "uart", "address": ADDRESS, "where": where}
    return Stumbler.model_validate(section | {"every": every})


@pytest.mark.parametrize("where", ["seek", "decode"])
def test_a_fault_of_a_talker_s_driver_is_a_bug_that_is_counted_and_bounded(tmp_path: Path, where: str) -> None:
    async def main() -> None:
        sizes: list[int] = []
        talk = Replay([b"hello\n"], 0.1, for_ever=True)
        async with heard(tmp_path / "uart", talk, stumbler(where), sizes=sizes) as (_, shelf):
            await asyncio.sleep(59)
        assert shelf.health.lost["bug"] > 500
        assert [why for _, _, why in shelf.lapses()] == ["bug"]
        assert "KeyError" in shelf.health.trouble
        assert max(sizes) <= 64 + 14

    with capture_logs() as lines:
        run(main())
    assert [line["log_level"] for line in lines if "exc_info" in line] == ["error"]  # once a minute


@pytest.mark.parametrize("every", [0.0, 600.0])
def test_a_talker_whose_values_no_pack_may_hold_is_told_as_a_bug_and_not_as_one_that_works(every: float) -> None:
    async def main() -> None:
        device = stumbler("nowhere", every)
        shelf = Shelf(device)
        ear = Ear(device, shelf.account)
        job = asyncio.create_task(ear.listen(lambda: None))
        assert ear.frame(b"hello")
        for _ in range(30):
            await asyncio.sleep(1)
            assert not ear.frame(b"worthless")
        assert (set(shelf.health.lost), shelf.health.good) == ({"bug"}, 1)
        assert [why for _, _, why in shelf.lapses()] == ["bug"]
        job.cancel()
        await asyncio.wait([job])

    run(main())


def test_a_worthless_frame_at_the_instant_that_is_due_leaves_it_to_the_next() -> None:
    async def main() -> None:
        device = stumbler("nowhere", every=10.0)
        shelf = Shelf(device)
        ear = Ear(device, shelf.account)
        for second in range(60):
            ear.frame(b"worthless" if second in {20, 40} else b"hello")
            await asyncio.sleep(1)
        assert shelf.times("level") == [0, 10, 21, 30, 41, 50]

    run(main())


@pytest.mark.parametrize("where", ["payload", "decode"])
def test_a_fault_of_a_tag_s_driver_does_not_reach_the_radio(where: str) -> None:
    async def main() -> None:
        device = stumbler(where)
        shelf = Shelf(device)
        ear = Ear(device, shelf.account)
        for _ in range(3):
            ear.advert(Advert(ADDRESS, -60, {1: b"hello"}, {}))
        assert shelf.health.lost == {"bug": 3}
        assert shelf.lapses() == []  # one lost frame says nothing yet

    run(main())

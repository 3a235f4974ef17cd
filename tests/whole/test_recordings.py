"""Real recordings, played through a tty into the running gateway, come out at the broker with the right values."""

import asyncio
import functools
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from hil import broker
from hil.daemon import Daemon
from hil.receiver import Heard, Receiver
from hil.uart import Answers, Replay, Talks, Uart
from hil.wire import Wire
from tests.drivers.vector_files import Good, Log, vectors

POLE = "test-pole"
BAUD = 115_200
SENTENCE_S = 0.03  # the longest takes 9 ms at this speed
DEGREES = 1e-7

HEAD = """\
[pole]
id = "{pole}"
[uplink]
url = "mqtt://127.0.0.1:{port}"
[buffer]
path = "{folder}/buffer.db"
[dataset.air]
send_every = 0.5
[dataset.position]
send_every = 0.5
"""
DEVICE = """
[port.{id}]
path = "{link}"
baud = {baud}
[[device]]
id = "{id}"
driver = "{driver}"
port = "{id}"
{settings}
"""


class Recording(Replay):
    """Plays its messages once, from when it is told to."""

    def __init__(self, messages: Iterable[bytes], period: float) -> None:
        super().__init__(messages, period)
        self.plays = False

    def speak(self) -> bytes:  # noqa: D102  # as Talks says
        return super().speak() if self.plays else b""


class RecordedSps30:
    """Answers each read with the next recorded answer, then that there is no new sample."""

    turnaround_s = 0.005
    READ = bytes.fromhex("7e000300fc7e")
    NO_SAMPLE = bytes.fromhex("7e00030000fc7e")

    def __init__(self, answers: Iterable[bytes]) -> None:
        self._answers = list(answers)
        self._heard = b""
        self.plays = False

    def hear(self, data: bytes) -> bytes:  # noqa: D102  # as Answers says
        self._heard += data
        if self.READ not in self._heard:
            return b""
        self._heard = b""
        return self._answers.pop(0) if self.plays and self._answers else self.NO_SAMPLE


def test_every_recorded_gnss_log_comes_out_at_the_broker_position_by_position(tmp_path: Path) -> None:
    logs = {re.sub(r"[^A-Za-z0-9-]", "-", log.id): log for log in vectors("nmea0183").log}
    expected = {name: list(_positions(log.read())) for name, log in logs.items()}
    assert sum(map(len, expected.values())) > 500

    def devices() -> dict[str, tuple[str, str, Recording | RecordedSps30]]:
        return {
            name: ("nmea0183", "every = 0", Recording(log.read().splitlines(keepends=True), SENTENCE_S))
            for name, log in logs.items()
        }

    def all_came(heard: Heard) -> bool:
        return all(len(heard.values(f"{POLE}/{name}/latitude")) >= len(rows) for name, rows in expected.items())

    heard = asyncio.run(_play(tmp_path, devices, all_came))

    for name, log in logs.items():
        came = list(zip(heard.values(f"{POLE}/{name}/latitude"), heard.values(f"{POLE}/{name}/longitude"), strict=True))
        assert came == [pytest.approx(position, abs=DEGREES) for position in expected[name]], name
        for fix in _what_gpsd_said(log):
            assert any(math.dist(fix, position) < 2 * DEGREES for position in came), name
    assert heard.holes() == {}


@pytest.mark.parametrize("driver", ["pms5003", "sds011", "sps30"])
def test_every_recorded_particle_frame_comes_out_at_the_broker_with_its_values(driver: str, tmp_path: Path) -> None:
    file = vectors(driver)
    recorded = [good for good in file.good if file.sources[good.source].kind == "captured-real-device"]
    assert len(recorded) >= 2
    frames = [next(good.frames()) for good in recorded]

    def devices() -> dict[str, tuple[str, str, Recording | RecordedSps30]]:
        if driver == "sps30":
            return {"dust": (driver, "every = 0.1", RecordedSps30(frames))}
        return {"dust": (driver, "every = 0", Recording(frames, 0.1))}

    def all_came(heard: Heard) -> bool:
        return len(heard.values(f"{POLE}/dust/pm2_5")) >= len(recorded)

    heard = asyncio.run(_play(tmp_path, devices, all_came))

    for channel in recorded[0].values:
        came = heard.values(f"{POLE}/dust/{channel}")
        assert came == [_as_the_source_rounds(good, channel, driver) for good in recorded], channel
    assert heard.holes() == {}


Devices = dict[str, tuple[str, str, Recording | RecordedSps30]]


async def _play(folder: Path, devices: Callable[[], Devices], came: Callable[[Heard], bool]) -> Heard:
    """Play recordings into a gateway until what they say has come, and return all that came."""
    mosquitto = broker.mosquitto(folder)
    mosquitto.start()
    played = devices()
    lines = [_line(folder, name, device) for name, (_, _, device) in played.items()]
    daemon = Daemon(folder)
    daemon.config.write_text(
        HEAD.format(pole=POLE, port=mosquitto.port, folder=folder)
        + "".join(
            DEVICE.format(id=name, link=line.wire.link, baud=BAUD, driver=driver, settings=settings)
            for line, (name, (driver, settings, _)) in zip(lines, played.items(), strict=True)
        )
    )
    try:
        with Receiver(mosquitto.port) as receiver:
            daemon.start()
            heard = receiver.heard(POLE)
            await asyncio.to_thread(receiver.wait, lambda: "online" in heard.states, 15.0, "the gateway")
            for _, _, device in played.values():
                device.plays = True
            await asyncio.to_thread(receiver.wait, lambda: came(heard), 60.0, "all that was recorded")
            await asyncio.to_thread(daemon.stop)
            await asyncio.to_thread(receiver.wait, lambda: heard.states[-1] == "stopped", 5.0, "the end")
            return heard
    except TimeoutError as error:
        raise AssertionError(daemon.output()) from error
    finally:
        await asyncio.to_thread(daemon.stop)
        for line in lines:
            line.close()
        mosquitto.stop()


def _line(folder: Path, name: str, device: Answers | Talks) -> Uart:
    line = Uart(Wire(folder / "by-id" / name), device)
    line.plug()
    return line


def _positions(log: bytes) -> Iterator[tuple[float, float]]:
    """Read the positions of a log with as little as will do: the fields of three sentences, by their place."""
    places = {"GGA": (2, 6, "12345678"), "RMC": (3, 2, "A"), "GLL": (1, 6, "A")}
    for line in log.decode("latin-1").splitlines():
        body, star, checksum = line.lstrip("$").partition("*")
        right = functools.reduce(operator.xor, body.encode("latin-1"), 0)
        fields = body.split(",")
        if not line.startswith("$") or not star or checksum.strip().upper() != f"{right:02X}":
            continue
        at, status, sound = places.get(fields[0][2:], (0, 0, ""))
        if len(fields[0]) == 5 and at and fields[status] and fields[status] in sound and fields[at]:
            yield _degrees(fields[at], fields[at + 1]), _degrees(fields[at + 2], fields[at + 3])


def _degrees(text: str, hemisphere: str) -> float:
    point = text.index(".")
    return (int(text[: point - 2]) + float(text[point - 2 :]) / 60) * (-1 if hemisphere in "SW" else 1)


def _what_gpsd_said(log: Log) -> Iterator[tuple[float, float]]:
    # The first place gpsd gives for tr737A+ is from a GGA whose quality is 0: no fix, and no reading of ours.
    fixes = (log.last_fix,) if log.id == "tr737A+" else (log.first_fix, log.last_fix)
    for fix in fixes:
        if fix is not None:
            yield fix["lat"], fix["lon"]


def _as_the_source_rounds(good: Good, channel: str, driver: str) -> object:
    step = vectors(driver).sources[good.source].rounded.get(channel)
    value = good.values[channel]
    return pytest.approx(value, abs=step / 2 + 1e-9) if step else value

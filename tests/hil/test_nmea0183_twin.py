"""The GNSS receiver: its sentences on the wire, decoded here by hand, against what it says is true."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hil.truth import Truth
from hil.twins.nmea0183 import Nmea0183, sentence
from hil.uart import Uart
from hil.vclock import run
from hil.wire import Wire
from tests.hil.port import Port


def play(
    link: Path, make: Callable[[], Nmea0183], scene: Callable[[Nmea0183, Port], Coroutine[None, None, None]]
) -> None:
    async def main() -> None:
        receiver = make()
        with contextlib.closing(Uart(Wire(link), receiver)) as uart:
            uart.plug()
            with Port(link) as port:
                await scene(receiver, port)

    run(main())


def nmea(received: bytes) -> dict[str, list[list[str]]]:
    """Return the fields of each sentence by type, after every check."""
    fields: dict[str, list[list[str]]] = {}
    for line in received.decode("ascii").split("\r\n")[:-1]:
        content, checksum = line[1:].split("*")
        assert line[0] == "$"
        assert len(line) <= 80  # 82 with CR LF
        xor = 0
        for character in content:
            xor ^= ord(character)
        assert checksum == f"{xor:02X}"
        kind, *rest = content.split(",")
        fields.setdefault(kind, []).append(rest)
    return fields


def degrees(text: str, sign: str) -> float:
    dot = text.index(".")
    return (int(text[: dot - 2]) + float(text[dot - 2 :]) / 60) * (-1 if sign in "SW" else 1)


def check_fix(fields: dict[str, list[list[str]]], truth: Truth) -> None:
    (rmc,), (gga,), (vtg,), (gsa,) = (fields[kind] for kind in ("GPRMC", "GPGGA", "GPVTG", "GPGSA"))
    assert rmc[1] == "A"
    assert (rmc[0], rmc[2:6]) == (gga[0], gga[1:5])
    assert truth["latitude"] == pytest.approx(degrees(*rmc[2:4]), abs=1e-7)
    assert truth["longitude"] == pytest.approx(degrees(*rmc[4:6]), abs=1e-7)
    assert truth["speed"] == pytest.approx(float(rmc[6]) * 1852 / 3600, abs=1e-4)
    assert truth["speed"] == pytest.approx(float(vtg[6]) / 3.6, abs=1e-3)
    assert truth["course"] == float(rmc[7]) == float(vtg[0])
    assert truth["fix_quality"] == int(gga[5]) == 1
    assert truth["satellites"] == int(gga[6]) == len([number for number in gsa[2:14] if number])
    assert truth["hdop"] == float(gga[7]) == float(gsa[15])
    assert truth["altitude"] == float(gga[8])
    assert gsa[:2] == ["A", "3"]


@pytest.mark.parametrize(("latitude", "longitude"), [(60.2055, 24.6559), (-33.85, -0.00002)])
def test_gnss_says_where_it_is_each_second(tmp_path: Path, latitude: float, longitude: float) -> None:
    async def scene(receiver: Nmea0183, port: Port) -> None:
        await asyncio.sleep(0.9)
        for second in range(60):
            fields = nmea(await port.ask(b"", wait=1.0))
            check_fix(fields, receiver.truth())
            assert receiver.truth()["latitude"] == pytest.approx(latitude, abs=5e-5)
            assert fields["GPRMC"][0][0] == f"1200{second:02}.00" or second == 59
            assert fields["GPRMC"][0][8] == "241226"
            satellites = [number for group in fields["GPGSV"] for number in group[3::4]]
            assert len(satellites) == int(fields["GPGSV"][0][2]) == 10
            assert {group[0] for group in fields["GPGSV"]} == {"3"}

    moment = datetime(2026, 12, 24, 11, 59, 59, tzinfo=UTC)
    play(
        tmp_path / "port",
        lambda: Nmea0183(latitude=latitude, longitude=longitude, utc=moment),
        scene,
    )


def test_gnss_searches_before_it_knows(tmp_path: Path) -> None:
    async def scene(receiver: Nmea0183, port: Port) -> None:
        await asyncio.sleep(0.9)
        for _ in range(4):
            fields = nmea(await port.ask(b"", wait=1.0))
            assert fields["GPRMC"][0][:6] == ["", "V", "", "", "", ""]
            assert fields["GPGGA"][0][:7] == ["", "", "", "", "", "0", "00"]
            assert fields["GPGSA"][0][:2] == ["A", "1"]
            assert receiver.truth() == {"fix_quality": 0, "satellites": 0}
        check_fix(nmea(await port.ask(b"", wait=1.0)), receiver.truth())

    play(tmp_path / "port", lambda: Nmea0183(cold_s=5.0), scene)


def test_sentences_are_those_of_a_real_receiver() -> None:
    # nmea0183.json, gpsd-GPSmap-76S
    logged = b"$GPGGA,125106,3854.5087,N,07726.4523,W,8,10,2.0,268.8,M,-33.9,M,,*7F\r\n"
    assert sentence(logged[1:-5].decode()) == logged


def test_a_seed_gives_the_same_story(tmp_path: Path) -> None:
    def story(seed: int) -> list[tuple[float, bytes]]:
        told: list[tuple[float, bytes]] = []

        async def scene(_: Nmea0183, port: Port) -> None:
            await asyncio.sleep(5.5)
            told.extend(port.trace)

        play(tmp_path / "port", lambda: Nmea0183(seed=seed), scene)
        return told

    assert story(1) == story(1)
    assert story(1) != story(2)

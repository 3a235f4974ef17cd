"""NMEA 0183 against 38 receiver logs and what gpsd made of them; and the names that transducers give to channels."""

import functools
import operator
import re

import pytest

from drivers.contract import NAME_PATTERN, BadFrame, DeviceError, NotReady, Streamed, Value, Values
from hil.twins.nmea0183 import sentence
from tests.drivers.driver_bench import heard
from tests.drivers.vector_files import Log, device, vectors

LOGS = {log.id: log for log in vectors("nmea0183").log}
WITH_FIX = [name for name, log in LOGS.items() if log.first_fix]
COLD = [name for name, log in LOGS.items() if not log.first_fix]
NEAR_DEG = 1e-7

COUNTED = re.compile(rb"^\$[A-Z]{5},[^\n]*\*[0-9A-Fa-f]{2}\r?$", re.MULTILINE)
"""What the vectors count as a sentence: $, five letters and a comma to begin with, a checksum to end with.

Makers' own with other names ($PSTI, $PMTK001, ...) and AIS (!AIVDM) are not counted; the driver must take them too.
"""

ONLY_HERE = {"tr737A+"}
"""Logs whose first position of gpsd's is none of ours: gpsd took one from a GGA that itself says quality 0, no fix."""

CUT_SHORT = {"ait250", "bt451", "gps-360"}
"""Logs that end in the middle of a second: we read its first sentences, gpsd waits for the others."""

OWN_SPEED = {"tn204", "tr737A+"}
"""Logs whose last second lacks the sentence with the speed: gpsd's is from the way between two places."""

WITHOUT_CHECKSUM = {"rgm3800", "sl869"}
"""Logs with one thing like a sentence that ends without checksum: in the comment at the head, in what was sent."""

SENTENCE = re.compile(rb"[$!][^$!\n]*\*[0-9A-Fa-f]{2}\r?$", re.MULTILINE)


@functools.cache
def read(name: str) -> list[Values | DeviceError]:
    known = device("nmea0183")
    assert isinstance(known, Streamed)
    return list(heard(known, LOGS[name].read()))


def positions(name: str) -> list[tuple[Value, Value]]:
    """Return all positions of a log, in order; a receiver may send the same one in several sentences."""
    read_values = [found for found in read(name) if not isinstance(found, DeviceError)]
    return [(v["latitude"], v["longitude"]) for v in read_values if v.get("latitude") is not None]


def same_place(ours: tuple[Value, Value], fix: dict[str, float] | None) -> bool:
    assert fix is not None
    return ours == pytest.approx((fix["lat"], fix["lon"]), rel=0, abs=NEAR_DEG)


def has_right_checksum(line: bytes) -> bool:
    body, _, said = line.strip()[1:].rpartition(b"*")
    return functools.reduce(operator.xor, body, 0) == int(said, 16)


def each_log(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("log", [LOGS[name] for name in names], ids=names)


@each_log(list(LOGS))
def test_a_log_has_the_sentences_and_bad_checksums_that_were_counted(log: Log) -> None:
    counted = COUNTED.findall(log.read())
    bad = [line for line in counted if not has_right_checksum(line)]
    assert (len(counted), len(bad)) == (log.sentences, log.bad_checksums)


@each_log(list(LOGS))
def test_every_sentence_of_a_log_is_read_or_passed_over_and_the_bad_are_refused(log: Log) -> None:
    right = [line for line in SENTENCE.findall(log.read()) if has_right_checksum(line)]
    refused = [found for found in read(log.id) if isinstance(found, BadFrame)]
    sound = [found for found in read(log.id) if not isinstance(found, BadFrame)]
    assert (len(sound), len(refused)) == (len(right), log.bad_checksums + (log.id in WITHOUT_CHECKSUM))
    assert all(isinstance(found, NotReady) for found in sound if isinstance(found, DeviceError))


@each_log(WITH_FIX)
def test_the_first_and_the_last_place_are_where_gpsd_has_them(log: Log) -> None:
    ours = positions(log.id)
    if log.id not in ONLY_HERE:
        assert same_place(ours[0], log.first_fix)
    if log.id not in CUT_SHORT:
        assert same_place(ours[-1], log.last_fix)
    else:
        assert any(same_place(place, log.last_fix) for place in ours[-5:])


def test_of_35_logs_with_a_fix_34_begin_and_32_end_where_gpsd_does() -> None:
    first = {name for name in WITH_FIX if same_place(positions(name)[0], LOGS[name].first_fix)}
    last = {name for name in WITH_FIX if same_place(positions(name)[-1], LOGS[name].last_fix)}
    assert (len(WITH_FIX), len(first), len(last)) == (35, 34, 32)
    assert set(WITH_FIX) - first == ONLY_HERE
    assert set(WITH_FIX) - last == CUT_SHORT


@pytest.mark.parametrize("name", sorted(ONLY_HERE))
def test_a_place_that_the_receiver_calls_no_fix_is_not_told(name: str) -> None:
    fix = LOGS[name].first_fix
    assert not any(same_place(place, fix) for place in positions(name))
    known = device("nmea0183")
    values = known.decode(
        b"$GPGGA,071734.929,4404.1178,N,12118.8608,W,0,4,,1127.8,M,-19.6,M,,*49\r\n"
    )  # gpsd's, in the log
    assert values == {"fix_quality": 0, "satellites": 4, "latitude": None, "longitude": None, "altitude": None}
    with pytest.raises(NotReady, match="status is V"):
        known.decode(b"$GPRMC,071734.929,V,4404.1178,N,12118.8608,W,0.10,0.00,111111,,,N*67\r\n")


@each_log(COLD)
def test_a_receiver_that_found_nothing_gives_no_place_in_the_gulf_of_guinea(log: Log) -> None:
    assert log.tpv_with_fix == 0
    assert positions(log.id) == []
    assert any(isinstance(found, NotReady) for found in read(log.id))


@each_log(WITH_FIX)
def test_speed_and_altitude_of_gpsds_last_fix_are_among_ours(log: Log) -> None:
    assert log.last_fix is not None
    values = [found for found in read(log.id) if not isinstance(found, DeviceError)]
    speeds = [found["speed"] for found in values if found.get("speed") is not None]
    altitudes = [found["altitude"] for found in values if found.get("altitude") is not None]
    if "altMSL" in log.last_fix:
        assert log.last_fix["altMSL"] in altitudes
    if speeds and "speed" in log.last_fix and log.id not in OWN_SPEED:
        assert any(speed == pytest.approx(log.last_fix["speed"], abs=0.001) for speed in speeds)


def test_every_channel_of_every_log_is_described() -> None:
    known = device("nmea0183")
    for name in LOGS:
        for found in read(name):
            if not isinstance(found, DeviceError):
                assert set(found) <= set(known.CHANNELS)


# Fields


@pytest.mark.parametrize(
    "content",
    [
        "GPGGA,1,nan,N,02454.0,E,1,05,1.0,10.0,M,,,,",
        "GPGGA,1,6012.3,N,02454.0,E,1,05,1.0,inf,M,,,,",
        "GPGGA,1,6012.3,N,02454.0,E,1,05,1_0,10.0,M,,,,",
        "GPRMC,1,A,6012.3,N,02454.0,E,1e999,,,",
        "GPRMC,1,A,9912.3,N,02454.0,E,1.0,,,",
        "GPRMC,1,A,6012.3,N,36000.0,E,1.0,,,",
        "GPRMC,1,A,-6012.3,N,02454.0,E,1.0,,,",
        "GPRMC,1,A,6012.3,Q,02454.0,E,1.0,,,",
        "WIMWV,271.0,R,3.4,X,A",
        "GPGGA,1,6012.3,N,02454.0,E,1,05,1e999,10.0,M,,,,",
        "WIXDR,C,nan,C,AIR",
        "WIXDR,P,1e305,B,AIR",
    ],
)
def test_garbage_under_a_right_checksum_is_refused(content: str) -> None:
    with pytest.raises(BadFrame, match=f"a field of {content[2:5]} cannot be read"):
        device("nmea0183").decode(sentence(content))


@pytest.mark.parametrize(
    "content", ["PUBX", "PASHR", "PTNL", "PSXN", "PVTX", "PXYZ,1", "GPQRS,1", "CCGPQ,GGA", "GPGSV,1,1,00"]
)
def test_a_sound_sentence_that_is_not_ours_gives_nothing(content: str) -> None:
    assert device("nmea0183").decode(sentence(content)) == {}


def test_a_sentence_without_its_end_is_not_read_with_the_next_one() -> None:
    # 62 characters of an RMC and a whole MWV, which together happen to have the checksum of the MWV.
    lost = b"$GPRMC,030719.000,A,3747.0873,S,17518.8938,E,0.69,181.39,31121"
    known = device("nmea0183")
    assert isinstance(known, Streamed)
    refused, found = heard(known, lost + b"$IIMWV,271.0,R,000.2,N,A*3B\r\n")
    assert isinstance(refused, BadFrame)
    assert found == {"wind_direction": 271.0, "wind_speed": 0.1029}


def test_speed_is_told_in_metres_per_second_whatever_the_talker_counts_in() -> None:
    known = device("nmea0183")
    said = {unit: known.decode(sentence(f"WIMWV,90,R,36.0,{unit},A"))["wind_speed"] for unit in "NMKS"}
    assert said == {"N": 18.52, "M": 36.0, "K": 10.0, "S": 16.0934}


def test_wind_from_the_sensors_zero_and_true_wind_are_two_things() -> None:
    known = device("nmea0183")
    assert known.decode(sentence("WIMWV,90,R,3.0,M,A")) == {"wind_direction": 90, "wind_speed": 3.0}
    assert known.decode(sentence("WIMWV,95,T,2.0,M,A")) == {"true_wind_direction": 95, "true_wind_speed": 2.0}


def test_a_wxt_calls_all_of_its_transducers_0_and_each_is_a_channel() -> None:
    assert xdr("C,22.0,C,0", "H,40.1,P,0", "P,1013.2,H,0") == {
        "temperature_0_cel": (22.0, "Cel"),
        "humidity_0_rh": (40.1, "%RH"),
        "pressure_0_pa": (101320.0, "Pa"),
    }


def xdr(*fours: str) -> dict[str, tuple[Value, str]]:
    """Read transducers: name to value and unit."""
    known = device("nmea0183")
    values = known.decode(sentence("WIXDR," + ",".join(fours)))
    return {name: (value, known.channel(name).unit) for name, value in values.items()}


def test_a_transducer_is_a_channel_with_the_unit_it_says() -> None:
    assert xdr(
        "C,21.5,C,Air", "P,1.01325,B,Baro", "H,45,P,RH", "A,-3,D,MAST-TILT", "U,12.6,V,Supply", "I,0.2,A,Heater"
    ) == {
        "air_cel": (21.5, "Cel"),
        "baro_pa": (101_325.0, "Pa"),
        "rh_rh": (45, "%RH"),
        "mast-tilt_deg": (-3, "deg"),
        "supply_v": (12.6, "V"),
        "heater_a": (0.2, "A"),
    }


def test_an_empty_transducer_has_no_reading() -> None:
    assert xdr("C,,C,Air") == {"air_cel": (None, "Cel")}


def test_a_transducer_without_a_unit_is_never_taken_for_one_with_a_unit_or_for_a_channel_of_ours() -> None:
    named = xdr("G,5,,Level A", "G,6,,speed", "G,7,,V", "X,8,Y,Tank_RH", "G,9,,QUALITY")
    named_raw = {"level_a_raw": (5, ""), "speed_raw": (6, ""), "tank_rh_raw": (8, ""), "quality_raw": (9, "")}
    assert named == {"v": (7, "")} | named_raw


def test_two_transducers_of_one_name_do_not_hide_each_other() -> None:
    assert xdr("C,20,C,", "C,21,C,", "G,1,,x", "G,2,,x") == {
        "temperature_cel": (20, "Cel"),
        "temperature_1_cel": (21, "Cel"),
        "x": (1, ""),
        "x_3": (2, ""),
    }


@pytest.mark.parametrize("name", ["#1", "-", "", "_x_", 200 * "n", "Aussentemperatur (Mast)"])
def test_whatever_a_transducer_is_called_its_channel_has_a_name_that_can_be_sent(name: str) -> None:
    for unit in ("C,1,C", "G,1,"):
        (channel,) = xdr(f"{unit},{name}")
        assert re.fullmatch(NAME_PATTERN, channel)

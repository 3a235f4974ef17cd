"""Every driver against its vectors; and the set of drivers, twins and vectors against itself.

Found by the entry points of ``polegate.drivers``: a new driver is tested here without a line of test code.
"""

import asyncio
import importlib
import pkgutil
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import drivers
import hil.twins
from drivers.contract import Advert, Advertised, Asked, BadFrame, DeviceError, Driver, NotReady, Streamed
from drivers.ruuvi import ENOUGH_OF_6, Ruuvi
from drivers.sps30 import request, unpack, unstuff
from drivers.units import UNITS
from tests.drivers import vector_files
from tests.drivers.driver_bench import TwinPort, heard
from tests.drivers.vector_files import Asks, Bad, Good, Shdlc, ShdlcFile, Stranger, StrangerFile, device, each, vectors
from tests.examples import examples

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
NOT_A_DRIVER = {"contract", "decimals", "quantities", "units"}
DRIVERS = tuple(vector_files.our_drivers())
SHDLC = ShdlcFile.model_validate(vector_files.load("shdlc"))
STRANGERS = StrangerFile.model_validate(vector_files.load("strangers"))

one_driver = pytest.mark.parametrize("driver", DRIVERS)


# Vectors


@pytest.mark.parametrize(("driver", "vector"), each("good"))
def test_a_good_frame_gives_exactly_its_values(driver: str, vector: Good) -> None:
    rounded = vectors(driver).sources[vector.source].rounded
    wanted = vector.wanted()
    for frame in vector.frames():
        values = dict(device(driver, vector.device).decode(frame))
        if vector.partial:
            values = {name: value for name, value in values.items() if name in wanted}
        assert values.keys() == wanted.keys()
        for name, value in values.items():
            if name in rounded:  # the source gives fewer digits than the frame does
                assert value == pytest.approx(wanted[name], abs=0.501 * rounded[name])
            else:
                assert value == wanted[name], name
                assert isinstance(value, bool) == isinstance(wanted[name], bool), name


@pytest.mark.parametrize(("driver", "vector"), each("good"))
def test_values_are_of_the_kind_that_the_catalogue_tells(driver: str, vector: Good) -> None:
    told = device(driver, vector.device)
    for frame in vector.frames():
        for name, value in told.decode(frame).items():
            kind = "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
            assert value is None or told.channel(name).kind == kind, name


@pytest.mark.parametrize(("driver", "vector"), each("bad"))
def test_a_bad_frame_is_refused_in_words(driver: str, vector: Bad) -> None:
    for frame in vector.frames():
        with pytest.raises(DeviceError) as caught:
            device(driver, vector.device).decode(frame)
        assert type(caught.value).__name__ == vector.error
        assert vector.says in str(caught.value)
        assert caught.value.hint


@pytest.mark.parametrize(("driver", "vector"), each("asks"))
def test_a_poll_sends_what_the_maker_says(driver: str, vector: Asks) -> None:
    answers = iter(vector.answers)
    asked = device(driver, vector.device, **({"warm_up": 0.0} if driver == "sps30" else {}))
    assert isinstance(asked, Asked)
    port = TwinPort(lambda _: bytes.fromhex(next(answers, "")))

    with pytest.raises(DeviceError):
        asyncio.run(asked.poll(port))

    assert port.sent == [bytes.fromhex(frame) for frame in vector.frames]


@pytest.mark.parametrize("vector", SHDLC.answer, ids=lambda vector: vector.id)
def test_shdlc_answers_come_apart_as_the_maker_takes_them_apart(vector: Shdlc) -> None:
    assert unpack(bytes.fromhex(vector.frame)) == (vector.command, vector.state, bytes.fromhex(vector.data))


@pytest.mark.parametrize("vector", SHDLC.request, ids=lambda vector: vector.id)
def test_shdlc_requests_are_stuffed_as_the_maker_stuffs_them(vector: Shdlc) -> None:
    frame, data = bytes.fromhex(vector.frame), bytes.fromhex(vector.data)
    assert unstuff(frame[1:-1])[:-1] == bytes([vector.address, vector.command, len(data)]) + data
    if vector.address == 0:  # an SPS30 has no other
        assert request(vector.command, data) == frame


@one_driver
@pytest.mark.parametrize("vector", STRANGERS.frame, ids=lambda vector: f"{vector.sensor}-{vector.id}")
def test_the_frame_of_another_sensor_is_not_taken_for_ones_own(driver: str, vector: Stranger) -> None:
    stranger = bytes.fromhex(vector.frame)
    known = device(driver)
    with pytest.raises(BadFrame):
        known.decode(stranger)
    if isinstance(known, Streamed):
        assert all(isinstance(found, BadFrame) for found in heard(known, 10 * stranger))


@examples(100)
@given(command=st.integers(0, 255), data=st.binary(max_size=255))
def test_no_byte_that_means_something_to_the_line_stands_inside_a_request(command: int, data: bytes) -> None:
    frame = request(command, data)
    assert not set(frame[1:-1]) & {0x7E, 0x11, 0x13}  # the edge, and a UART's XON and XOFF
    assert unstuff(frame[1:-1])[:-1] == bytes([0, command, len(data)]) + data


def test_format_6_is_left_alone_while_the_same_tag_is_heard_in_e1() -> None:
    air = device("ruuvi")
    assert isinstance(air, Ruuvi)
    six, e1 = bytes.fromhex("06" + "00" * 19), bytes.fromhex("e1" + "00" * 39)

    def heard_in(payload: bytes) -> bytes | None:
        return air.payload(Advert(air.address, -60, {0x0499: payload}, {}))

    assert heard_in(six) == six  # a radio that cannot hear e1
    assert heard_in(e1) == e1
    assert heard_in(six) is None
    assert heard_in(e1) == e1
    assert [heard_in(six) for _ in range(ENOUGH_OF_6)] == [None] * ENOUGH_OF_6
    assert heard_in(six) == six  # e1 is gone for good


@pytest.mark.parametrize(("driver", "vector"), each("good"))
def test_a_device_equals_one_of_the_same_settings_whatever_it_has_heard(driver: str, vector: Good) -> None:
    old, new = device(driver, vector.device), device(driver, vector.device)
    for frame in vector.frames():
        if isinstance(old, Advertised):
            company, service = old.MANUFACTURER or 0, old.SERVICE or ""
            old.payload(Advert("CB:B8:33:4C:88:4F", -60, {company: frame}, {service: frame}))
        old.decode(frame)
    assert old == new
    assert old.model_copy(update={"id": "other"}) == device(driver, vector.device, id="other")
    assert old != device(driver, vector.device, id="other")


def test_a_device_equals_nothing_but_a_device_of_its_driver() -> None:
    class Younger(Ruuvi):
        """The same settings, read in another way."""

    air = device("ruuvi")
    assert air != Younger.model_validate(air.model_dump())
    assert air != air.model_dump()


def test_equal_devices_are_one_in_a_set() -> None:
    assert len({device("ruuvi"), device("ruuvi"), device("ruuvi", id="other")}) == 2


# The set is whole


def modules(package: str, path: list[str]) -> set[str]:
    return {name for _, name, _ in pkgutil.iter_modules(path)} - (NOT_A_DRIVER if package == "drivers" else set())


def test_each_driver_has_a_module_an_entry_point_vectors_and_a_twin() -> None:
    files = {path.stem for path in Path(vector_files.VECTORS).glob("*.toml")} - {"shdlc", "strangers"}
    assert set(DRIVERS) == modules("drivers", list(drivers.__path__))
    assert set(DRIVERS) == modules("twins", list(hil.twins.__path__))
    assert set(DRIVERS) == files
    assert {log.id for log in vectors("nmea0183").log} == {
        path.stem for path in (vector_files.VECTORS / "nmea0183").iterdir()
    }


def test_each_driver_is_one_of_those_that_may_not_import_each_other() -> None:
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (strangers,) = (contract["modules"] for contract in contracts if contract["id"] == "drivers-strangers")
    assert strangers == sorted(f"drivers.{name}" for name in DRIVERS)


@one_driver
def test_a_driver_has_good_frames_and_frames_it_must_refuse(driver: str) -> None:
    assert vectors(driver).good
    assert {bad.error for bad in vectors(driver).bad} >= {"BadFrame"}


@one_driver
def test_a_driver_calls_itself_by_its_entry_point(driver: str) -> None:
    model = vector_files.our_drivers()[driver].load()
    assert issubclass(model, Driver)
    assert model.__module__ == f"drivers.{driver}"
    assert model.model_fields["driver"].annotation.__args__ == (driver,)


@one_driver
def test_recorded_is_said_only_of_what_was_recorded_from_a_device(driver: str) -> None:
    file = vectors(driver)
    model: type[Driver] = vector_files.our_drivers()[driver].load()
    read = {vector.source for vector in file.good} | {log.source for log in file.log}
    recorded = any(file.sources[name].kind == "captured-real-device" for name in read)
    assert model.RECORDED is recorded


@one_driver
def test_each_vector_has_a_source_and_a_name_of_its_own(driver: str) -> None:
    file = vectors(driver)
    ids = [(type(vector).__name__, vector.id) for vector in file.named()]
    assert len(ids) == len(set(ids))
    assert {vector.source for vector in file.named()} == set(file.sources)
    for source in file.sources.values():
        assert source.kind == "own-construction" or source.repo or source.url or source.debian_source


@one_driver
def test_the_catalogue_knows_every_channel_that_is_certain(driver: str) -> None:
    known = device(driver)
    for name in (*known.expected(), *known.CHANNELS):
        assert known.channel(name).title
        assert known.channel(name).unit in {"", *UNITS}
    assert known.make()
    assert known.home


def test_every_driver_module_can_be_imported_alone() -> None:
    for name in DRIVERS:
        assert importlib.import_module(f"drivers.{name}").__doc__


def test_not_ready_and_bad_frame_are_no_kin() -> None:
    # The gateway counts them apart and tells the technician different things.
    assert not issubclass(NotReady, BadFrame)
    assert not issubclass(BadFrame, NotReady)

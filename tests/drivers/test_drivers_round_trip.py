"""Twin, bytes, driver: what a twin says is true must be what the driver reads, to the last digit on the wire.

Twin and driver were written from the same pages by two readers, neither of which saw the other. A new driver that talks
or is asked meets its twin here without a line of test code: the classes of both have the same name.
"""

import asyncio
import functools
import importlib
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.contract import (
    Advert,
    Advertised,
    Asked,
    BadFrame,
    DeviceError,
    Driver,
    NoReply,
    NotReady,
    Streamed,
    Value,
)
from hil import adverts
from hil.truth import Truth
from hil.twins.nmea0183 import Nmea0183
from hil.twins.pms5003 import Pms5003
from hil.twins.ruuvi import RuuviAir, RuuviTag
from hil.twins.sps30 import START, STOP, Sps30
from hil.vclock import run
from tests.drivers.driver_bench import TwinPort, heard
from tests.drivers.vector_files import device, our_drivers
from tests.examples import examples

CLOSE = 1.5 * 2.0**-23  # the driver may be one last bit of a float32 off for a shorter decimal, the twin half a one


class Talker(Protocol):
    """A twin that talks once a second."""

    def speak(self) -> bytes:
        """Return what it says now."""

    def truth(self) -> Truth:
        """Return what a right reader must have read."""


def kin(kind: type) -> set[str]:
    """Name the drivers of a kind."""
    return {name for name in our_drivers() if isinstance(device(name), kind)}


def twin_of(driver: str) -> Callable[[], Any]:
    """Return what makes the twin of a driver."""
    twin = getattr(importlib.import_module(f"hil.twins.{driver}"), our_drivers()[driver].attr)
    return functools.partial(twin, seed=7)


BY_HAND = {"modbus", "ruuvi"}
"""Drivers of many devices, some by a register map: ``test_drivers_modbus`` and the adverts below."""


def test_a_driver_that_advertises_or_reads_many_devices_is_to_meet_its_twin_by_hand() -> None:
    assert kin(Driver) - kin(Streamed) - kin(Asked) <= BY_HAND, "write its way from twin to driver, and name it here"


# Talkers

WITHIN = {"nmea0183": {"latitude": 1e-7, "longitude": 1e-7, "speed": 1e-4}}
TALKERS: dict[str, tuple[str, Callable[[], Talker], dict[str, float]]] = {
    **{name: (name, twin_of(name), WITHIN.get(name, {})) for name in sorted(kin(Streamed))},
    "south-west": (
        "nmea0183",
        lambda: Nmea0183(seed=8, latitude=-33.85, longitude=-0.00002),
        WITHIN["nmea0183"],
    ),
}


@pytest.mark.parametrize(("driver", "make", "within"), TALKERS.values(), ids=TALKERS)
def test_what_a_talker_says_is_what_is_read(driver: str, make: Callable[[], Talker], within: dict[str, float]) -> None:
    known = device(driver)
    assert isinstance(known, Streamed)

    async def main() -> None:
        twin = make()
        for _ in range(300):
            await asyncio.sleep(1)
            values = merged(known, twin.speak())
            truth = twin.truth()
            assert values.keys() == truth.keys()
            for name, value in values.items():
                assert value == pytest.approx(truth[name], rel=0, abs=within.get(name, 0.0)), name

    run(main())


def merged(known: Streamed, stream: bytes) -> dict[str, Value]:
    """Read a second's worth; nothing in it may be refused."""
    values: dict[str, Value] = {}
    for found in heard(known, stream):
        assert not isinstance(found, DeviceError), found
        values |= found
    return values


def test_a_receiver_without_a_fix_gives_no_position() -> None:
    known = device("nmea0183")
    assert isinstance(known, Streamed)

    async def main() -> None:
        receiver = Nmea0183(cold_s=5.0)
        for _ in range(5):
            found = list(heard(known, receiver.speak()))
            assert [type(one) for one in found if isinstance(one, DeviceError)] == [NotReady]
            values = {name: value for one in found if not isinstance(one, DeviceError) for name, value in one.items()}
            assert {name: value for name, value in values.items() if value is not None} == receiver.truth()
            assert values["latitude"] is values["longitude"] is None
            await asyncio.sleep(1)
        assert "latitude" in merged(known, receiver.speak())

    run(main())


def test_a_dust_sensor_that_warms_up_is_not_clean_air() -> None:
    known = device("pms5003")
    assert isinstance(known, Streamed)

    async def main() -> None:
        sensor = Pms5003(warm_up_s=30.0)
        assert [type(found) for found in heard(known, sensor.speak())] == [NotReady]
        await asyncio.sleep(31)
        assert merged(known, sensor.speak()) == sensor.truth()

    run(main())


# Adverts


def read_advert(data: bytes, address: str = "CB:B8:33:4C:88:4F") -> dict[str, Value]:
    """Read advertising data as a radio hands it over."""
    parsed = adverts.parse(data)
    known = device("ruuvi", address=address)
    assert isinstance(known, Advertised)
    payload = known.payload(Advert(address, -70, parsed.manufacturer_data, parsed.service_data))
    assert payload is not None
    return dict(known.decode(payload))


def same(values: dict[str, Value], truth: dict[str, float | None]) -> None:
    assert values.keys() == truth.keys()
    for name, value in values.items():
        if name.startswith("acceleration") and value is not None:  # 0.00980665 m/s2 a step, told to five decimals
            assert value == pytest.approx(truth[name], rel=0, abs=5.001e-6), name
        else:
            assert value == truth[name], name


def maybe(least: float, most: float) -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(least, most)


def counter(most: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(0, most)


CLIMATE = {"temperature": maybe(-170, 170), "humidity": maybe(-1, 170), "pressure": maybe(45_000, 120_000)}
MOTION = {name: maybe(-40, 40) for name in ("acceleration_x", "acceleration_y", "acceleration_z")}
TAGS = st.builds(
    RuuviTag,
    st.just("CB:B8:33:4C:88:4F"),
    **CLIMATE,
    **MOTION,
    battery_voltage=maybe(1.5, 3.7),
    tx_power=maybe(-41, 25),
    movement_counter=counter(254),
    sequence=counter(65_534),
)
OLD_TAGS = st.builds(
    RuuviTag,
    st.just("CB:B8:33:4C:88:4F"),
    data_format=st.just(3),
    temperature=st.floats(-128, 128),
    humidity=st.floats(0, 130),
    pressure=st.floats(45_000, 120_000),
    **{name: st.floats(-330, 330) for name in MOTION},
    battery_voltage=st.floats(0, 66),
)
AIRS = st.builds(
    RuuviAir,
    st.just("CB:B8:33:4C:88:4F"),
    data_format=st.sampled_from([6, 0xE1]),
    **CLIMATE,
    **{name: maybe(0, 1100) for name in ("pm1", "pm2_5", "pm4", "pm10")},
    co2=maybe(0, 41_000),
    voc_index=counter(500),
    nox_index=counter(500),
    illuminance=maybe(0, 150_000),
    calibrating=st.booleans(),
    sequence=counter(16_777_214),
    reserved=st.integers(0, 255),
)


@examples(400)
@given(tag=st.one_of(TAGS, OLD_TAGS, AIRS))
def test_what_a_ruuvi_advertises_is_what_is_read(tag: RuuviTag | RuuviAir) -> None:
    same(read_advert(tag.advert()), tag.truth())


def test_every_step_of_the_logarithmic_light_reads_as_the_twin_says() -> None:
    air = RuuviAir("CB:B8:33:4C:88:4F", 6)
    seen = set()
    for tenth in range(1110):
        air.illuminance = 65_535 ** (tenth / 1109) - 1
        same(read_advert(air.advert()), air.truth())
        seen.add(air.payload()[13])
    assert seen == set(range(255))


# Those that are asked; meters have a file of their own


@pytest.mark.parametrize("driver", sorted(kin(Asked) - BY_HAND))
def test_what_a_device_answers_is_what_is_read(driver: str) -> None:
    known = device(driver)
    assert isinstance(known, Asked)

    async def main() -> None:
        twin = twin_of(driver)()
        port = TwinPort(twin.hear)
        for _ in range(100):
            close(await known.poll(port), twin.truth())
            await asyncio.sleep(1)

    run(main())


def sps30(warm_up: float = 30.0) -> Asked:
    known = device("sps30", warm_up=warm_up)
    assert isinstance(known, Asked)
    return known


def close(values: object, truth: Truth) -> None:
    assert values == pytest.approx(truth, rel=CLOSE, abs=0)


def test_an_sps30_is_started_warmed_up_and_read() -> None:
    async def main() -> None:
        sensor = Sps30(seed=7)
        port = TwinPort(sensor.hear)
        loop = asyncio.get_running_loop()

        close(await sps30().poll(port), sensor.truth())
        assert loop.time() == 30.0
        assert len(port.sent) == 3  # read, start, read

        for _ in range(100):
            await asyncio.sleep(1)
            close(await sps30().poll(port), sensor.truth())
        assert len(port.sent) == 103
        assert loop.time() == 130.0

    run(main())


def test_an_sps30_polled_faster_than_it_measures_has_no_new_sample() -> None:
    async def main() -> None:
        sensor = Sps30(seed=7)
        port = TwinPort(sensor.hear)
        await sps30().poll(port)
        with pytest.raises(NotReady, match="no new sample"):
            await sps30().poll(port)
        await asyncio.sleep(1)
        close(await sps30().poll(port), sensor.truth())

    run(main())


def test_an_sps30_whose_power_was_away_is_started_again() -> None:
    async def main() -> None:
        sensor = Sps30(seed=7)
        port = TwinPort(lambda request: sensor.hear(request) if powered else b"")
        powered = True
        await sps30().poll(port)

        powered = False
        sensor.reset()
        with pytest.raises(NoReply):
            await sps30().poll(port)

        powered = True
        before = asyncio.get_running_loop().time()
        close(await sps30().poll(port), sensor.truth())
        assert asyncio.get_running_loop().time() == before + 30.0

    run(main())


def test_an_sps30_that_stops_again_while_it_warms_up_is_an_error_and_not_a_loop() -> None:
    async def main() -> None:
        sensor = Sps30(seed=7)
        port = TwinPort(sensor.hear)

        async def pull_the_plug() -> None:
            await asyncio.sleep(10)
            sensor.reset()

        plug = asyncio.create_task(pull_the_plug())
        with pytest.raises(BadFrame, match="not measuring"):
            await sps30().poll(port)
        await plug
        assert len(port.sent) == 3

    run(main())


def test_an_sps30_without_warm_up_has_no_sample_in_its_first_second() -> None:
    async def main() -> None:
        port = TwinPort(Sps30().hear)
        with pytest.raises(NotReady):
            await sps30(warm_up=0.0).poll(port)

    run(main())


def test_a_late_answer_to_another_command_is_not_taken_for_a_sample() -> None:
    async def main() -> None:
        sensor = Sps30(seed=7)
        stopped = sensor.hear(bytes.fromhex("7e0001 00fe 7e"))  # to a stop, before it was started
        assert stopped[2:4] == bytes([STOP, 0x43])
        started = sensor.hear(bytes.fromhex("7e0000 020103 f9 7e"))
        assert started[2:4] == bytes([START, 0])
        port = TwinPort(lambda request: stopped + started + sensor.hear(request))
        await asyncio.sleep(1)
        close(await sps30().poll(port), sensor.truth())

    run(main())

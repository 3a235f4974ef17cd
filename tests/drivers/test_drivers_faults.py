"""A sensor that says that it is broken: its numbers are not taken."""

import asyncio
from typing import cast

import pytest

from drivers.contract import Asked, BadFrame, NotReady
from hil.twins.pms5003 import frame as pms_frame
from hil.twins.sps30 import frame as sps_frame
from tests.drivers.driver_bench import TwinPort
from tests.drivers.vector_files import device

SAMPLE = bytes(range(1, 41))
FAN_OR_LASER = 0x80
REFUSES_TO_START = sps_frame(0, 0x00, 0x04, b"")
DOES_NOT_MEASURE = sps_frame(0, 0x03, 0x43, b"")


def test_an_sps30_with_a_fault_of_fan_or_laser_gives_no_numbers() -> None:
    assert device("sps30").decode(sps_frame(0, 0x03, 0x00, SAMPLE))
    with pytest.raises(NotReady, match="fault of its fan or laser"):
        device("sps30").decode(sps_frame(0, 0x03, FAN_OR_LASER, SAMPLE))


def test_an_sps30_that_refuses_to_start_is_not_waited_for() -> None:
    answers = iter([DOES_NOT_MEASURE, REFUSES_TO_START])
    port = TwinPort(lambda _request: next(answers))
    with pytest.raises(BadFrame, match="illegal parameter"):
        asyncio.run(cast("Asked", device("sps30")).poll(port))


def test_a_pms5003_that_reports_an_error_gives_no_numbers() -> None:
    sound = [1, 2, 3, 4, 5, 6, 60, 50, 40, 30, 20, 10, 0x9700]
    assert device("pms5003").decode(pms_frame(sound))
    with pytest.raises(NotReady, match="error 02"):
        device("pms5003").decode(pms_frame([*sound[:-1], 0x9702]))
    with pytest.raises(NotReady, match="error 02"):  # which tells more than that it measures nothing
        device("pms5003").decode(pms_frame([*[0] * 12, 0x9702]))


@pytest.mark.parametrize("last", [0x9700, 0])
def test_a_pms5003_without_one_particle_warms_up_and_does_not_tell_clean_air(last: int) -> None:
    with pytest.raises(NotReady, match="warming up"):
        device("pms5003").decode(pms_frame([*[0] * 12, last]))

"""A check ends at once, whatever the file holds: a technician waits for it, and so does a pole that starts."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config.toml_file import LARGEST_BYTES
from tests.config.settings_scene import faults, warnings

HEAD = '[pole]\nid = "p"\n[uplink]\nurl = "mqtts://b"\n'
PORT = '[port.p]\npath = "tcp://h:502"\n'
METER = '[[device]]\nid = "{0:x}"\ndriver = "modbus"\nport = "p"\nunit = 1\nprofile = "mine"\n'


def largest(head: str, piece: Callable[[int], str], tail: str = "") -> str:
    """Fill a file with pieces up to the size that is still read."""
    left = LARGEST_BYTES - len(head) - len(tail)
    pieces = []
    number = 0
    while left >= len(piece(number)):
        pieces.append(piece(number))
        left -= len(pieces[-1])
        number += 1
    return head + "".join(pieces) + tail


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            largest(f"{HEAD}x = [\n", lambda _: "1,\n", "]\n"), id="one array over tens of thousands of lines"
        ),
        pytest.param(largest(f"{HEAD}x = [\n", lambda _: "{ a = [1] },\n", "]\n"), id="tables in one array"),
        pytest.param(largest(f'{HEAD}x = """\n', lambda _: "a = 1\n", '"""\n'), id="one text over many lines"),
        pytest.param(largest(f"{HEAD}x = [\n", lambda _: "1,\n", "y = 2\n"), id="an array that is not closed"),
        pytest.param(largest(f'{HEAD}x = """\n', lambda _: "\\\\\n"), id="a text that is not closed"),
        pytest.param(largest(f'{HEAD}x = "', lambda _: '\\"'), id="a quote that is not closed"),
        pytest.param(largest(HEAD, lambda number: f"{number:x} = 1\n"), id="unknown keys"),
        pytest.param(largest(HEAD, lambda number: f'"{number:x}".a = 1\n'), id="unknown keys in quotes"),
        pytest.param(largest(HEAD, lambda number: f"[{number:x}]\n"), id="unknown sections"),
        pytest.param(largest(HEAD, lambda _: "[[x]]\n"), id="unknown sections that stand many times"),
        pytest.param(largest(HEAD, lambda number: f'[[device]]\ndriver = "{number:x}"\n'), id="unknown drivers"),
        pytest.param(largest(HEAD, METER.format), id="devices on a port that is missing"),
        pytest.param(
            largest(f"{HEAD}[{'.'.join('a' * 15)}]\n", lambda number: f"{'a.' * 14}{number:x} = 1\n"), id="long keys"
        ),
        pytest.param(f"{HEAD}x{'.x' * 120_000} = 1\n", id="one key that never ends"),
        pytest.param(largest(HEAD, lambda at: f"x{at} = {'1' * 4300}\n", f"y = {'1' * 4301}\n"), id="long numbers"),
        pytest.param(f"{HEAD}x = 0x{'f' * 250_000}\n", id="one number that never ends"),
        pytest.param(f'{HEAD}[[device]]\nid = "a"\ndriver = "{"ruuvi" * 50_000}"\n', id="one name that never ends"),
        pytest.param(f"{HEAD}x = {'[' * 250_000}\n", id="brackets in brackets"),
        pytest.param("\n" * (LARGEST_BYTES - 1) + "x", id="a fault in the last of many lines"),
    ],
)
def test_no_file_takes_longer_than_two_seconds_to_find_its_faults(tmp_path: Path, text: str) -> None:
    assert len(text.encode()) <= LARGEST_BYTES
    began = time.process_time()  # of this process alone: others may be busy

    found = faults(tmp_path, text)

    assert time.process_time() - began < 2
    assert found


def test_two_thousand_devices_with_a_profile_are_read_in_two_seconds(tmp_path: Path) -> None:
    text = largest(f"{HEAD}{PORT}", METER.format)
    began = time.process_time()

    assert warnings(tmp_path, text) == []
    assert time.process_time() - began < 2
    assert text.count("[[device]]") > 2000


def test_the_fault_of_a_long_array_is_told_at_its_line(tmp_path: Path) -> None:
    array = "1,\n" * 20_000
    text = f"{HEAD}[dataset]\nair = [\n{array}]\n[dataset.noise]\nsend_every = 0\n"

    assert faults(tmp_path, text) == [
        "pole.toml:6: [dataset]: write [dataset.air], not air = [...]",
        'pole.toml:20009: [dataset.noise]: "send_every" must be more than 0, not 0',
    ]

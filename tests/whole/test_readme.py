"""What the README says is what is there."""

import re
from pathlib import Path

from drivers.contract import DeviceError
from gateway.cli import COMMANDS
from gateway.config import driver_index
from gateway.remote.verdict import Code
from gateway.sensors.account import DriverBug

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def rows(heading: str) -> dict[str, list[str]]:
    """Read the table below a heading: first cell to the others."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in section.splitlines() if line.startswith("| `")]
    return {first.strip("`"): rest for first, *rest in cells}


def test_every_error_is_explained_with_its_own_hint() -> None:
    errors = [*DeviceError.__subclasses__()]
    assert DriverBug in errors
    told = rows("What the log says, and what to do")
    expected = {error.word: [" ".join((error.__doc__ or "").split()), error.hint] for error in errors}
    assert told == expected


def test_every_driver_stands_there_and_says_honestly_where_its_frames_are_from() -> None:
    told = {name: cells[-1] for name, cells in rows("Devices").items()}
    honest = {True: "recorded from hardware", False: "from the datasheet only"}
    assert told == {name: honest[driver_index.driver(name).RECORDED] for name in driver_index.names()}


def test_every_profile_stands_there() -> None:
    told = rows("Devices")["modbus"][0]
    assert all(f"`{profile.stem}`" in told for profile in (ROOT / "config" / "profiles").glob("*.toml"))


def test_the_shortest_configuration_is_the_one_that_is_shipped() -> None:
    shown, _ = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    assert shown.strip() == (ROOT / "config" / "minimal.toml").read_text().strip()


def test_every_command_is_explained() -> None:
    assert {name.split()[1] for name in rows("A pole in five minutes")} == set(COMMANDS)


def test_every_file_that_is_named_is_there() -> None:
    links = re.findall(r"\]\(([a-z][^):]*)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_code_of_a_document_is_explained() -> None:
    table = README.split("| code | means | code | means |\n")[1].split("\n\n")[0]
    told = re.findall(r"\b([0-9]{1,3}) ([A-Z_]{2,})\b", table)
    assert sorted((int(number), name) for number, name in told) == sorted((code.value, code.name) for code in Code)

"""``check`` and ``run`` as a technician calls them: a bad file ends with 78, and nothing was done."""

import subprocess
from pathlib import Path

import pytest

from hil.daemon import polegate
from tests.config.settings_scene import PROFILE, SOUND, edited, write

EX_CONFIG = 78
BUFFER = '[buffer]\npath = "{}/buffer.db"\n'

BAD = {
    "an unknown driver": edited(SOUND, ('"ruuvi"', '"ruvi"')),
    "a url with a password": edited(SOUND, ("mqtts://", "mqtts://me:hunter2@")),
    "no such section": edited(SOUND, ("[pole]", "[pool]")),
    "no TOML": edited(SOUND, ('"pole-1"', '"pole-1')),
    "brackets": f"x = {'[' * 5000}",
    "nothing": "",
    "too large": "#" * 1_000_000,
}
"""Of each kind one; the tests of the settings have them all."""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own
        [polegate(), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def must_end_as_a_bad_configuration(folder: Path, *arguments: str) -> str:
    before = everything_in(folder)

    done = run(folder, *arguments)

    assert (done.returncode, done.stdout) == (EX_CONFIG, "")
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    assert everything_in(folder) == before
    return done.stderr


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_ends_check_and_run_with_78_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    write(tmp_path, BAD[name] + (BUFFER.format(tmp_path) if BAD[name] else ""))

    checked = must_end_as_a_bad_configuration(tmp_path, "check", "pole.toml")
    started = must_end_as_a_bad_configuration(tmp_path, "run", "--config", "pole.toml")

    assert checked == started
    assert all(line.startswith("pole.toml:") for line in checked.splitlines())
    assert checked


def test_a_bad_profile_ends_check_and_run_with_78(tmp_path: Path) -> None:
    write(tmp_path, SOUND + BUFFER.format(tmp_path), edited(PROFILE, ("address = 2", "address = 1")))

    checked = must_end_as_a_bad_configuration(tmp_path, "check", "pole.toml")

    assert checked == must_end_as_a_bad_configuration(tmp_path, "run", "--config", "pole.toml")
    assert checked == (
        'profiles/mine.toml:13: [[register]] "amperes": "amperes" at 1 overlaps "volts", which takes 0 to 1\n'
    )


@pytest.mark.parametrize("name", ["pole.toml", "."])
def test_what_is_no_file_ends_check_and_run_with_78(tmp_path: Path, name: str) -> None:
    checked = must_end_as_a_bad_configuration(tmp_path, "check", name)

    assert checked == must_end_as_a_bad_configuration(tmp_path, "run", "--config", name)
    assert checked.startswith(f"{name}: is ")


def test_a_folder_that_stands_as_the_buffer_is_not_moved_away(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("somebody's")
    write(tmp_path, f'{SOUND}[buffer]\npath = "{tmp_path}/precious"\n')

    checked = must_end_as_a_bad_configuration(tmp_path, "check", "pole.toml")

    assert checked == must_end_as_a_bad_configuration(tmp_path, "run", "--config", "pole.toml")
    assert '[buffer]: "path" is a folder' in checked


def test_a_sound_file_ends_check_with_0_and_its_warnings_go_to_the_other_output(tmp_path: Path) -> None:
    write(tmp_path, SOUND + BUFFER.format(tmp_path))
    before = everything_in(tmp_path)

    done = run(tmp_path, "check", "pole.toml")

    assert (done.returncode, done.stdout) == (0, "pole.toml: 2 devices, 1 warning, no fault\n")
    assert done.stderr == (
        "warning: pole.toml:8: [port.rs485]: /dev/serial/by-id/usb-FTDI-port0 is not there now; "
        "the gateway opens it as soon as it is\n"
    )
    assert everything_in(tmp_path) == before


def test_a_pole_without_a_device_or_warning_reads_so(tmp_path: Path) -> None:
    write(tmp_path, '[pole]\nid = "p"\n[uplink]\nurl = "mqtt://b"\n')

    assert run(tmp_path, "check", "pole.toml").stdout == "pole.toml: no devices, 1 warning, no fault\n"


def test_a_file_goes_by_the_name_it_was_called_by(tmp_path: Path) -> None:
    path = write(tmp_path, edited(SOUND, ('"ruuvi"', '"ruvi"')))

    assert run(tmp_path, "check", str(path)).stderr.startswith(f"{path}:19: ")
    assert run(tmp_path, "check", "./pole.toml").stderr.startswith("pole.toml:19: ")

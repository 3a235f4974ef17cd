"""The files in systemd/: what systemd itself thinks of them, and that they fit the code."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.commands.web import PORT
from gateway.host.clock import SYNCHRONISED
from gateway.host.secret_file import FALLBACK
from hil.exposure import exposure

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
SOCKET = SYSTEMD / "polegate-web.socket"
MOST_EXPOSED = 1.5
TARGETS = ("basic", "bluetooth", "multi-user", "network", "shutdown", "sockets", "sysinit", "time-sync")


def settings(unit: Path) -> list[tuple[str, str]]:
    """Read all settings of a unit, in order."""
    lines = [line.partition("=") for line in unit.read_text().splitlines() if line and line[0] not in "#["]
    return [(key, value) for key, _, value in lines]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_exposes_little(unit: Path) -> None:
    assert exposure(unit) <= MOST_EXPOSED


def test_a_unit_that_protects_nothing_is_seen_to_expose_all(tmp_path: Path) -> None:
    unit = tmp_path / "polegate.service"
    unit.write_text("[Service]\nExecStart=/usr/bin/polegate\n")
    assert exposure(unit) > 9


@pytest.mark.parametrize("wrong", ["", "WatchdogSecs=60", "DeviceAllow=nothing", "ListenStreams=8080"])
def test_systemd_has_nothing_to_say_about_the_units_and_would_have(tmp_path: Path, wrong: str) -> None:
    units = tmp_path / "usr" / "lib" / "systemd" / "system"
    units.mkdir(parents=True)
    section = "[Socket]\n" if wrong.startswith("Listen") else "Type=notify\n"
    for unit in (*UNITS, SOCKET):
        (units / unit.name).write_text(unit.read_text().replace(section, f"{section}{wrong}\n"))
    for target in TARGETS:  # named by the units; the machine of the test has its own
        (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    for program in ("usr/bin/polegate", "usr/lib/polegate/release", "bin/sh"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", tmp_path / program)
    command = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", *(unit.name for unit in (*UNITS, SOCKET))]
    told = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # ours
    if wrong:
        assert any(part in told.stderr for part in wrong.split("="))
    else:
        assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_nothing_keeps_the_service_from_trying_again() -> None:
    told = dict(settings(SYSTEMD / "polegate.service"))
    assert (told["Restart"], told["StartLimitIntervalSec"]) == ("always", "0")
    assert float(told["WatchdogSec"]) == 60


def test_what_watches_over_releases_is_asked_as_root_and_keeps_no_service_from_starting() -> None:
    told = dict(settings(SYSTEMD / "polegate.service"))
    script = "-+/usr/lib/polegate/release"
    assert (told["ExecStartPre"], told["ExecStopPost"]) == (f"{script} start", f"{script} stop")


def test_devices_are_allowed_by_number_and_by_no_name() -> None:
    allowed = [value for key, value in settings(SYSTEMD / "polegate.service") if key == "DeviceAllow"]
    assert len(allowed) >= 4
    assert all(re.fullmatch(r"char-\d+ rw", value) for value in allowed)


def test_every_credential_has_a_fallback_that_the_gateway_knows() -> None:
    all_settings = settings(SYSTEMD / "polegate.service")
    loaded = {value.partition(":")[0] for key, value in all_settings if key == "LoadCredential"}
    fallbacks = dict(value.split(":", 1) for key, value in all_settings if key == "SetCredential")
    assert loaded
    assert fallbacks == dict.fromkeys(loaded, FALLBACK)


def test_the_file_that_tells_of_the_time_is_where_the_gateway_looks() -> None:
    told = dict(settings(SYSTEMD / "polegate-clock.service"))
    assert told["ExecStart"].endswith(f"exec touch {SYNCHRONISED}'")
    assert told["RuntimeDirectory"] == SYNCHRONISED.parent.name
    assert told["UMask"] == "0022"


def test_the_kernel_is_asked_by_a_service_that_may() -> None:
    """The gateway's own unit forbids the question; if it did not any more, the other one would be of no use."""
    assert ("ProtectClock", "yes") in settings(SYSTEMD / "polegate.service")
    filters = [value for key, value in settings(SYSTEMD / "polegate-clock.service") if key == "SystemCallFilter"]
    assert "adjtimex clock_adjtime clock_adjtime64" in filters


def test_the_page_is_for_this_machine_alone_where_the_command_has_it_too() -> None:
    told = settings(SOCKET)
    assert [value for key, value in told if key.startswith("Listen")] == [f"127.0.0.1:{PORT}"]
    assert {("IPAddressDeny", "any"), ("IPAddressAllow", "localhost")} <= set(told)


def test_the_page_is_no_user_that_could_end_the_gateway_and_reaches_no_network() -> None:
    told = dict(settings(SYSTEMD / "polegate-web.service"))
    assert ("User" in told, told["DynamicUser"], told["SupplementaryGroups"]) == (False, "yes", "polegate")
    assert (told["PrivateNetwork"], told["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")
    assert "-/etc/polegate" in told["InaccessiblePaths"].split()

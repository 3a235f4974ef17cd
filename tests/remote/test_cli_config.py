"""``polegate config show``, ``check`` and ``polegate override`` on the state that a pole has."""

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.remote.config_folder import ConfigFolder
from gateway.remote.override import Override
from tests.commands.cli_scene import Ran, call
from tests.config.test_settings_unreadable import WITHOUT_RIGHTS
from tests.remote.operator import document
from tests.remote.scene import BAD_BROKER, GOOD, LOCAL, TERMS, Pole, play

EX_USAGE, EX_CANTCREAT, EX_CONFIG = 64, 73, 78
METER = '[[device]]\nid = "meter"\nevery = 2.0\n'


@pytest.fixture
def pole(tmp_path: Path) -> Path:
    """A pole's file whose documents set one key that it sets too, and one that it pins."""
    own = LOCAL.replace("enabled = true", f'enabled = true\nstate = "{tmp_path}/config"\npins = ["uplink.backfill"]')
    path = tmp_path / "pole.toml"
    path.write_text(own)

    async def scene() -> None:
        living = await Pole(tmp_path, own).started()
        await living.hear(document(GOOD + METER + '[uplink]\nbackfill = "20%"\n', trial=TERMS))
        await living.run(60)
        await living.hear(document(BAD_BROKER, stream="fleet", seq=3, trial=TERMS), "fleet")
        await living.run(100)

    play(scene())
    return path


def shown(pole: Path, *arguments: str) -> list[str]:
    code, out, err = call("config", "show", str(pole), *arguments)
    assert (code, err) == (0, "")
    return [line.replace(f"{pole.parent}/", "") for line in out.splitlines()]


def set_(pole: Path, *arguments: str, to: str = "4h") -> Ran:
    return call("override", "set", *arguments, "--for", to, "--why", "commissioning", "--config", str(pole))


def test_every_key_says_where_it_is_from(pole: Path) -> None:
    lines = shown(pole, "--origin")
    assert "device.meter.every = 2.0  # pole/pole-1 seq 1:5; SHADOWED" in lines
    assert "dataset.air.priority = 7  # pole/pole-1 seq 1:2" in lines
    assert 'pole.id = "pole-1"  # pole.toml:2' in lines
    assert 'uplink.backfill = "50%"  # default; PINNED' in lines
    assert "device.meter.timeout = 0.3  # default" in lines
    assert "buffer.max_bytes = 268435456  # default" in lines
    assert not any(line.startswith("device.meter.profile.") for line in lines)
    assert lines[0].startswith("# fleet seq 3 did not come into force: RB_UPSTREAM: ")


def test_without_origin_only_what_is_set_is_shown(pole: Path) -> None:
    lines = shown(pole)
    assert "device.meter.every = 2.0" in lines
    assert not any("default" in line or line.startswith("buffer.") for line in lines)


def test_an_edit_that_was_not_read_yet_is_told(pole: Path) -> None:
    pole.write_text(pole.read_text() + "\n# more\n")
    assert any("pole.toml was edited since" in line for line in shown(pole))


def test_a_pole_without_remote_shows_what_is_in_force_and_not_an_edit_that_went_back(tmp_path: Path) -> None:
    own = LOCAL.replace('[remote]\nenabled = true\ngroups = ["harbour"]\n', f'[remote]\nstate = "{tmp_path}/config"\n')
    path = tmp_path / "pole.toml"
    path.write_text(own.replace("broker.example", "nobody.example"))

    async def scene() -> None:
        living = await Pole(tmp_path, own).started()
        await living.commit.edited(path.read_text())
        await living.run(130)

    play(scene())
    lines = shown(path)
    assert 'uplink.url = "mqtts://broker.example"' in lines
    assert lines[0].startswith("# pole.toml as it is now did not come into force: RB_UPSTREAM: ")


def test_a_file_without_remote_is_shown_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "pole.toml"
    path.write_text(LOCAL.replace("[remote]\nenabled = true", f'[remote]\nstate = "{tmp_path}/none"'))
    assert "device.meter.every = 1.0  # pole.toml:19" in shown(path, "--origin")


def test_faults_are_told_as_check_tells_them(tmp_path: Path) -> None:
    path = tmp_path / "pole.toml"
    path.write_text(LOCAL.replace("every", "evry"))
    assert call("config", "show", str(path)).err == call("check", str(path)).err
    assert call("config", "show", str(path)).code == EX_CONFIG


def test_an_override_is_above_everything_and_told(pole: Path) -> None:
    assert set_(pole, "device.meter.every", "0.5").code == 0
    assert "device.meter.every = 0.5  # override; OVERRIDDEN" in shown(pole, "--origin")
    assert set_(pole, "device.meter.every", "0.6").code == 0
    assert set_(pole, "pole.description", "by the sea").code == 0  # a shell took the quotes
    lines = shown(pole)
    assert "device.meter.every = 0.6" in lines
    assert 'pole.description = "by the sea"' in lines
    (first, second) = ConfigFolder(pole.parent / "config").overrides()
    assert (first.key, first.why, second.value) == ("device.meter.every", "commissioning", '"by the sea"')
    assert first.until_boottime > 4 * 3600


def test_an_override_ends_by_itself_or_before_its_time(pole: Path) -> None:
    over = Override(key="device.meter.every", value="0.5", why="x", boot="another", until_boottime=0, until=1)
    ConfigFolder(pole.parent / "config").keep_overrides([over])
    assert "device.meter.every = 2.0" in shown(pole)
    assert call("override", "end", "device.meter.every", "--config", str(pole)).code == 1
    assert set_(pole, "device.meter.every", "0.5").code == 0
    assert call("override", "end", "device.meter.every", "--config", str(pole)).code == 0
    assert "device.meter.every = 2.0" in shown(pole)


def test_an_override_is_counted_by_the_clock_that_counts_and_after_a_reboot_by_the_time_of_day() -> None:
    made = Override(key="a.b", value="1", why="x", boot="b", until_boottime=100.0, until=1000.0)
    assert not made.is_over("b", 99.0, 5000.0)
    assert made.is_over("b", 100.0, 0.0)
    assert not made.is_over("c", 500.0, 999.0)
    assert made.is_over("c", 0.0, 1000.0)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["device.meter.every", "0"], EX_CONFIG, "override: device.meter.every: "),
        (["device.metre.every", "1.0"], EX_CONFIG, 'there is no device metre; did you mean "meter"?'),
        (["pole.id", "x"], EX_CONFIG, "pole.id is set in"),
        (["remote.enabled", "false"], EX_CONFIG, "remote.enabled is set in"),
        (["uplink.backfil", "50%"], EX_CONFIG, '"backfil" is not a known key; did you mean "backfill"?'),
        (["[x]", "1"], EX_USAGE, "[x] is no key"),
        (["device", "x"], EX_USAGE, "device is no key of a device; write it as in device.meter.every"),
        (["device", '[{id = "meter"}]'], EX_USAGE, "device is no key of a device"),
        (["device.meter", "{}"], EX_USAGE, "device.meter is no key of a device"),
    ],
)
def test_an_override_that_does_not_fit_is_told_and_not_kept(
    pole: Path, arguments: list[str], code: int, told: str
) -> None:
    ran = set_(pole, *arguments)
    assert (ran.code, told in ran.err) == (code, True), ran.err
    assert ConfigFolder(pole.parent / "config").overrides() == []


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("", '--why cannot be "": say what it is for; operators read it'),
        ("x" * 401, '--why must be 400 characters or fewer, not "xxx'),
        (b"\xe9".decode(errors="surrogateescape"), "--why cannot be "),  # as a shell of another encoding gives it
    ],
)
def test_what_an_override_is_for_is_said_in_some_words(pole: Path, why: str, told: str) -> None:
    arguments = ["device.meter.every", "1.0", "--for", "4h", "--why", why, "--config", str(pole)]
    ran = call("override", "set", *arguments)
    assert (ran.code, f"Error: {told}" in ran.err) == (EX_USAGE, True), ran.err
    assert ConfigFolder(pole.parent / "config").overrides() == []


@pytest.mark.parametrize("duration", ["4", "0h", "h", "8d", "1y", "-1h"])
def test_a_duration_is_a_number_with_its_unit(pole: Path, duration: str) -> None:
    assert set_(pole, "device.meter.every", "1.0", to=duration).code == EX_USAGE


def test_a_file_of_overrides_that_is_damaged_is_told(pole: Path) -> None:
    (pole.parent / "config" / "overrides").write_text("[")
    for ran in (
        call("config", "show", str(pole)),
        set_(pole, "device.meter.every", "1.0"),
        call("override", "end", "a.b", "--config", str(pole)),
    ):
        assert (ran.code, "overrides is damaged" in ran.err) == (EX_CONFIG, True)


def test_an_override_that_cannot_be_written_is_told(pole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(ConfigFolder, "put", refuse)
    ran = set_(pole, "device.meter.every", "1.0")
    assert (ran.code, "cannot be written" in ran.err) == (EX_CANTCREAT, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write what is another's")
def test_what_root_writes_is_for_the_gateway_to_read(pole: Path) -> None:
    os.chown(pole.parent / "config", 1234, 1234)
    assert set_(pole, "device.meter.every", "1.0").code == 0
    assert (pole.parent / "config" / "overrides").stat().st_uid == 1234


def checked(pole: Path) -> list[str]:
    code, _, err = call("check", str(pole))
    assert code == 0
    return [line.replace(f"{pole.parent}/", "").removeprefix("warning: ") for line in err.splitlines()]


def test_check_tells_what_of_the_file_has_no_effect_and_who_says_otherwise(pole: Path) -> None:
    assert checked(pole) == [
        (
            'pole.toml:10: [remote]: uplink.backfill is PINNED: pole/pole-1 seq 1 sets "20%" in vain; '
            "to take that, remove the pin"
        ),
        (
            'pole.toml:21: [[device]] "meter": "every" is SHADOWED: pole/pole-1 seq 1 sets 2.0; '
            'to keep yours, write "device.meter.every" into `pins` in [remote]'
        ),
    ]
    assert set_(pole, "device.meter.every", "0.5").code == 0
    assert set_(pole, "pole.description", "by the sea").code == 0
    (every, _) = ConfigFolder(pole.parent / "config").overrides()
    until = f"{dt.datetime.fromtimestamp(every.until, dt.UTC):%Y-%m-%d %H:%M} UTC"
    assert checked(pole)[0] == (
        f'pole.toml: pole.description is OVERRIDDEN with "by the sea" until {until}, for: commissioning; '
        "polegate override end pole.description ends that"
    )
    assert checked(pole)[2] == (
        f'pole.toml:21: [[device]] "meter": "every" is OVERRIDDEN with 0.5 until {until}, for: commissioning; '
        "polegate override end device.meter.every ends that"
    )


def test_check_takes_the_file_as_it_is_now_and_not_as_it_was_taken(pole: Path) -> None:
    text = pole.read_text()
    pole.write_text(text.replace('pins = ["uplink.backfill"]', "pins = []").replace("every = 1.0", "every = 2.0"))
    assert checked(pole) == []
    pole.write_text(text.replace("enabled = true", "enabled = false"))
    assert checked(pole) == []


def test_what_windows_editors_put_into_the_file_changes_nothing(pole: Path) -> None:
    before = checked(pole), shown(pole, "--origin")
    pole.write_bytes(b"\xef\xbb\xbf" + pole.read_bytes().replace(b"\n", b"\r\n"))
    assert (checked(pole), shown(pole, "--origin")) == before


def test_an_edit_that_does_not_go_with_a_document_is_a_fault_for_check(pole: Path) -> None:
    head, _, tail = pole.read_text().partition('[[device]]\nid = "meter"')
    pole.write_text(head + tail[tail.index("[[device]]") :])
    code, _, err = call("check", str(pole))
    assert code == EX_CONFIG
    assert err.startswith("pole/pole-1 seq 1:")


def test_overrides_that_do_not_fit_any_more_are_told_by_check(pole: Path) -> None:
    over = Override(key="device.meter.every", value="0", why="x", boot="", until_boottime=0, until=1e10)
    ConfigFolder(pole.parent / "config").keep_overrides([over])
    (told,) = [line for line in checked(pole) if "left out" in line]
    assert told.startswith("pole.toml: the overrides are left out, since they do not fit any more: override: device.me")


def without_rights(*arguments: str) -> Ran:
    """Run a command as somebody who may read only what its mode lets him, which even root then is."""
    command = [sys.executable, "-m", "gateway", *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", *WITHOUT_RIGHTS, *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # our own
    return Ran(done.returncode, done.stdout, done.stderr)


def test_who_may_not_read_the_state_is_told_so_and_the_file_is_checked_alone(pole: Path) -> None:
    state = pole.parent / "config"
    state.chmod(0)
    try:
        code, _, err = without_rights("check", str(pole))
        shown_to_him = without_rights("config", "show", str(pole))
    finally:
        state.chmod(0o700)
    assert code == 0
    (line,) = err.splitlines()
    alone = f"warning: {pole}: was checked alone, without what lies over it: {state}: may not be read by user "
    assert line.startswith(alone)
    assert line.endswith("; try sudo")
    assert (shown_to_him.code, "may not be read by" in shown_to_him.err) == (EX_CONFIG, True)

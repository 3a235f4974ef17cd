"""What a technician reads when a file is no TOML, no text, or not to be read at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config.faults import SettingsError
from gateway.config.settings_file import load
from tests.config.settings_scene import SOUND, edited, faults, read

WITHOUT_RIGHTS = ("--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
"""For setpriv: even root may then read only what its owner may."""
LINE = "a line is KEY = VALUE, [SECTION] or # COMMENT"
TEXT = 'a text stands in quotes: KEY = "TEXT"'
NUMBER = "no number, date or time is written so"
BEHIND = "something stands behind the value or the ]; a comment begins with #"
BRACE = "what { opens is closed with } on the same line"
HIDDEN = "a character that cannot be seen stands here; type the line anew"
BACKSLASH = "in quotes a \\ is written \\\\"
AGAIN = "stands above already; keep one of the two"
EACH = "each time"
DATE = "a date is written YEAR-MONTH-DAY: 2026-03-14"
JOIN = "stands above already; join the two; only [[device]] and [[register]] may stand again"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        # A quote or bracket is left open
        ('x = "abc', 1, "a quote is not closed"),
        ("x = 'abc", 1, "the ' is not closed"),
        ("x = 'abc\ny = 'd'", 1, "a quote is not closed"),
        ('"x = 1', 1, "a quote is not closed"),
        ('\nx = """abc\n\ny = 1', 2, 'the """ is not closed'),
        ("\nx = '''abc\n\ny = 1", 2, "the ''' is not closed"),
        ("\nx = [1,\n2,\n", 2, "the [ is not closed"),
        ("x = [1, 2\n[uplink]", 2, "a comma or a ] is missing; the [ opens in line 1"),
        ('x = [ "a" "b" ]', 1, "a comma or a ] is missing"),
        ('x = [ "a",\ny = "b"', 2, f"{TEXT}; the [ opens in line 1"),
        ("x = {a = 1", 1, f"{BRACE}, with a comma between two keys"),
        ("x = {a = 1,}", 1, f"{BRACE}, without a comma before it"),
        ("[x\ny = 1", 1, "a section is written [NAME], and no space stands in the name"),
        ("[port.rs 485]", 1, "a section is written [NAME], and no space stands in the name"),
        ("[[device\ny = 1", 1, "what begins with [[ ends with ]]"),
        ("[[device]\ny = 1", 1, "write [[device]], not [[device]"),
        ("[device]]", 1, "write [[device]], not [device]]"),
        ("[[device]]\n[device]] # again", 2, "write [[device]], not [device]]"),
        ("[ [device] ]", 1, "write [[device]], not [ [device] ]"),
        ("[[register] ]", 1, "write [[register]], not [[register] ]"),
        ("[ [port.rs485]]", 1, "write [port.rs485], not [ [port.rs485]]"),
        ("[]", 1, "a name is missing in the brackets"),
        ("[a.b.]", 1, "a name is missing in the brackets"),
        # Something stands twice
        ("x = 1\ny = 2\nx = 3", 3, f'"x" {AGAIN}'),
        ("x.y = 1\nx = 2", 2, f'"x" {AGAIN}'),
        ("x = 1\nx = [\n]", 3, f"this {AGAIN}"),
        ("[pole]\n[uplink]\n[pole] # again", 3, f'"[pole]" {JOIN}'),
        ("[device]\n[device]", 1, f"write [[device]], not [device], {EACH}"),
        ("[pole]\n[device] # one\n[[device]]", 2, f"write [[device]], not [device], {EACH}"),
        ("[[device]]\nx = 1\n[device]", 3, f"write [[device]], not [device], {EACH}"),
        ("[device.dust]\n[[device]]", 1, f"write [[device]], not [device.dust], {EACH}"),
        ("device = 5\n[[device]]", 2, f'"[[device]]" {JOIN}'),
        ("[port.a]\n[port.a]", 2, f'"[port.a]" {JOIN}'),
        ("x = {a = 1, a = 2}", 1, "a key stands twice between { and }; remove one"),
        # The value, or the =, or the key is missing or is none
        ("x = ", 1, "a value is missing behind ="),
        ("x = # nothing", 1, "a value is missing behind ="),
        ("x = [1,, 2]", 1, "a value is missing before the comma"),
        ("x", 1, LINE),
        ("x 5", 1, LINE),
        ("x: 5", 1, "between key and value stands =, not a colon"),
        ("= 5", 1, "a key is missing before ="),
        ("é = 5", 1, "a key holds only the letters a to z, digits, - and _"),
        ("// comment", 1, "a comment begins with #"),
        ("; comment", 1, "a comment begins with #"),
        ("x = abc", 1, TEXT),
        ("x = /dev/ttyUSB0", 1, TEXT),
        ("x = True", 1, "write true, in small letters and without quotes"),
        ("x = off", 1, "write false, in small letters and without quotes"),
        ("x = \N{LEFT DOUBLE QUOTATION MARK}a\N{RIGHT DOUBLE QUOTATION MARK}", 1, 'quotes are straight: "TEXT"'),
        ('x = "C:\\dev"', 1, BACKSLASH),
        ('x = "\\ud800"', 1, BACKSLASH),
        ('x = "a\x01"', 1, HIDDEN),
        ("x = 1 # a\x01", 1, HIDDEN),
        ("\0", 1, LINE),
        # Numbers, and what follows them
        ("x = .5", 1, "a number begins with a digit: 0.5"),
        ("x = 5.", 1, "behind a point stands a digit: 1.0"),
        ("x = 1,5", 1, "a decimal has a point: 1.5"),
        ("x = 01", 1, NUMBER),
        ("x = 1__0", 1, NUMBER),
        ("x = 2026-13-01", 1, DATE),
        ("x = 2026-02-30", 1, "there is no such date or time"),
        (f"y = 1\nx = {'1' * 4301}", 2, "a number has too many digits"),
        ("x = 1 2", 1, BEHIND),
        ('x = "a" "b"', 1, BEHIND),
        ("x = 5; y = 6", 1, BEHIND),
        ("[x]]", 1, "write [x], not [x]]"),
        ("x = [1]]", 1, BEHIND),
        ("x = 14.03.2026", 1, DATE),
        ("x = 3/14/2026", 1, DATE),
        ("x = 2026-3-14", 1, DATE),
        ("x = 192.168.1.20", 1, f"a number has one point; {TEXT}"),
        # What makes a reader work for hours
        (f"y = 1\nx = {'[' * 10_000}", 2, "brackets stand in brackets, too many of them"),
        (f"y = 1\nx = {'{a=' * 10_000}", 2, "brackets stand in brackets, too many of them"),
        (f"y = 1\nx{'.x' * 100_000} = 1", 2, "a key has at most 16 parts"),
        (f"y = 1\n[x{' . x' * 50_000}]", 2, "a key has at most 16 parts"),
        (f"y = 1\nx = {{ x{'.x' * 100_000} = 1 }}", 2, "a key has at most 16 parts"),
    ],
)
def test_a_file_that_is_no_toml_is_told_the_line_and_what_to_write(
    tmp_path: Path, text: str, line: int, expected: str
) -> None:
    assert faults(tmp_path, text) == [f"pole.toml:{line}: cannot be read: {expected}"]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n\n# here"])
def test_a_file_without_a_section_is_told_the_least_there_must_be(tmp_path: Path, text: str) -> None:
    expected = 'pole.toml: holds no setting; the least is [pole] with its "id" and [uplink] with its "url"'
    assert faults(tmp_path, text) == [expected]


def test_the_line_of_a_byte_that_is_no_text_is_told(tmp_path: Path) -> None:
    text = '[pole]\n# Stra\N{LATIN SMALL LETTER SHARP S}e\nid = "x"\n'.encode("latin-1")

    assert faults(tmp_path, text) == ["pole.toml:2: byte df is not UTF-8; save the file as UTF-8"]


def test_a_file_saved_as_utf_16_is_told_so(tmp_path: Path) -> None:
    assert faults(tmp_path, SOUND.encode("utf-16")) == ["pole.toml:1: byte ff is not UTF-8; save the file as UTF-8"]


@pytest.mark.parametrize("encoded", [SOUND.encode("utf-8-sig"), SOUND.replace("\n", "\r\n").encode()])
def test_a_file_of_a_windows_editor_is_read(tmp_path: Path, encoded: bytes) -> None:
    assert len(read(tmp_path, encoded).devices) == 2


def test_lines_are_counted_the_same_in_a_file_of_a_windows_editor(tmp_path: Path) -> None:
    text = edited(SOUND, ('"ruuvi"', '"ruvi"')).replace("\n", "\r\n")

    (fault,) = faults(tmp_path, b"\xef\xbb\xbf" + text.encode())

    assert fault.startswith("pole.toml:19: ")


def test_a_file_of_ten_megabytes_is_not_read(tmp_path: Path) -> None:
    expected = "has more than 262,144 bytes; a configuration has a few thousand. Is it the right file?"
    assert faults(tmp_path, b"#" * 10_000_000) == [f"pole.toml: {expected}"]


def test_a_file_that_never_ends_is_not_read_to_its_end() -> None:
    with pytest.raises(SettingsError, match=r"/dev/zero: has more than 262,144 bytes"):
        load(Path("/dev/zero"))


def test_a_missing_file_is_told_what_there_is_instead(tmp_path: Path) -> None:
    (tmp_path / "pole.toml").write_text(SOUND)

    with pytest.raises(SettingsError) as near:
        load(tmp_path / "poel.toml")
    with pytest.raises(SettingsError) as far:
        load(tmp_path / "etc" / "pole.toml")

    assert str(near.value) == f'{tmp_path}/poel.toml: is not there; did you mean "pole.toml"?'
    assert str(far.value) == f"{tmp_path}/etc/pole.toml: is not there; there is no folder {tmp_path}/etc"


def test_a_folder_is_told_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is a folder; name the file in it"):
        load(tmp_path)


def test_a_path_that_goes_through_a_file_is_told_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "pole.toml").write_text(SOUND)

    with pytest.raises(SettingsError, match="cannot be read: Not a directory"):
        load(tmp_path / "pole.toml" / "x")


def check_without_rights(path: Path) -> subprocess.CompletedProcess[str]:
    """Run ``polegate check`` as somebody who may read only what its mode lets him."""
    command = [sys.executable, "-m", "gateway", "check", str(path)]
    if os.geteuid() == 0:
        command = ["setpriv", *WITHOUT_RIGHTS, *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # our own


def test_a_file_that_may_not_be_read_is_told_with_the_user_who_may_not(tmp_path: Path) -> None:
    path = tmp_path / "pole.toml"
    path.write_text(SOUND)
    path.chmod(0)

    done = check_without_rights(path)

    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"{path}: may not be read by user ")
    assert done.stderr.endswith(f"; see ls -l {path}\n")


@pytest.mark.parametrize(("mode", "step"), [(0o000, "see ls -l "), (0o060, "sudo usermod -aG ")])
def test_a_tty_that_may_not_be_opened_is_told_with_the_next_step(tmp_path: Path, mode: int, step: str) -> None:
    master, slave = os.openpty()
    try:
        tty = Path(os.ttyname(slave))
        tty.chmod(mode)
        path = tmp_path / "pole.toml"
        path.write_text(
            '[pole]\nid = "p"\n[uplink]\nurl = "mqtt://b"\n[port.a]\n'
            f'path = "{tty}"\n[[device]]\nid = "d"\ndriver = "sds011"\nport = "a"\n'
        )

        done = check_without_rights(path)
    finally:
        os.close(master)
        os.close(slave)

    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"{path}:6: [port.a]: {tty} may not be opened by user ")
    assert step in done.stderr

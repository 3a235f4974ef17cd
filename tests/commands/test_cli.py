"""The command line itself: what it says of its commands, and how it ends when it is called wrongly."""

import importlib
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from gateway.cli import COMMANDS
from hil.daemon import polegate
from tests.commands.cli_scene import call

EX_USAGE, EX_CANTCREAT = 64, 73


def test_help_names_every_command_with_what_it_does() -> None:
    code, out, _ = call("--help")

    rows = [line.split(None, 1) for line in out.splitlines() if line.startswith("  ")]
    assert code == 0
    assert all([name, what] in rows for name, what in COMMANDS.items())


def test_a_folder_of_commands_holds_no_command_that_help_does_not_name() -> None:
    folder = Path(__file__).parents[2] / "gateway" / "commands"
    files = {path.stem: path for path in folder.glob("*.py")} | {
        path.parent.name: path for path in folder.glob("*/__init__.py")
    }
    commands = {name for name, path in files.items() if "\ndef command(" in path.read_text()}

    assert commands == set(COMMANDS)


@pytest.mark.parametrize("name", ["buffer", "identity"])
def test_help_that_lists_the_parts_of_a_command_lists_all_of_them(name: str) -> None:
    command = importlib.import_module(f"gateway.commands.{name}").command
    assert sorted(COMMANDS[name].partition(": ")[2].split(", ")) == sorted(command.commands)


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("check", ["check [OPTIONS] FILE", "line", "0: no fault", "78: faults"]),
        ("doctor", ["--config FILE", "/etc/polegate/pole.toml", "--json", "0:", "1:", "69:", "78: FILE has faults"]),
        (
            "web",
            ["--listen HOST:PORT", "127.0.0.1:8080", "Nothing can be changed", "/status.json", "five minutes", "69:"],
        ),
        ("run", ["--config FILE", "SIGTERM", "73:", "78:"]),
        ("probe", ["DEVICE", "--config FILE", "id of a [[device]]", "stop the gateway first", "1:", "64:", "78:"]),
        ("tail", ["--broker URL", "--config FILE", "--verify", "--request-replay", "Ctrl-C", "0:", "1:", "69:", "77:"]),
        (
            "decode",
            [
                *("DRIVER HEX...", "--json", "--profile NAME", "--manufacturer ID", "--service-data UUID", "--address"),
                *("--key", "Drivers: modbus, nmea0183, pms5003, ruuvi, sds011, sps30.", "1:", "64:", "'$GP"),
            ],
        ),
    ],
)
def test_help_of_a_command_says_what_it_needs_and_how_it_ends(command: str, needs: list[str]) -> None:
    code, printed, _ = call(command, "--help")

    out = " ".join(printed.split())
    assert code == 0
    assert out.startswith(f"Usage: polegate {command} ")
    assert [text for text in needs if text not in out] == []
    assert "LAMBDA" not in out


def test_without_a_command_help_is_shown_and_the_call_is_wrong() -> None:
    code, out, err = call()

    assert (code, out) == (EX_USAGE, "")
    assert "Commands:" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chekc"], "No such command 'chekc'"),
        (["check"], "Missing argument 'FILE'"),
        (["check", "a", "b"], "unexpected extra argument"),
        (["run"], "Missing option '--config'"),
        (["probe", "dust"], "Missing option '--config'"),
        (["decode"], "Missing argument 'DRIVER'"),
        (["decode", "sds011"], "Missing argument 'HEX...'"),
        (["decode", "sds011", "00", "--jsno"], "No such option"),
        (["tail"], "say either --broker URL or --config FILE"),
        (["tail", "--broker", "mqtt://a", "--config", "pole.toml"], "say either --broker URL or --config FILE"),
        (
            ["tail", "--config", "pole.toml", "--prefix", "a"],
            "--prefix is for --broker; with --config the file says it",
        ),
        (["tail", "--broker", "192.168.1.10"], '--broker is "192.168.1.10"; write mqtts://192.168.1.10, or mqtt://'),
        (["tail", "--broker", "mqtt://a", "--prefix", "pole/#"], '--prefix is "pole/#"; it is made of letters'),
        (["tail", "--broker", "mqtt://a", "--pole", "a/b"], '"a/b" is no name'),
        (["tail", "--broker", "mqtt://a", "--username", "me"], "--username and --password-file belong together"),
        (["tail", "--broker", "mqtt://a", "--password-file", "/no/such"], "'/no/such' does not exist"),
    ],
)
def test_a_wrong_call_says_what_is_missing_and_where_help_is(arguments: list[str], says: str) -> None:
    code, out, err = call(*arguments)

    assert (code, out) == (EX_USAGE, "")
    assert says in err
    assert "polegate" in err.splitlines()[0]
    assert "--help' for help" in err


def test_the_version_is_that_of_the_package() -> None:
    assert call("--version") == (0, f"polegate {version('polegate')}\n", "")


@pytest.mark.parametrize("command", [[polegate()], [sys.executable, "-m", "gateway"]])
def test_the_command_and_the_module_are_the_same(command: list[str]) -> None:
    done = subprocess.run([*command, "check"], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # our own

    assert done.returncode == EX_USAGE
    assert done.stderr.startswith("Usage: polegate check [OPTIONS] FILE\n")


def test_a_command_imports_only_what_it_needs() -> None:
    # A check runs on a laptop too, and on a small board each of these takes seconds and megabytes.
    heavy = ("bleak", "aiomqtt", "sqlite3", "serial", "zstandard", "pynmea2")
    example = Path(__file__).parents[2] / "config" / "minimal.toml"
    code = (
        "import sys, click.testing, gateway.cli\n"
        f"click.testing.CliRunner().invoke(gateway.cli.polegate, ['check', {str(example)!r}])\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # our own

    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_shell_completes_commands() -> None:
    done = subprocess.run(  # noqa: S603  # our own
        [polegate()],
        env={**os.environ, "_POLEGATE_COMPLETE": "bash_complete", "COMP_WORDS": "polegate ", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.stdout.split() == [f"plain,{name}" for name in COMMANDS]


def test_every_command_of_the_project_is_one_of_these() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    assert project["scripts"] == {"polegate": "gateway.__main__:main"}


POLE = Path(__file__).parents[2] / "config" / "pole.toml"
FULL = b"Error: the standard output cannot be written: No space left on device; give a name in a folder with room\n"


def into(output: int, *arguments: str, **env: str) -> tuple[int, bytes]:
    """Run a command with a standard output; return how it ends, and what it says elsewhere."""
    done = subprocess.run(  # noqa: S603  # our own
        [polegate(), *arguments], stdout=output, stderr=subprocess.PIPE, env=os.environ | env, check=False, timeout=60
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["version"], {}),
        (["version"], {"PYTHONUNBUFFERED": "1"}),
        (["config", "show", "--origin", str(POLE)], {}),  # more than is written at once
        (["fleet", "--help"], {}),
    ],
)
def test_a_standard_output_that_is_full_is_told(arguments: list[str], env: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        assert into(full.fileno(), *arguments, **env) == (EX_CANTCREAT, FULL)


def test_another_file_that_cannot_be_written_is_told_by_its_name(tmp_path: Path) -> None:
    public = tmp_path / "key.pub"
    public.touch()
    with Path("/dev/full").open("wb") as full:
        code, told = into(full.fileno(), "fleet", "keygen", str(tmp_path / "key"))
    assert (code, told.startswith(f"{public} cannot be made: File exists".encode())) == (EX_CANTCREAT, True)


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["version"], {}),
        (["fleet", "verify", "signed.json", "--root", "root.json"], {"PYTHONUNBUFFERED": "1"}),
        (["fleet", "verify", "signed.json", "--root", "root.json"], {}),
    ],
)
def test_who_has_seen_enough_ends_a_command_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], env: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    key = call("fleet", "keygen", "key").out.strip()
    roles = "".join(f'[roles.{name}]\nkeys = ["key"]\nthreshold = 1\n' for name in ("root", "fleet"))
    Path("root.toml").write_text(f'version = 1\nepoch = 1\n[keys]\nkey = "{key}"\n{roles}')
    Path("layer.toml").write_text("[dataset.air]\nsend_every = 5.0\n")
    Path("document.toml").write_text('stream = "fleet"\nseq = 7\nvalid = "7d"\nsettings = "layer.toml"\n')
    for source, signed in (("root.toml", "root.json"), ("document.toml", "signed.json")):
        assert call("fleet", "sign", source, "--key", "key", "--out", signed).code == 0
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        assert into(theirs, *arguments, **env) == (1, b"")
    finally:
        os.close(theirs)


def test_a_command_runs_without_a_standard_output() -> None:
    done = subprocess.run(["sh", "-c", f"{polegate()} version >&-"], stderr=subprocess.PIPE, check=False, timeout=60)  # noqa: S603, S607  # our own
    assert (done.returncode, done.stderr) == (0, b"")

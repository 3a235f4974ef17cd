"""``polegate doctor``: what is well with this pole and what is not, each with the next step."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from gateway.commands.check import EX_CONFIG, FILE
from gateway.commands.doctor_findings import Finding, of_gateway
from gateway.config.faults import SettingsError
from gateway.config.settings import Settings
from gateway.config.settings_file import load
from gateway.config.toml_file import user
from gateway.host import status_socket
from gateway.host.notify import runtime_folder
from gateway.words.messages import Status

EX_UNAVAILABLE = 69  # sysexits.h
CONFIGURATION = Path("/etc/polegate/pole.toml")
START = "systemctl status polegate; sudo systemctl start polegate."
MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


class Answer(NamedTuple):
    """What came of a question to the gateway.

    Attributes:
        code: as the command ends with it.
        findings: what is well and what is not.
        told: what came, as it came; None: nothing did.
        status: the same, read; None: it could not be.
    """

    code: int
    findings: list[Finding]
    told: object
    status: Status | None = None


@click.command("doctor")
@click.option(
    "--config", "path", metavar="FILE", default=CONFIGURATION, show_default=True, type=FILE, help="The configuration."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with all that the gateway tells.")
def command(path: Path, *, as_json: bool) -> int:
    """Ask the gateway that runs on this pole how it is, look at FILE, and print what is well and what is not.

    It asks where systemd lets the service answer. Nothing is changed.

    Exit code 0: there is nothing to do. 1: something is wrong. 69: no gateway answers. 78: FILE has faults.
    """
    settings, findings = _of_file(path)
    code = EX_CONFIG if any(finding.level == "wrong" for finding in findings) else 0
    answer = ask(path, settings)
    answer = answer._replace(code=code or answer.code, findings=[*findings, *answer.findings])
    for line in (in_json(answer),) if as_json else _in_words(answer.findings):
        click.echo(line)
    return answer.code


def ask(path: Path, settings: Settings | None) -> Answer:
    """Ask the gateway that runs on this pole, and judge what it tells; that nothing comes is a finding, too.

    Args:
        path: the configuration file.
        settings: what that says; None: it is not looked at.
    """
    told: object = None
    folder = runtime_folder() or status_socket.SERVICE
    try:
        told = status_socket.ask(folder)
        status = Status.model_validate(told)
    except (OSError, ValueError) as error:
        return Answer(EX_UNAVAILABLE, [_unanswered(error, folder)], told)
    findings = list(of_gateway(status, path, settings))
    return Answer(int(any(finding.level == "wrong" for finding in findings)), findings, told, status)


def in_json(answer: Answer) -> str:
    """Return it for scripts."""
    findings = [finding._asdict() for finding in answer.findings]
    state = {} if answer.told is None else {"state": answer.told}
    return json.dumps({"exit": answer.code, "findings": findings, **state})


def _of_file(path: Path) -> tuple[Settings | None, list[Finding]]:
    try:
        settings = load(path)
    except SettingsError as error:
        return None, [Finding("note" if fault.of_user else "wrong", "file", str(fault)) for fault in error.faults]
    warnings = [Finding("note", "file", str(warning)) for warning in settings.warnings]
    return settings, [Finding("ok", "file", f"{path} has no fault"), *warnings]


def _unanswered(error: OSError | ValueError, folder: Path) -> Finding:
    match error:
        case PermissionError():
            text = f"user {user()} may not ask it"
            step = f"sudo polegate doctor; or sudo usermod -aG polegate {user()}, then log in again."
        case FileNotFoundError():
            text, step = "none runs here", START
            if folder.is_dir():  # a service began in this boot, and waits for a sound file unless it was stopped
                step = f"A new file is taken within seconds. Else: {START}"
        case ConnectionRefusedError():
            text, step = "it ended without order", "journalctl -u polegate says why; sudo systemctl restart polegate."
        case TimeoutError():
            text, step = (
                "it does not answer: it hangs",
                "systemd starts it anew within minutes; journalctl -u polegate.",
            )
        case ValueError():
            text, step = "another version of polegate answers", "sudo systemctl restart polegate"
        case _:
            text, step = f"it cannot be asked: {error}", "journalctl -u polegate"
    return Finding("wrong", "gateway", text, step)


def _in_words(findings: list[Finding]) -> Iterator[str]:
    for each in findings:
        yield f"{MARKS[each.level]} {each.subject}: {each.text}"
        if each.step:
            yield f"      {each.step}"

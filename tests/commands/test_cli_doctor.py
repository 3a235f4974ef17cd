"""``polegate doctor``: a real gateway is asked, and each thing that may be wrong is told with the next step."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.commands.doctor_findings import of_gateway
from gateway.config.settings_file import load
from gateway.host import status_socket
from gateway.link import tls
from gateway.link.broker import UplinkDown
from gateway.link.mqtt_link import SEE_USER
from gateway.link.tls import TlsFiles
from gateway.remote.document import digest
from gateway.shares import digest as content_digest
from gateway.words.messages import (
    BufferState,
    ConfigStream,
    ConfigTrial,
    ConfigVerdict,
    Details,
    DeviceState,
    Reported,
    SignState,
    Status,
    UplinkState,
    VerdictState,
)
from tests.commands.cli_scene import Ran, call
from tests.config.test_settings_unreadable import WITHOUT_RIGHTS
from tests.link.broker_scene import where
from tests.whole.bench_pole import Bench, bench
from tests.words.contract import some_state

WELL, WRONG, EX_UNAVAILABLE, EX_CONFIG = 0, 1, 69, 78
LEAST = '[pole]\nid = "pole-7"\n[uplink]\nurl = "mqtt://broker"\n'
START = "systemctl status polegate; sudo systemctl start polegate."
COME_S = 20.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file without a fault."""
    path = tmp_path / "pole.toml"
    path.write_text(LEAST)
    return path


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the gateway answers."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    return tmp_path


def doctor(file: Path, *arguments: str) -> Ran:
    return call("doctor", "--config", str(file), *arguments)


async def until_told(file: Path, code: int, *words: str) -> str:
    """Ask again and again until it ends so, and says that."""
    async with asyncio.timeout(COME_S):
        while True:
            ran = await asyncio.to_thread(doctor, file)
            if ran.code == code and all(word in ran.out for word in words):
                return ran.out
            await asyncio.sleep(0.05)


def test_a_pole_is_asked_while_it_lives_while_things_fail_and_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(b: Bench) -> None:
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(b.daemon.runtime))
        file = b.daemon.config
        sound = file.read_text()
        assert doctor(file).code == EX_UNAVAILABLE
        b.daemon.start()
        well = await until_told(file, WELL, "ok    devices: 4 of 4 give values")
        assert f"ok    uplink: connected to 127.0.0.1:{b.relay.port}, MQTT 5" in well
        assert "WRONG" not in well
        file.write_text(sound.replace("every = 0.1", "every = 0.2", 1))
        edited = await until_told(file, WRONG)
        assert (
            f"WRONG configuration: {file} was edited since the gateway read it\n      sudo systemctl reload" in edited
        )
        file.write_text(sound.replace("driver", "drivr", 1))
        assert '"drivr" is not a known key' in (await until_told(file, EX_CONFIG, "ok    devices: 4 of 4"))
        file.write_text(sound)
        b.relay.cut()
        await until_told(file, WRONG, "WRONG uplink: there is no link to a broker: ", "See `url` in [uplink]")
        ran = await asyncio.to_thread(doctor, file, "--json")
        answer = json.loads(ran.out)
        assert (ran.code, answer["exit"]) == (WRONG, WRONG)
        assert [each["subject"] for each in answer["findings"] if each["level"] == "wrong"] == ["uplink"]
        assert answer["state"]["devices"]["meter-1"]["latest"]["voltage_l1"] > 0
        await asyncio.to_thread(b.daemon.kill)
        assert "it ended without order" in (await until_told(file, EX_UNAVAILABLE))

    async def play() -> None:
        async with bench(tmp_path) as b:
            await main(b)

    asyncio.run(play())


# --- nobody answers ---


@pytest.fixture
def listener(runtime: Path) -> Iterator[socket.socket]:
    """Who listens where the gateway would."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(runtime / status_socket.NAME))
        sock.listen()
        yield sock


def must_not_be_available(file: Path, text: str, step: str) -> None:
    ran = doctor(file)
    assert ran.code == EX_UNAVAILABLE
    assert f"WRONG gateway: {text}" in ran.out
    assert step in ran.out


def test_where_none_runs_it_says_how_to_start_it(runtime: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    must_not_be_available(file, "none runs here", f"A new file is taken within seconds. Else: {START}")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime / "none"))  # none was started: nobody waits for a file
    must_not_be_available(file, "none runs here", f"\n      {START}")


def test_a_gateway_that_hangs_is_not_waited_for(
    listener: socket.socket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_socket, "ANSWER_S", 0.05)
    must_not_be_available(file, "it does not answer: it hangs", "systemd starts it anew")
    listener.close()


@pytest.mark.parametrize("answer", [b"", b"{}\n", b"\xff", b"[1"])
def test_an_answer_that_is_none_is_told(listener: socket.socket, file: Path, answer: bytes) -> None:
    def say() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)

    saying = threading.Thread(target=say)
    saying.start()
    must_not_be_available(file, "another version of polegate answers", "sudo systemctl restart polegate")
    saying.join()


def test_who_may_not_ask_is_told_how_he_may(
    listener: socket.socket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    must_not_be_available(file, "user ", "sudo polegate doctor; or sudo usermod -aG polegate ")
    assert listener.fileno() > 0


def test_a_file_with_faults_is_why_no_gateway_runs(runtime: Path, file: Path) -> None:
    del runtime
    file.write_text(LEAST.replace("id", "di"))
    ran = doctor(file)
    assert ran.code == EX_CONFIG
    assert f'WRONG file: {file}:2: [pole]: "di" is not a known key' in ran.out
    assert "WRONG gateway: none runs here" in ran.out


def test_what_only_this_user_may_not_do_is_no_fault_of_the_file(runtime: Path, file: Path) -> None:
    del runtime
    file.chmod(0)
    command = [sys.executable, "-m", "gateway", "doctor", "--config", str(file)]
    if os.geteuid() == 0:
        command = ["setpriv", *WITHOUT_RIGHTS, *command]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # our own
    assert ran.returncode == EX_UNAVAILABLE
    assert ran.stdout.startswith(f"note  file: {file}: may not be read by user ")


def test_the_service_lets_its_group_ask(tmp_path: Path) -> None:
    async def main() -> None:
        job = asyncio.create_task(status_socket.serve(tmp_path, dict))
        before = os.umask(0o077)  # as the unit has it
        try:
            async with asyncio.timeout(COME_S):
                while True:
                    if (tmp_path / status_socket.NAME).exists():
                        break
                    await asyncio.sleep(0.01)
        finally:
            os.umask(before)
        assert (tmp_path / status_socket.NAME).stat().st_mode & 0o777 == 0o660
        assert await asyncio.to_thread(status_socket.ask, tmp_path) == {}
        job.cancel()
        await asyncio.wait([job])

    asyncio.run(main())


# --- each thing that may be wrong ---


def sign(event: str, subject: str, code: str = "", **more: Any) -> SignState:  # noqa: ANN401  # fields of any type
    return SignState(event=event, subject=subject, code=code, since=0.0, text="so it is", hint="Do that.", **more)


def stream(**more: Any) -> ConfigStream:  # noqa: ANN401  # fields of any type
    fields = {"seq": 7, "sha": "cc", "active_seq": 6, "active": "bb", "waits": False} | more
    return ConfigStream(**fields)


def with_reported(file: Path, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # fields of any type
    own = stream(seq=0, sha=digest(file.read_bytes()), active_seq=0)
    fields = {"root": 1, "streams": {"local": own, **more.pop("streams", {})}, "effective": "ee"} | more
    return {"details": Details(signs=[], reported=Reported(**fields))}


def told(file: Path, **facts: Any) -> list[str]:  # noqa: ANN401  # fields of any type
    """Return what is not well, or worth knowing, of a pole that is well but for some facts."""
    settings = load(file)
    state = some_state("online", devices={"dust": DeviceState(good=1, lost={}, age=2.0)})
    runs = state.configuration.model_copy(update={"digest": content_digest(settings)} | facts.pop("runs", {}))
    status = Status(**dict(state) | {"details": Details(signs=[]), "configuration": runs} | facts)
    return [" | ".join(each) for each in of_gateway(status, file, settings) if each.level != "ok"]


def test_of_a_pole_that_is_well_there_is_nothing_to_tell(file: Path) -> None:
    assert told(file) == []
    assert told(file, **with_reported(file, streams={"fleet": stream(seq=6)})) == []


SIGNS = [
    (
        sign("device", "dust", "no-reply"),
        "wrong | device dust | no-reply since 1970-01-01 00:00:00 UTC: so it is | Do that.",
    ),
    (
        sign("device", "dust", "not-ready", is_normal=True),
        "note | device dust | not-ready since 1970-01-01 00:00:00 UTC: ",
    ),
    (sign("uplink", "air", "not-authorised"), "wrong | dataset air | not-authorised since "),
    (sign("uplink", "certificate", "expires"), "wrong | certificate | expires since "),
    (sign("buffer", "buffer", "disk-full"), "wrong | buffer | disk-full since "),
    (sign("buffer", "buffer"), "note | buffer | so it is | Do that."),
    (sign("buffer", "dead", "dead-letters"), "wrong | dead letters | dead-letters since "),
    (sign("clock", "clock", "unsynchronised"), "wrong | clock | unsynchronised since "),
    (sign("configuration", "configuration", "rolled-back"), "wrong | configuration | rolled-back since "),
]


@pytest.mark.parametrize(("shown", "line"), SIGNS, ids=[f"{each.subject} {each.code}" for each, _ in SIGNS])
def test_a_sign_of_trouble_is_told_with_its_hint(file: Path, shown: SignState, line: str) -> None:
    (only,) = told(file, details=Details(signs=[shown]))
    assert only.startswith(line)
    assert only.endswith(" | Do that.")


BUFFER = {"packs": 0, "readings": 0, "stored": 0, "commits": 0, "dropped": 0, "dropped_readings": 0, "journal": "ok"}
FACTS: list[tuple[dict[str, Any], str]] = [
    ({"devices": {}}, "note | devices | there is no [[device]]"),
    (
        {"uplink": UplinkState(up=False, trouble="no such host")},
        "wrong | uplink | there is no link to a broker: no such",
    ),
    ({"uplink": UplinkState(up=True, note="3.1.1 only")}, "note | uplink | 3.1.1 only"),
    (
        {"buffer": BufferState(**BUFFER | {"journal": "full"})},
        "wrong | journal | a crash would lose what is not on the",
    ),
    ({"buffer": BufferState(**BUFFER | {"dropped": 3})}, "note | buffer | 3 packs of 0 values had to give way since"),
    ({"runs": {"trial": 12.0}}, "note | configuration | it is on trial; 12 s are left at the most | Wait"),
    (
        {"runs": {"last": VerdictState(result="refused", stream="fleet", digest="", why="it ended", at=0.0)}},
        "note | configuration | the last change was refused at 1970-01-01 00:00:00 UTC: it ended",
    ),
    ({"details": Details(signs=[], drift=["pole.toml:3: so"])}, "note | configuration | pole.toml:3: so | "),
]


@pytest.mark.parametrize(("facts", "line"), FACTS, ids=[line for _, line in FACTS])
def test_what_is_not_well_is_told(file: Path, facts: dict[str, Any], line: str) -> None:
    (only,) = told(file, **facts)
    assert only.startswith(line.format(file=file))


def without_a_file(tmp_path: Path) -> str:
    with pytest.raises(UplinkDown) as caught:
        where(1, password_file=tmp_path / "password").read_password()
    return str(caught.value)


def with_an_expired_certificate(tmp_path: Path) -> str:
    alert = ssl.SSLError()
    alert.reason = "SSLV3_ALERT_CERTIFICATE_EXPIRED"
    return tls.explain(alert, TlsFiles(cert=str(tmp_path / "pole.pem")), "broker", 8883)


TROUBLES: list[tuple[Callable[[Path], str], str]] = [
    (lambda _: f"the broker refuses to let this pole in: x; {SEE_USER}", "See `username` and `password_file` in"),
    (without_a_file, "See `password_file` in [uplink]; readings are kept"),
    (with_an_expired_certificate, "See `cert_file` in [uplink]; readings are kept"),
    (lambda _: "cannot connect: [Errno 111] Connection refused", "See `url` in [uplink], the network of the pole, and"),
]


@pytest.mark.parametrize(("trouble", "step"), TROUBLES, ids=[step for _, step in TROUBLES])
def test_where_there_is_no_link_the_next_step_fits_the_trouble(
    file: Path, tmp_path: Path, trouble: Callable[[Path], str], step: str
) -> None:
    said = trouble(tmp_path)
    (only,) = told(file, uplink=UplinkState(up=False, trouble=said))
    assert only.startswith(f"wrong | uplink | there is no link to a broker: {said} | {step}")


def test_a_device_that_gave_nothing_yet_is_no_fault(file: Path) -> None:
    (only,) = told(file, devices={"dust": DeviceState(good=0, lost={})})
    assert only.startswith("note | device dust | it gave nothing yet | Wait")


REPORTS: list[tuple[Callable[[Path], dict[str, Any]], str]] = [
    (
        lambda file: with_reported(file, streams={"fleet": stream(fate="RB_SENSORS", why="dust was lost")}),
        "wrong | configuration | fleet seq 7 did not come into force: RB_SENSORS: dust was lost; fleet seq 6 is in",
    ),
    (
        lambda file: with_reported(file, streams={"fleet": stream(waits=True, active="", active_seq=0)}),
        "note | configuration | fleet seq 7 waits, or is on trial; nothing of fleet is in force | ",
    ),
    (
        lambda file: with_reported(
            file, last=ConfigVerdict(stream="fleet", seq=0, code=103, name="SIG", text="nobody known signed it")
        ),
        "note | configuration | told last: fleet: SIG: nobody known signed it | ",
    ),
    (
        lambda file: with_reported(file, trouble="override: no"),
        "wrong | configuration | the overrides are left out, since they do not fit any more: override: no | polegate",
    ),
    (
        lambda file: (
            with_reported(file, trial=ConfigTrial(stream="fleet", seq=7, sha="", attempt=1, confirmed=False, left_s=9))
            | {"runs": {"trial": 9.0}}
        ),
        "note | configuration | fleet seq 7 is on trial; 9 s are left at the most | Wait",
    ),
    (
        lambda file: with_reported(file, streams={"local": stream(sha="other")}),
        "wrong | configuration | {file} was edited since the gateway read it",
    ),
    (
        lambda file: with_reported(
            file, streams={"local": stream(sha=digest(file.read_bytes()), fate="PROBE", why="a restart")}
        ),
        "wrong | configuration | the edited file did not come into force: PROBE: a restart; the file as it was before",
    ),
    (
        lambda file: with_reported(file, streams={"local": stream(sha=digest(file.read_bytes()), waits=True)}),
        "note | configuration | the edited file waits, or is on trial; the file as it was before is in force | ",
    ),
]


def test_what_windows_editors_put_into_the_file_is_no_edit_of_it(file: Path) -> None:
    as_it_was = with_reported(file)
    file.write_bytes(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())
    assert told(file, **as_it_was) == []


@pytest.mark.parametrize(("facts", "line"), REPORTS, ids=[line for _, line in REPORTS])
def test_what_became_of_documents_is_told(file: Path, facts: Callable[[Path], dict[str, Any]], line: str) -> None:
    (only,) = told(file, **facts(file))
    assert only.startswith(line.format(file=file))

"""``polegate tail`` as a process against Debian's mosquitto: what it prints, what it misses, and how it ends."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.words.payload import packed
from hil.broker import free_port, mosquitto
from hil.daemon import polegate
from hil.receiver import Receiver
from tests.commands.tail_scene import NEW_YEAR, Program, Stage, pack, stage
from tests.link.pki import Authority, asking

END_S = 30.0
BURST = 2000


@pytest.fixture
def s(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as it:
        yield it


def values(tail: Program) -> list[Any]:
    return [told["value"] for told in tail.objects() if "value" in told]


def findings(tail: Program, kind: str) -> list[tuple[int, list[list[int]]]]:
    return [(told["epoch"], told["seq"]) for told in tail.objects() if told.get("finding") == kind]


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own
        [polegate(), "tail", *arguments], capture_output=True, text=True, check=False, timeout=END_S
    )


def test_readings_are_printed_with_local_time_unit_and_reason_in_order_of_time(s: Stage) -> None:
    tail = s.tail(TZ="Europe/Berlin")
    tail.ready()
    records = [
        {"bn": "pole-7/dust/pm10", "bu": "ug/m3", "bt": NEW_YEAR, "v": 12.5, "t": 0.25, "epoch": 1, "seq": 1},
        {"v": 11, "t": 0.125},
        {"bn": "pole-7/dust/quality", "bu": "", "v": 1, "why": "no-reply"},
        {"v": 4, "why": "ok", "t": 2},
        {"bn": "pole-7/door/open", "vb": True, "t": 3},
        {"bn": "pole-7/gnss/lat", "u": "lat", "v": 60.2, "t": 4},
        {"bn": "pole-7/bad\x1b[2J", "vs": "\x1b]0;x\x07", "t": 1e12},
    ]
    s.publish("pole/1/pole-7/data/air", packed(json.dumps(records).encode()))
    s.publish("pole/1/pole-7/data/air", b'[{"n":"a","bt":1767225600,"v":1,"clock":"unsynchronised","seq":2,"epoch":1}]')
    tail.wait(lambda: len(tail.lines("  ")) == 8)
    assert tail.lines("  ") == [
        "2026-01-01T01:00:00.000+01:00  pole-7/dust/quality  rejected: no-reply",
        "2026-01-01T01:00:00.125+01:00  pole-7/dust/pm10     11 ug/m3",
        "2026-01-01T01:00:00.250+01:00  pole-7/dust/pm10     12.5 ug/m3",
        "2026-01-01T01:00:02.000+01:00  pole-7/dust/quality  accepted: ok",
        "2026-01-01T01:00:03.000+01:00  pole-7/door/open     yes",
        "2026-01-01T01:00:04.000+01:00  pole-7/gnss/lat      60.2 deg",
        r"1001767225600.0 s  pole-7/bad\x1b[2J    \x1b]0;x\x07",
        "2026-01-01T01:00:00.000+01:00?  a                    1",
    ]
    assert tail.interrupt() == 0
    assert [line for line in tail.lines() if "  " not in line] == [
        f"connected to the broker at 127.0.0.1:{s.broker.port}; what comes to pole/1/+/data/+:"
    ]


def test_a_script_gets_an_object_a_line(s: Stage) -> None:
    tail = s.tail("--json")
    tail.ready()
    s.send(17, epoch=3)
    tail.wait(lambda: len(values(tail)) == 1)
    assert tail.objects() == [
        {
            "pole": "pole-7",
            "dataset": "air",
            "name": "pole-7/dust/pm10",
            "time": NEW_YEAR + 17,
            "value": 17,
            "unit": "ug/m3",
            "pack": {"epoch": 3, "seq": 17, "cat": "0123abcd"},
        }
    ]
    assert tail.stop(signal.SIGTERM) == 0


def test_only_the_poles_and_datasets_that_are_asked_for_are_heard_and_each_once(s: Stage) -> None:
    tail = s.tail("--json", "--dataset", "air", "--dataset", "noise", "--dataset", "air", "--verify")
    tail.ready()
    for seq in (1, 2):
        for dataset in ("air", "energy", "noise"):
            s.send(seq, dataset=dataset)
    tail.wait(lambda: len(values(tail)) == 4)
    assert tail.interrupt() == 0
    told = [(told["dataset"], told["value"]) for told in tail.objects() if "value" in told]
    assert told == [("air", 1), ("noise", 1), ("air", 2), ("noise", 2)]
    assert findings(tail, "repeat") == []


def test_with_all_named_beside_one_a_pack_comes_once(s: Stage) -> None:
    tail = s.tail("--json", "--dataset", "air", "--dataset", "+", "--pole", "+", "--pole", "pole-7", "--verify")
    tail.ready()
    s.send(1, 2)
    tail.wait(lambda: len(values(tail)) == 2)
    assert (tail.interrupt(), values(tail)) == (0, [1, 2])


def test_with_a_poles_configuration_it_is_that_pole_as_its_file_says_and_does_not_end_its_connection(s: Stage) -> None:
    config = s.folder / "pole.toml"
    config.write_text(f'[pole]\nid = "pole-7"\n[uplink]\nurl = "mqtt://127.0.0.1:{s.broker.port}"\nprefix = "city"\n')
    s.publish("city/pole-7/data/air", b'[{"n":"marker","v":1}]', retain=True)
    with Receiver(s.broker.port, name="pole-7"):  # the pole itself, which has this client id
        tail = s.start("tail", polegate(), "tail", "--config", str(config), "--json")
        tail.ready()
        s.publish("city/pole-8/data/air", pack(1))
        s.publish("city/pole-7/data/air", pack(2))
        tail.wait(lambda: bool(values(tail)))
    assert (tail.interrupt(), values(tail)) == (0, [2])
    log = (s.folder / "broker.log").read_text()
    assert "as pole-7" in log
    assert "already connected" not in log


def test_a_burst_is_read_to_the_last_pack(tmp_path: Path) -> None:
    with stage(tmp_path, "autosave_on_changes false\nmax_inflight_messages 0") as s:  # as fast as it can
        tail = s.tail("--json", "--verify")
        tail.ready()
        s.send(*range(1, BURST + 1))
        tail.wait(lambda: f'"seq": {BURST},' in tail.output())
        assert (tail.interrupt(), values(tail)) == (0, [*range(1, BURST + 1)])


def test_verify_tells_what_is_missing_at_the_end_and_ends_with_1(s: Stage) -> None:
    tail = s.tail("--verify", "--json")
    tail.ready()
    s.send(5, 6, 9, 9, 12)
    s.send(1, epoch=2, after="1:13")
    s.send(2, dataset="noise")
    tail.wait(lambda: len(values(tail)) == 7)
    assert tail.interrupt() == 1
    assert findings(tail, "hole") == []  # not before the grace time
    assert findings(tail, "repeat") == [(1, [[9, 9]])]
    assert findings(tail, "restart") == [(2, [[1, 1]])]
    air, noise = [told for told in tail.objects() if told.get("finding") == "sum"]
    assert air == {
        "finding": "sum",
        "pole": "pole-7",
        "dataset": "air",
        "packs": 6,
        "repeats": 1,
        "missing": 5,
        "holes": [{"epoch": 1, "seq": [[7, 8], [10, 11], [13, 13]]}],
    }
    assert (noise["dataset"], noise["packs"], noise["missing"], noise["holes"]) == ("noise", 1, 0, [])


def test_verify_tells_a_person_the_same(s: Stage) -> None:
    tail = s.tail("--verify")
    tail.ready()
    s.send(5, 6, 9, 9, 12)
    s.send(1, epoch=2)
    s.publish("pole/1/pole-7/data/air", b"what?")
    s.publish("pole/1/pole-7/data/air", b'[{"n":"a","v":1}]')
    tail.wait(lambda: bool(tail.lines("without")))
    assert tail.interrupt() == 1
    assert [line for line in tail.lines("pole-7 air") if "  " not in line] == [
        "pole-7 air: came again: epoch 1, seq 9",
        "pole-7 air: the gateway started anew: epoch 2, seq 1",
        "pole-7 air: not a pack: it cannot be read: Expecting value: line 1 column 1 (char 0)",
        "pole-7 air: a pack without epoch and seq; whether others are missing cannot be told",
        "pole-7 air: 6 packs, 1 repeat, 4 missing: epoch 1, seq 7 to 8, 10 to 11",
    ]


def test_backlog_behind_newer_packs_is_nothing_to_tell(s: Stage) -> None:
    tail = s.tail("--verify", "--json")
    tail.ready()
    s.send(1, 2, 6, 7)
    s.send(3, 4, 5, backfill=1)
    tail.wait(lambda: len(values(tail)) == 7)
    assert tail.interrupt() == 0
    assert [told for told in tail.objects() if told.get("finding", "sum") != "sum"] == []


def test_a_broker_that_was_away_is_found_again_and_what_did_not_come_is_missing(s: Stage) -> None:
    tail = s.tail("--verify", "--json")
    tail.ready()
    s.send(1)
    tail.wait(lambda: len(values(tail)) == 1)
    s.broker.stop()
    tail.wait(lambda: bool(tail.lines("connecting again")))
    s.broker.start()
    tail.wait(lambda: bool(tail.lines("connected again")))
    tail.wait(lambda: tail.output().count('"name": "marker"') == 2)
    s.send(3)
    tail.wait(lambda: len(values(tail)) == 2)
    assert tail.interrupt() == 1
    (air,) = [told for told in tail.objects() if told.get("finding") == "sum"]
    assert air["holes"] == [{"epoch": 1, "seq": [[2, 2]]}]


def test_it_ends_after_so_many_seconds(s: Stage) -> None:
    done = ended("--broker", f"mqtt://127.0.0.1:{s.broker.port}", "--verify", "--pole", "none", "--seconds", "0.5")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[1:] == ["no pack came"]


def test_a_broker_that_is_not_there_is_told_with_the_next_step() -> None:
    port = free_port()
    done = ended("--broker", f"mqtt://127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == (
        f"the broker at 127.0.0.1:{port} cannot be reached: cannot connect: [Errno 111] Connection refused; "
        "check the address, and that the broker runs\n"
    )


@pytest.mark.parametrize("key", ["password_file", "ca_file"])
def test_a_file_that_opens_the_broker_and_is_not_there_is_told_and_no_address_is_blamed(
    tmp_path: Path, key: str
) -> None:
    config, missing, url = tmp_path / "pole.toml", tmp_path / "missing", f"127.0.0.1:{free_port()}"
    config.write_text(f'[pole]\nid = "me"\n[uplink]\nurl = "mqtts://{url}"\n{key} = "{missing}"\n')
    done = ended("--config", str(config))
    assert (done.returncode, done.stdout) == (69, "")
    step = "put it there, or correct the path"
    assert done.stderr == f"the broker at {url} cannot be reached: {key}: {missing} is not there; {step}\n"


def test_who_is_not_let_in_is_told_with_the_next_step(tmp_path: Path) -> None:
    users, password = tmp_path / "users", tmp_path / "password"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "me", "right"], check=True)  # noqa: S603, S607
    config = tmp_path / "pole.toml"
    with stage(tmp_path, f"per_listener_settings false\npassword_file {users}") as s:
        url = f"mqtt://127.0.0.1:{s.broker.port}"
        config.write_text(f'[pole]\nid = "me"\n[uplink]\nurl = "{url}"\npassword_file = "{password}"\n')
        given = ["--broker", url, "--username", "me", "--password-file", str(password)]
        for options in given, ["--config", str(config)]:
            password.write_text("wrong\n")
            done = ended(*options, "--seconds", "10")
            assert done.returncode == 77
            step = f"see that {password} holds the password of that user, and that the broker knows both"
            assert f'does not let the user "me" in; {step}\n' in done.stderr
            password.write_text("right\n")
            assert ended(*options, "--seconds", "0.5").returncode == 0


def test_whose_certificate_is_refused_is_told_that_and_not_to_give_a_password(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    own = ours.issue("me", days=-1)
    given = ["--ca-file", str(ours.cert), "--cert-file", str(own.cert), "--key-file", str(own.key)]
    broker = mosquitto(tmp_path, asking(ours))
    broker.start()
    try:
        done = ended("--broker", f"mqtts://127.0.0.1:{broker.port}", *given, "--seconds", "10")
    finally:
        broker.stop()
    text = f"the broker refuses this pole's certificate, cert_file, {own.cert}: it says that it has expired; have it"
    assert (done.returncode, f"does not let you in: {text} renewed" in done.stderr) == (77, True), done.stderr


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])  # the one waits in the loop, the other in a thread
def test_ctrl_c_ends_it_while_the_broker_does_not_answer(tmp_path: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        tail = Program([polegate(), "tail", "--broker", f"{scheme}://127.0.0.1:{port}"], tmp_path / "tail.log")
        tail.start()
        connection, _ = silent.accept()
        with connection:
            connection.recv(1000)
            assert tail.interrupt() == 0
    assert tail.output() == ""


def test_a_reader_that_goes_away_ends_it(s: Stage) -> None:
    tail = subprocess.Popen(  # noqa: S603  # our own
        [polegate(), "tail", "--broker", f"mqtt://127.0.0.1:{s.broker.port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert tail.stdout is not None
    assert tail.stderr is not None
    with tail, tail.stdout, tail.stderr:
        assert b"marker" in tail.stdout.readline()
        tail.stdout.close()
        for seq in (1, 2):
            s.send(seq)
        tail.wait(END_S)
        assert b"Traceback" not in tail.stderr.read()

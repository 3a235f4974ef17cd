"""``polegate fleet publish`` and ``status`` at a real broker."""

import json
import time
from collections.abc import Callable

import pytest

from gateway.commands.fleet.status import SHOWN_SHA
from gateway.remote import document, envelope
from gateway.remote.verdict import Code
from hil.broker import free_port
from tests.commands.cli_scene import Ran, call
from tests.remote.crowd import Crowd
from tests.remote.office import BAD, NEW, OLD, Office

LIMIT_S = 60.0
EX_DATAERR, EX_UNAVAILABLE, EX_NOPERM = 65, 69, 77
RULES = "topic readwrite end\ntopic read #\n"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for what may be retained."""
    monkeypatch.setattr("gateway.commands.fleet.shelf.QUIET_S", 0.25)


def test_a_document_is_published_once_and_nothing_older_takes_its_place(office: Office) -> None:
    first, second = office.signed(OLD, 7), office.signed(NEW, 8)
    assert office.publish(first).code == 0
    assert office.lies() == first.read_bytes()
    again = office.publish(first)
    assert (again.code, "already" in again.out) == (0, True)
    assert office.publish(second).code == 0

    for path, told in (
        (first, "fleet seq 8 lies on fleet/1/config/all, which is newer than fleet seq 7"),
        (office.signed(BAD, 8), "with another content; sign it with a higher number"),
        (office.signed(BAD, 9, "c1"), "1 of the keys that may sign it signed; it takes 2"),
        (office.signed(BAD, 9, "c1", "x"), "1 of the keys that may sign it signed; it takes 2"),
        (office.signed(BAD, 9, "x"), "no key that may sign it has signed it"),
        (office.folder / "none", "none: No such file"),
    ):
        ran = office.publish(path)
        assert (ran.code, told in ran.err) == (EX_DATAERR, True), ran.err
    assert office.lies() == second.read_bytes()


def test_each_stream_has_its_topic(office: Office) -> None:
    for stream, topic in (("group/harbour", "fleet/1/config/group/harbour"), ("pole/p7", "pole/1/p7/config/desired")):
        path = office.signed(NEW, 1, stream=stream)
        assert office.publish(path).code == 0
        assert office.lies(topic) == path.read_bytes()


def test_a_new_root_follows_the_old_one_and_what_was_signed_before_is_replaced(office: Office) -> None:
    assert office.publish(office.signed(OLD, 7)).code == 0
    office.root("root2.json", 2, epoch=2, operators=("c2", "x"))
    office.root("root3.json", 3)
    far = office.publish(office.folder / "root3.json")
    assert (far.code, "send 2 first" in far.err) == (EX_DATAERR, True)
    assert office.publish(office.folder / "root2.json").code == 0
    assert office.lies("fleet/1/config/root/2") == (office.folder / "root2.json").read_bytes()
    assert "already" in office.publish(office.folder / "root2.json", root="root2.json").out

    office.root("other.json", 2, epoch=3)
    other = office.publish(office.folder / "other.json")
    assert (other.code, "with another content" in other.err) == (EX_DATAERR, True)

    anew = office.signed(OLD, 1, "c2", "x", epoch=2)
    refused = office.publish(anew, root="root2.json")
    assert (refused.code, "not signed for this root of trust" in refused.err) == (EX_DATAERR, True)
    old = office.publish(office.signed(OLD, 8, "c2", "x"), root="root2.json")
    assert (old.code, "its epoch is 1" in old.err) == (EX_DATAERR, True)
    assert office.publish(anew, "--replace", root="root2.json").code == 0
    assert office.lies() == anew.read_bytes()


def test_a_command_is_not_retained(office: Office) -> None:
    (office.folder / "command.toml").write_text(f'pole = "p7"\ndo = "cancel"\ntrial = "{"0" * 64}"\n')
    out = office.folder / "command.json"
    assert call("fleet", "sign", str(office.folder / "command.toml"), *office.keys("cmd"), "--out", str(out)).code == 0
    ran = office.publish(out)
    assert (ran.code, ran.out) == (0, "command to pole p7: cancel: sent on pole/1/p7/command/config\n")
    assert office.lies("pole/1/p7/command/config") == b""


def test_what_expired_is_not_published(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    path = office.signed(OLD, 7, valid="1m")
    monkeypatch.setattr("time.time", lambda: 4_000_000_000)
    ran = office.publish(path)
    assert (ran.code, "it expired at" in ran.err) == (EX_DATAERR, True)


@pytest.mark.parametrize("office", [RULES], indirect=True)
def test_a_broker_that_does_not_let_one_publish_is_told(office: Office) -> None:
    ran = office.publish(office.signed(OLD, 7))
    assert ran.code == EX_NOPERM
    assert "does not let you publish on fleet/1/config/all, or read it: the broker refuses with reason 0x87" in ran.err


def test_a_broker_that_is_not_there_is_told(office: Office) -> None:
    office.port = free_port()
    path = office.signed(OLD, 7)
    for ran in (office.publish(path), call("fleet", "status", *office.broker()), office.rollout(office.document(NEW))):
        assert (ran.code, "cannot be reached" in ran.err) == (EX_UNAVAILABLE, True)


def status(office: Office, *more: str) -> Ran:
    ran = call("fleet", "status", *office.broker(), *more)
    assert ran.code == 0
    return ran


def test_status_tells_what_is_in_force_and_who_is_bad(office: Office) -> None:
    def answer(pole: str, found: object) -> tuple[Code, str]:
        del found
        return (Code.RB_SENSORS, "meter gave\x1b[2J no value") if pole == "p3" else (Code.COMMITTED, "")

    path = office.signed(NEW, 7)
    sha = document.digest(envelope.read(path.read_bytes()).payload)[:SHOWN_SHA]
    with Crowd(office.port, [f"p{n}" for n in range(5)], answer) as crowd:
        crowd.publish("pole/1/p9/config/reported", b'{"root": "\x1b[2J"').wait_for_publish(5)
        crowd.publish("pole/1/p8/config/reported", b"x" * 70_000).wait_for_publish(5)
        crowd.publish("pole/1/p.1/config/reported", b"{}").wait_for_publish(5)
        assert office.publish(path).code == 0
        _until(lambda: all(pole.last for pole in crowd.poles.values()))

        shown = status(office).out
        assert "\x1b" not in shown
        assert shown.startswith("8 poles: 4 bad, 0 on trial, 0 with drift\n")
        assert f"  in force        4  fleet 7 {sha}\n" in shown
        assert "  verdicts        1  RB_SENSORS\n" in shown
        rows = [line.split("  ") for line in shown.split("\n\n")[1].splitlines()]
        assert [row[0].strip() for row in rows] == ["pole", "p.1", "p0", "p1", "p2", "p3", "p4", "p8", "p9"]
        assert "RB_SENSORS  fleet 7: meter gave\\x1b[2J no value" in shown
        assert "p8    " in shown
        assert "it has 70,000 bytes; 65,536 are the most" in shown

        bad = [json.loads(line) for line in status(office, "--bad", "--json").out.splitlines()]
        assert [line.get("pole") for line in bad] == ["p.1", "p3", "p8", "p9", None]
        assert bad[-1]["verdicts"] == {"COMMITTED": 4, "UNREADABLE": 3, "RB_SENSORS": 1}

        one = status(office, "--pole", "p3", "--json").out.splitlines()
        assert json.loads(one[0])["verdict"] == "RB_SENSORS"
        assert len(one) == 2

        (office.folder / "poles").write_text("p1\np77\n")
        named = status(office, "--poles", str(office.folder / "poles"), "--json").out.splitlines()
        assert [(line.get("pole"), line.get("verdict")) for line in map(json.loads, named[:2])] == [
            ("p1", "COMMITTED"),
            ("p77", "SILENT"),
        ]


def _until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)

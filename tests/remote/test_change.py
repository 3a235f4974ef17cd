"""The running pole as a change sees it: what it is told, what it tells, and what outlives it."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.link.broker import Received
from gateway.link.mqtt_link import MOST_UNHEARD
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.config_state import State
from gateway.remote.override import Override
from gateway.remote.verdict import Code, Verdict
from gateway.words.standing import NOTHING
from tests.remote.change_scene import DEAD, HOLD_S, OWN, WELL, WITHIN_S, FakeLink, Pole, play, told

__all__ = ["told"]

DESCRIBED = ('id = "pole-1"\n', 'id = "pole-1"\ndescription = "by the harbour"\n')
OTHER_ID = ('id = "pole-1"\n', 'id = "pole-2"\n')
REMOTE = OWN + '[remote]\nenabled = true\ntrust = "{folder}/trust"\n'


def test_an_edit_is_tried_and_in_force_once_all_has_proved_itself(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        first = pole.change.standing()
        assert (told, first.trial, first.last) == ([], "", None)
        await pole.edit(pole.own.replace(*DESCRIBED), 2)
        standing = pole.change.standing()
        assert (standing.trial, standing.digest != first.digest, standing.since > first.since) == ("local", True, True)
        assert standing.left_s == pytest.approx(WITHIN_S, abs=3)
        await asyncio.sleep(HOLD_S)
        last = pole.change.standing().last
        assert last
        assert (last.result, last.stream, last.why, len(last.digest)) == ("accepted", "local", "", 12)
        assert pole.result() == ("accepted", "")
        waits = f"configuration {first.digest} runs; a change waits until it is known what works"
        runs = f"configuration {standing.digest} runs"
        assert told == ["RELOADING=1", f"READY=1\nSTATUS={waits}", f"STATUS={runs}, on trial", f"STATUS={runs}"]
        assert [before for _, before in pole.applied] == [WELL]

    play(tmp_path, told, scene)


def test_the_same_file_again_changes_nothing(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        first = pole.change.standing()
        await pole.edit(pole.own, 100)
        assert pole.change.standing()._replace(last=None) == first
        assert told == ["RELOADING=1", f"READY=1\nSTATUS=configuration {first.digest} runs"]
        assert pole.applied == []

    play(tmp_path, told, scene)


def test_the_same_file_saved_by_a_windows_editor_changes_nothing_at_a_start_or_later(
    tmp_path: Path, told: list[str]
) -> None:
    async def scene(pole: Pole) -> None:
        digest = pole.change.standing().digest
        pole.path.write_bytes(b"\xef\xbb\xbf" + pole.own.replace("\n", "\r\n").encode())
        pole.asked.set()
        await asyncio.sleep(100)
        assert told[-1] == f"READY=1\nSTATUS=configuration {digest} runs"
        await pole.again(pole.path.read_bytes().decode())
        assert (pole.result(), pole.change.standing().digest, pole.applied) == (("", ""), digest, [])

    play(tmp_path, told, scene)


def test_what_goes_back_is_told_by_all_and_after_a_restart_until_it_is_mended(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        digest = pole.change.standing().digest
        bad = pole.own.replace(*DESCRIBED)
        await pole.edit(bad, 2)
        pole.echo = DEAD
        pole.silent = {"noise"}
        await asyncio.sleep(WITHIN_S + HOLD_S)
        assert [before for _, before in pole.applied] == [WELL, NOTHING]  # going back must work in any case
        why = "RB_SENSORS: no values since it was applied from noise, and before"
        assert pole.result() == ("rolled-back", why)
        status = f"configuration {digest} runs; the last change: rolled-back, {why}"
        assert told[-1] == f"STATUS={status}"
        pole.silent = set()
        with capture_logs() as logs:
            await pole.again(bad)
        assert ["ended with RB_SENSORS" in line["event"] for line in logs if line["log_level"] == "error"] == [True]
        assert pole.settings.root.pole.description is None
        assert pole.result() == ("rolled-back", why)
        assert told[-1] == f"STATUS={status}"
        await pole.edit(pole.own, 2)
        assert (pole.result(), told[-1]) == (("accepted", ""), f"READY=1\nSTATUS=configuration {digest} runs")
        await pole.again()
        assert pole.result() == ("", "")

    play(tmp_path, told, scene)


def test_a_file_with_faults_is_refused_at_once(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        pole.echo = DEAD
        await pole.edit(pole.own.replace("every = 1.0", "every = 0", 1), 1)
        result, why = pole.result()
        assert (result, why[:9]) == ("refused", "SEMANTIC:")
        assert '"every" must be 0.001 or more, not 0' in why
        assert told[-1].startswith("READY=1\nSTATUS=configuration ")
        assert told[-1].endswith(f"runs; the last change: refused, {why}")
        await pole.edit(pole.own, 1)
        assert (pole.result()[0], pole.applied) == ("accepted", [])

    play(tmp_path, told, scene)


@pytest.mark.parametrize(
    ("garbage", "why"),
    [(None, ": is not there"), (b"[pole]\n# \xe9", ":2: byte e9 is not UTF-8; save the file as UTF-8")],
)
def test_a_file_that_cannot_be_read_is_refused_and_changes_nothing(
    tmp_path: Path, told: list[str], garbage: bytes | None, why: str
) -> None:
    async def scene(pole: Pole) -> None:
        pole.path.unlink()
        if garbage:
            pole.path.write_bytes(garbage)
        pole.asked.set()
        await asyncio.sleep(100)
        assert pole.result()[0] == "refused"
        assert pole.result()[1] == f"SEMANTIC: {pole.path}{why}; what is in force goes on"
        assert pole.applied == []
        await pole.edit(pole.own, 1)
        assert pole.result()[0] == "accepted"

    play(tmp_path, told, scene)


@pytest.mark.parametrize("own", [OWN, REMOTE], ids=["alone", "with [remote]"])
def test_what_needs_a_restart_is_refused_with_the_command_and_tried_by_one(
    tmp_path: Path, told: list[str], own: str
) -> None:
    async def scene(pole: Pole) -> None:
        edited = pole.own.replace(*OTHER_ID)
        await pole.edit(edited, 100)
        why = 'PROBE: "id" in [pole] cannot be changed while the gateway runs; sudo systemctl restart polegate'
        assert (pole.result(), pole.applied, pole.change.again.is_set()) == (("refused", why), [], False)
        await pole.again()
        assert pole.settings.root.pole.id == "pole-1"  # until it is known what works
        await asyncio.sleep(2)
        assert pole.change.again.is_set()
        await pole.again()
        assert (pole.settings.root.pole.id, pole.change.standing().trial) == ("pole-2", "local")
        await asyncio.sleep(HOLD_S)
        assert (pole.result(), pole.change.standing().trial) == (("accepted", ""), "")
        assert not pole.change.again.is_set()
        await pole.again(edited.replace(*DESCRIBED).replace('"pole-2"', '"pole-3"'))
        await asyncio.sleep(2)
        pole.echo = DEAD
        await pole.again()
        await asyncio.sleep(WITHIN_S)
        assert (pole.settings.root.pole.id, pole.change.again.is_set()) == ("pole-3", True)
        await pole.again()
        assert pole.settings.root.pole.id == "pole-2"
        assert pole.result()[0] == "rolled-back"
        await asyncio.sleep(100)
        assert (pole.applied, pole.change.again.is_set()) == ([], False)

    play(tmp_path, told, scene, own)


def test_what_operators_send_and_is_not_taken_is_an_alarm_until_one_of_that_stream_is(
    tmp_path: Path, told: list[str]
) -> None:
    async def scene(pole: Pole) -> None:
        def tell(stream: str, code: Code, seq: int = 0) -> tuple[str, str]:
            pole.change.tell(Verdict(stream, seq, "", code, "in words"))
            return pole.result()

        for stream in ("command", "root", ""):
            assert tell(stream, Code.SIG) == ("", "")
        for code in (Code.OK, Code.DEFERRED_WINDOW, Code.WAIT_TIME, Code.NOT_YET, Code.BUSY):
            assert tell("fleet", code) == ("", "")
        assert tell("fleet", Code.SIG) == ("refused", "SIG: in words")
        assert tell("pole/pole-1", Code.RB_SENSORS, 7) == ("rolled-back", "RB_SENSORS: in words")
        assert tell("pole/pole-1", Code.TOMBSTONED, 7) == ("rolled-back", "RB_SENSORS: in words")
        assert tell("local", Code.STORAGE)[1] == "RB_SENSORS: in words"  # nothing that a change could end
        assert tell("pole/pole-1", Code.COMMITTED, 8) == ("refused", "SIG: in words")
        last = pole.change.standing().last
        assert last
        assert (last.stream, last.seq, last.result) == ("pole/pole-1", 8, "accepted")
        assert tell("fleet", Code.NOOP, 3) == ("accepted", "")

    play(tmp_path, told, scene, REMOTE)


def test_the_state_of_a_newer_polegate_is_left_alone_and_the_pole_runs_its_file(
    tmp_path: Path, told: list[str]
) -> None:
    async def scene(pole: Pole) -> None:
        folder = ConfigFolder(tmp_path / "config")
        folder.load()
        folder.save(State().but(layout=2))
        edited = pole.own.replace(*DESCRIBED)
        await pole.again(edited)
        assert pole.settings.root.pole.description == "by the harbour"
        assert pole.result()[0] == "refused"
        assert "was written by a newer polegate" in pole.result()[1]
        await pole.edit(pole.own, 100)
        assert pole.applied == []
        assert "was written by a newer polegate" in told[-1]

    play(tmp_path, told, scene)


def test_where_the_folder_cannot_be_the_pole_runs_and_says_what_that_costs(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "file").write_text("")

    async def scene(pole: Pole) -> None:
        assert pole.result()[0] == "refused"
        assert (
            "the pole's own file cannot be kept, so no edit of it is tried while the gateway runs" in pole.result()[1]
        )
        await pole.edit(pole.own.replace(*DESCRIBED), 100)
        assert pole.applied == []
        await pole.again()
        assert pole.settings.root.pole.description == "by the harbour"  # at a start there is nothing but the file

    play(tmp_path, told, scene, OWN + '[remote]\nstate = "{folder}/file/config"\n')


def test_what_cannot_be_applied_goes_back_at_once(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        pole.breaks = True
        await pole.edit(pole.own.replace(*DESCRIBED), 2)
        assert pole.result() == ("rolled-back", "APPLY: it cannot be applied: OSError('no such adapter')")
        assert pole.settings.root.pole.description is None

    play(tmp_path, told, scene)


def test_a_renamed_device_must_give_values_under_its_new_name_and_one_that_is_taken_out_none(
    tmp_path: Path, told: list[str]
) -> None:
    async def scene(pole: Pole) -> None:
        renamed = pole.own.replace('id = "noise"', 'id = "street"')
        pole.silent = {"street"}
        await pole.edit(renamed, WITHIN_S + 5)
        assert pole.result()[1] == "RB_SENSORS: no values since it was applied from street, and before"
        assert pole.health.keys() == {"meter", "noise"}
        await pole.edit(pole.own[: pole.own.index('\n[[device]]\nid = "noise"')], HOLD_S + 3)
        assert (pole.result()[0], list(pole.health)) == ("accepted", ["meter"])

    play(tmp_path, told, scene)


def test_a_broker_that_is_only_tried_beside_the_link_there_is_proves_nothing(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        await pole.edit(pole.own.replace("broker.example", "other.example"), 1.5)
        pole.uplink.astray = "connection refused"
        await asyncio.sleep(WITHIN_S + 5)
        why = "RB_UPSTREAM: the uplink did not prove itself since it was applied: connection refused"
        assert pole.result() == ("rolled-back", why)

    play(tmp_path, told, scene)


def test_a_link_on_which_no_document_can_come_is_no_way_back(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        await pole.change.find_way()
        way = pole.change.way()
        assert way.back is not None
        pole.may_hear = False
        await pole.again()
        await pole.change.find_way()
        way = pole.change.way()
        assert (way.taken is None, way.back) == (False, None)
        assert "nobody configure this pole" in way.why

    play(tmp_path, told, scene, REMOTE)


def test_an_override_begins_and_ends_by_itself_on_any_pole(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        until = 1000.0 + asyncio.get_running_loop().time() + 30
        slower = Override(
            key="device.meter.every", value="9.0", why="x", boot="the-boot", until_boottime=until, until=0
        )
        ConfigFolder(tmp_path / "config").keep_overrides([slower])
        await asyncio.sleep(3)
        assert getattr(pole.settings.devices[0], "every", 0) == 9.0
        await asyncio.sleep(30)
        assert getattr(pole.settings.devices[0], "every", 0) == 1.0
        assert pole.change.standing().trial == ""

    play(tmp_path, told, scene)


def test_who_floods_gets_a_tenth_of_the_processor(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spent_s = itertools.count()
    taken_at: list[float] = []

    async def flood(*topics: object) -> AsyncGenerator[Received, None]:
        del topics
        for _ in range(100):
            taken_at.append(asyncio.get_running_loop().time())
            yield Received("pole/1/pole-1/config/desired", b"{", retain=False)
        await asyncio.Future()

    async def scene(pole: Pole) -> None:
        await asyncio.sleep(1000)
        assert [later - earlier for earlier, later in itertools.pairwise(taken_at)] == [9.0] * 99
        assert pole.result()[0] == "refused"

    monkeypatch.setattr("tests.remote.change_scene.FakeLink.hear", flood)
    monkeypatch.setattr("gateway.remote.remote.time.thread_time", lambda: float(next(spent_s)))
    play(tmp_path, told, scene, REMOTE)


def test_after_a_flood_what_is_retained_is_heard_anew(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    async def flood(link: FakeLink, *topics: str) -> AsyncGenerator[Received, None]:
        heard.append("anew")
        if len(heard) == 1:
            link.dropped += 1
            for _ in range(1 + MOST_UNHEARD):  # one was being looked at, and so many waited
                heard.append("one")
                yield Received(topics[-1], b"{", retain=False)
        await asyncio.Future()

    async def scene(_: Pole) -> None:
        await asyncio.sleep(10)
        assert heard == ["anew", *["one"] * (1 + MOST_UNHEARD), "anew"]

    monkeypatch.setattr("tests.remote.change_scene.FakeLink.hear", flood)
    play(tmp_path, told, scene, REMOTE)


def slots(folder: Path) -> Iterator[State]:
    for slot in folder.glob("state.?"):
        yield State.model_validate(json.loads(slot.read_bytes().split(b"\n")[1])["state"])


def test_an_end_in_order_in_a_trial_does_not_count(tmp_path: Path, told: list[str]) -> None:
    async def scene(pole: Pole) -> None:
        pole.silent = set()
        await pole.edit(pole.own.replace(*DESCRIBED), 2)
        for _ in range(4):
            pole.silent = {"noise"}
            told.clear()
            await pole.again()
            standing = pole.change.standing()
            assert standing.trial == "local"
            assert told == [f"STATUS=configuration {standing.digest} runs, on trial"]
        attempts = {state.trial.attempts for state in slots(tmp_path / "config") if state.trial}
        assert attempts == {0, 1}
        pole.silent = set()
        await asyncio.sleep(HOLD_S + 2)
        assert pole.result() == ("accepted", "")

    play(tmp_path, told, scene)

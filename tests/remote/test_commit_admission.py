"""Which documents a pole believes: target, replay and time, by its verdicts and by what it keeps."""

from pathlib import Path
from typing import Any

import pytest

from gateway.remote.envelope import CONFIG_TYPE
from gateway.remote.strict_json import LARGEST_BYTES
from gateway.remote.verdict import Code
from tests.remote.operator import NOW, ROLES, WEEK, document, document_content, root, root_content, signed
from tests.remote.scene import BETTER, GOOD, MINE, TERMS, Pole, play

HUGE = 2**53 - 1


def good(**changes: Any) -> bytes:  # noqa: ANN401  # any JSON
    settings = changes.pop("settings", GOOD)
    return document(settings, **{"trial": TERMS, **changes})


@pytest.mark.parametrize(
    ("raw", "stream", "code"),
    [
        (good(signers=["x"]), MINE, Code.SIG),
        (good(signers=["cmd"]), MINE, Code.SIG),
        (good(signers=["r1", "r2"]), MINE, Code.SIG),
        (good(signers=["c1", "c1"], stream="fleet"), "fleet", Code.THRESHOLD),
        (good(signers=["c1"], stream="fleet"), "fleet", Code.THRESHOLD),
        (root(version=2), MINE, Code.TYPE),
        (b" " * (LARGEST_BYTES + 1), MINE, Code.TOO_BIG),
        (b"", MINE, Code.PARSE),
        (good(stream="pole/pole-2"), MINE, Code.TARGET),
        (good(), "fleet", Code.TARGET),
        (good(stream="group/elsewhere"), "group/elsewhere", Code.STREAM),
        (good(stream="group/elsewhere"), "group/harbour", Code.TARGET),
        (good(epoch=2), MINE, Code.EPOCH),
        (good(expires=NOW), MINE, Code.EXPIRED),
        (good(not_before=NOW + WEEK - 1), MINE, Code.NOT_YET),
        (good(issued=NOW + 3600), MINE, Code.NOT_YET),
        (signed(document_content(GOOD, schema="x"), CONFIG_TYPE, "c1").written(), MINE, Code.SCHEMA),
    ],
)
def test_what_is_not_believed_is_told_and_leaves_nothing(tmp_path: Path, raw: bytes, stream: str, code: Code) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        before = {path.name: path.read_bytes() for path in (tmp_path / "config").iterdir()}
        assert await pole.hear(raw, stream) is code
        await pole.run(100)
        assert pole.codes == [code]
        assert len(pole.plant.applied) == 1
        assert {path.name: path.read_bytes() for path in (tmp_path / "config").iterdir()} == before

    play(scene())


def test_a_good_document_comes_into_force_and_stays(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        assert await pole.hear(good()) is Code.OK
        await pole.run(30)
        assert pole.codes == [Code.OK, Code.COMMITTED]
        assert pole.priority == 7
        await pole.start()
        assert pole.priority == 7
        assert await pole.hear(good()) is Code.NOOP
        await pole.run(30)
        assert len(pole.plant.applied) == 3  # the first start, the document, the second start

    play(scene())


def test_enough_operators_together_move_the_fleet(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        assert await pole.hear(good(stream="fleet", signers=["c3", "c1"]), "fleet") is Code.OK
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


@pytest.mark.parametrize("restart", [False, True])
def test_an_older_one_and_another_of_the_same_number_are_refused(tmp_path: Path, *, restart: bool) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good(seq=5))
        await pole.run(30)
        if restart:
            await pole.reboot()
        assert await pole.hear(good(seq=4)) is Code.STALE
        assert await pole.hear(good(seq=5, settings=BETTER)) is Code.EQUIVOCATION
        assert await pole.hear(good(seq=5)) is Code.NOOP
        assert await pole.hear(good(seq=6, settings=BETTER)) is Code.OK
        await pole.run(30)
        assert pole.priority == 8

    play(scene())


def test_the_number_is_on_the_disk_before_anything_acts(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good(seq=5))
        await pole.reboot()  # before the first tick
        assert await pole.hear(good(seq=4)) is Code.STALE
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


def test_a_refused_number_is_burnt_and_the_next_one_works(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good(settings="[pole]\nid = 'other'\n"))
        await pole.run(1)
        assert pole.codes[-1] is Code.OWNERSHIP
        assert await pole.hear(good(settings="[pole]\nid = 'other'\n")) is Code.TOMBSTONED
        assert await pole.hear(good()) is Code.EQUIVOCATION
        assert await pole.hear(good(seq=2)) is Code.OK
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


def test_who_signed_more_makes_no_other_document_of_it(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good(signers=["c1"]))
        await pole.run(30)
        assert await pole.hear(good(signers=["c3", "x", "c2"])) is Code.NOOP

    play(scene())


# --- roots and epochs ---


def test_a_stolen_key_that_used_up_the_numbers_is_overcome_by_a_new_epoch(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good(seq=HUGE, settings=BETTER))
        await pole.run(30)
        assert pole.priority == 8
        roles = {**ROLES, "pole": {"keys": ["c2", "c3"], "threshold": 1}}
        assert await pole.incoming.hear_root(root(version=2, epoch=2, issued=NOW, roles=roles)) is Code.COMMITTED
        await pole.start()
        assert pole.priority == 8  # what is in force stays until something else comes
        assert await pole.hear(good(seq=HUGE, settings=BETTER, signers=["c2"])) is Code.EPOCH
        assert await pole.hear(good(epoch=2, signers=["c1"])) is Code.SIG
        assert await pole.hear(good(epoch=2, signers=["c2"])) is Code.OK
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


def test_a_stolen_key_cannot_move_time_and_a_new_epoch_sets_it_right(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        far = NOW + 1000 * WEEK
        lie = good(issued=far, not_before=0, expires=far + WEEK)
        assert await pole.hear(lie) is Code.NOT_YET
        pole.plant.clock = far - 1000.0  # a false clock helps the lie
        await pole.run(60)
        assert pole.commit.state.floor == far
        pole.plant.clock = NOW - 1000.0
        assert await pole.hear(good(seq=2)) is Code.EXPIRED
        assert await pole.incoming.hear_root(root(version=2, epoch=2, issued=NOW)) is Code.COMMITTED
        assert await pole.hear(good(epoch=2)) is Code.OK

    play(scene())


def test_roots_that_do_not_follow_are_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        assert await pole.incoming.hear_root(root(["r1"], version=2)) is Code.THRESHOLD
        assert await pole.incoming.hear_root(root(version=3)) is Code.STALE
        assert await pole.incoming.hear_root(b"[") is Code.PARSE
        assert pole.commit.state.root == 0
        assert not list((tmp_path / "config").glob("root-*"))

    play(scene())


def test_what_waits_was_signed_by_the_keys_of_before(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good(settings=BETTER, signers=["c1"]))
        roles = {**ROLES, "pole": {"keys": ["c2"], "threshold": 1}}
        assert await pole.incoming.hear_root(root(version=2, roles=roles)) is Code.COMMITTED
        await pole.run(30)
        assert pole.priority == 5
        assert await pole.hear(good(settings=BETTER, signers=["c1"])) is Code.SIG
        assert await pole.hear(good(settings=BETTER, signers=["c2"])) is Code.OK
        await pole.run(30)
        assert pole.priority == 8

    play(scene())


def test_a_root_that_is_damaged_on_the_disk_is_not_gone_back_behind(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        roles = {**ROLES, "pole": {"keys": ["c2"], "threshold": 1}}
        second = root(version=2, roles=roles)
        await pole.incoming.hear_root(second)
        (tmp_path / "config" / "root-000002").write_bytes(b"rot")
        await pole.start()
        assert await pole.hear(good(signers=["c1"])) is Code.SIG
        assert await pole.incoming.hear_root(second) is Code.COMMITTED
        assert await pole.hear(good(signers=["c2"])) is Code.OK

    play(scene())


def test_a_root_that_was_cut_off_on_its_way_in_must_come_again(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good(settings=BETTER, signers=["c1"]))
        second = root(version=2, roles={**ROLES, "pole": {"keys": ["c2"], "threshold": 1}})
        (tmp_path / "config" / "root-000002").write_bytes(second)
        await pole.start()
        assert await pole.hear(good(settings=BETTER, signers=["c1"])) is Code.OK
        assert await pole.incoming.hear_root(second) is Code.COMMITTED
        await pole.run(30)
        assert pole.priority == 5  # what waited came before the new keys

    play(scene())


@pytest.mark.parametrize("content", [None, b"{", signed(root_content(), CONFIG_TYPE, "r1", "r2").written()])
def test_without_a_root_nothing_is_believed_and_the_pole_runs(tmp_path: Path, content: bytes | None) -> None:
    async def scene() -> None:
        pole = Pole(tmp_path)
        first = pole.trust / "root.json"
        first.unlink()
        if content is not None:
            first.write_bytes(content)
        await pole.started()
        assert await pole.hear(good()) is Code.SIG
        assert await pole.incoming.hear_root(root(version=2)) is Code.SIG
        assert pole.priority == 5

    play(scene())


# --- time ---


def test_a_clock_at_1970_revives_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good(seq=2, issued=NOW + 3, not_before=NOW))
        await pole.run(30)
        assert pole.commit.state.floor == NOW + 3
        pole.plant.clock = 0.0
        assert await pole.hear(good(seq=3, issued=NOW, expires=NOW + 3)) is Code.EXPIRED
        pole.plant.clock = None
        assert await pole.hear(good(seq=3, issued=NOW, expires=NOW + 3)) is Code.EXPIRED

    play(scene())


def test_the_root_says_what_time_it_is_at_least(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        pole.plant.clock = 0.0
        old = NOW - 2 * WEEK
        assert await pole.hear(good(issued=old, not_before=old, expires=old + WEEK)) is Code.EXPIRED

    play(scene())


def test_while_the_clock_is_not_set_it_waits_and_needs_not_come_again(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        pole.plant.clock = None
        assert await pole.hear(good()) is Code.WAIT_TIME
        await pole.run(60)
        assert pole.codes == [Code.WAIT_TIME]
        assert pole.commit.state.of(MINE).seq == 0
        pole.plant.clock = NOW - 1000.0
        await pole.run(60)
        assert pole.codes == [Code.WAIT_TIME, Code.OK, Code.COMMITTED]

    play(scene())


def test_garbage_does_not_push_aside_what_waits_for_the_clock(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        pole.plant.clock = None
        await pole.hear(good())
        assert await pole.hear(b"") is Code.PARSE
        pole.plant.clock = NOW - 1000.0
        await pole.run(60)
        assert pole.priority == 7

    play(scene())


def test_what_comes_before_its_time_waits_for_it(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        assert await pole.hear(good(not_before=NOW + 100)) is Code.NOT_YET
        await pole.run(80)
        assert pole.codes == [Code.NOT_YET]
        await pole.run(60)
        assert pole.codes == [Code.NOT_YET, Code.OK, Code.COMMITTED]

    play(scene())


def test_a_clock_in_the_future_refuses_and_leaves_no_trace(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        pole.plant.clock = NOW + 500 * WEEK
        assert await pole.hear(good()) is Code.EXPIRED
        await pole.hear(good(seq=2, expires=NOW + 501 * WEEK))  # in time by that clock
        await pole.run(30)
        assert pole.commit.state.floor == NOW
        pole.plant.clock = NOW - 1000.0
        assert await pole.hear(good(seq=3, settings=BETTER)) is Code.OK
        await pole.run(30)
        assert pole.priority == 8

    play(scene())


def test_what_is_in_force_outlives_its_expiry(tmp_path: Path) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good())
        await pole.run(30)
        pole.plant.clock = NOW + 10.0 * WEEK
        await pole.reboot()
        await pole.run(30)
        assert pole.priority == 7
        assert await pole.hear(good()) in (Code.NOOP, Code.EXPIRED)
        await pole.run(30)
        assert pole.priority == 7

    play(scene())


# --- floods ---


def test_a_flood_costs_no_write_and_is_told_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        pole = await Pole(tmp_path).started()
        await pole.hear(good(seq=5))
        await pole.run(30)
        pole.plant.told.clear()
        monkeypatch.setattr("gateway.remote.config_folder.os.open", lambda *_: pytest.fail("it wrote"))
        hostile = [good(seq=4), b"[" * 1000, good(seq=5), good(signers=["x"], seq=9), good(seq=5, settings=BETTER)]
        for n in range(1000):
            await pole.hear(hostile[n % 5])
            await pole.hear(hostile[n % 5], f"group/{n}")
        assert len(pole.plant.told) < 20
        told = len(pole.plant.told)
        pole.plant.time += 61
        await pole.hear(hostile[0])
        assert len(pole.plant.told) == told + 1

    play(scene())

"""``polegate tail --request-replay``: what is asked of a pole, what its answer means, and a real pole that mends."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from gateway.commands import tail as tail_module
from gateway.commands.broker import Place
from gateway.commands.tail import Tail
from gateway.commands.tail_mend import ANSWER_S, ASK_AGAIN_S, Mending, Request
from gateway.commands.tail_show import Finding
from gateway.link.broker import NotAuthorised, Refused
from gateway.words.completeness import GRACE_S, Label, Span, Track, Watch, spans
from gateway.words.records import Record
from hil.broker import free_port
from hil.relay import Relay
from hil.scripted_broker import Refuse, ScriptedBroker
from tests.commands.tail_scene import Stage, stage
from tests.link.broker_scene import play, where
from tests.whole.bench_pole import bench

LIMIT_S = 40.0


class Notes:
    """Notes what would be printed."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.findings: list[Finding] = []
        self.packs = 0
        self.tracks: Mapping[tuple[str, str], Track] = {}

    def pack(self, pole: str, dataset: str, records: Sequence[Record]) -> None:
        """Note the readings."""
        del pole, dataset
        self.packs += 1
        self.records += records

    def finding(self, finding: Finding) -> None:
        """Note it."""
        self.findings.append(finding)

    def sums(self, tracks: Mapping[tuple[str, str], Track]) -> None:
        """Note the end."""
        self.tracks = tracks

    def numbers(self, kind: str) -> set[Span]:
        """Return epoch and seq of what was found of a kind."""
        of_kind = [found for found in self.findings if found.kind == kind]
        return {(found.epoch, n) for found in of_kind for first, last in found.seq for n in range(first, last + 1)}


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  # the scene has the limit
        await asyncio.sleep(0.02)


def mending(port: int, show: Notes, *others: int) -> Tail:
    """Return a tail of all there is that asks for what is missing."""
    place = Place([where(each) for each in (port, *others)], "pole/1", "")
    return Tail(place, poles=["+"], datasets=["+"], show=show, verify=True, request_replay=True)


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less than people must."""
    monkeypatch.setattr(tail_module, "GRACE_S", 0.5)
    monkeypatch.setattr(tail_module, "LOOK_S", 0.05)
    monkeypatch.setattr("gateway.commands.broker.LONGEST_PAUSE_S", 0.2)


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize("history", ["1h", None])
def test_what_the_link_to_the_broker_swallowed_comes_again_as_far_as_the_pole_has_it(
    tmp_path: Path, history: str | None
) -> None:
    show = Notes()

    async def main() -> int:
        async with asyncio.timeout(LIMIT_S), bench(tmp_path) as b:
            if history:
                config = b.daemon.config.read_text()
                b.daemon.config.write_text(config.replace("[buffer]\n", f'[buffer]\nhistory = "{history}"\n'))
            relay = Relay(b.broker.port)
            await relay.start()
            stop = asyncio.Event()
            running = asyncio.create_task(mending(relay.port, show).run(_wait(stop)))
            b.daemon.start()
            await until(lambda: show.packs >= 3)
            relay.cut()
            await b.wait(show.packs + 10)
            relay.restore()
            await until(lambda: bool(show.numbers("hole")))
            await until(lambda: show.numbers("hole") == show.numbers("mended" if history else "gone"))
            stop.set()
            code = await running
            await relay.close()
            return code

    code = asyncio.run(main())
    assert len(show.numbers("hole")) >= 5
    assert show.numbers("asked") == show.numbers("hole")
    (track,) = show.tracks.values()
    assert bool(track.holes) == (history is None)
    assert code == int(history is None)
    assert {found.kind for found in show.findings} <= {"hole", "asked", "mended" if history else "gone"}


@pytest.mark.usefixtures("_hurried")
def test_a_broker_that_lets_nobody_ask_is_told_and_the_pack_stays_missing(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write pole/1/+/data/#\n")
    show = Notes()

    async def main(s: Stage) -> int:
        async with asyncio.timeout(LIMIT_S):
            stop = asyncio.Event()
            running = asyncio.create_task(mending(s.broker.port, show).run(_wait(stop)))
            await until(lambda: show.packs == 1)  # the one that was there
            await asyncio.to_thread(s.send, 1, 3)
            await until(lambda: bool(show.numbers("refused")))
            stop.set()
            return await running

    with stage(tmp_path, f"acl_file {acl}") as s:
        assert asyncio.run(main(s)) == 1
    assert show.numbers("refused") == show.numbers("hole") == {(1, 2)}
    assert [found.why for found in show.findings if found.why] == ["the broker refuses with reason 0x87"]


def test_a_broker_that_lets_nobody_listen_ends_it() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_subscribe = lambda topic, qos: qos if topic.endswith("replay") else 0x87
        with pytest.raises(Refused, match="refuses a subscription with reason 0x87"):
            await mending(broker.port, Notes()).run(asyncio.sleep(LIMIT_S))

    play(scene)


def test_a_broker_of_the_older_version_behind_one_that_is_away_is_heard() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        accept = broker.on_connect
        broker.on_connect = lambda connect: accept(connect) if connect.version == 4 else Refuse(0x84)
        subscribed = asyncio.Event()

        def subscribe(topic: str, qos: int) -> int:
            subscribed.set()
            assert topic.startswith("pole/1/+/")
            return qos

        broker.on_subscribe = subscribe
        assert await mending(free_port(), Notes(), broker.port).run(_wait(subscribed)) == 0
        assert [connect.version for connect in broker.connects] == [5, 4]
        assert broker.goodbyes == 1

    play(scene)


def test_who_is_not_let_in_by_one_of_two_is_told_that_before_that_the_other_is_away() -> None:
    async def scene(broker: ScriptedBroker) -> None:
        broker.on_connect = lambda _: Refuse(0x87)
        with pytest.raises(NotAuthorised):
            await mending(broker.port, Notes(), free_port()).run(asyncio.sleep(LIMIT_S))

    play(scene)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def watched(*packs: Label, pole: str = "pole-7", dataset: str = "air", watch: Watch | None = None) -> Watch:
    """Return a watch that has told its holes."""
    watch = watch or Watch()
    for pack in packs:
        watch.take(pole, dataset, pack, 0.0)
    assert list(watch.due(GRACE_S))
    return watch


def answer(request: Request, **more: object) -> bytes:
    told = {"event": "replay", "id": request.id, "dataset": request.dataset, "epoch": request.epoch}
    return json.dumps(told | more).encode()


def seqs(watch: Watch) -> dict[int, list[Span]]:
    return spans(watch.tracks["pole-7", "air"].holes)


def test_a_request_is_what_the_pole_reads() -> None:
    (request,) = Mending(watched(Label(3, 16), Label(3, 43)), "me").next(100.0)
    assert json.loads(request.payload()) == {"id": "me-1", "dataset": "air", "epoch": 3, "from": 17, "to": 42}


def test_a_pole_is_asked_for_one_hole_after_the_other_and_for_each_once() -> None:
    watch = watched(Label(1, 1), Label(1, 3), Label(1, 6))
    watched(Label(1, 1), Label(1, 3), pole="pole-8", watch=watch)
    mending = Mending(watch, "me")
    first, other = mending.next(100.0)
    assert [(r.pole, r.seq) for r in (first, other)] == [("pole-7", (2, 2)), ("pole-8", (2, 2))]
    assert list(mending.next(100.0)) == []
    assert list(mending.take("pole-8", answer(first, sent=[[2, 2]], gone=[]))) == []  # another's, of the same id
    watch.take("pole-7", "air", Label(1, 2), 100.0)
    assert list(mending.take("pole-7", answer(first, sent=[[2, 2]], gone=[]))) == []
    (second,) = mending.next(101.0)
    assert (second.pole, second.seq, second.id) == ("pole-7", (4, 5), "me-3")
    assert list(mending.take("pole-7", answer(second, sent=[], gone=[[4, 5]]))) == [
        Finding("gone", "pole-7", "air", 1, [(4, 5)])
    ]
    assert list(mending.next(1e9)) == []  # the one is gone, and pole-8 has not answered


def test_a_hole_that_was_not_told_is_not_asked_for() -> None:
    watch = Watch()
    for seq in (1, 3):
        watch.take("pole-7", "air", Label(1, seq), 0.0)
    assert list(Mending(watch, "me").next(1e9)) == []


def test_a_long_hole_is_asked_for_on_as_the_pole_says() -> None:
    watch = watched(Label(1, 1), Label(1, 2502))
    mending = Mending(watch, "me")
    (first,) = mending.next(100.0)
    told = list(mending.take("pole-7", answer(first, sent=[], gone=[[2, 1001]], ask_again_from=1002)))
    assert [finding.kind for finding in told] == ["gone"]
    (second,) = mending.next(101.0)
    assert (first.seq, second.seq) == ((2, 2501), (1002, 2501))
    assert seqs(watch) == {1: [(2, 2501)]}


def test_without_an_answer_the_same_is_asked_later_and_that_is_told() -> None:
    mending = Mending(watched(Label(1, 1), Label(1, 3)), "me")
    (first,) = mending.next(100.0)
    assert list(mending.unanswered(99.0 + ANSWER_S)) == []
    assert list(mending.unanswered(100.0 + ANSWER_S)) == [first]
    assert list(mending.unanswered(100.0 + ANSWER_S)) == []
    assert list(mending.next(99.0 + ASK_AGAIN_S)) == []
    (second,) = mending.next(100.0 + ASK_AGAIN_S)
    assert (second.seq, second.id) == (first.seq, "me-2")


def test_an_error_is_told_while_something_is_asked_and_ends_the_request_that_it_names() -> None:
    mending = Mending(watched(Label(1, 1), Label(1, 3)), "me")
    error = {"event": "replay", "error": "the buffer cannot be read now: it is gone"}
    assert list(mending.take("pole-7", json.dumps(error).encode())) == []
    (asked,) = mending.next(100.0)
    assert list(mending.take("pole-7", json.dumps(error | {"id": "another's"}).encode())) == []
    for more in ({}, {"id": asked.id}):
        (told,) = mending.take("pole-7", json.dumps(error | more).encode())
        assert (told.kind, told.why) == ("error", "the buffer cannot be read now: it is gone")
    assert list(mending.unanswered(1e9)) == []
    (again,) = mending.next(1e9)
    assert again.seq == asked.seq


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"gone": 7},
        {"gone": [7, [1], ["a", "b"], [5, 4], [90, 99], None]},
        {"ask_again_from": "x"},
        {"ask_again_from": 1},
        {"ask_again_from": 99},
    ],
)
def test_an_odd_answer_does_no_harm(more: dict[str, object]) -> None:
    watch = watched(Label(1, 1), Label(1, 5))
    mending = Mending(watch, "me")
    (request,) = mending.next(100.0)
    assert list(mending.take("pole-7", answer(request, **more))) == []
    assert list(mending.next(101.0)) == []
    assert seqs(watch) == {1: [(2, 4)]}
    assert not any(hole.gone for hole in watch.tracks["pole-7", "air"].holes)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"7", b"[" * 100_000])
def test_what_is_no_answer_is_none(payload: bytes) -> None:
    mending = Mending(watched(Label(1, 1), Label(1, 3)), "me")
    list(mending.next(100.0))
    assert list(mending.take("pole-7", payload)) == []

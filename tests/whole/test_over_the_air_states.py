"""The broker ends the session, or the gateway is restarted in order, in each state in which a document may be.

The states that last for milliseconds are held by the card, which waits with what is being written. Each takes half a
minute at the most, and waits most of it; all of them together take seven minutes.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.whole.bench_pole import DATASET, Bench
from tests.whole.over_the_air_scene import (
    GOOD,
    MINE,
    UNCHANGED,
    Card,
    Operator,
    all_is_well,
    operated,
    slower,
    transitions,
    until,
)

pytestmark = pytest.mark.soak

BETTER = GOOD.replace("2.0", "3.0")
DEAF = '[[device]]\nid = "meter-1"\nunit = 99\n'
ELSEWHERE = '[uplink]\nurl = "mqtt://127.0.0.1:1"\n'  # where no broker is
RESTARTS = 3  # more than the starts that a trial may have without an end in order
ROOMY_S = 60  # for a trial that ends well, on a busy machine
ENDS = "COMMITTED", "RB_"

Sent = Mapping[str, Any]


class State(NamedTuple):
    """One in which a pole may be.

    Attributes:
        sent: what it was sent before; but for the last, each is tried when the next one comes.
        ends: how each document ends: its stream, number and verdict.
        held: what is in the file that is being written; "": none is.
        heard: the verdict on the last one that was heard; "": none was, and it is on trial.
        well: all is well in its trial, though not for long enough.
        stands: how the pole says that it stands, before more is sent.
        later: what is sent then.
    """

    sent: Sequence[Sent]
    ends: list[tuple[str, int, str]]
    held: str = ""
    heard: str = ""
    well: bool = False
    stands: Mapping[str, object] = {"active_seq": 1}
    later: Sequence[Sent] = ()


def sent(seq: int = 1, settings: str = GOOD, **terms: object) -> Sent:
    """Say what is sent."""
    return {"seq": seq, "settings": settings, "window_s": ROOMY_S, **terms}


def closed() -> str:
    """Say a window that is closed for hours yet."""
    hour = (datetime.now(UTC).hour + 12) % 24
    return f'[window]\nfrom = "{hour:02}:00"\nto = "{hour:02}:59"\n'


IN_FORCE = [(MINE, 1, "COMMITTED")]
TWO_IN_FORCE = [*IN_FORCE, (MINE, 2, "COMMITTED")]
REQUIRES = sent(settings=BETTER, more="requires = { fleet = 1 }\n")
WAITS = {"waits": True, "active_seq": 0}
TAKEN_BACK = {"active_seq": 0, "waits": False}

STATES = {
    "a document is being brought to the disk": State([sent()], IN_FORCE, held=f'"stream": "{MINE}"'),
    "its number is being brought to the disk": State([sent()], IN_FORCE, held='"waits": true'),
    "it waits for another document": State(
        [REQUIRES],
        [("fleet", 1, "COMMITTED"), *IN_FORCE],
        heard="DEFERRED_REQUIRES",
        stands=WAITS,
        later=[sent(stream="fleet")],
    ),
    "it waits for its window": State(
        [sent(more=closed())],
        [(MINE, 2, "COMMITTED")],
        heard="DEFERRED_WINDOW",
        stands=WAITS,
        later=[sent(2)],
    ),
    "it waits until another one was tried": State(
        [sent(hold_s=5), sent(2, BETTER)], TWO_IN_FORCE, heard="BUSY", stands={"active_seq": 2}
    ),
    "its trial is being brought to the disk": State([sent()], IN_FORCE, held='"boot": '),
    "it is tried, and all is well": State([sent(hold_s=5)], IN_FORCE, well=True),
    "it is tried at another broker": State(
        [sent(settings=ELSEWHERE, window_s=10)],
        [(MINE, 1, "RB_UPSTREAM"), (MINE, 2, "COMMITTED")],
        stands={**TAKEN_BACK, "fate": "RB_UPSTREAM"},
        later=[sent(2)],
    ),
    "it is being taken back": State(
        [sent(settings=DEAF, window_s=10)],
        [(MINE, 1, "RB_SENSORS"), (MINE, 2, "COMMITTED")],
        held='"fate": ',
        stands={**TAKEN_BACK, "fate": "RB_SENSORS"},
        later=[sent(2)],
    ),
    "it is being committed": State([sent()], IN_FORCE, held='"active_seq": 1'),
    "it was committed just now": State([sent()], IN_FORCE, heard="COMMITTED"),
}


async def reach(state: State, operator: Operator, card: Card) -> None:
    """Bring a pole into a state."""
    *before, last = state.sent
    for each in before:
        operator.send(**each)
        await operator.hears_of_trial()
    operator.send(**last)
    if state.held:
        await card.held()
    elif state.heard:
        await operator.hears(state.heard, last["seq"])
    else:
        await operator.hears_of_trial(well=state.well)


async def ends_as_it_should(state: State, b: Bench, operator: Operator, unchanged: tuple[str, ...]) -> None:
    """Prove that the pole says how it stands and goes on, that all ended as it should, and was told once."""
    await operator.hears_that(**state.stands)
    for each in state.later:
        operator.send(**each)
    await operator.hears_that(active_seq=state.ends[-1][1])
    await all_is_well(b, unchanged)
    assert [each for each in transitions(b) if each[2].startswith(ENDS)] == state.ends


@pytest.mark.parametrize("name", STATES)
def test_a_broker_that_ends_the_session_changes_nothing_about_a_document(tmp_path: Path, name: str) -> None:
    state, card = STATES[name], Card(tmp_path)

    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            await reach(state, operator, card)
            b.relay.stall()
            await asyncio.to_thread(b.receiver.fence)
            await asyncio.to_thread(operator.forget)
            b.broker.kill()
            b.relay.cut()
            b.broker.start()
            b.relay.restore()
            await b.wait(len(b.heard.packs[DATASET]) + 2)  # the new session begins while the card still waits
            card.go()
            await ends_as_it_should(state, b, operator, UNCHANGED)

    if state.held:
        card.hold(state.held)
    asyncio.run(main())


@pytest.mark.parametrize("name", STATES)
def test_restarts_in_order_change_nothing_about_a_document(tmp_path: Path, name: str) -> None:
    state, card = STATES[name], Card(tmp_path)

    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            await reach(state, operator, card)
            for _ in range(RESTARTS):
                os.kill(b.daemon.pid, signal.SIGTERM)
                card.go()
                await until(lambda: not b.daemon.running)
                assert b.daemon.stop() == 0
                await asyncio.to_thread(operator.forget)
                b.daemon.start()
                await until(lambda: b.daemon.status() is not None)
            await ends_as_it_should(state, b, operator, ())

    if state.held:
        card.hold(state.held)
    asyncio.run(main())

"""How much of the backlog may be sent, and that this may change while a link is up."""

import asyncio

import pytest

from gateway.link.backfill import Backfill, Pace
from hil.vclock import run


def test_another_pace_holds_at_once_on_the_link_there_is() -> None:
    async def main() -> None:
        allowed: list[int] = []
        backfill = Backfill(Pace(0.5))
        backfill.begin(20, allowed.append)
        backfill.change(Pace(0.1))
        assert allowed == [10, 2]
        backfill.change(Pace(1.0, 100.0))
        backfill.sends(500)
        backfill.sent()
        assert allowed == [10, 2, 1]
        await asyncio.sleep(4.9)
        assert allowed == [10, 2, 1]
        await asyncio.sleep(0.2)
        assert allowed == [10, 2, 1, 1]
        backfill.change(Pace(1.0))
        assert allowed[-1] == 20

    run(main())


def test_what_was_sent_at_a_slow_pace_is_not_waited_for_at_another() -> None:
    async def main() -> None:
        allowed: list[int] = []
        backfill = Backfill(Pace(bytes_per_s=10.0))
        backfill.begin(20, allowed.append)
        backfill.sends(40_000)
        backfill.sent()
        backfill.begin(20, allowed.append)
        backfill.change(Pace(bytes_per_s=10.0))
        await asyncio.sleep(1000)
        assert allowed == [1], "neither another link nor the same pace again is another pace"
        backfill.change(Pace(bytes_per_s=1000.0))
        assert allowed == [1, 1]
        backfill.sends(5000)
        backfill.sent()
        await asyncio.sleep(4.9)
        assert allowed == [1, 1]
        await asyncio.sleep(0.2)
        assert allowed == [1, 1, 1]
        await asyncio.sleep(10_000)
        assert allowed == [1, 1, 1], "nothing is left of the time of before"

    run(main())


@pytest.mark.parametrize("pace", [Pace(0.3), Pace(1.0, 1000.0)])
def test_the_pace_of_before_the_first_link_holds_on_it(pace: Pace) -> None:
    async def main() -> None:
        allowed: list[int] = []
        backfill = Backfill(Pace())
        backfill.change(pace)
        backfill.begin(20, allowed.append)
        assert allowed == [6 if pace.bytes_per_s is None else 1]

    run(main())

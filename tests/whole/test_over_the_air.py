"""A document that an operator signs changes a running pole; one that the pole does worse with is taken back by itself.

The whole: the commands of the operator, a real broker, a real gateway with devices that answer. Only the time of day is
not real: this gateway holds it for right, whatever the kernel of the machine says.
"""

import asyncio
import itertools
import os
import statistics
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.commands.cli_scene import call
from tests.whole.bench_pole import DATASET, POLE, Bench
from tests.whole.over_the_air_scene import operated, until


def every(b: Bench, device: str) -> float:
    """Return the median of the seconds between the last readings of a device."""
    times = sorted(record.time for record in b.heard.records if record.name == f"{POLE}/{device}/voltage_l1")[-9:]
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(times))


def test_a_signed_document_changes_one_device_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (b, operator):
            operator.send(1, '[[device]]\nid = "meter-1"\nevery = 0.4\n')
            report = await operator.hears("COMMITTED", 1)
            assert report["streams"][f"pole/{POLE}"]["active_seq"] == 1
            with mock.patch.dict(os.environ, RUNTIME_DIRECTORY=str(b.daemon.runtime)):
                asked = await asyncio.to_thread(call, "doctor", "--config", str(b.daemon.config))
            assert asked.code == 0
            assert f"ok    configuration: pole/{POLE} seq 1 is in force\n" in asked.out
            assert f'[[device]] "meter-1": "every" is SHADOWED: pole/{POLE} seq 1 sets 0.4; to keep yours' in asked.out
            packs = len(b.heard.packs[DATASET])
            await b.wait(packs + 20)
            assert every(b, "meter-1") == pytest.approx(0.4, abs=0.1)
            assert every(b, "meter-2") == pytest.approx(0.1, abs=0.05)
            await asyncio.to_thread(b.daemon.stop)
            assert not b.heard.holes()
            assert len({epoch for epoch, _ in b.heard.packs[DATASET]}) == 1
            b.daemon.start()  # what is in force stays so
            packs = len(b.heard.packs[DATASET])
            await b.wait(packs + 30)
            assert every(b, "meter-1") == pytest.approx(0.4, abs=0.1)

    asyncio.run(main())


def test_who_may_not_sign_changes_nothing_and_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (_, operator):
            (tmp_path / "key").rename(tmp_path / "old")
            operator._call("keygen", tmp_path / "key")  # noqa: SLF001  # a key that no root names
            operator.send(1, '[[device]]\nid = "meter-1"\nevery = 0.4\n')
            await operator.hears("SIG", 0)
            assert all(not report["streams"].get(f"pole/{POLE}", {}).get("active_seq") for report in operator.reports)

    asyncio.run(main())


def transitions(b: Bench) -> list[tuple[Any, ...]]:
    """Return what became of documents, in order of time: stream, number and verdict."""
    rows: dict[float, dict[str, Any]] = {}
    for record in b.heard.records:
        if record.name.startswith(f"{POLE}/_configuration/"):
            rows.setdefault(record.time, {})[record.name.rsplit("/", 1)[1]] = record.value
    return [(row["stream"], row["seq"], row["verdict"]) for _, row in sorted(rows.items())]


def test_what_became_of_a_change_while_the_broker_was_away_comes_afterwards_once_and_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (b, operator):
            mine = f"pole/{POLE}"
            operator.send(1, '[[device]]\nid = "meter-1"\nevery = 0.4\n')
            await until(lambda: any("trial" in report for report in operator.reports))
            await until(lambda: transitions(b) == [(mine, 1, "OK")])
            b.relay.cut()
            for _ in range(3):  # twice in the trial, and once when it was just taken back
                b.daemon.kill()
                b.daemon.start()
                await until(lambda: b.daemon.status() is not None)
            assert transitions(b) == [(mine, 1, "OK")]
            b.relay.restore()
            # The broker has the document still, and gives it again on the new link
            await until(lambda: (mine, 0, "TOMBSTONED") in transitions(b) and not b.heard.holes())
            assert transitions(b) == [(mine, 1, "OK"), (mine, 1, "RB_CRASHLOOP"), (mine, 0, "TOMBSTONED")]
            described = {each["polegate:name"] for each in b.heard.catalogues["configuration"]["properties"].values()}
            assert described == {record.name for record in b.heard.records if "/_configuration/" in record.name}

    asyncio.run(main())

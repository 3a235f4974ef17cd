"""A document that an operator signs changes a running pole; one that the pole does worse with is taken back by itself.

The whole: the commands of the operator, a real broker, a real gateway with devices that answer. Only the time of day is
not real: this gateway holds it for right, whatever the kernel of the machine says.
"""

import asyncio
import itertools
import os
import statistics
from pathlib import Path
from unittest import mock

import pytest

from tests.commands.cli_scene import call
from tests.whole.bench_pole import DATASET, POLE, Bench
from tests.whole.over_the_air_scene import MINE, operated, transitions, until

LATE_S = 2.0  # a poll that is missing on a busy machine, and not a pack of them


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


def test_who_may_not_sign_and_what_may_not_be_set_change_nothing_and_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (_, operator):
            operator.send(1, '[port.p9]\npath = "tcp://192.0.2.1:502"\n' + SENSOR.format("meter-9"))
            report = await operator.hears("OWNERSHIP", 1)
            why = f'pole/{POLE} seq 1:2: [port.p9]: "path" is set in the pole\'s own file only; remove it here'
            assert (report["last"]["text"], report["streams"][f"pole/{POLE}"]["why"]) == (why, why)
            for half in ("key", "key.pub"):
                (tmp_path / half).rename(tmp_path / f"old-{half}")
            operator._call("keygen", tmp_path / "key")  # noqa: SLF001  # a key that no root names
            operator.send(2, '[[device]]\nid = "meter-1"\nevery = 0.4\n')
            await operator.hears("SIG", 0)
            assert all(not report["streams"].get(f"pole/{POLE}", {}).get("active_seq") for report in operator.reports)

    asyncio.run(main())


def vacate(b: Bench) -> None:
    """Leave a port without a device, and have what waits go out slowly."""
    text = b.daemon.config.read_text().replace("[uplink]", '[uplink]\nbackfill = "2kB/s"')
    begin, end = text.index('[[device]]\nid = "meter-1"'), text.index("[port.p2]")
    b.daemon.config.write_text(text[:begin] + text[end:])


def times(b: Bench, device: str) -> list[float]:
    """Return when a device was read, in order of arrival."""
    return [record.time for record in b.heard.records if record.name == f"{POLE}/{device}/voltage_l1"]


def unknown(b: Bench) -> set[str]:
    """Name what the catalogue that its pack names does not describe, or not with that unit."""
    found, units = set(), {}
    for record in b.heard.records:
        if "cat" in record.labels:
            edition = b.heard.editions.get(record.labels["cat"], {"properties": {}})
            units = {each["polegate:name"]: each.get("polegate:senml", "") for each in edition["properties"].values()}
        if units.get(record.name) != record.unit:
            found.add(record.name)
    return found


SENSOR = '[[device]]\nid = "{}"\ndriver = "modbus"\nport = "p1"\nprofile = "eastron-sdm630"\nevery = 0.1\n'


@pytest.mark.parametrize("waits", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_what_a_sensor_gave_before_it_was_renamed_arrives_under_its_old_name(tmp_path: Path, *, waits: bool) -> None:
    """Where it waits for the broker meanwhile, that takes 20 s."""

    async def main() -> None:
        async with operated(tmp_path, vacate) as (b, operator):
            operator.send(1, SENSOR.format("old"))
            await operator.hears("COMMITTED", 1)
            if waits:
                b.relay.cut()
                await until(lambda: (b.daemon.status() or {})["buffer"]["stored"] >= 5)
            operator.send(2, SENSOR.format("new"))
            b.relay.restore()
            await operator.hears("COMMITTED", 2)
            await until(lambda: bool(times(b, "new")) and not b.heard.holes())
            came = [
                r.name.split("/")[1] for r in b.heard.records if r.name.endswith(("/old/voltage_l1", "/new/voltage_l1"))
            ]
            assert (came != sorted(came, reverse=True)) == waits  # what waited came when the sensor had its new name
            assert max(times(b, "old")) < min(times(b, "new"))
            both = sorted(times(b, "old") + times(b, "new"))
            assert max(later - earlier for earlier, later in itertools.pairwise(both)) < LATE_S
            assert unknown(b) == set()
            assert b.heard.catalogues[DATASET]["polegate:devices"].keys() == {"meter-0", "meter-2", "meter-3", "new"}

    asyncio.run(main())


@pytest.mark.soak
def test_what_a_sensor_gave_under_a_name_that_crashes_took_back_keeps_name_and_unit(tmp_path: Path) -> None:
    """It takes 15 s."""

    def prepare(b: Bench) -> None:
        vacate(b)
        text = b.daemon.config.read_text().replace("send_every = 0.2", "send_every = 5.0")
        b.daemon.config.write_text(text.replace("commit_within = 0.5", "commit_within = 5.0"))

    def gave(b: Bench, device: str) -> int:
        return int((b.daemon.status() or {}).get("devices", {}).get(device, {}).get("good", 0))

    async def main() -> None:
        async with operated(tmp_path, prepare) as (b, operator):
            operator.send(1, SENSOR.format("old"))
            await operator.hears("COMMITTED", 1)
            operator.send(2, SENSOR.format("new"))
            await until(lambda: gave(b, "new") > 2)
            b.relay.cut()
            for _ in range(2):
                await until(lambda: gave(b, "new") > 2)
                b.daemon.kill()
                b.daemon.start()
            b.relay.restore()
            await operator.hears("RB_CRASHLOOP", 2)
            await until(lambda: gave(b, "old") > 2)
            await asyncio.to_thread(b.daemon.stop)
            assert not b.heard.holes()
            assert len(times(b, "new")) > 4
            volts = [record for record in b.heard.records if record.name.endswith("/voltage_l1")]
            assert {record.unit for record in volts} == {"V"}

    asyncio.run(main())


def test_what_became_of_a_change_while_the_broker_was_away_comes_afterwards_once_and_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path) as (b, operator):
            operator.send(1, '[[device]]\nid = "meter-1"\nevery = 0.4\n')
            await operator.hears_of_trial()
            await until(lambda: transitions(b) == [(MINE, 1, "OK")])
            b.relay.cut()
            for _ in range(3):  # twice in the trial, and once when it was just taken back
                b.daemon.kill()
                b.daemon.start()
                await until(lambda: b.daemon.status() is not None)
            assert transitions(b) == [(MINE, 1, "OK")]
            b.relay.restore()
            # The broker has the document still, and gives it again on the new link
            await until(lambda: (MINE, 0, "TOMBSTONED") in transitions(b) and not b.heard.holes())
            assert transitions(b) == [(MINE, 1, "OK"), (MINE, 1, "RB_CRASHLOOP"), (MINE, 0, "TOMBSTONED")]
            described = {each["polegate:name"] for each in b.heard.catalogues["configuration"]["properties"].values()}
            assert described == {record.name for record in b.heard.records if "/_configuration/" in record.name}

    asyncio.run(main())

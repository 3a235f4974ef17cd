"""The whole gateway as a process, under load, with the things that happen to it in the field."""

import asyncio
import json
import subprocess
import time
from pathlib import Path

import pytest

from gateway.host.clock import Clock
from gateway.store.journal import Journal
from gateway.words.reading import Reading
from hil.daemon import polegate
from tests.whole.bench_pole import DATASET, METERS, POLE, Bench, bench

SHORT_OUTAGE_S = 6.0
STOP_S = 5.0


def test_a_broker_never_seen_is_a_normal_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as b:
            b.relay.cut()
            b.daemon.start()
            await _until(lambda: (b.daemon.status() or {}).get("buffer", {}).get("stored", 0) >= 5)
            b.relay.restore()
            await b.wait(10)
            await _until(lambda: not b.heard.holes())  # what is live comes before what was stored
            assert min(n for _, n in b.heard.packs[DATASET]) == 1

    asyncio.run(main())


def test_after_a_broker_was_killed_and_the_gateway_too_every_committed_reading_arrives(tmp_path: Path) -> None:
    asyncio.run(_outage(tmp_path, SHORT_OUTAGE_S))


def test_a_folder_for_the_buffer_that_cannot_be_made_is_no_reason_to_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as b:
            (tmp_path / "file").touch()
            text = b.daemon.config.read_text()
            b.daemon.config.write_text(text.replace(f"{tmp_path}/buffer.db", f"{tmp_path}/file/buffer.db"))
            b.daemon.start()
            await b.wait(10)
            assert f"{tmp_path}/file" in (b.daemon.status() or {})["buffer"]["trouble"]
            assert await _stopped(b) == 0

    asyncio.run(main())


def test_a_second_gateway_is_refused_before_it_writes_anything(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as b:
            b.daemon.start()
            await b.wait(3)
            before = {file: file.read_bytes() for file in (tmp_path / "config").iterdir()}
            b.daemon.config.write_text(b.daemon.config.read_text().replace("every = 0.1", "every = 0.2"))
            command = [polegate(), "run", "--config", str(b.daemon.config)]
            second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30.0)
            assert second.returncode == 73
            assert f"{tmp_path}/config is in use by another gateway; stop that, or give this one" in second.stderr
            assert {file: file.read_bytes() for file in (tmp_path / "config").iterdir()} == before
            await b.wait(10)

    asyncio.run(main())


def test_what_a_device_gave_when_it_was_another_one_arrives_with_its_unit(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as b:
            clock = Clock()
            journal = Journal(b.daemon.runtime, clock.boot)
            journal.open()
            journal.describe("meter-0", {"level": "m"})
            for n in range(3):  # a crash is all that the run before left
                values = {"voltage_l1": 230.0 + n, "level": 2.5 + n}
                journal.accept(Reading("meter-0", DATASET, clock.now() - n, values))
            journal.close()
            b.daemon.start()
            await b.wait(3)
            level = [record for record in b.heard.records if record.name == f"{POLE}/meter-0/level"]
            assert sorted((record.value, record.unit) for record in level) == [(2.5, "m"), (3.5, "m"), (4.5, "m")]

    asyncio.run(main())


@pytest.mark.soak
def test_the_same_holds_for_a_minute_without_a_broker(tmp_path: Path) -> None:
    asyncio.run(_outage(tmp_path, 60.0))


async def _outage(folder: Path, seconds: float) -> None:
    """Kill the broker for a while, and the gateway in the middle of it; the receiver proves that nothing is missing."""
    async with bench(folder) as b:
        b.daemon.start()
        await b.wait(5)
        b.relay.cut()
        await asyncio.to_thread(b.receiver.fence)
        b.broker.kill()
        await asyncio.sleep(seconds / 2)
        b.daemon.kill()
        committed = b.committed()
        assert len(committed) >= seconds / 2  # two commits a second, less what was not due yet
        b.daemon.start()
        await asyncio.sleep(seconds / 2)
        b.broker.start()
        b.relay.restore()
        await _until(lambda: committed <= set(b.heard.packs[DATASET]), within=30.0)
        first = min(committed)[0]
        await _until(lambda: max(b.heard.packs[DATASET])[0] > first and not b.heard.holes())
        epochs = {epoch for epoch, _ in b.heard.packs[DATASET]}
        assert len(epochs) == 2
        # The receiver does not need our word for it: the second run's first pack says where the first one ended.
        last = max(n for epoch, n in committed if epoch == min(epochs))
        assert b.heard.after[DATASET][max(epochs)] == (min(epochs), last)


def test_nothing_accepted_is_lost_when_the_gateway_is_killed_again_and_again(tmp_path: Path) -> None:
    async def main() -> None:
        # A pack waits for a minute until it is written: what is killed is in RAM only, and in the journal.
        async with bench(tmp_path, commit_within=60.0, send_every=1.0) as b:
            for kill in range(3):
                b.daemon.start()
                await b.wait(3 * (kill + 1))
                b.relay.cut()
                await _until(lambda: (b.daemon.status() or {}).get("buffer", {}).get("packs", 0) >= 2)
                b.daemon.kill()
                b.relay.restore()
            assert b.committed() == set()
            b.daemon.start()
            await b.wait(12)
            await _until(lambda: not b.heard.holes())
            epochs = sorted({epoch for epoch, _ in b.heard.packs[DATASET]})
            assert len(epochs) == 4
            # Polls lie on a grid of a tenth of a second: what one gateway had accepted, the next one sent.
            for meter in range(METERS):
                name = f"{POLE}/meter-{meter}/voltage_l1"
                times = sorted(r.time for r in b.heard.records if r.name == name)
                assert len(times) == len(set(times))

    asyncio.run(main())


def test_sigterm_ends_it_within_5_s_and_nothing_is_lost(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path, commit_within=60.0) as b:
            b.daemon.start()
            await b.wait(5)
            assert await _stopped(b) == 0
            told = await _last_state(b, "stopped")
            assert told["buffer"]["packs"] == 0
            assert b.heard.holes() == {}
            assert b.committed() == set()

    asyncio.run(main())


def test_sigterm_ends_it_within_5_s_when_the_broker_hangs_and_what_is_not_acknowledged_is_on_the_disk(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with bench(tmp_path, commit_within=60.0) as b:
            b.daemon.start()
            await b.wait(5)
            b.relay.stall()
            await _until(lambda: (b.daemon.status() or {}).get("buffer", {}).get("packs", 0) >= 5)
            assert await _stopped(b) == 0
            kept = b.committed()
            assert len(kept) >= 5
            b.relay.restore()
            b.relay.cut()
            b.relay.restore()
            b.daemon.start()
            await _until(lambda: kept <= set(b.heard.packs[DATASET]))
            await _until(lambda: not b.heard.holes())

    asyncio.run(main())


def test_the_log_of_a_service_is_one_json_object_a_line(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as b:
            b.daemon.start()
            await b.wait(1)
            await _stopped(b)
            lines = [json.loads(line) for line in b.daemon.output().splitlines()]
            assert {"started", "uplink is up", "stopped"} <= {line["event"] for line in lines}

    asyncio.run(main())


async def _stopped(b: Bench) -> int:
    begin = time.monotonic()
    code = await asyncio.to_thread(b.daemon.stop)
    assert time.monotonic() - begin < STOP_S
    return code


async def _last_state(b: Bench, status: str) -> dict[str, dict[str, int]]:
    await asyncio.to_thread(b.receiver.wait, lambda: b.heard.states[-1:] == [status], 5.0, status)
    return b.heard.state


async def _until(true: object, within: float = 15.0) -> None:
    """Wait for something outside this process; it fails if it takes too long."""
    assert callable(true)
    give_up = time.monotonic() + within
    while not await asyncio.to_thread(true):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)

"""Documents that would harm a pole, and harm that comes while one is tried: it comes back, and loses nothing."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from hil.broker import free_port, mosquitto
from tests.link.pki import Authority
from tests.whole.bench_pole import DATASET, POLE, Bench
from tests.whole.over_the_air_scene import operated, until

pytestmark = pytest.mark.soak

EVERY_S = 1.0
MISSED = 1.75  # intervals between two readings where a poll is missing; one may be late
GOOD = '[[device]]\nid = "meter-1"\nevery = 2.0\n'
DEAF = "topic write #\n"
TLS = "listener {port} 127.0.0.1\ncafile {ca}\n{pair}\n"
UNCHANGED = "meter-0", "meter-2", "meter-3"


def slower(b: Bench) -> None:
    """Have the devices read at a pace that a busy machine keeps."""
    b.daemon.config.write_text(b.daemon.config.read_text().replace("every = 0.1", f"every = {EVERY_S}"))


def times(b: Bench, device: str) -> list[float]:
    """Return when a device was read."""
    return sorted(record.time for record in b.heard.records if record.name == f"{POLE}/{device}/voltage_l1")


async def all_is_well(b: Bench) -> None:
    """Prove that the devices nobody touched missed nothing, and that nothing is lost."""
    packs = len(b.heard.packs[DATASET])
    await b.wait(packs + 10)
    await asyncio.to_thread(b.daemon.stop)
    assert not b.heard.holes()
    for device in UNCHANGED:
        read = times(b, device)
        assert max(later - earlier for earlier, later in itertools.pairwise(read)) < MISSED * EVERY_S, device


@pytest.fixture
def others(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Run brokers to which no pole should go: one gives nothing back, for one nobody vouches."""
    for name in ("deaf", "unknown"):
        (tmp_path / name).mkdir()
    (tmp_path / "deaf" / "rules").write_text(DEAF)
    deaf = mosquitto(tmp_path / "deaf", f"acl_file {tmp_path}/deaf/rules")
    ours, port = Authority(tmp_path / "unknown"), free_port()
    unknown = mosquitto(tmp_path / "unknown", TLS.format(port=port, ca=ours.cert, pair=ours.issue("broker").lines))
    deaf.start()
    unknown.start()
    yield {"absent": free_port(), "deaf": deaf.port, "unknown": port}
    deaf.stop()
    unknown.stop()


HARM = {
    "no broker is there": ('[uplink]\nurl = "mqtt://127.0.0.1:{absent}"\n', "RB_UPSTREAM"),
    "the broker lets nobody subscribe": ('[uplink]\nurl = "mqtt://127.0.0.1:{deaf}"\n', "RB_UPSTREAM"),
    "nobody vouches for the broker": ('[uplink]\nurl = "mqtts://127.0.0.1:{unknown}"\n', "RB_UPSTREAM"),
    "no unit answers": ('[[device]]\nid = "meter-1"\nunit = 99\n', "RB_SENSORS"),
    "an interval of 0": ('[[device]]\nid = "meter-1"\nevery = 0\n', "SEMANTIC"),
    "a sensor that is not there": ('[[device]]\nid = "meter-9"\nevery = 1.0\n', "SEMANTIC"),
}


@pytest.mark.parametrize("name", HARM)
def test_a_document_that_harms_is_taken_back_and_costs_the_others_no_poll(
    tmp_path: Path, others: dict[str, int], name: str
) -> None:
    layer, verdict = HARM[name]

    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            operator.send(1, layer.format(**others))
            await operator.hears(verdict, 1)
            operator.send(2, GOOD)
            await operator.hears("COMMITTED", 2)
            await all_is_well(b)

    asyncio.run(main())


@pytest.mark.parametrize("moment", ["before it comes", "while it is tried", "just after it was applied"])
def test_a_link_that_breaks_at_any_moment_changes_nothing_about_a_good_document(tmp_path: Path, moment: str) -> None:
    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            if moment == "before it comes":
                b.relay.cut()
            operator.send(1, GOOD)
            if moment != "before it comes":
                await until(lambda: any("trial" in report for report in operator.reports))
            if moment == "while it is tried":
                await asyncio.sleep(0.5)
            b.relay.cut()
            await asyncio.sleep(1)
            b.relay.restore()
            await operator.hears("COMMITTED", 1)
            await all_is_well(b)

    asyncio.run(main())


def test_who_takes_the_session_over_again_and_again_is_survived(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            operator.send(1, GOOD)
            await asyncio.to_thread(_take_over, b.broker.port)
            operator.send(2, GOOD.replace("2.0", "3.0"))
            await operator.hears("COMMITTED", 2)
            await all_is_well(b)

    asyncio.run(main())


def _take_over(port: int) -> None:
    """Connect with the pole's client id, time and again."""
    for _ in range(8):
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=POLE, protocol=mqtt.MQTTv5)
        client.connect("127.0.0.1", port)
        client.loop(1)
        client.disconnect()
        client.loop(0.1)

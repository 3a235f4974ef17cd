"""Documents that would harm a pole, and harm that comes while one is tried: it comes back, and loses nothing.

Each takes half a minute at the most, and waits most of it.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway.remote.strict_json import LARGEST_BYTES
from hil.broker import free_port, mosquitto
from hil.rs485 import Rs485
from hil.twins.modbus import noise
from hil.twins.nmea0183 import Nmea0183
from hil.uart import Uart
from hil.wire import Wire
from tests.link.pki import Authority
from tests.store.buffer_fs import mount
from tests.store.test_buffer_fs import UNSHARE
from tests.whole.bench_pole import DATASET, POLE, Bench
from tests.whole.over_the_air_scene import (
    DESIRED,
    EVERY_S,
    GOOD,
    UNCHANGED,
    all_is_well,
    operated,
    slower,
    times,
    until,
)

pytestmark = pytest.mark.soak

DEAF = "topic write #\n"
TLS = "listener {port} 127.0.0.1\ncafile {ca}\n{pair}\n"
SERIAL = """\
[port.pair]
path = "{folder}/pair"
baud = 9600
[[device]]
id = "noise"
driver = "modbus"
port = "pair"
profile = "rs485-noise-meter"
every = {every}
[port.mast]
path = "{folder}/mast"
[[device]]
id = "gnss"
driver = "nmea0183"
port = "mast"
every = {every}
"""
FLOOD_S = 6.0
FLOODED = 4.0  # intervals between two readings while the machine of the test is busy with the flood as well
HARDLY_SIGNED = b'{"payloadType":"application/vnd.polegate.config.v1+json","payload":"","signatures":[]}'
MANY_OBJECTS = b"[" + b"{}," * (LARGEST_BYTES // 12) + b"{}]"


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


@contextlib.contextmanager
def serial_lines(folder: Path) -> Iterator[None]:
    """Plug in two adapters with devices that are set to 9600 baud: one is asked, one talks by itself."""
    pair = Rs485(Wire(folder / "pair"), [noise(1)], baud=9600)
    mast = Uart(Wire(folder / "mast"), Nmea0183(), baud=9600)
    with contextlib.closing(pair), contextlib.closing(mast):
        pair.plug()
        mast.plug()
        yield


@pytest.mark.parametrize(("port", "device", "other"), [("pair", "noise", "gnss"), ("mast", "gnss", "noise")])
def test_a_baud_rate_that_silences_a_line_is_taken_back_and_costs_the_others_no_poll(
    tmp_path: Path, port: str, device: str, other: str
) -> None:
    def prepare(b: Bench) -> None:
        slower(b)
        b.daemon.config.write_text(b.daemon.config.read_text() + SERIAL.format(folder=tmp_path, every=EVERY_S))

    async def main() -> None:
        with serial_lines(tmp_path):
            async with operated(tmp_path, prepare) as (b, operator):
                operator.send(1, f"[port.{port}]\nbaud = 1200\n")
                report = await operator.hears("RB_SENSORS", 1)
                assert report["last"]["text"] == f"no values since it was applied from {device}, and before"
                read = len(times(b, device))
                await until(lambda: len(times(b, device)) >= read + 2)
                operator.send(2, GOOD)
                await operator.hears("COMMITTED", 2)
                await all_is_well(b, (*UNCHANGED, other))

    asyncio.run(main())


def test_a_broker_with_the_certificate_of_another_name_is_given_up_and_told(tmp_path: Path) -> None:
    ours, port, wrong_port = Authority(tmp_path), free_port(), free_port()
    (tmp_path / "wrong").mkdir()
    pair = ours.issue("other", host="other.example")
    wrong = mosquitto(tmp_path / "wrong", TLS.format(port=wrong_port, ca=ours.cert, pair=pair.lines))

    def prepare(b: Bench) -> None:
        slower(b)
        b.relay.target = port
        text = b.daemon.config.read_text().replace('url = "mqtt:', f'ca_file = "{ours.cert}"\nurl = "mqtts:')
        b.daemon.config.write_text(text)

    async def main() -> None:
        extra = TLS.format(port=port, ca=ours.cert, pair=ours.issue("broker").lines)
        async with operated(tmp_path, prepare, extra=extra) as (b, operator):
            operator.send(1, f'[uplink]\nurl = "mqtts://localhost:{wrong_port}"\n')
            report = await operator.hears("RB_UPSTREAM", 1)
            why = 'made out to another name than localhost; write a name that it has into "url"'
            assert why in report["last"]["text"]
            assert report["streams"][f"pole/{POLE}"]["fate"] == "RB_UPSTREAM"
            assert "gone" not in b.heard.states  # the link to the broker of before was never given up
            operator.send(2, GOOD)
            await operator.hears("COMMITTED", 2)
            await all_is_well(b)

    wrong.start()
    try:
        asyncio.run(main())
    finally:
        wrong.stop()


@pytest.mark.parametrize(("payload", "per_s"), [(HARDLY_SIGNED, 10_000), (MANY_OBJECTS, 240)], ids=["small", "large"])
def test_a_broker_that_floods_does_not_stop_the_polls(tmp_path: Path, payload: bytes, per_s: int) -> None:
    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            await asyncio.to_thread(_flood, b.broker.port, payload, per_s)
            operator.send(1, GOOD)
            await operator.hears("COMMITTED", 1)
            await all_is_well(b, longest=FLOODED)

    asyncio.run(main())


def _flood(port: int, payload: bytes, per_s: int) -> None:
    """Publish that so often, as nobody who may sign does."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="hostile", protocol=mqtt.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    began, sent = time.monotonic(), 0
    while (passed := time.monotonic() - began) < FLOOD_S:
        for _ in range(round(passed * per_s) - sent):
            client.publish(DESIRED, payload)
            sent += 1
        time.sleep(0.01)
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("moment", ["before it comes", "while it is tried", "just after it was applied"])
def test_a_link_that_breaks_at_any_moment_changes_nothing_about_a_good_document(tmp_path: Path, moment: str) -> None:
    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            if moment == "before it comes":
                b.relay.cut()
            operator.send(1, GOOD)
            if moment != "before it comes":
                await operator.hears_of_trial()
            if moment == "while it is tried":
                await asyncio.sleep(0.5)
            b.relay.cut()
            await asyncio.sleep(1)
            b.relay.restore()
            await operator.hears("COMMITTED", 1)
            await all_is_well(b)

    asyncio.run(main())


def test_a_broker_that_is_killed_while_a_document_is_tried_changes_nothing_about_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            operator.send(1, GOOD, hold_s=2)
            await operator.hears_of_trial()
            await asyncio.to_thread(b.receiver.fence)
            b.broker.kill()
            b.broker.start()
            await operator.hears("COMMITTED", 1)
            await all_is_well(b)

    asyncio.run(main())


def test_an_edit_of_the_file_while_a_document_is_tried_waits_for_its_end_and_both_hold(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            operator.send(1, GOOD, hold_s=2)
            await operator.hears_of_trial()
            text = b.daemon.config.read_text()
            edited = text.replace('port = "p2"', 'port = "p2"\nheight = 3.0')
            b.daemon.config.write_text(edited)
            os.kill(b.daemon.pid, signal.SIGHUP)
            await operator.hears("COMMITTED", 1)
            report = await operator.hears("COMMITTED", 0)
            assert report["last"]["stream"] == "local"
            assert report["streams"][f"pole/{POLE}"]["active_seq"] == 1
            await until(lambda: b.heard.catalogues[DATASET]["polegate:devices"]["meter-2"].get("height") == 3.0)
            await all_is_well(b, ("meter-0", "meter-3"))

    asyncio.run(main())


def test_a_disk_that_may_only_be_read_from_the_midst_of_a_trial_on_takes_it_back(tmp_path: Path) -> None:
    if subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode:  # noqa: S603
        pytest.skip("a mount namespace is not permitted here")
    command = [*UNSHARE, sys.executable, "-m", __name__, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


async def on_a_disk_that_may_only_be_read(folder: Path) -> None:
    """Play that; what is mounted here is mounted for this process and its children alone."""
    disk = folder / "config"

    def prepare(b: Bench) -> None:
        slower(b)
        disk.mkdir()
        mount(disk)

    async with operated(folder, prepare) as (b, operator):
        operator.send(1, GOOD, hold_s=5)
        await operator.hears_of_trial()
        mount(disk, "remount", "ro")
        report = await operator.hears("STORAGE", 1)
        assert "it proved itself, and that cannot be written down: [Errno 30]" in report["last"]["text"]
        mount(disk, "remount", "rw")
        operator.send(2, GOOD)
        await operator.hears("COMMITTED", 2)
        await all_is_well(b)


def test_who_takes_the_session_over_again_and_again_is_survived(tmp_path: Path) -> None:
    async def main() -> None:
        async with operated(tmp_path, slower) as (b, operator):
            operator.send(1, GOOD, hold_s=5)
            await operator.hears_of_trial()
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


if __name__ == "__main__":
    asyncio.run(on_a_disk_that_may_only_be_read(Path(sys.argv[1])))

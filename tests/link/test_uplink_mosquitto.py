"""The delivering half against Debian's mosquitto: what the scripted broker cannot prove of itself."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivers.ruuvi import Ruuvi
from gateway.jobs.report import Report
from gateway.words.catalogue import Catalogue
from hil.broker import Broker as Mosquitto
from hil.broker import mosquitto
from hil.receiver import Receiver
from tests.link.broker_scene import where
from tests.link.mosquitto_scene import TOPIC, forwarding, pack, play, until, uplink_to
from tests.words.contract import some_state

Lab = Callable[[str], Mosquitto]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Give a function that starts a broker with some lines of configuration; it is stopped in the end."""
    monkeypatch.setattr("gateway.link.uplink.FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("gateway.link.uplink.LONGEST_PAUSE_S", 0.2)
    with contextlib.ExitStack() as stack:

        def start(extra: str = "") -> Mosquitto:
            folder = tmp_path / "mosquitto"
            folder.mkdir()
            broker = mosquitto(folder, extra)
            broker.start()
            stack.callback(broker.stop)
            return broker

        yield start


def test_a_message_that_mosquitto_denies_is_refused_and_the_pack_stays(lab: Lab, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read pole/#\ntopic write pole/1/+/data/noise\n")
    broker = lab(f"acl_file {acl}")

    async def scene() -> None:
        async with uplink_to(where(broker.port)) as uplink, forwarding(tmp_path, uplink) as buffer:
            for n in range(1, 6):
                buffer.put(pack(n, "air"), 10.0)
                buffer.put(pack(n, "noise"), 10.0)
            await until(lambda: buffer.depth.packs <= 5)
            await asyncio.sleep(0.2)
            assert buffer.depth.packs == 5
            assert uplink.up
            await asyncio.to_thread(
                receiver.wait, lambda: len(receiver.heard("pole-7").packs["noise"]) == 5, 5.0, "the noise"
            )
            assert not receiver.heard("pole-7").packs["air"]

    with Receiver(broker.port) as receiver:
        play(scene)


def test_who_comes_late_finds_state_and_catalogue_and_then_the_end_in_the_words_of_the_state(lab: Lab) -> None:
    broker = lab("")
    catalogue = Catalogue("pole-7", [Ruuvi(id="tag", driver="ruuvi", address="AA:BB:CC:DD:EE:FF")], {})

    async def told(what: str, **facts: str) -> None:
        with Receiver(broker.port, name=f"late for {what}") as late:
            heard = late.heard("pole-7")
            await asyncio.to_thread(late.wait, lambda: heard.state.get("status") == what, 5.0, what)
            await asyncio.to_thread(late.wait, lambda: bool(heard.catalogues), 5.0, "the catalogue")
            assert heard.state.items() >= {"status": what, **facts}.items()
            assert heard.catalogues == {"weather": json.loads(catalogue.document("weather"))}

    async def scene() -> None:
        for in_order in (True, False):
            async with uplink_to(where(broker.port)) as uplink:
                report = Report(uplink, catalogue, topic=TOPIC, state=some_state, matters=lambda: None)
                link = await uplink.link()
                job = asyncio.create_task(report.run())
                await told("online", version="1")
                job.cancel()
                await asyncio.wait([job])
                if in_order:
                    await report.tell_state(link, "stopped")
                    await uplink.close()
                    await told("stopped", version="1")
                else:
                    link.abort()
                    await link.broken()
        await told("gone")

    play(scene)


def test_user_and_password_open_the_broker_and_a_wrong_password_is_told(lab: Lab, tmp_path: Path) -> None:
    users = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "pole-7", "right"], check=True)  # noqa: S603, S607
    broker = lab(f"allow_anonymous false\npassword_file {users}")
    password = tmp_path / "password"

    async def scene() -> None:
        password.write_text("wrong")
        async with uplink_to(where(broker.port, password_file=password)) as uplink:
            await until(lambda: "not connected yet" not in uplink.trouble)
            assert "refuses to let this pole in: Not authorized; see username and password_file in" in uplink.trouble
        password.write_text("right\n")
        async with uplink_to(where(broker.port, password_file=password)) as uplink:
            await uplink.link()

    play(scene)

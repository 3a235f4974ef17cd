"""Other brokers are named while the uplink runs: the link there is goes on until another one works."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.link.broker import Message
from gateway.link.mqtt_link import Link
from gateway.link.tls import TlsFiles
from gateway.link.uplink import ASTRAY_S, LONGEST_PAUSE_S, Uplink
from hil.broker import Broker as Mosquitto
from hil.broker import mosquitto
from hil.mqtt_packets import Connect
from hil.scripted_broker import Accept, Close, Deeds, Refuse, ScriptedBroker
from tests.link.broker_scene import another_broker, play, where
from tests.link.mosquitto_scene import until, uplink_to
from tests.link.pki import Authority

HOUR_S = 3600.0
GONE = 1  # nobody listens on that port


async def settled(uplink: Uplink) -> Link:
    """Wait until the link is to a broker that is named."""
    link = await uplink.link()
    while uplink.astray:
        await asyncio.sleep(0.1)
        link = await uplink.link()
    return link


def test_a_new_broker_is_gone_to_at_once_and_the_old_link_is_closed_in_order() -> None:
    async def scene(old: ScriptedBroker) -> None:
        async with another_broker() as new, uplink_to(where(old.port)) as uplink:
            link = await uplink.link()
            uplink.change([where(new.port)])
            assert uplink.astray == "not tried yet"
            assert await settled(uplink) is not link
            assert uplink.state["broker"] == f"127.0.0.1:{new.port}"
            await asyncio.sleep(1)
            assert (old.goodbyes, old.wills, len(new.connects)) == (1, [], 1)

    play(scene)


def test_a_broker_that_is_not_there_is_tried_again_and_again_beside_the_link_there_is() -> None:
    async def scene(old: ScriptedBroker) -> None:
        async with uplink_to(where(old.port)) as uplink:
            link = await uplink.link()
            uplink.change([where(GONE)])
            await asyncio.sleep(1)
            assert "refused" in uplink.astray
            assert (await uplink.link() is link, uplink.up, uplink.trouble) == (True, True, "")
            await link.send(Message("topic", b"payload"))
            uplink.change([where(old.port)])
            assert uplink.astray == ""
            await asyncio.sleep(HOUR_S)
            assert await uplink.link() is link
            assert len(old.connects) == 1

    play(scene)


def test_a_broker_that_lets_nobody_in_and_then_does_is_gone_to_within_seconds() -> None:
    async def scene(old: ScriptedBroker) -> None:
        async with another_broker() as new, uplink_to(where(old.port)) as uplink:
            await uplink.link()
            new.on_connect = lambda _: Refuse(0x87)
            uplink.change([where(new.port)])
            await asyncio.sleep(60)
            assert 60 / ASTRAY_S <= len(new.connects) <= 2 + 60 / (ASTRAY_S / 2)
            assert "refuses to let this pole in" in uplink.astray
            new.on_connect = lambda _: Accept()
            async with asyncio.timeout(ASTRAY_S + 1):
                await settled(uplink)

    play(scene)


def test_a_link_to_a_broker_that_stays_named_is_not_touched() -> None:
    async def scene(old: ScriptedBroker) -> None:
        async with uplink_to(where(old.port)) as uplink:
            link = await uplink.link()
            uplink.change([where(GONE), where(old.port)])
            assert uplink.astray == ""
            await asyncio.sleep(HOUR_S)
            assert await uplink.link() is link

    play(scene)


def test_an_uplink_that_waits_for_a_dead_broker_goes_to_a_new_one_at_once() -> None:
    async def scene(new: ScriptedBroker) -> None:
        async with uplink_to(where(GONE)) as uplink:
            await asyncio.sleep(HOUR_S)
            uplink.change([where(new.port)])
            async with asyncio.timeout(0.5):
                await uplink.link()

    play(scene)


def test_a_broker_that_answers_when_it_is_not_named_any_more_gets_nothing() -> None:
    async def scene(old: ScriptedBroker) -> None:
        async with another_broker() as slow, uplink_to(where(old.port)) as uplink:
            link = await uplink.link()

            def answer_late(_: Connect) -> Deeds:
                uplink.change([where(old.port)])
                return Accept()

            slow.on_connect = answer_late
            uplink.change([where(slow.port)])
            await asyncio.sleep(HOUR_S)
            assert (await uplink.link() is link, uplink.astray) == (True, "")
            assert (len(slow.connects), slow.goodbyes) == (1, 1)
            old.drop()
            await asyncio.sleep(LONGEST_PAUSE_S)
            assert uplink.state["broker"] == f"127.0.0.1:{old.port}"

    play(scene)


def test_when_the_old_link_breaks_only_the_new_brokers_are_tried() -> None:
    async def scene(old: ScriptedBroker) -> None:
        async with uplink_to(where(old.port)) as uplink:
            await uplink.link()
            uplink.change([where(GONE)])
            await asyncio.sleep(30)
            old.drop()
            await asyncio.sleep(HOUR_S)
            assert len(old.connects) == 1
            assert not uplink.up
            uplink.change([where(old.port)])
            async with asyncio.timeout(0.5):
                await uplink.link()

    play(scene)


def test_nothing_is_sent_to_a_new_broker_before_the_link_to_it_has_proved_itself() -> None:
    async def scene(old: ScriptedBroker) -> None:
        lacks = ["it does not let the pole subscribe"]

        async def proof(link: Link) -> str:
            await link.send(Message("proof", b""))
            await asyncio.sleep(1)
            assert await uplink.link() is first
            return lacks[0]

        async with another_broker() as best, another_broker() as new, uplink_to(where(old.port)) as uplink:
            best.on_connect = lambda _: Refuse(0x88)
            first = await uplink.link()
            uplink.change([where(best.port), where(new.port)], proof)
            await asyncio.sleep(30)
            assert "it does not let the pole subscribe" in uplink.astray
            assert uplink.state["broker"] == f"127.0.0.1:{old.port}"
            while new.goodbyes < len(new.connects):  # one may be on its way to prove itself
                assert await uplink.link() is first
                await asyncio.sleep(0.1)
            assert new.goodbyes == len(new.connects) == len(new.published) > 1
            lacks[0] = ""
            assert await settled(uplink) is not first
            proofs = len(new.published)
            new.drop()
            await asyncio.sleep(LONGEST_PAUSE_S)
            assert uplink.up
            assert len(new.published) == proofs  # once is enough
            best.on_connect = lambda _: Accept()
            await asyncio.sleep(HOUR_S)
            assert uplink.state["broker"] == f"127.0.0.1:{best.port}"
            assert best.published == []  # who named it knew what he did

    play(scene)


def test_a_way_back_needs_no_proof_and_a_link_that_stays_none_either() -> None:
    async def scene(old: ScriptedBroker) -> None:
        async def never(_: Link) -> str:
            return "no"

        async with another_broker() as new, uplink_to(where(old.port)) as uplink:
            link = await uplink.link()
            uplink.change([where(new.port), where(old.port)], never)
            await asyncio.sleep(HOUR_S)
            assert uplink.astray == ""
            assert await uplink.link() is link  # the better one is not used before it proves itself
            old.drop()
            old.on_connect = lambda _: Close()
            await asyncio.sleep(LONGEST_PAUSE_S)
            assert uplink.state["broker"] == f"127.0.0.1:{new.port}"  # unless it is the only one there is
            old.on_connect = lambda _: Accept()
            uplink.change([where(old.port)])
            await settled(uplink)
            uplink.change([where(new.port)], never)
            await asyncio.sleep(1)
            old.drop()
            await asyncio.sleep(LONGEST_PAUSE_S)
            assert not uplink.up
            uplink.change([where(old.port)])
            async with asyncio.timeout(LONGEST_PAUSE_S):
                await uplink.link()

    play(scene)


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Authority], Mosquitto]:
    monkeypatch.setattr("gateway.link.uplink.ASTRAY_S", 0.2)

    def start(authority: Authority) -> Mosquitto:
        folder = tmp_path / "mosquitto"
        folder.mkdir()
        it = mosquitto(folder, authority.issue("broker").lines)
        it.start()
        return it

    return start


def test_what_worked_of_other_files_does_not_hide_that_new_ones_do_not(
    tmp_path: Path, broker: Callable[[Authority], Mosquitto]
) -> None:
    """Else the pole would be stranded by the next restart."""

    async def scene() -> None:
        ours, other = Authority(tmp_path), Authority(tmp_path, "other")
        with contextlib.closing(_Stopped(broker(ours))) as stopped:
            good = where(stopped.port, tls=TlsFiles(ca=str(ours.cert)))
            bad = where(stopped.port, tls=TlsFiles(ca=str(other.cert)))
            async with uplink_to(good) as uplink:
                link = await uplink.link()
                uplink.change([bad])
                await until(lambda: "not signed by a CA in ca_file" in uplink.astray)
                assert await uplink.link() is link
                other.cert.write_bytes(ours.cert.read_bytes())
                assert await settled(uplink) is not link

    asyncio.run(scene())


def test_a_name_that_the_brokers_certificate_has_not_is_not_gone_to(
    tmp_path: Path, broker: Callable[[Authority], Mosquitto]
) -> None:
    async def scene() -> None:
        ours = Authority(tmp_path)
        with contextlib.closing(_Stopped(broker(ours))) as stopped:
            files = TlsFiles(ca=str(ours.cert))
            async with uplink_to(where(stopped.port, tls=files)) as uplink:
                link = await uplink.link()
                uplink.change([where(stopped.port, tls=files, host="localhost")])
                await until(lambda: "made out to another name than localhost" in uplink.astray)
                assert await uplink.link() is link

    asyncio.run(scene())


class _Stopped:
    """A broker that is stopped in the end."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self.port = broker.port

    def close(self) -> None:
        self._broker.stop()

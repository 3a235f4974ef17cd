"""An identity from its beginning to its end: made on the pole, signed, used, renewed while it sends, revoked."""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hil.broker import free_port, mosquitto
from hil.daemon import Daemon
from hil.modbus_tcp import ModbusTcp
from hil.receiver import Receiver
from hil.twins.modbus import sdm630
from tests.commands.cli_scene import call
from tests.link.mqtt_client import Client, NotConnected
from tests.link.pki import Authority, Pair

POLE = "pole-7"
LIMIT_S = 60.0
CONFIG = """\
[pole]
id = "{pole}"
[uplink]
url = "mqtts://127.0.0.1:{port}"
ca_file = "{authority.cert}"
cert_file = "{folder}/pole.pem"
key_file = "{folder}/pole.key"
[buffer]
path = "{folder}/buffer.db"
[port.cabinet]
path = "tcp://127.0.0.1:{meter}"
[dataset.energy]
send_every = 0.1
commit_within = 0.5
[[device]]
id = "meter"
driver = "modbus"
port = "cabinet"
profile = "eastron-sdm630"
every = 0.1
"""
HURRIED = """\
#!{python}
from gateway.__main__ import main
from gateway.link import uplink

uplink.LOOK_S, uplink.FIRST_PAUSE_S, uplink.LONGEST_PAUSE_S = 0.05, 0.05, 0.2
main()
"""


class Pole:
    """A pole that sends, and a broker with TLS that lets in those with a certificate that is not revoked."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.port = free_port()
        self.broker = mosquitto(folder, self.authority.listener(self.port))
        self._folder = folder
        (folder / "pole").mkdir()
        hurried = folder / "pole" / "polegate"
        hurried.write_text(HURRIED.format(python=sys.executable))
        hurried.chmod(0o755)
        self.daemon = Daemon(folder / "pole", command=str(hurried))
        self.receiver = Receiver(self.broker.port)
        self.heard = self.receiver.heard(POLE)

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Run the gateway, with a meter."""
        meter = ModbusTcp([sdm630(1)])
        await meter.start()
        self.configure(meter.port)
        try:
            with self.receiver:
                yield
        finally:
            await asyncio.to_thread(self.daemon.stop)
            await meter.close()

    def configure(self, meter: int) -> None:
        """Write its configuration."""
        where = {"port": self.port, "authority": self.authority, "folder": self.daemon.folder, "meter": meter}
        self.daemon.config.write_text(CONFIG.format(pole=POLE, **where))

    def renew(self, *options: str, days: float) -> Pair:
        """Do what a technician does; return a copy, as a thief has it."""
        config, signed = str(self.daemon.config), self._folder / "signed.pem"
        asked = call("identity", "csr", "--config", config, *options)
        signed.write_bytes(self.authority.sign(asked.out.encode(), days=days))
        taken = call("identity", "install", str(signed), "--config", config, "--ca", str(self.authority.cert))
        assert taken.code == 0, taken.err
        copy = Pair(self._folder / f"{days}.pem", self._folder / f"{days}.key")
        Pair(self.daemon.folder / "pole.pem", self.daemon.folder / "pole.key").copy_to(copy)
        return copy

    async def wait(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is true."""
        await asyncio.to_thread(self.receiver.wait, true, LIMIT_S, what)

    async def packs_come(self) -> None:
        """Wait for some more packs."""
        enough = len(self.heard.packs["energy"]) + 3
        await self.wait(lambda: len(self.heard.packs["energy"]) >= enough, "packs")

    async def uses(self, pair: Pair) -> None:
        """Wait until the pole says that it uses this one, and go on with it for a while."""
        end = self.authority.files(pair).read().expires
        await self.wait(lambda: self.heard.state.get("uplink", {}).get("certificate_expires") == end, "the new one")
        await self.packs_come()

    def entries(self) -> int:
        """Count how often the broker has let it in."""
        return len(re.findall(rf"New client connected from \S+ as {POLE} ", self.broker_log()))

    def broker_log(self) -> str:
        """Return what the broker has told."""
        return (self._folder / "broker.log").read_text()


def test_a_pole_goes_from_one_key_to_the_next_while_it_sends_and_the_old_one_can_be_revoked(tmp_path: Path) -> None:
    pole = Pole(tmp_path)

    async def scene() -> None:
        async with pole.sending():
            first = pole.renew(days=3)
            pole.daemon.start()
            await pole.uses(first)
            await pole.uses(pole.renew(days=4))
            second = pole.renew("--new-key", days=5)
            assert second.key.read_bytes() != first.key.read_bytes()
            await pole.uses(second)
            assert pole.heard.state["uplink"]["certificate_trouble"] == ""
            assert "uplink is down" not in pole.daemon.output()
            assert pole.entries() == 3
            assert not pole.heard.holes()

            pole.authority.revoke(first)
            pole.broker.reload()
            await pole.wait(lambda: "Reloading config" in pole.broker_log(), "the broker reads nothing")
            with pytest.raises(NotConnected):
                await asyncio.to_thread(Client(pole.port, pole.authority, first).__enter__)
            assert pole.entries() == 3
            await asyncio.to_thread(pole.broker.kill)
            await asyncio.to_thread(pole.broker.start)
            await pole.packs_come()
            await pole.wait(lambda: not pole.heard.holes(), "packs are missing")
            assert {epoch for epoch, _ in pole.heard.packs["energy"]} == {1}

    pole.broker.start()
    try:
        asyncio.run(scene())
    finally:
        pole.broker.stop()


def test_a_link_that_is_open_outlives_its_certificate_and_a_list_that_is_over_locks_all_out(tmp_path: Path) -> None:
    """Why the README says to restart a mosquitto, and to write its list anew in time."""
    ours, port = Authority(tmp_path), free_port()
    broker = mosquitto(tmp_path, ours.listener(port))
    stolen, other = ours.issue("pole-7"), ours.issue("pole-8")

    def is_let_in(own: Pair) -> bool:
        with contextlib.suppress(NotConnected), Client(port, ours, own):
            return True
        return False

    broker.start()
    try:
        assert is_let_in(other)
        with Client(port, ours, stolen) as thief:
            ours.revoke(stolen)
            broker.reload()
            while "Reloading config" not in (tmp_path / "broker.log").read_text():
                assert thief.publish("topic")
            assert not is_let_in(stolen)
            assert is_let_in(other)
            assert thief.publish("topic")
        ours.revoke(stolen, days=-0.5)
        broker.stop()
        broker.start()
        assert not is_let_in(other)
    finally:
        broker.stop()

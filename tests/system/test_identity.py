"""The identity of a pole on a real systemd: how the service comes to its key, and what a renewal asks of it."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hil.broker import free_port, mosquitto
from hil.machine import Machine
from hil.receiver import Heard, Receiver
from tests.link.pki import Authority
from tests.system import scene
from tests.system.conftest import Installed
from tests.system.scene import LIMIT_S, cannot

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(cannot()), reason=cannot()), pytest.mark.timeout(300)]

CONFIG = "/etc/polegate/pole.toml"
KEY = "/etc/polegate/pole.key"
TLS = """\
url = "mqtts://127.0.0.1:{port}"
ca_file = "/etc/polegate/ca.pem"
cert_file = "/etc/polegate/pole.pem"
key_file = "{key}"
"""
AS_CREDENTIAL = "credential:mqtt-key"
RESTART = "restart it: systemctl restart polegate"
AT_ONCE = "a service that runs takes it within a minute"
NEAR_S = 600.0
UPLINK = "/var/lib/polegate-release/current/gateway/link/uplink.py"


@dataclass
class Pole:
    """A machine with the package, who signs for it, and what comes of it at the broker."""

    machine: Machine
    authority: Authority
    heard: Heard
    configuration: Callable[[str], str]

    def pid(self) -> int:
        """Return the number of the gateway's process."""
        return int(self.machine.shows("polegate", "MainPID"))

    def renew(self, *options: str, days: float) -> str:
        """Ask, sign and take; return what the pole says to that."""
        asked = self.machine.run("polegate", "identity", "csr", "--config", CONFIG, *options)
        self.machine.write("/root/signed.pem", self.authority.sign(asked.encode(), days=days).decode())
        self.machine.write("/root/ca.pem", self.authority.cert.read_text())
        take = ["polegate", "identity", "install", "/root/signed.pem", "--config", CONFIG, "--ca", "/root/ca.pem"]
        return self.machine.run(*take)

    def key_is(self, mode: str) -> bool:
        """Tell whether the key has this mode and owner, and had them after a boot."""
        self.machine.run("systemd-tmpfiles", "--create", "polegate.conf")
        return self.machine.run("stat", "--dereference", "--format=%a %U:%G", KEY).strip() == mode

    def uses_the_one_of(self, days: float) -> None:
        """Wait until the gateway says that it uses the certificate that ends then, and for packs."""

        def told() -> bool:
            end = self.heard.state.get("uplink", {}).get("certificate_expires") or 0
            now = float(self.machine.run("date", "+%s"))
            return bool(abs(end - now - days * 86_400) < NEAR_S)

        self.machine.wait(told, LIMIT_S, f"not used: {days} days")
        self.packs_come()

    def packs_come(self) -> None:
        """Wait for some."""
        enough = len(self.heard.packs["energy"]) + 3
        self.machine.wait(lambda: len(self.heard.packs["energy"]) >= enough, LIMIT_S, "no packs come")

    def longest_gap_s(self) -> float:
        """Return the longest time between two readings."""
        times = sorted({record.time for record in self.heard.records if record.name.startswith(f"{scene.POLE}/meter/")})
        return max(after - before for before, after in itertools.pairwise(times))


def looks_often(machine: Machine) -> None:
    """Have the gateway look at its files more often than it would."""
    machine.run("sed", "--in-place", "s/^LOOK_S = .*/LOOK_S = 0.5/", UPLINK)


@pytest.fixture(params=scene.bases(), ids=lambda base: base.name)
def below(request: pytest.FixtureRequest, installed: Installed) -> list[Path]:
    """A machine's folders."""
    return installed(request.param, "looks-often", looks_often)


@pytest.fixture
def pole(below: list[Path], tmp_path: Path) -> Iterator[Pole]:
    """A pole without a key."""
    ours, port = Authority(tmp_path), free_port()
    (tmp_path / "tls").mkdir()
    broker = mosquitto(tmp_path / "tls", ours.listener(port))
    broker.start()
    with contextlib.ExitStack() as stack:
        stack.callback(broker.stop)
        site = stack.enter_context(scene.site(tmp_path))
        receiver = stack.enter_context(Receiver(broker.port))
        machine = stack.enter_context(Machine(tmp_path / "machine", below, site.binds))
        machine.write("/etc/polegate/ca.pem", ours.cert.read_text())
        plain = f'url = "mqtt://127.0.0.1:{site.broker.port}"'

        def configuration(key: str) -> str:
            return site.configuration.replace(plain, TLS.format(port=port, key=key))

        yield Pole(machine, ours, receiver.heard(scene.POLE), configuration)


def test_a_key_that_systemd_hands_over_is_renewed_with_a_restart_and_its_certificate_without_one(
    pole: Pole, record_property: Callable[[str, object], None]
) -> None:
    machine = pole.machine
    machine.write(CONFIG, pole.configuration(AS_CREDENTIAL))
    assert RESTART in pole.renew(days=3)
    assert pole.key_is("600 root:root")
    machine.run("systemctl", "restart", "polegate")
    pole.uses_the_one_of(3)

    pid = pole.pid()
    assert AT_ONCE in pole.renew(days=4)
    pole.uses_the_one_of(4)
    assert pole.pid() == pid

    assert RESTART in pole.renew("--new-key", days=5)
    told = "restart the service, which has the key of its start"
    machine.wait(lambda: told in pole.heard.state["uplink"]["certificate_trouble"], LIMIT_S, "it is not told")
    pole.uses_the_one_of(4)
    assert pole.pid() == pid
    record_property("longest gap of readings before the restart, s", round(pole.longest_gap_s(), 1))
    machine.run("systemctl", "restart", "polegate")
    pole.uses_the_one_of(5)
    record_property("and with it", round(pole.longest_gap_s(), 1))
    assert pole.key_is("600 root:root")

    assert RESTART in pole.renew("--new-key", days=6)
    machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "polegate")  # systemd reads it anew here too
    pole.uses_the_one_of(6)
    machine.wait(lambda: not pole.heard.holes(), LIMIT_S, "packs are missing")


def test_a_key_that_the_service_reads_itself_is_renewed_without_a_restart(pole: Pole) -> None:
    machine = pole.machine
    machine.write(CONFIG, pole.configuration(KEY))
    assert AT_ONCE in pole.renew(days=3)
    assert pole.key_is("640 root:polegate")
    machine.run("systemctl", "restart", "polegate")
    pole.uses_the_one_of(3)
    pid = pole.pid()
    assert AT_ONCE in pole.renew("--new-key", days=4)
    pole.uses_the_one_of(4)
    assert (pole.pid(), pole.key_is("640 root:polegate")) == (pid, True)
    assert "uplink is down" not in machine.log()
    assert not pole.heard.holes()

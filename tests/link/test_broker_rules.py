"""The rules for mosquitto that config/broker ships, against clients that mean harm, over mutual TLS."""

import contextlib
import getpass
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hil.broker import Broker, free_port, program
from hil.daemon import Daemon
from hil.process import Process
from tests.link.mqtt_client import Client, NotConnected
from tests.link.pki import Authority, Pair

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "broker"
VICTIM, ATTACKER = "pole-1", "pole-2"
DESIRED = f"pole/1/{VICTIM}/config/desired"
LIMIT_S = 60.0


@dataclass
class Site:
    """A broker under the shipped rules, and everybody's certificates."""

    folder: Path
    port: int
    receivers_port: int
    poles: Authority
    receivers: Authority
    expired: Pair
    revoked: Pair

    def pole(self, name: str, *, own: Pair | None = None, client: str = "", will: str = "") -> Client:
        """Return a client with a pole's certificate."""
        return Client(self.port, self.poles, own or self.poles.issue(name, file="own"), name=client, will=will)

    def receiver(self, name: str) -> Client:
        """Return a client with a receiver's certificate."""
        return Client(self.receivers_port, self.poles, self.receivers.issue(name, file=name))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("broker")
    certs = folder / "certs"
    certs.mkdir()
    poles, receivers = Authority(folder, "poles"), Authority(folder, "receivers")
    own, expired, revoked = poles.issue("broker"), poles.issue("expired", days=-1), poles.issue("revoked")
    for source, name in (
        (poles.cert, "poles-ca.pem"),
        (receivers.cert, "receivers-ca.pem"),
        (poles.revoke(revoked), "poles-revoked.pem"),
        (own.cert, "broker.pem"),
        (own.key, "broker.key"),
    ):
        shutil.copy(source, certs / name)
    for name in ("poles", "receivers"):
        shutil.copy(SHIPPED / f"mosquitto-{name}.acl", folder / f"{name}.acl")
    ports = {"8883": free_port(), "8884": free_port()}
    text = (SHIPPED / "mosquitto.conf").read_text().replace("/etc/mosquitto/", f"{folder}/")
    text = re.sub(r"^listener (\d+)$", lambda found: f"listener {ports[found[1]]} 127.0.0.1", text, flags=re.MULTILINE)
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    (folder / "mosquitto.conf").write_text(f"user {getpass.getuser()}\npersistence_location {folder}/\n{text}")
    command = [program("mosquitto"), "-c", str(folder / "mosquitto.conf")]
    broker = Broker(Process(command, folder / "broker.log"), ports["8883"])
    broker.start()
    yield Site(folder, ports["8883"], ports["8884"], poles, receivers, expired, revoked)
    broker.stop()


def channels() -> dict[str, list[str]]:
    """Return the topics that a pole sends and hears, as config/asyncapi.json names them."""
    told = json.loads((ROOT / "config" / "asyncapi.json").read_text())
    found: dict[str, list[str]] = {"send": [], "receive": []}
    for operation in told["operations"].values():
        address = told["channels"][operation["channel"]["$ref"].rpartition("/")[2]]["address"]
        found[operation["action"]].append(re.sub(r"\{(?!pole\b)\w+\}", "air", address).replace("{pole}", VICTIM))
    return found


def test_a_pole_may_say_and_hear_all_that_it_has_to(site: Site) -> None:
    with site.pole(VICTIM) as pole, site.receiver("operator") as operator:
        for topic in channels()["send"]:
            assert pole.publish(topic), topic
        assert pole.subscribe(f"pole/1/{VICTIM}/command/replay")
        assert pole.subscribe(DESIRED)
        assert pole.subscribe(f"pole/1/{VICTIM}/state")
        assert pole.publish(f"pole/1/{VICTIM}/state", b"mine")
        assert operator.publish(DESIRED, b"ours", retain=True)
        assert operator.publish(f"pole/1/{VICTIM}/command/replay", b"{}")
        pole.settle()
    hears = [(f"pole/1/{VICTIM}/state", b"mine"), (DESIRED, b"ours"), (f"pole/1/{VICTIM}/command/replay", b"{}")]
    assert [told for told in pole.heard if told in hears] == hears


def test_the_gateway_gets_in_and_is_refused_nothing(site: Site, tmp_path: Path) -> None:
    own = site.poles.issue(VICTIM, file="gateway")
    daemon = Daemon(tmp_path)
    daemon.config.write_text(
        f'[pole]\nid = "{VICTIM}"\n[uplink]\nurl = "mqtts://127.0.0.1:{site.port}"\nca_file = "{site.poles.cert}"\n'
        f'cert_file = "{own.cert}"\nkey_file = "{own.key}"\n[buffer]\npath = "{tmp_path}/buffer.db"\n'
    )
    with site.receiver("operator") as operator:
        operator.subscribe(f"pole/1/{VICTIM}/state")
        daemon.start()
        try:
            give_up = time.monotonic() + LIMIT_S
            while not any(b'"online"' in payload for _, payload in operator.heard) and time.monotonic() < give_up:
                operator.settle()
        finally:
            assert daemon.stop() == 0
    assert any(b'"online"' in payload for _, payload in operator.heard), daemon.output()
    assert "does not take" not in daemon.output()
    assert "lets nobody ask" not in daemon.output()


FORGED = [
    f"pole/1/{VICTIM}/data/air",
    f"pole/1/{VICTIM}/catalogue/air",
    f"pole/1/{VICTIM}/state",
    f"pole/1/{VICTIM}/event/device",
    f"pole/1/{VICTIM}/config/reported",
    DESIRED,
    f"pole/1/{VICTIM}/command/replay",
    f"pole/1/{ATTACKER}/config/desired",  # its own: who has a pole's key does not configure it
    f"pole/1/{ATTACKER}/command/replay",
    "fleet/1/config/root/1",
    f"pole/1/{ATTACKER}/data/air/more",
    f"pole/1/{ATTACKER}",
    "anything",
    "$SYS/broker/load",
]


@pytest.mark.parametrize("topic", FORGED)
@pytest.mark.parametrize("payload", [b"forged", b""], ids=["forging", "clearing"])
def test_what_is_not_the_poles_own_is_refused_and_changes_nothing(site: Site, topic: str, payload: bytes) -> None:
    with site.receiver("operator") as operator:
        operator.publish(DESIRED, b"ours", retain=True)
        with site.pole(ATTACKER) as attacker:
            assert not attacker.publish(topic, payload, retain=True)
    with site.receiver("operator") as later:
        later.subscribe("pole/1/#")
        later.subscribe("fleet/1/config/#")
        later.settle()
    assert (DESIRED, b"ours") in later.heard
    assert not any(told == b"forged" for _, told in later.heard)


FILTERS = [
    "#",
    "+/#",
    "pole/1/#",
    f"pole/1/{VICTIM}/#",
    "pole/1/+/config/desired",
    "pole/1/+/data/+",
    DESIRED,
    f"pole/1/{VICTIM}/command/replay",
    "$share/group/#",
    f"$share/group/{DESIRED}",
    "$SYS/#",
]
EVIL_NAMES = [
    ATTACKER,
    "+",
    "#",
    f"{VICTIM}/config",
    f"{VICTIM}/#",
    "+/+",
    "$SYS",
    "%u",
    "%c",
    "../pole-1",
    VICTIM.upper(),
]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_no_certificate_hears_of_another_pole_or_speaks_for_it(site: Site, name: str) -> None:
    try:
        attacker = site.pole(name).__enter__()
    except NotConnected:
        return  # so much the better
    with attacker, site.receiver("operator") as operator, site.pole(VICTIM) as victim:
        for topic in FILTERS:
            attacker.subscribe(topic)
        assert operator.publish(DESIRED, b"secret", retain=True)
        assert operator.publish(f"pole/1/{VICTIM}/command/replay", b"secret")
        assert victim.publish(f"pole/1/{VICTIM}/data/air", b"secret")
        attacker.settle()
    assert [topic for topic, payload in attacker.heard if payload == b"secret"] == []
    assert not any(topic.startswith("$SYS") for topic, _ in attacker.heard)
    for topic in FORGED:
        if not topic.startswith(f"pole/1/{ATTACKER}"):
            with site.pole(name) as attacker:
                assert not attacker.publish(topic, b"forged"), topic


def test_a_will_is_no_way_to_speak_for_another_pole(site: Site) -> None:
    state = f"pole/1/{VICTIM}/state"
    with site.receiver("operator") as operator, site.pole(VICTIM) as victim:
        operator.subscribe(state)
        victim.publish(state, b"mine", retain=True)
        with contextlib.suppress(NotConnected):
            site.pole(ATTACKER, will=state).__enter__().drop()
        for _ in range(20):
            victim.publish(state, b"mine", retain=True)
        operator.settle()
    assert b"forged" not in {payload for _, payload in operator.heard}


def test_the_client_id_of_another_pole_does_not_take_its_session(site: Site) -> None:
    with site.pole(VICTIM, client=VICTIM) as victim:
        with site.pole(ATTACKER, client=VICTIM) as attacker:
            assert attacker.publish(f"pole/1/{ATTACKER}/data/air")
            assert not attacker.publish(f"pole/1/{VICTIM}/data/air")
        assert victim.publish(f"pole/1/{VICTIM}/data/air")


def test_a_tenant_has_his_dataset_and_nothing_else(site: Site) -> None:
    with site.receiver("tenant-air") as tenant, site.pole(VICTIM) as pole, site.receiver("operator") as operator:
        for topic in ("pole/1/+/data/air", "pole/1/+/catalogue/air", *FILTERS):
            tenant.subscribe(topic)
        for dataset in ("air", "energy", "configuration"):
            assert pole.publish(f"pole/1/{VICTIM}/data/{dataset}", dataset.encode())
        assert operator.publish(DESIRED, b"secret")
        assert tenant.publish(f"pole/1/{VICTIM}/command/replay")
        tenant.settle()
    data = {(topic, payload) for topic, payload in tenant.heard if "/data/" in topic or "/config/" in topic}
    assert data == {(f"pole/1/{VICTIM}/data/air", b"air")}
    for topic in (f"pole/1/{VICTIM}/data/air", "pole/1/tenant-air/data/air", DESIRED, "fleet/1/config/root/1"):
        with site.receiver("tenant-air") as tenant:
            assert not tenant.publish(topic, b"forged"), topic


def test_who_has_no_certificate_or_not_the_right_one_is_not_let_in(site: Site) -> None:
    strangers = Authority(site.folder, "strangers")
    poles, receivers = site.port, site.receivers_port
    for port, own in (
        (poles, None),
        (receivers, None),
        (poles, site.expired),
        (poles, site.revoked),
        (poles, strangers.issue(VICTIM, file="stranger")),
        (poles, site.receivers.issue(VICTIM, file="receiver-as-pole")),
        (receivers, site.poles.issue("operator", file="pole-as-operator")),
    ):
        with pytest.raises(NotConnected):
            Client(port, site.poles, own).__enter__()

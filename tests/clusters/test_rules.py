"""The examples for NATS and RabbitMQ in config/broker: a pole speaks for itself alone, and a tenant has his dataset.

Both speak MQTT 3.1.1, which has no word for a refusal: what counts is what arrives. RabbitMQ ends the link instead.
"""

import contextlib
import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from hil import rabbitmq
from hil.broker import Broker, free_port, program
from hil.process import Process
from tests.link.mqtt_client import Client, NotConnected
from tests.link.pki import Authority

SHIPPED = Path(__file__).parent.parent.parent / "config" / "broker"
VICTIM, ATTACKER = "pole-1", "pole-2"
DESIRED = f"pole/1/{VICTIM}/config/desired"
FORGED = f"pole/1/{VICTIM}/data/air", f"pole/1/{VICTIM}/state", DESIRED, f"pole/1/{ATTACKER}/config/desired"
PLUGINS = "rabbitmq_mqtt,rabbitmq_auth_mechanism_ssl"

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(300)]

Enter = Callable[[str], Client]


def shipped(name: str, folder: Path, port: int) -> str:
    """Read an example, with the places of the test."""
    text = re.sub(r"/etc/(nats|rabbitmq)/", f"{folder}/", (SHIPPED / name).read_text())
    text = text.replace("/var/lib/nats", f"{folder}/store").replace("127.0.0.1:4222", f"127.0.0.1:{free_port()}")
    return re.sub(r"(0\.0\.0\.0:|(?<== ))8883", f"127.0.0.1:{port}", text)


@contextlib.contextmanager
def nats(folder: Path) -> Iterator[Broker]:
    port = free_port()
    (folder / "nats.conf").write_text(shipped("nats.conf", folder, port))
    command = [program("nats-server"), "-c", str(folder / "nats.conf")]
    broker = Broker(Process(command, folder / "nats.log"), port)
    broker.start()
    yield broker
    broker.stop()


@contextlib.contextmanager
def rabbit(folder: Path) -> Iterator[Broker]:
    port = free_port()
    shutil.copy(SHIPPED / "rabbitmq-definitions.json", folder / "definitions.json")
    text = shipped("rabbitmq.conf", folder, port) + "\nlog.console = true\nlog.file = false\n"
    broker, epmd = rabbitmq.alone(folder, text, port, PLUGINS)
    epmd.start()
    broker.start()
    yield broker
    broker.stop()
    epmd.stop()


@pytest.fixture(scope="module", params=[nats, rabbit], ids=["nats", "rabbitmq"])
def enter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enter]:
    """Give a function that returns a client with a certificate of this name."""
    folder = tmp_path_factory.mktemp("rules")
    ours = Authority(folder)
    own = ours.issue("broker")
    for source, name in ((ours.cert, "ca.pem"), (own.cert, "broker.pem"), (own.key, "broker.key")):
        if source != folder / name:
            shutil.copy(source, folder / name)
    with request.param(folder) as broker:
        yield lambda name: Client(broker.port, ours, ours.issue(name, file="client"), name=name, version=mqtt.MQTTv311)


def test_a_pole_says_and_hears_what_it_has_to_and_the_operator_sees_it(enter: Enter) -> None:
    said = ["data/air", "catalogue/air", "state", "event/device", "config/reported"]
    with enter("operator") as operator, enter(VICTIM) as pole:
        assert operator.subscribe("pole/1/#")
        assert pole.subscribe(DESIRED)
        assert pole.subscribe(f"pole/1/{VICTIM}/command/#")
        assert pole.subscribe(f"pole/1/{VICTIM}/state")  # its own, to prove a link
        for topic in said:
            pole.publish(f"pole/1/{VICTIM}/{topic}", topic.encode())
        operator.publish(DESIRED, b"ours", retain=True)
        operator.publish(f"pole/1/{VICTIM}/command/replay", b"{}")
        until(pole, lambda: len(pole.heard) >= 3)
        until(operator, lambda: len(operator.heard) >= len(said) + 2)
    assert set(pole.heard) == {
        (DESIRED, b"ours"),
        (f"pole/1/{VICTIM}/command/replay", b"{}"),
        (f"pole/1/{VICTIM}/state", b"state"),
    }
    assert {(f"pole/1/{VICTIM}/{topic}", topic.encode()) for topic in said} <= set(operator.heard)


def test_nobody_speaks_for_a_pole_or_configures_it(enter: Enter) -> None:
    with enter("operator") as operator, enter(VICTIM) as pole:
        operator.subscribe("pole/1/#")
        operator.publish(DESIRED, b"ours", retain=True)
        for name, topic, payload in itertools.product((ATTACKER, "tenant-air"), FORGED, (b"forged", b"")):
            with contextlib.suppress(NotConnected), enter(name) as attacker:  # on a link of its own: it may be ended
                attacker.publish(topic, payload, retain=True)
        pole.publish(f"pole/1/{VICTIM}/data/air", b"fence")
        until(operator, lambda: (f"pole/1/{VICTIM}/data/air", b"fence") in operator.heard)
    assert not [told for told in operator.heard if told[1] in {b"forged", b""}]
    with enter(VICTIM) as later:
        later.subscribe(DESIRED)
        until(later, lambda: bool(later.heard))
    assert later.heard == [(DESIRED, b"ours")]


@pytest.mark.parametrize("wanted", ["#", "pole/1/#", f"pole/1/{VICTIM}/#", "pole/1/+/config/desired", DESIRED])
@pytest.mark.parametrize("name", [ATTACKER, "tenant-air", "+", "#"])
def test_nobody_hears_what_is_not_for_him(enter: Enter, name: str, wanted: str) -> None:
    with enter("operator") as operator, contextlib.suppress(NotConnected), enter(name) as attacker:
        attacker.subscribe(wanted)
        operator.publish(DESIRED, b"secret")
        attacker.settle()
        assert attacker.heard == []


def test_a_tenant_has_his_dataset(enter: Enter) -> None:
    with enter("tenant-air") as tenant, enter(VICTIM) as pole:
        assert tenant.subscribe("pole/1/+/data/air")
        pole.publish(f"pole/1/{VICTIM}/data/energy", b"energy")
        pole.publish(f"pole/1/{VICTIM}/data/air", b"air")
        until(tenant, lambda: bool(tenant.heard))
    assert tenant.heard == [(f"pole/1/{VICTIM}/data/air", b"air")]


def test_who_is_not_known_is_not_let_in(enter: Enter) -> None:
    with pytest.raises(NotConnected):
        enter("pole-3").__enter__()


def until(client: Client, true: Callable[[], bool]) -> None:
    """Take what the broker has for a client until something is true; the test has the limit."""
    while not true():
        client.hear()

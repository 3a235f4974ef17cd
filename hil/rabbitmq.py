"""Three nodes of Debian's rabbitmq-server with its MQTT plugin; sessions are quorum queues, kept by all of them.

The nodes are Erlang virtual machines. They find each other through ``epmd``, share a secret (the cookie, in HOME), and
would start an epmd of their own that outlives them; here one is started beside them, on a port of its own.
"""

import os
import secrets
from pathlib import Path

from hil.broker import Broker, free_port, program
from hil.cluster import Cluster
from hil.process import Process

NODES = 3
READY_S = 90.0
SCRIPTS = "/usr/lib/rabbitmq/bin"  # those of /usr/sbin change the user

CONFIG = """\
listeners.tcp = none
mqtt.listeners.tcp.1 = 127.0.0.1:{port}
mqtt.allow_anonymous = true
mqtt.durable_queue_type = quorum
log.console = true
log.file = false
cluster_formation.peer_discovery_backend = classic_config
"""
# the address of distribution is an Erlang tuple, which a shell does not split
ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false +S 1:1"


def rabbitmq(folder: Path) -> Cluster:
    """Return the nodes; what they keep and write lies in ``folder``."""
    epmd_port = _prepare(folder, "rabbitmq_mqtt")
    names = [f"node{number}@localhost" for number in range(NODES)]
    peers = "".join(f"cluster_formation.classic_config.nodes.{n} = {name}\n" for n, name in enumerate(names, 1))
    nodes = []
    for name in names:
        config, port = folder / f"{name}.conf", free_port()
        config.write_text(CONFIG.format(port=port) + peers)
        env = _environment(folder, name, config, epmd_port)
        process = Process([program("rabbitmq-server", SCRIPTS)], folder / f"{name}.log", env)
        nodes.append(Broker(process, port, ready_s=READY_S))
    return Cluster(
        name="rabbitmq",
        nodes=nodes,
        mqtt="3.1.1",
        durable=True,
        retained_everywhere=False,
        beside=[_epmd(folder, epmd_port)],
    )


def alone(folder: Path, config: str, port: int, plugins: str) -> tuple[Broker, Process]:
    """Return one node with a configuration of its own, and its epmd, which is started before it.

    Args:
        folder: where it may write.
        config: its configuration.
        port: where that has it listen.
        plugins: those it needs, with commas.
    """
    epmd_port = _prepare(folder, plugins)
    path = folder / "alone.conf"
    path.write_text(config)
    env = _environment(folder, "alone@localhost", path, epmd_port)
    process = Process([program("rabbitmq-server", SCRIPTS)], folder / "alone.log", env)
    return Broker(process, port, ready_s=READY_S), _epmd(folder, epmd_port)


def _prepare(folder: Path, plugins: str) -> str:
    """Write what nodes in a folder share, and return the port of their epmd."""
    home = folder / "home"
    home.mkdir()
    cookie = home / ".erlang.cookie"
    cookie.write_text(secrets.token_hex(16))
    cookie.chmod(0o400)
    (folder / "enabled_plugins").write_text(f"[{plugins}].\n")
    return str(free_port())


def _epmd(folder: Path, port: str) -> Process:
    return Process([program("epmd"), "-port", port, "-address", "127.0.0.1"], folder / "epmd.log")


def _environment(folder: Path, name: str, config: Path, epmd_port: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "ERL_EPMD_PORT": epmd_port,
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node, instead of starting it
    }

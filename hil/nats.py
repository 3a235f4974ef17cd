"""Three nodes of Debian's nats-server with JetStream, which keeps sessions and messages on all of them."""

import json
import urllib.request
from pathlib import Path

from hil.broker import Broker, free_port, program
from hil.cluster import Cluster
from hil.process import Process

NODES = 3
LOOK_S = 5.0
STREAMS = "/jsz?accounts=true&streams=true"

CONFIG = """\
server_name: node-{number}
listen: 127.0.0.1:{client}
http: 127.0.0.1:{monitor}
jetstream {{ store_dir: "{folder}/store-{number}" }}
cluster {{
  name: poles
  listen: 127.0.0.1:{route}
  routes: [{routes}]
}}
mqtt {{
  listen: 127.0.0.1:{mqtt}
  stream_replicas: {replicas}
  consumer_replicas: {replicas}
}}
"""


def nats(folder: Path) -> Cluster:
    """Return the nodes; what they keep and write lies in ``folder``."""
    command = program("nats-server")
    routes = [free_port() for _ in range(NODES)]
    nodes: list[Broker] = []
    monitors: list[tuple[str, int]] = []
    for number, route in enumerate(routes):
        config, port, monitor = folder / f"nats-{number}.conf", free_port(), free_port()
        config.write_text(
            CONFIG.format(
                number=number,
                client=free_port(),
                monitor=monitor,
                folder=folder,
                route=route,
                routes=", ".join(f"nats://127.0.0.1:{other}" for other in routes if other != route),
                mqtt=port,
                replicas=NODES,
            )
        )
        nodes.append(Broker(Process([command, "-c", str(config)], folder / f"nats-{number}.log"), port))
        monitors.append((f"node-{number}", monitor))
    return Cluster(
        name="nats",
        nodes=nodes,
        mqtt="3.1.1",
        durable=True,
        retained_everywhere=True,
        caught_up=lambda: all(_streams_are_current(*monitor) for monitor in monitors),
    )


def _streams_are_current(name: str, monitor: int) -> bool:
    """Ask a node whether the others have all of the streams that it leads; only the leader knows.

    /healthz would not do: it waits for consumers that died with a node.
    """
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor}{STREAMS}", timeout=LOOK_S) as answer:
            told = json.load(answer)
    except OSError:
        return False
    clusters = [stream["cluster"] for one in told["account_details"] for stream in one.get("stream_detail", [])]
    led = [cluster.get("replicas", []) for cluster in clusters if cluster.get("leader") == name]
    return all(sum(replica["current"] for replica in replicas) == NODES - 1 for replicas in led)

"""A small load for tests of the whole: Modbus TCP meters, a gateway process, mosquitto, a receiver."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from hil import broker
from hil.daemon import Daemon
from hil.modbus_tcp import ModbusTcp
from hil.receiver import Heard, Receiver
from hil.relay import Relay
from hil.twins.modbus import sdm630

POLE = "test-pole"
METERS = 4
EVERY_S = 0.1
DATASET = "energy"

CONFIG = """\
[pole]
id = "{pole}"
[uplink]
url = "mqtt://127.0.0.1:{port}"
[buffer]
path = "{folder}/buffer.db"
[dataset.{dataset}]
send_every = {send_every}
commit_within = {commit_within}
"""
METER = """
[port.p{n}]
path = "tcp://127.0.0.1:{port}"
[[device]]
id = "meter-{n}"
driver = "modbus"
port = "p{n}"
profile = "eastron-sdm630"
every = {every}
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a test of the whole works with."""

    broker: broker.Broker
    relay: Relay
    daemon: Daemon
    receiver: Receiver
    heard: Heard

    async def wait(self, packs: int, within: float = 15.0) -> None:
        """Wait until so many packs have been received."""
        await asyncio.to_thread(
            self.receiver.wait, lambda: len(self.heard.packs[DATASET]) >= packs, within, f"{packs} packs"
        )

    def committed(self) -> set[tuple[int, int]]:
        """Return the (epoch, n) of the packs that are in a copy of the gateway's database, as it lies there now."""
        copy = self.daemon.folder / "copy.db"
        for suffix in ("", "-wal"):
            source = Path(f"{self.daemon.database}{suffix}")
            if source.exists():  # the WAL goes when the file is closed in order
                Path(f"{copy}{suffix}").write_bytes(source.read_bytes())
        with contextlib.closing(sqlite3.connect(copy)) as sql:
            return set(sql.execute("SELECT id >> 32, n FROM pack WHERE dataset = ?", (DATASET,)))


@contextlib.asynccontextmanager
async def bench(
    folder: Path, *, commit_within: float = 0.5, send_every: float = 0.2, extra: str = ""
) -> AsyncIterator[Bench]:
    """Start everything but the gateway; ``extra`` is for the broker's configuration."""
    mosquitto = broker.mosquitto(folder, extra)
    mosquitto.start()
    relay = Relay(mosquitto.port)
    await relay.start()
    servers = [ModbusTcp([sdm630(1, seed=number)]) for number in range(METERS)]
    for server in servers:
        await server.start()
    daemon = Daemon(folder)
    daemon.config.write_text(
        CONFIG.format(
            pole=POLE,
            port=relay.port,
            folder=folder,
            dataset=DATASET,
            commit_within=commit_within,
            send_every=send_every,
        )
        + "".join(METER.format(n=number, port=server.port, every=EVERY_S) for number, server in enumerate(servers))
    )
    try:
        with Receiver(mosquitto.port) as receiver:
            yield Bench(mosquitto, relay, daemon, receiver, receiver.heard(POLE))
    finally:
        await asyncio.to_thread(daemon.stop)
        for server in servers:
            await server.close()
        await relay.close()
        mosquitto.stop()

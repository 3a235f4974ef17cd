"""Ten slaves on one line, asked every five seconds; one of them is dead. How late do the others become?"""

import asyncio
import itertools
from pathlib import Path

from hil import broker
from hil.bench.load import CONFIG
from hil.daemon import Daemon
from hil.receiver import Receiver
from hil.rs485 import Rs485
from hil.twins.modbus import noise
from hil.wire import Wire

SLAVES = 10
EVERY_S = 5.0
SECONDS = 90.0

DEVICE = """
[[device]]
id = "slave-{n}"
driver = "modbus"
port = "bus"
unit = {n}
profile = "rs485-noise-meter"
every = {every}
"""


async def measure(folder: Path, polegate: str) -> dict[str, float]:
    """Run the scenario. Takes some 90 seconds."""
    mosquitto = broker.mosquitto(folder)
    mosquitto.start()
    slaves = [noise(unit) for unit in range(1, SLAVES + 1)]
    slaves[0].alive = False
    line = Rs485(Wire(folder / "usb-HIL_bus"), slaves)
    line.plug()
    daemon = Daemon(folder, command=polegate)
    daemon.config.write_text(
        CONFIG.format(port=mosquitto.port, folder=folder)
        + f'\n[port.bus]\npath = "{line.wire.link}"\nbaud = 9600\n'
        + "".join(DEVICE.format(n=slave.unit, every=EVERY_S) for slave in slaves)
    )
    with Receiver(mosquitto.port) as receiver:
        daemon.start()
        await asyncio.sleep(SECONDS)
        await asyncio.to_thread(daemon.stop)
        records = receiver.heard("bench").records
    line.close()
    mosquitto.stop()
    gaps = []
    for slave in slaves[1:]:
        times = [r.time for r in records if r.name == f"bench/slave-{slave.unit}/sound_level"]
        gaps += [after - before for before, after in itertools.pairwise(times)]
    return {"dead_slave_lateness_ratio": max(gaps) / EVERY_S}

"""Ten Modbus TCP devices of 20 registers, once a second: 200 readings/s for a minute, broker there and broker away.

The CPU is set against a bare loop that does the same readings with as little as Python allows (``bare_loop``), the
bytes on the wire against what that loop sends: flat JSON, a message for each device, or one for each reading.
"""

import asyncio
import sys
from pathlib import Path

from hil import broker
from hil.bench.proc import cpu_s, written_bytes
from hil.daemon import Daemon
from hil.faults import Faults, seeded
from hil.modbus_tcp import ModbusTcp
from hil.process import Process
from hil.relay import Relay
from hil.truth import Wander
from hil.twins.modbus import ModbusSlave

DEVICES, REGISTERS = 10, 20
READINGS_PER_S = DEVICES * REGISTERS
SECONDS = 60.0
SETTLE_S = 8.0

CONFIG = """\
[pole]
id = "bench"
[uplink]
url = "mqtt://127.0.0.1:{port}"
[buffer]
path = "{folder}/buffer.db"
"""
DEVICE = """
[port.p{n}]
path = "tcp://127.0.0.1:{port}"
[[device]]
id = "device-{n}"
driver = "modbus"
port = "p{n}"
profile = "bench"
every = 1.0
"""
PROFILE = 'maker = "x"\nmodel = "x"\nsource = "x"\ndataset = "energy"\nfunction = 3\n'
REGISTER = '[[register]]\nchannel = "c{n}"\naddress = {n}\nunit = "V"\nscale = 0.1\ntitle = "x"\n'


async def measure(folder: Path, polegate: str) -> dict[str, float]:
    """Run the scenario. Takes some four minutes."""
    mosquitto = broker.mosquitto(folder)
    mosquitto.start()
    relay = Relay(mosquitto.port)
    await relay.start()
    servers = [ModbusTcp([slave(number)]) for number in range(DEVICES)]
    for server in servers:
        await server.start()
    ports = [server.port for server in servers]
    try:
        figures = await _gateway(folder, polegate, relay, ports)
        figures |= await _bare_loops(folder, relay, ports, figures)
    finally:
        for server in servers:
            await server.close()
        await relay.close()
        mosquitto.stop()
    return figures


async def _gateway(folder: Path, polegate: str, relay: Relay, ports: list[int]) -> dict[str, float]:
    daemon = Daemon(folder, command=polegate)
    configure(daemon, relay.port, ports)
    daemon.start()
    await asyncio.sleep(SETTLE_S)
    cpu, wrote, sent = cpu_s(daemon.pid), written_bytes(daemon.pid), relay.up + relay.down
    await asyncio.sleep(SECONDS)
    readings = READINGS_PER_S * SECONDS
    figures = {
        "cpu_us_per_reading": (cpu_s(daemon.pid) - cpu) / readings * 1e6,
        "wire_bytes_per_reading": (relay.up + relay.down - sent) / readings,
        "flash_bytes_per_reading_online": (written_bytes(daemon.pid) - wrote) / readings,
    }
    relay.cut()
    await asyncio.sleep(SETTLE_S)  # the buffer begins to write, and its WAL is there
    wrote = written_bytes(daemon.pid)
    await asyncio.sleep(SECONDS)
    figures["flash_bytes_per_reading_offline"] = (written_bytes(daemon.pid) - wrote) / readings
    relay.restore()
    await asyncio.to_thread(daemon.stop)
    return figures


async def _bare_loops(folder: Path, relay: Relay, ports: list[int], ours: dict[str, float]) -> dict[str, float]:
    cpu, together = await _bare_loop(folder, relay, ports, "together")
    _, singly = await _bare_loop(folder, relay, ports, "singly")
    return {
        "cpu_us_per_reading_bare_loop": cpu,
        "cpu_ratio_vs_bare_loop": ours["cpu_us_per_reading"] / cpu,
        "wire_ratio_vs_flat_json": ours["wire_bytes_per_reading"] / together,
        "wire_ratio_vs_json_per_reading": ours["wire_bytes_per_reading"] / singly,
    }


async def _bare_loop(folder: Path, relay: Relay, ports: list[int], how: str) -> tuple[float, float]:
    """Return its microseconds of CPU and bytes on the wire, both ways, a reading."""
    command = [sys.executable, "-m", "hil.bench.bare_loop", how, str(relay.port), *map(str, ports)]
    loop = Process(command, folder / "bare.log")
    loop.start()
    await asyncio.sleep(SETTLE_S)
    cpu, sent = cpu_s(loop.pid), relay.up + relay.down
    await asyncio.sleep(SECONDS / 2)
    readings = READINGS_PER_S * SECONDS / 2
    figures = (cpu_s(loop.pid) - cpu) / readings * 1e6, (relay.up + relay.down - sent) / readings
    await asyncio.to_thread(loop.stop)
    return figures


def configure(daemon: Daemon, broker_port: int, ports: list[int]) -> None:
    """Write its configuration, with the devices on these ports."""
    text = CONFIG.format(port=broker_port, folder=daemon.folder)
    text += "".join(DEVICE.format(n=number, port=port) for number, port in enumerate(ports))
    daemon.config.write_text(text)
    profiles = daemon.folder / "profiles"
    profiles.mkdir(exist_ok=True)
    (profiles / "bench.toml").write_text(PROFILE + "".join(REGISTER.format(n=n) for n in range(REGISTERS)))


def slave(number: int) -> ModbusSlave:
    """Make a device whose registers move as voltages do, in 0.1 V."""
    dice = seeded(number, "bench")
    volts = [Wander(dice, 230.0, 6.0) for _ in range(REGISTERS)]
    return ModbusSlave(
        unit=1,
        faults=Faults(number, "bench"),
        registers={3: lambda at: {n: round(volt.at(at) * 10) for n, volt in enumerate(volts)}},
        truth=lambda at: {f"c{n}": round(volt.at(at), 1) for n, volt in enumerate(volts)},
        turnaround_s=0.0,
    )

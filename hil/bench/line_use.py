"""Polls a second on an RS-485 line that is never idle, against what the wire allows.

Five slaves, ten registers each, 4 ms turnaround. The wire allows one poll in: request, silence that ends it,
turnaround, answer, silence before the next request. The emulated line keeps this process awake, so that its own
bytes are on time; the gateway has a core of its own.
"""

import asyncio
import contextlib
from pathlib import Path

from hil import broker
from hil.bench.load import CONFIG, PROFILE, REGISTER
from hil.daemon import Daemon
from hil.faults import Faults
from hil.rs485 import Rs485, silence_s
from hil.twins.modbus import ModbusSlave
from hil.wire import Wire

SLAVES, REGISTERS = 5, 10
TURNAROUND_S = 0.004
SETTLE_S, SECONDS = 5.0, 20.0
CHARACTER_BITS = 10
REQUEST, ANSWER = 8, 5 + 2 * REGISTERS

DEVICE = """
[[device]]
id = "slave-{n}"
driver = "modbus"
port = "bus"
unit = {n}
profile = "bench"
every = 0.01
"""


async def measure(folder: Path, polegate: str) -> dict[str, float]:
    """Run the scenario at both speeds. Takes some 50 seconds."""
    return {f"rtu_line_use_{baud}": await _line_use(folder / str(baud), polegate, baud) for baud in (9600, 115_200)}


def theory(baud: int) -> float:
    """Return the polls a second that the wire allows."""
    character_s = CHARACTER_BITS / baud
    return 1 / ((REQUEST + ANSWER) * character_s + 2 * silence_s(baud, character_s) + TURNAROUND_S)


async def _line_use(folder: Path, polegate: str, baud: int) -> float:
    folder.mkdir()  # noqa: ASYNC240  # nothing else runs yet
    mosquitto = broker.mosquitto(folder)
    mosquitto.start()
    slaves = [_slave(unit) for unit in range(1, SLAVES + 1)]
    line = Rs485(Wire(folder / "usb-HIL_bus"), slaves)
    line.plug()
    daemon = Daemon(folder, command=polegate)
    daemon.config.write_text(
        CONFIG.format(port=mosquitto.port, folder=folder)
        + f'\n[port.bus]\npath = "{line.wire.link}"\nbaud = {baud}\n'
        + "".join(DEVICE.format(n=slave.unit) for slave in slaves)
    )
    (folder / "profiles").mkdir()
    registers = "".join(REGISTER.format(n=n) for n in range(REGISTERS))
    (folder / "profiles" / "bench.toml").write_text(PROFILE + registers)
    daemon.start()
    awake = asyncio.create_task(_stay_awake())
    await asyncio.sleep(SETTLE_S)
    before = _answered(slaves)
    await asyncio.sleep(SECONDS)
    polls = (_answered(slaves) - before) / SECONDS
    awake.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await awake
    await asyncio.to_thread(daemon.stop)
    line.close()
    mosquitto.stop()
    return polls / theory(baud)


async def _stay_awake() -> None:
    while True:  # noqa: ASYNC110  # not waiting is the point
        await asyncio.sleep(0)


def _answered(slaves: list[ModbusSlave]) -> int:
    return sum(slave.counts["answered"] for slave in slaves)


def _slave(unit: int) -> ModbusSlave:
    return ModbusSlave(
        unit=unit,
        faults=Faults(unit, "bench"),
        registers={3: lambda at: {n: int(at + n) % 1000 for n in range(REGISTERS)}},
        truth=lambda _at: {},
        turnaround_s=TURNAROUND_S,
    )

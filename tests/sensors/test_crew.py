"""Who reads the devices, changed while they run: what is equal misses no poll and keeps its port; virtual clock."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from drivers.contract import Driver, LineSettings
from drivers.nmea0183 import Nmea0183
from drivers.ruuvi import Ruuvi
from gateway.sensors.crew import NOBODY, Crew, Roster, Way
from hil.modbus_tcp import ModbusTcp, TcpCanary
from hil.rs485 import Rs485
from hil.twins.modbus import noise, sdm630
from hil.twins.nmea0183 import Nmea0183 as Receiver
from hil.uart import Uart
from hil.vclock import run
from hil.wire import Wire
from tests.sensors.stage import Air, Shelf, meter, now, on_air, only, open_files

EVERY_S = 1.0


@dataclass
class Scene:
    """A crew, and what its devices gave."""

    crew: Crew
    folder: Path
    shelves: dict[str, Shelf] = field(default_factory=dict)

    async def change(self, *devices: Driver, baud: int = 9600, adapter: str = "hci0", **ways: Way) -> None:
        """Want these from now on."""
        bus = Way(str(self.folder / "bus"), settings=LineSettings(baud=baud))
        ports = {getattr(device, "port", None) for device in devices}
        roster = Roster(devices, {name: way for name, way in ({"bus": bus} | ways).items() if name in ports}, adapter)
        await self.crew.dismiss(roster)
        self.crew.enlist(roster)

    def times(self, device: str, channel: str = "sound_level") -> list[float]:
        """Return when a device was read."""
        return self.shelves[device].times(channel)


@contextlib.asynccontextmanager
async def crew(folder: Path) -> AsyncIterator[Scene]:
    tasks: list[asyncio.Task[None]] = []

    def start(job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(job))
        return tasks[-1]

    def shelf(device: Driver) -> Shelf:
        return scene.shelves.setdefault(device.id, Shelf(device))

    scene = Scene(Crew(start, lambda device: shelf(device).account), folder)
    await asyncio.sleep(0.1)  # the canary has its socket by then
    before = open_files()
    try:
        yield scene
        assert not any(task.done() and not task.cancelled() for task in tasks)
    finally:
        await scene.crew.end()
        assert all(task.done() for task in tasks)
        await asyncio.sleep(0.1)  # connections are closed by then
        assert open_files() == before


def on_grid(times: list[float], every: float = EVERY_S) -> None:
    """Fail where a poll is missing."""
    first = times[0]
    slots = [round((at - first) / every) for at in times]
    assert slots == list(range(len(times)))


def noises(*units: int, every: float = EVERY_S) -> list[Driver]:
    return [meter(unit, every=every) for unit in units]


def test_a_device_with_another_interval_is_started_anew_and_the_others_on_its_wires_miss_no_poll(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        with contextlib.closing(Rs485(Wire(tmp_path / "bus"), [noise(1), noise(2), noise(3)])) as pair:
            pair.plug()
            async with crew(tmp_path) as scene:
                await scene.change(*noises(1, 2, 3))
                await asyncio.sleep(10.03)  # in the middle of a round
                files = open_files()
                for turn in range(20):
                    one, *others = noises(1, 2, 3)
                    await scene.change(one.model_copy(update={"every": 0.5 + turn / 100}), *others)
                    assert open_files() == files
                    await asyncio.sleep(0.513)
                await asyncio.sleep(10)
                for device in ("unit-2", "unit-3"):
                    on_grid(scene.times(device))
                    assert len(scene.times(device)) >= int(now())
                    assert scene.shelves[device].health.lost == {}
                assert scene.shelves["unit-1"].health.lost == {}
                assert pair.counts["garbled"] == pair.counts["unreadable"] == 0

    run(main())


def test_the_same_again_touches_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        with contextlib.closing(Rs485(Wire(tmp_path / "bus"), [noise(1), noise(2)])) as pair:
            pair.plug()
            async with crew(tmp_path) as scene:
                await scene.change(*noises(1, 2))
                await asyncio.sleep(5.01)
                tasks = asyncio.all_tasks()
                await scene.change(*noises(2, 1))
                assert asyncio.all_tasks() == tasks
                await asyncio.sleep(5)
                for device in ("unit-1", "unit-2"):
                    on_grid(scene.times(device))

    run(main())


def test_a_line_with_other_settings_is_opened_anew_with_all_on_it_and_other_lines_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Rs485(Wire(tmp_path / "bus"), [noise(1), noise(2)], baud=19_200)
        server = ModbusTcp([sdm630(1)])
        await server.start()
        with contextlib.closing(pair):
            pair.plug()
            async with crew(tmp_path) as scene:
                energy = meter(1, only("frequency"), id="energy", port="tcp", every=EVERY_S)
                tcp = Way(tcp=("127.0.0.1", server.port))
                await scene.change(*noises(1, 2), energy, tcp=tcp)
                await asyncio.sleep(60)
                assert scene.times("unit-1") == []
                await scene.change(*noises(1, 2), energy, tcp=tcp, baud=19_200)
                await asyncio.sleep(5)
                assert scene.times("unit-1")
                assert scene.times("unit-2")
                on_grid(scene.times("energy", "frequency"))
                assert server.connects == 1
        await server.close()

    run(main(), TcpCanary())


def test_a_port_may_change_its_name_and_a_device_its_port(tmp_path: Path) -> None:
    async def main() -> None:
        with contextlib.closing(Rs485(Wire(tmp_path / "bus"), [noise(1), noise(2)])) as pair:
            pair.plug()
            async with crew(tmp_path) as scene:
                await scene.change(*noises(1, 2))
                await asyncio.sleep(3.5)
                again = [meter(unit, port="cabinet", every=EVERY_S) for unit in (1, 2)]
                way = Way(str(tmp_path / "bus"))
                await scene.change(*again, cabinet=way)
                await asyncio.sleep(3.2)
                assert [len(scene.times(device)) for device in ("unit-1", "unit-2")] == [8, 8]
                assert scene.shelves["unit-1"].health.lost == {}  # the port was free by then

    run(main())


def test_who_is_taken_out_is_asked_no_more_and_the_last_one_closes_the_port(tmp_path: Path) -> None:
    async def main() -> None:
        with contextlib.closing(Rs485(Wire(tmp_path / "bus"), [noise(1), noise(2)])) as pair:
            pair.plug()
            async with crew(tmp_path) as scene:
                files = open_files()
                await scene.change(*noises(1, 2))
                await asyncio.sleep(3)
                await scene.change(*noises(2))
                seen = pair.slaves[1].counts["seen"]
                await asyncio.sleep(3)
                assert pair.slaves[1].counts["seen"] == seen
                on_grid(scene.times("unit-2"))
                await scene.change()
                assert open_files() == files

    run(main())


def test_a_device_that_does_not_answer_is_stopped_after_its_time_out_and_not_in_the_middle(tmp_path: Path) -> None:
    async def main() -> None:
        with contextlib.closing(Rs485(Wire(tmp_path / "bus"), [noise(2)])) as pair:
            pair.plug()
            async with crew(tmp_path) as scene:
                await scene.change(*noises(1))
                await asyncio.sleep(0.1)  # it is being asked
                began = now()
                await scene.change(*noises(2))
                assert 0.15 < now() - began < 0.3
                assert scene.shelves["unit-1"].health.lost == {"no-reply": 1}
                await scene.change(meter(3, timeout=60.0))
                await asyncio.sleep(1)
                began = now()
                await scene.change(*noises(2))
                assert now() - began == pytest.approx(2.0)

    run(main())


def test_a_talker_is_thinned_in_another_way_while_its_port_stays_open(tmp_path: Path) -> None:
    async def main() -> None:
        with contextlib.closing(Uart(Wire(tmp_path / "bus"), Receiver())) as uart:
            uart.plug()
            async with crew(tmp_path) as scene:
                gnss = Nmea0183(id="gnss", driver="nmea0183", port="bus", every=10.0)
                await scene.change(gnss)
                await asyncio.sleep(60)
                files, shelf = open_files(), scene.shelves["gnss"]
                count = len(shelf.times("latitude"))
                await scene.change(gnss.model_copy(update={"every": 1.0}))
                await asyncio.sleep(60)
                assert open_files() == files
                assert len(shelf.times("latitude")) - count > 5 * count
                assert shelf.lapses() == []
                await scene.change(*noises(1))
                count = shelf.health.good
                await asyncio.sleep(10)
                assert shelf.health.good == count

    run(main())


def test_a_tag_comes_and_goes_while_the_scan_and_the_other_go_on(tmp_path: Path) -> None:
    async def scene_on(air: Air) -> None:
        other = Ruuvi(id="other", driver="ruuvi", address="CB:B8:33:4C:88:50", every=0.0)
        tag = Ruuvi(id="tag", driver="ruuvi", address=air.tag.address, every=0.0)
        await air.until_heard(within=5)  # bleak has the connection by then that it keeps for ever
        air.job.cancel()  # the crew has a radio of its own
        await asyncio.wait([air.job])
        async with crew(tmp_path) as scene:
            await scene.change(tag)
            await asyncio.sleep(10.5)
            before = open_files()
            await scene.change(tag, other)
            await scene.change(tag)
            await asyncio.sleep(10)
            times = scene.times("tag", "temperature")
            assert max(b - a for a, b in itertools.pairwise(times)) < 1.5
            assert open_files() == before
            await scene.change(other)
            await asyncio.sleep(10)
            assert len(scene.times("tag", "temperature")) == len(times)
            assert NOBODY.on_air() is False
            await scene.change()

    on_air(tmp_path, scene_on)

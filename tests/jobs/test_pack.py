"""Packs: when they are sealed, how they are numbered, what they say of themselves."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import zstandard

from drivers.modbus import Modbus
from drivers.ruuvi import Ruuvi
from drivers.sds011 import Sds011
from gateway.jobs.pack import MOST_VALUES, Packer
from gateway.words.catalogue import Catalogue, Site
from gateway.words.payload import SMALL_BYTES
from gateway.words.reading import Pack, Reading
from hil.senml import ZSTD_MAGIC, read
from hil.vclock import run

NS = 1_000_000_000
YEAR_2026 = 1_767_225_600


class Rhythm(NamedTuple):
    """How a dataset is packed."""

    send_every: float
    commit_within: float


@dataclass
class TimeOfDay:
    """A clock whose time since boot is the loop's, and whose time of day can be set."""

    offset: int = YEAR_2026 * NS
    right: bool = True

    def now(self) -> int:
        """Nanoseconds since boot."""
        return round(asyncio.get_running_loop().time() * NS)

    def utc_offset(self) -> int:
        """What to add."""
        return self.offset

    def synchronised(self) -> bool:
        """Whether it is right."""
        return self.right


@dataclass
class Bench:
    """A packer and what came out of it: packs, when, and how long each may stay in memory."""

    clock: TimeOfDay = field(default_factory=TimeOfDay)
    marks: dict[str, str] = field(default_factory=dict)
    packs: list[Pack] = field(default_factory=list)
    sealed_at: list[float] = field(default_factory=list)
    within: list[float] = field(default_factory=list)
    epoch: int = 3
    rhythms: dict[str, Rhythm] = field(
        default_factory=lambda: {"air": Rhythm(5.0, 10.0), "weather": Rhythm(60.0, 60.0), "alarm": Rhythm(0.1, 0.2)}
    )

    def __post_init__(self) -> None:
        tag = Ruuvi(id="tag", driver="ruuvi", address="AA:BB:CC:DD:EE:FF")
        self.catalogue = Catalogue("pole-7", [Sds011(id="dust", driver="sds011", port="usb"), tag], {})
        self.packer = Packer(
            "pole-7",
            epoch=self.epoch,
            after=lambda dataset: self.marks.get(dataset, ""),
            rhythm=self.rhythms.__getitem__,
            catalogue=self.catalogue,
            clock=self.clock,
            put=self.put,
        )

    def put(self, pack: Pack, within: float) -> None:
        """Take a sealed pack."""
        self.packs.append(pack)
        self.within.append(within)
        self.sealed_at.append(asyncio.get_running_loop().time())

    def keep(self, dataset: str = "air", *, age: float = 0.0, count: int = 1) -> None:
        """Hand the packer a reading that was taken so many seconds ago."""
        values = {f"channel-{number}": number for number in range(count)}
        self.packer.keep(Reading("dust", dataset, self.clock.now() - round(age * NS), values))

    def labels(self) -> list[dict[str, Any]]:
        """Return the labels of each pack."""
        return [read(pack.blob)[0].labels for pack in self.packs]


def play(scene: Callable[[Bench], Awaitable[None]], **settings: Any) -> None:  # noqa: ANN401  # Bench's own
    async def main() -> None:
        await scene(Bench(**settings))

    run(main())


def test_a_pack_is_sealed_so_many_seconds_after_its_first_reading_with_all_that_came() -> None:
    async def scene(bench: Bench) -> None:
        await asyncio.sleep(100)
        for _ in range(9):
            bench.keep()
            await asyncio.sleep(1)
        assert bench.sealed_at == [105]
        assert bench.packs[0].readings == 5
        await asyncio.sleep(100)
        assert bench.sealed_at == [105, 110]  # nothing is sealed where nothing comes
        assert bench.packs[1].readings == 4
        times = [record.time - YEAR_2026 for pack in bench.packs for record in read(pack.blob)]
        assert times == [100, 101, 102, 103, 104, 105, 106, 107, 108]

    play(scene)


def test_a_pack_that_is_full_is_sealed_at_once_and_not_a_second_time() -> None:
    async def scene(bench: Bench) -> None:
        for number in range(2 * MOST_VALUES // 100):
            bench.keep("weather", count=100)
            await asyncio.sleep(0.1)
            assert len(bench.packs) == (number + 1) * 100 // MOST_VALUES
        await asyncio.sleep(600)
        assert [pack.readings for pack in bench.packs] == [MOST_VALUES, MOST_VALUES]

    play(scene)


def test_packs_are_numbered_from_one_without_a_hole_in_each_dataset() -> None:
    async def scene(bench: Bench) -> None:
        for second in range(1, 600):
            bench.keep("air")
            if second % 7 == 0:
                bench.keep("weather")
            await asyncio.sleep(1)
        bench.packer.seal_all()
        for dataset in ("air", "weather"):
            packs = [pack for pack in bench.packs if pack.dataset == dataset]
            assert [pack.n for pack in packs] == list(range(1, len(packs) + 1))
            assert len(packs) > 5
        assert [(labels["epoch"], labels["seq"]) for labels in bench.labels()] == [
            (pack.epoch, pack.n) for pack in bench.packs
        ]
        assert {pack.epoch for pack in bench.packs} == {3}

    play(scene)


def test_the_first_pack_of_an_epoch_names_the_last_one_before_it_that_reached_the_disk() -> None:
    async def scene(bench: Bench) -> None:
        for _ in range(3):
            bench.keep("air")
            bench.keep("weather")
            bench.packer.seal_all()
        told = {
            (pack.dataset, pack.n): labels.get("after")
            for pack, labels in zip(bench.packs, bench.labels(), strict=True)
        }
        assert told == {
            ("air", 1): "2:41",
            ("air", 2): None,
            ("air", 3): None,
            ("weather", 1): None,  # never seen before
            ("weather", 2): None,
            ("weather", 3): None,
        }

    play(scene, marks={"air": "2:41"})


def test_a_pack_says_when_its_times_are_a_guess() -> None:
    async def scene(bench: Bench) -> None:
        bench.keep()
        bench.packer.seal("air")
        bench.clock.right = True
        bench.keep()
        bench.packer.seal("air")
        assert [labels.get("clock") for labels in bench.labels()] == ["unsynchronised", None]

    play(scene, clock=TimeOfDay(right=False))


def test_the_time_of_day_is_put_on_when_the_pack_is_sealed() -> None:
    async def scene(bench: Bench) -> None:
        bench.keep()
        await asyncio.sleep(2)
        bench.clock.offset = YEAR_2026 * NS  # the clock is set
        bench.keep()
        await asyncio.sleep(4)
        assert [record.time for record in read(bench.packs[0].blob)] == [YEAR_2026, YEAR_2026 + 2]

    play(scene, clock=TimeOfDay(offset=1_600_000_000 * NS))


def test_a_pack_names_the_catalogue_that_describes_it() -> None:
    async def scene(bench: Bench) -> None:
        weather = bench.catalogue.hash("weather")
        bench.packer.keep(Reading("tag", "weather", 0, {"temperature": 21.5}))
        bench.packer.seal("weather")
        bench.catalogue.note("tag", ["battery_voltage"])
        bench.packer.keep(Reading("tag", "weather", 0, {"battery_voltage": 3.1}))
        bench.packer.seal("weather")
        bench.keep()
        bench.packer.seal("air")
        cats = [labels["cat"] for labels in bench.labels()]
        assert cats == [weather, bench.catalogue.hash("weather"), bench.catalogue.hash("air")]
        assert len(set(cats)) == 3

    play(scene)


def test_channels_carry_the_units_of_the_catalogue() -> None:
    async def scene(bench: Bench) -> None:
        bench.packer.keep(Reading("dust", "air", 0, {"pm2_5": 7.3}))
        bench.packer.keep(Reading("tag", "air", 0, {"temperature": 21.5, "unheard-of": 1}))
        bench.packer.seal("air")
        units = {record.name: record.unit for record in read(bench.packs[0].blob)}
        assert units == {
            "pole-7/dust/pm2_5": "ug/m3",
            "pole-7/tag/temperature": "Cel",
            "pole-7/tag/unheard-of": "",
        }

    play(scene)


def test_small_packs_are_left_as_they_are_and_larger_ones_are_compressed() -> None:
    async def scene(bench: Bench) -> None:
        bench.keep(count=1)
        bench.packer.seal("air")
        bench.keep(count=50)
        bench.packer.seal("air")
        small, large = (pack.blob for pack in bench.packs)
        assert small.startswith(b"[{")
        assert len(small) < SMALL_BYTES
        assert large.startswith(ZSTD_MAGIC)
        assert len(large) < len(zstandard.ZstdDecompressor().decompress(large)) / 3
        assert len(read(large)) == 50

    play(scene)


def test_the_time_a_pack_may_stay_in_memory_counts_from_its_first_reading() -> None:
    async def scene(bench: Bench) -> None:
        await asyncio.sleep(100)
        bench.keep("air")
        await asyncio.sleep(5)
        bench.keep("weather", age=1.5)  # it took the device so long
        await asyncio.sleep(1)
        bench.packer.seal("weather")
        bench.keep("alarm")
        await asyncio.sleep(1)
        assert [pack.dataset for pack in bench.packs] == ["air", "weather", "alarm"]
        assert [round(within, 6) for within in bench.within] == [5.0, 57.5, 0.1]
        assert [pack.taken for pack in bench.packs] == [100 * NS, round(103.5 * NS), 106 * NS]

    play(scene)


def test_a_pack_that_is_late_already_is_due_at_once_and_not_before() -> None:
    async def scene(bench: Bench) -> None:
        await asyncio.sleep(100)
        bench.keep("air", age=30)
        bench.packer.seal("air")
        assert bench.within == [0.0]

    play(scene)


def test_all_that_is_open_is_sealed_at_the_end_and_nothing_after_it() -> None:
    async def scene(bench: Bench) -> None:
        bench.packer.seal_all()
        assert bench.packs == []
        bench.keep("air")
        bench.keep("weather")
        bench.packer.seal_all()
        assert sorted(pack.dataset for pack in bench.packs) == ["air", "weather"]
        await asyncio.sleep(600)
        bench.packer.seal_all()
        assert len(bench.packs) == 2

    play(scene)


def test_a_register_map_that_is_put_right_is_told_with_its_new_unit_from_the_next_pack_on() -> None:
    def meter(unit: str) -> Modbus:
        register = {"channel": "pressure", "address": 1, "unit": unit, "title": "x"}
        profile = {"maker": "x", "model": "x", "source": "x", "dataset": "air", "register": [register]}
        return Modbus.model_validate({"id": "dust", "driver": "modbus", "port": "bus", "profile": profile})

    async def scene(b: Bench) -> None:
        for unit in ("Pa", "hPa", "Pa"):
            b.catalogue.change([meter(unit)], {}, Site())
            b.packer.keep(Reading("dust", "air", b.clock.now(), {"pressure": 1013}))
            b.packer.seal_all()
        assert [read(pack.blob)[0].unit for pack in b.packs] == ["Pa", "hPa", "Pa"]

    play(scene)

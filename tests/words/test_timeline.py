"""Packs of a boot whose time was not certain when they were sealed."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from drivers.sds011 import Sds011
from gateway.config.settings import DatasetSettings
from gateway.jobs.keep_time import LOOK_S, keep_time
from gateway.jobs.pack import Packer
from gateway.store.buffer import Buffer
from gateway.words.catalogue import Catalogue
from gateway.words.payload import packed
from gateway.words.reading import Pack, Reading
from gateway.words.senml import encode
from gateway.words.timeline import Epoch, Timeline
from hil.senml import read
from hil.vclock import run
from tests.store.buffer_bench import ROOMY, live

NS = 1_000_000_000
YEAR_2026 = 1_767_225_600 * NS
YEAR_1970 = 5 * NS
YEAR_NS = 365 * 86_400 * NS


def sealed(epoch: int, offset: int, *, certain: bool, rounds: int = 50) -> Pack:
    """Seal readings that were taken each second of a boot, from its hundredth second on."""
    readings = [Reading("dust", "air", (100 + n) * NS, {"pm10": n + 0.5, "state": "ok"}) for n in range(rounds)]
    labels: dict[str, int | str] = {"epoch": epoch, "seq": 1, "cat": "0123abcd"}
    if not certain:
        labels["clock"] = "unsynchronised"
    blob = encode(readings, pole="pole", unit_of=lambda _, __: "ug/m3", utc_offset=offset, labels=labels)
    return Pack("air", epoch, 1, 2 * rounds, 100 * NS, packed(blob), offset, certain)


def test_a_pack_whose_time_was_certain_goes_out_as_it_was_sealed() -> None:
    pack = sealed(1, YEAR_2026, certain=True)
    assert Timeline(lambda: [Epoch(1, "boot", 0, YEAR_2026 + NS)]).payload(pack) is pack.blob


def test_a_pack_of_a_boot_whose_time_became_certain_goes_out_with_the_right_time_and_the_same_values() -> None:
    guess = sealed(1, YEAR_1970 + 123_456_789, certain=False)
    right = sealed(1, YEAR_2026, certain=True)
    put_right = read(Timeline(lambda: [Epoch(1, "boot", 0, YEAR_2026)]).payload(guess))
    for ours, theirs in zip(put_right, read(right.blob), strict=True):
        assert (ours.name, ours.value, ours.unit) == (theirs.name, theirs.value, theirs.unit)
        assert abs(ours.time - theirs.time) < 0.0011  # times have a millisecond
    assert put_right[0].labels == {"epoch": 1, "seq": 1, "cat": "0123abcd"}


def test_a_step_back_by_years_is_put_right_as_well() -> None:
    guess = sealed(1, YEAR_2026 + 10 * 365 * 86_400 * NS, certain=False)
    (first, *_) = read(Timeline(lambda: [Epoch(1, "boot", 0, YEAR_2026)]).payload(guess))
    assert abs(first.time - (YEAR_2026 / NS + 100)) < 0.0011


def test_a_pack_of_a_boot_that_never_was_certain_is_marked_and_lies_between_its_neighbours() -> None:
    epochs = [
        Epoch(1, "boot-a", 20 * NS, YEAR_2026),
        Epoch(2, "boot-b-and-the-rest", 10 * NS, None),
        Epoch(3, "boot-b-and-the-rest", 500 * NS, None),
        Epoch(4, "boot-c", 30 * NS, YEAR_2026 + 9000 * NS),
    ]
    pack = sealed(2, YEAR_1970, certain=False)
    records = read(Timeline(lambda: epochs).payload(pack))
    assert records[0].labels == {
        "epoch": 2,
        "seq": 1,
        "cat": "0123abcd",
        "clock": "unsynchronised",
        "boot": "boot-b-a",
        "earliest": YEAR_2026 // NS + 20,
        "latest": YEAR_2026 // NS + 9030,
    }
    assert [record.value for record in records] == [record.value for record in read(pack.blob)]
    alone = read(Timeline(lambda: epochs[1:3]).payload(pack))
    assert not {"earliest", "latest"} & set(alone[0].labels)


def test_a_pack_of_a_run_that_is_forgotten_goes_out_as_it_is() -> None:
    pack = sealed(2, YEAR_1970, certain=False)
    assert Timeline(list).payload(pack) is pack.blob


def test_the_time_of_a_boot_is_stored_once_and_known_to_the_next_runs(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"

    async def first(buffer: Buffer) -> None:
        assert [epoch.utc for epoch in buffer.epochs] == [0]  # the bench opens it with a time that is certain

    live(path, first)

    async def main() -> list[int | None]:
        buffer = Buffer(path, ROOMY)
        await buffer.open("another", 7, None)
        assert buffer.epochs[-1] == Epoch(2, "another", 7, None)
        await buffer.know_utc("another", YEAR_2026)
        await buffer.know_utc("another", YEAR_2026 + NS)  # once: a later step is not this boot's beginning
        await buffer.close()
        again = Buffer(path, ROOMY)
        await again.open("third", 3, None)
        await again.close()
        return [epoch.utc for epoch in again.epochs]

    assert run(main()) == [0, YEAR_2026, None]


@dataclass
class Watch:
    """A clock that becomes right."""

    right: bool = False
    boot: str = "boot"
    told: list[tuple[str, int]] = field(default_factory=list)
    failures: int = 0

    def utc_offset(self) -> int:
        """Return the right time's."""
        return YEAR_2026

    def synchronised(self) -> bool:
        """Tell whether it is right."""
        return self.right

    async def know(self, boot: str, utc: int) -> None:
        """Store it, or fail."""
        if self.failures:
            self.failures -= 1
            raise OSError("the disk is full")
        self.told.append((boot, utc))


def test_it_is_noticed_when_the_clock_becomes_right_and_stored_as_soon_as_the_disk_takes_it() -> None:
    async def main() -> None:
        watch = Watch(failures=2)
        job = asyncio.create_task(keep_time(watch, watch.know))
        await asyncio.sleep(100)
        assert watch.told == []
        watch.right = True
        await asyncio.sleep(LOOK_S * 3 + 1)
        assert watch.told == [("boot", YEAR_2026)]
        assert job.done()

    run(main())


@dataclass
class Jumping:
    """A clock whose time of day jumps by years, forward and back, while time since boot only goes on."""

    years: int = 0
    right: bool = True

    def now(self) -> int:
        """Return nanoseconds since boot."""
        return round(asyncio.get_running_loop().time() * NS)

    def utc_offset(self) -> int:
        """Return what to add for the time since 1970, as the machine now has it."""
        return YEAR_2026 + self.years * YEAR_NS

    def synchronised(self) -> bool:
        """Tell whether the kernel holds that for right."""
        return self.right


def test_steps_of_the_clock_by_years_neither_reorder_nor_repeat_nor_drop_anything(tmp_path: Path) -> None:
    taken: list[int] = []
    sent: list[object] = []

    async def boot(number: int, steps: list[int]) -> None:
        buffer = Buffer(tmp_path / "buffer.db", ROOMY)
        clock = Jumping(steps[0], right=number % 2 == 0)
        await buffer.open(f"boot {number}", clock.now(), clock.utc_offset() if clock.right else None)
        committing = asyncio.create_task(buffer.run())
        device = Sds011(id="dust", driver="sds011", port="x")
        packer = Packer(
            "pole",
            epoch=buffer.epoch,
            after=buffer.after,
            rhythm=lambda _: DatasetSettings(),
            catalogue=Catalogue("pole", [device], {}),
            clock=clock,
            put=buffer.put,
        )
        for step in steps:
            clock.years = step
            for _ in range(20):
                taken.append(len(taken))
                packer.keep(Reading("dust", "air", clock.now(), {"pm10": taken[-1]}))
                await asyncio.sleep(1)
        packer.seal_all()
        await buffer.barrier()
        committing.cancel()
        payload = Timeline(lambda: buffer.epochs).payload
        if number == 3:
            while buffer.depth.packs:
                for held in await buffer.take(20):
                    sent.extend(record.value for record in read(payload(held.pack)))
                    buffer.acknowledge(held)
        await buffer.close()

    for number, steps in enumerate(([0, 10, -30], [-56, 0], [40, -40, 0], [0, 1, -1])):
        run(boot(number, steps))
    assert sent == taken

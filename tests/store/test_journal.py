"""The journal: what it keeps across the end of the process, and that it stays small."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from structlog.testing import capture_logs

from gateway.store.frame import number_of
from gateway.store.journal import MOST_BYTES, RETRY_BYTES, REWRITE_BYTES, Journal, Left
from gateway.words.reading import Pack, Quality, Reading
from tests.examples import examples
from tests.store.buffer_bench import no_file_grows_beyond, pack

SHM = Path("/dev/shm")  # noqa: S108  # a RAM file system is what it is about
BOOT = "boot"


@pytest.fixture
def ram() -> Iterator[Path]:
    """Give a folder in RAM."""
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        yield Path(folder)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def opened(folder: Path, boot: str = BOOT) -> tuple[Journal, Left]:
    journal = Journal(folder, boot)
    left = journal.open()
    assert journal.trouble == ""
    return journal, left


def reading(at: int, dataset: str = "air") -> Reading:
    values: dict[str, float | str | Quality] = {"pm10": 7.5, "count": at, "state": "ok", "on": True}
    values["co2/quality"] = Quality(1, "no-reading")
    return Reading("dust", dataset, at, values)


def test_what_was_accepted_and_not_settled_is_there_for_the_next_run(ram: Path) -> None:
    journal, left = opened(ram)
    assert left == Left()
    for at in range(1, 4):
        journal.accept(reading(at))
    journal.accept(reading(4, "noise"))
    journal.sealed(number_of(1, 1), pack(1))
    journal.accept(reading(5))
    journal.sealed(number_of(1, 2), pack(1, "noise"))
    journal.settled([number_of(1, 2)])
    _, left = opened(ram)
    assert left.readings == [reading(5)]
    assert [(number, kept.blob) for number, kept in left.packs.items()] == [(number_of(1, 1), pack(1).blob)]
    assert left.last == {"air": (1, 1), "noise": (1, 1)}


def test_the_units_of_a_device_outlive_it_and_a_new_file(ram: Path) -> None:
    journal, _ = opened(ram)
    for n in range(600):
        if n == 1:
            journal.describe("dust", {"pm10": "ug/m3"})
            journal.accept(reading(1))
        journal.sealed(number_of(1, n), pack(n, "noise", size=4000))
        journal.settled([number_of(1, n)])
    assert (ram / "journal").stat().st_size < 2 * REWRITE_BYTES
    again, left = opened(ram)
    assert (left.units, left.readings) == ({"dust": {"pm10": "ug/m3"}}, [reading(1)])
    again.describe("dust", {"pm10": "ug/m3", "co2": "ppm"})
    again.accept(reading(2))
    assert opened(ram)[1].units == {"dust": {"pm10": "ug/m3", "co2": "ppm"}}


def test_it_goes_on_in_the_same_file(ram: Path) -> None:
    first, _ = opened(ram)
    first.accept(reading(1))
    second, _ = opened(ram)
    second.accept(reading(2))
    third, left = opened(ram)
    assert left.readings == [reading(1), reading(2)]
    third.sealed(number_of(3, 1), pack(1, epoch=3))
    _, left = opened(ram)
    assert left.readings == []


def test_a_record_that_was_torn_is_left_out_wherever_it_was_torn(ram: Path) -> None:
    journal, _ = opened(ram)
    sizes = []
    for at in range(1, 4):
        journal.accept(reading(at))
        sizes.append((ram / "journal").stat().st_size)
    whole = (ram / "journal").read_bytes()
    for size in range(len(whole)):
        (ram / "journal").write_bytes(whole[:size])
        again, left = opened(ram)
        assert left.readings == [reading(at + 1) for at, end in enumerate(sizes) if end <= size]
        again.accept(reading(9))
        again.close()
        assert opened(ram)[1].readings[-1] == reading(9)


def test_no_byte_that_changed_is_taken_for_a_reading(ram: Path) -> None:
    journal, _ = opened(ram)
    for at in range(1, 4):
        journal.accept(reading(at))
    whole = (ram / "journal").read_bytes()
    for at in range(len(whole)):
        (ram / "journal").write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        again, left = opened(ram)
        again.close()
        assert left.readings == [reading(n) for n in range(1, len(left.readings) + 1)]
        assert len(left.readings) < 3


def test_one_of_another_boot_is_no_use(ram: Path) -> None:
    journal, _ = opened(ram)
    journal.accept(reading(1))
    _, left = opened(ram, "another")
    assert left == Left()
    assert opened(ram)[1] == Left()


def test_it_stays_small_however_much_goes_through_it(ram: Path) -> None:
    journal, _ = opened(ram)
    for n in range(1, 3001):
        journal.accept(reading(n))
        journal.sealed(number_of(1, n), pack(n, size=4000))
        journal.accept(reading(n, "noise"))
        if n > 20:
            journal.settled([number_of(1, n - 20)])
        assert (ram / "journal").stat().st_size < 2 * REWRITE_BYTES
    assert [file.name for file in ram.iterdir()] == ["journal"]
    _, left = opened(ram)
    assert [kept.n for kept in left.packs.values()] == list(range(2981, 3001))
    assert [kept.at for kept in left.readings] == list(range(1, 3001))


def test_it_is_bounded_where_nothing_is_ever_settled(ram: Path) -> None:
    journal, _ = opened(ram)
    for n in range(1, 200):
        journal.sealed(number_of(1, n), pack(n, size=512 * 1024))
        assert (ram / "journal").stat().st_size <= MOST_BYTES
    _, left = opened(ram)
    assert 0 < len(left.packs) < 100


def test_a_full_file_system_is_told_and_the_journal_works_again_afterwards(ram: Path) -> None:
    journal, _ = opened(ram)
    journal.describe("dust", {"pm10": "ug/m3"})
    journal.accept(reading(1))
    with no_file_grows_beyond((ram / "journal").stat().st_size + 10):
        with capture_logs() as logs:  # or pytest would write them, into a file of its own
            journal.accept(reading(2))
        assert journal.trouble
        assert [line["log_level"] for line in logs] == ["warning"]
    journal.accept(reading(3))
    assert journal.trouble == ""
    # What it lacked a part of it does not tell at all: half of a story is a wrong one.
    left = opened(ram)[1]
    assert (left.readings, left.units) == ([reading(3)], {"dust": {"pm10": "ug/m3"}})


def test_where_there_is_no_room_to_write_it_anew_it_stays_as_it_is_and_tries_again_later(ram: Path) -> None:
    journal, _ = opened(ram)
    for n in range(1, 301):
        journal.sealed(n, pack(n, size=4000))
    before, large = open_files(), (ram / "journal").stat().st_size
    (ram / "journal.new").symlink_to("/dev/full")
    with capture_logs() as logs:
        journal.settled(range(2, 301))
    assert [line["event"] for line in logs] == ["the journal in RAM could not be written anew"]
    assert (journal.trouble, open_files(), list(ram.iterdir())) == ("", before, [ram / "journal"])
    tries = 0
    while (size := (ram / "journal").stat().st_size) > large:
        assert size < large + 2 * RETRY_BYTES
        tries += 1
        journal.sealed(300 + tries, pack(300 + tries, size=4000))
        journal.settled([300 + tries])
    assert tries > 10, "it does not try each time"
    assert [kept.n for kept in opened(ram)[1].packs.values()] == [1]


def test_half_of_a_new_one_goes_at_the_next_start(ram: Path) -> None:
    (ram / "journal.new").write_bytes(bytes(1000))
    opened(ram)
    assert list(ram.iterdir()) == [ram / "journal"]


@pytest.mark.parametrize("room", [0, 10], ids=["none at all", "for a part of the head"])
def test_a_file_system_that_is_full_at_the_start_is_told_and_the_journal_works_once_there_is_room(
    ram: Path, room: int
) -> None:
    journal = Journal(ram, BOOT)
    with no_file_grows_beyond(room):
        assert journal.open() == Left()
        with capture_logs() as logs:
            journal.accept(reading(1))
            journal.accept(reading(2))
        assert journal.trouble
        assert [line["log_level"] for line in logs] == ["warning"]
    journal.accept(reading(3))
    assert journal.trouble == ""
    assert opened(ram)[1].readings == [reading(3)]


@pytest.mark.parametrize("folder", [None, Path("/proc")])
def test_without_a_folder_in_ram_there_is_none_and_that_is_said(folder: Path | None) -> None:
    journal = Journal(folder, BOOT)
    assert journal.open() == Left()
    assert "no folder in RAM" in journal.trouble
    journal.accept(reading(1))
    journal.sealed(1, pack(1))
    journal.settled([1])


def test_only_we_may_read_it(ram: Path) -> None:
    opened(ram)
    assert (ram / "journal").stat().st_mode & 0o777 == 0o600


class JournalLife(RuleBasedStateMachine):
    """The journal against a plain model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=SHM)
        self.readings: dict[str, list[Reading]] = {"air": [], "noise": []}
        self.packs: dict[int, Pack] = {}
        self.count = 0
        self.journal, _ = opened(Path(self.folder.name))

    @rule(dataset=st.sampled_from(("air", "noise")), many=st.sampled_from((1, 3, 500)))
    def accept(self, dataset: str, many: int) -> None:
        """Readings come."""
        for _ in range(many):
            self.count += 1
            self.readings[dataset].append(reading(self.count, dataset))
            self.journal.accept(self.readings[dataset][-1])

    @rule(dataset=st.sampled_from(("air", "noise")), size=st.sampled_from((100, 300_000)))
    def seal(self, dataset: str, size: int) -> None:
        """A pack is sealed."""
        self.count += 1
        self.packs[self.count] = pack(self.count, dataset, size=size)
        self.readings[dataset].clear()
        self.journal.sealed(self.count, self.packs[self.count])

    @precondition(lambda self: self.packs)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Some packs are settled, and one that is not known."""
        some = data.draw(st.lists(st.sampled_from(sorted(self.packs)), unique=True))
        for number in some:
            del self.packs[number]
        self.journal.settled([*some, 0])

    @rule()
    def restart(self) -> None:
        """The process ends, one way or the other."""
        self.journal.close()
        self.journal, left = opened(Path(self.folder.name))
        assert {number: kept.blob for number, kept in left.packs.items()} == {
            number: kept.blob for number, kept in self.packs.items()
        }
        assert left.readings == sorted((r for some in self.readings.values() for r in some), key=lambda r: r.at)

    @invariant()
    def stays_in_bounds(self) -> None:
        """It is not much larger than what it keeps."""
        kept = sum(len(each.blob) + 200 for each in self.packs.values()) + 200 * sum(map(len, self.readings.values()))
        assert os.stat(Path(self.folder.name) / "journal").st_size <= 2 * max(kept, REWRITE_BYTES) + 600_000  # noqa: PTH116

    def teardown(self) -> None:
        """End."""
        self.journal.close()
        self.folder.cleanup()


TestJournalLife = JournalLife.TestCase
TestJournalLife.settings = examples(100, steps=30)

"""What is known of the time of older boots outlives damage as their packs do."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway import app
from gateway.config.settings_file import load
from gateway.host.clock import Clock
from gateway.store.buffer import Buffer
from gateway.store.journal import Journal
from gateway.store.pack_file import PackFile
from gateway.words.reading import Pack
from gateway.words.timeline import Epoch
from hil.vclock import run
from tests.commands.cli_scene import call
from tests.config.settings_scene import PROFILE, SOUND
from tests.store.buffer_bench import PAGE_BYTES, ROOMY, pack

UTC = 1_790_000_000_000_000_000
DAY_NS = 86_400_000_000_000
OLD, NOW = Epoch(1, "boot-a", 5, UTC), Epoch(2, "boot-b", 7, None)


def guessed(n: int, epoch: int) -> Pack:
    return pack(n, epoch=epoch, size=200 + 37 * n % 3000)._replace(certain=False)


def live(path: Path, epoch: Epoch, *, killed: Path | None = None) -> None:
    """Let a gateway run that seals packs, and learns the time where it is known; copy what a killed one leaves."""

    async def main() -> None:
        buffer = Buffer(path, ROOMY)
        await buffer.open(epoch.boot, epoch.started)
        assert buffer.epoch == epoch.id
        for n in range(1, 61):
            buffer.put(guessed(n, epoch.id), 10.0)
        await buffer.barrier()
        if epoch.utc is not None:
            await buffer.know_utc(epoch.boot, epoch.utc)
        if killed is not None:
            shutil.copytree(path.parent, killed)
        await buffer.close()

    run(main())


def opened(path: Path) -> list[Epoch]:
    """Return the runs that the next gateway knows of, without its own."""

    async def main() -> list[Epoch]:
        buffer = Buffer(path, ROOMY)
        await buffer.open("boot-c", 9)
        await buffer.close()
        return buffer.epochs[:-1]

    return run(main())


def history(path: Path, boot: str, utc: int | None, *days: int) -> list[tuple[int, int]]:
    """Have a gateway keep seven days of history, and acknowledge a pack on each of some days of its boot, from 1 on.

    Returns:
        What is there in the end: epoch and n, which is the day.
    """
    now = days[0] * DAY_NS

    async def main() -> list[tuple[int, int]]:
        nonlocal now
        buffer = Buffer(path, ROOMY, forget_before=lambda: now - 7 * DAY_NS)
        await buffer.open(boot, now)
        if utc is not None:
            await buffer.know_utc(boot, utc)
        for day in days:
            now = day * DAY_NS
            buffer.put(Pack("air", buffer.epoch, day, 1, now, b"x" * 300), 10.0)
            (held,) = await buffer.take(1)
            buffer.acknowledge(held)
            await buffer.barrier()
        rows = [row for epoch in buffer.epochs for row in await buffer.held("air", epoch.id, 1, 999, 999)]
        await buffer.close()
        return [(row.pack.epoch, row.pack.n) for row in rows]

    return run(main())


def of(epoch: int, *days: int) -> list[tuple[int, int]]:
    return [(epoch, day) for day in days]


def page_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as sql:
        root: int = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    return (root - 1) * PAGE_BYTES


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def flip_its_time(path: Path) -> None:
    """Flip a bit in a column of SQLite's that no checksum covers."""
    at = path.read_bytes().index(b"boot-a" + (5).to_bytes(1, "big") + UTC.to_bytes(8, "big"))
    overwrite(path, at + 9, bytes([UTC.to_bytes(8, "big")[2] ^ 1]))


def flip_the_sealed(path: Path) -> None:
    at = path.read_bytes().index(b"PLE1")
    overwrite(path, at + 20, b"!")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "nothing": lambda _: None,
    "its first page": lambda path: overwrite(path, 0, bytes(PAGE_BYTES)),
    "the page of the runs": lambda path: overwrite(path, page_of(path, "epoch"), bytes(PAGE_BYTES)),
    "the page of the packs": lambda path: overwrite(path, page_of(path, "pack"), bytes(PAGE_BYTES)),
    "a bit of the time": flip_its_time,
    "a byte of the sealed time": flip_the_sealed,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_time_of_an_older_boot_is_known_after_damage_to(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "buffer.db"
    live(path, OLD)
    live(path, NOW)
    DAMAGES[damage](path)
    assert opened(path)[:2] == [OLD, NOW]
    assert opened(path)[:2] == [OLD, NOW]  # and it stays so


def test_without_the_sealed_runs_packs_go_out_marked_and_none_with_a_wrong_time(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    live(path, OLD)
    overwrite(path, page_of(path, "sealed_epoch"), bytes(PAGE_BYTES))
    assert opened(path) == []


def test_it_is_known_after_damage_to_the_log_that_sqlite_drops_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "live" / "buffer.db"
    live(path, NOW._replace(id=1))
    live(path, NOW._replace(utc=UTC), killed=tmp_path / "killed")
    log = tmp_path / "killed" / "buffer.db-wal"
    overwrite(log, log.read_bytes().index(b"air/2/5 "), b"!")  # its run began before, its time became known behind
    assert opened(tmp_path / "killed" / "buffer.db") == [NOW._replace(id=1, utc=UTC), NOW._replace(utc=UTC)]


def test_damage_that_shows_while_it_runs_takes_no_time_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    live(path, OLD)
    file = PackFile(path, ROOMY)
    epoch = file.open("boot-b", 7).epoch
    file.know_utc("boot-b", UTC + 1)
    assert file.open("boot-b", 7, UTC + 1, epoch, damage="it was damaged").epoch == epoch
    file.close()
    assert opened(path) == [OLD, Epoch(2, "boot-b", 7, UTC + 1)]


def test_packs_of_this_boot_that_are_taken_over_have_its_time(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    live(path, Epoch(1, "boot-a", 5, None))
    overwrite(path, 0, bytes(PAGE_BYTES))
    file = PackFile(path, ROOMY)
    contents = file.open("boot-a", 8, UTC)
    file.close()
    assert (contents.epochs[0], contents.epochs[-1]) == (OLD, Epoch(2, "boot-a", 8, UTC))


def test_what_a_copy_in_ram_knew_is_taken_over_with_its_packs(tmp_path: Path) -> None:
    path, copy = tmp_path / "buffer.db", tmp_path / "ram" / "buffer.db"
    live(path, OLD)
    shutil.copytree(tmp_path, copy.parent)
    live(copy, NOW._replace(utc=UTC + 1))
    file = PackFile(path, ROOMY)
    file.open("boot-c", 9, epoch=3)
    assert file.take_over(copy).epochs == [OLD, NOW._replace(utc=UTC + 1), Epoch(3, "boot-c", 9, None)]
    file.close()


def test_a_file_of_a_gateway_that_sealed_no_runs_is_opened_and_they_are_sealed(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    live(path, OLD)
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("DROP TABLE sealed_epoch")
        sql.execute("VACUUM")
    assert opened(path)[0] == OLD
    overwrite(path, page_of(path, "epoch"), bytes(PAGE_BYTES))
    assert opened(path)[0] == OLD


def test_a_salvaged_buffer_knows_it_too(tmp_path: Path) -> None:
    path, new = tmp_path / "buffer.db", tmp_path / "new.db"
    live(path, OLD)
    overwrite(path, 0, bytes(PAGE_BYTES))
    assert call("buffer", "salvage", str(path), "--to", str(new)).code == 0
    assert opened(new)[0] == OLD


def test_runs_that_nothing_depends_on_are_let_go(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    file = PackFile(path, ROOMY)
    for epoch in (1, 60, 150):
        file.open("boot", epoch=epoch)
        file.close()
    with closing(sqlite3.connect(path)) as sql:
        assert sql.execute("SELECT id FROM epoch").fetchall() == [(60,), (150,)]
        assert sql.execute("SELECT id FROM sealed_epoch").fetchall() == [(60,), (150,)]


@pytest.mark.parametrize("utc", [None, UTC], ids=["never known", "known"])
def test_within_a_boot_history_goes_by_the_time_that_counts_whatever_the_date(tmp_path: Path, utc: int | None) -> None:
    path = tmp_path / "buffer.db"
    assert history(path, "boot-a", utc, 1, 2, 3) == of(1, 1, 2, 3)
    assert history(path, "boot-a", None, 8, 9) == of(1, 2, 3) + of(2, 8, 9)
    assert history(path, "boot-a", None, 10, 20) == of(3, 20)


def test_history_of_an_older_boot_goes_by_the_time_of_day_once_both_are_known(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    history(path, "boot-a", UTC, 1, 2, 3)
    assert history(path, "boot-b", None, 1) == of(1, 1, 2, 3) + of(2, 1)
    assert history(path, "boot-b", UTC + 7 * DAY_NS, 2) == of(1, 2, 3) + of(2, 1) + of(3, 2)


def test_history_of_a_boot_that_never_knew_the_time_stays_until_something_later_is_too_old(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    history(path, "boot-a", None, 1, 2)
    assert history(path, "boot-b", None, 1, 8) == of(1, 1, 2) + of(2, 1, 8)
    assert history(path, "boot-b", UTC, 9) == of(2, 8) + of(3, 9)
    assert history(path, "boot-c", None, 1) == of(2, 8) + of(3, 9) + of(4, 1)
    assert history(path, "boot-d", UTC + 99 * DAY_NS, 1) == of(4, 1) + of(5, 1)


def test_a_gateway_that_does_not_know_the_time_keeps_history_as_its_file_says(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.toml").write_text(PROFILE)
    (tmp_path / "pole.toml").write_text(f'{SOUND}\n[buffer]\npath = "{tmp_path}/buffer.db"\nhistory = "1d"\n')
    clock = Clock()

    async def main() -> None:
        buffer = app._buffer(load(tmp_path / "pole.toml"), clock, Journal(None, ""))  # noqa: SLF001  # as it runs
        await buffer.open(clock.boot, clock.now())
        for n in (1, 2, 3):
            buffer.put(pack(n)._replace(taken=clock.now()), 10.0)
            (held,) = await buffer.take(1)
            buffer.acknowledge(held)
            await buffer.barrier()
        assert [row.pack.n for row in await buffer.held("air", 1, 1, 9, 9)] == [1, 2, 3]
        await buffer.close()

    run(main())

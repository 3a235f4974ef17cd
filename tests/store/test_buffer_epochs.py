"""What is known of the time of older boots outlives damage as their packs do."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store.buffer import Buffer
from gateway.store.pack_file import PackFile
from gateway.words.reading import Pack
from gateway.words.timeline import Epoch
from hil.vclock import run
from tests.commands.cli_scene import call
from tests.store.buffer_bench import PAGE_BYTES, ROOMY, pack

UTC = 1_790_000_000_000_000_000
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
    file.open("boot-b", 7)
    file.know_utc("boot-b", UTC + 1)
    file.mend("it was damaged")
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

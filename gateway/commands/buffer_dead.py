"""``polegate buffer dead`` and ``retry``: the packs that no broker took, and how they get another chance."""

import contextlib
import json
from pathlib import Path

import click

from gateway.commands.buffer_export import utc
from gateway.commands.buffer_faults import NotMade, count, must_be_buffer, reading
from gateway.commands.check import FILE
from gateway.store.level import REFUSAL, SET_ASIDE
from gateway.store.pack_file import PackFile
from gateway.store.pack_raw import Found, Salvage
from gateway.store.pack_sql import SqlError, is_locked

NS = 1_000_000_000
NO_BOUND = 1 << 40  # bytes
REASONS = {
    0x90: "the broker finds its topic invalid",
    0x95: "it is too large for the broker, also in parts",
    0x99: "the broker finds its payload invalid",
}


class InUse(click.ClickException):
    """A gateway has the file open."""

    exit_code = 75  # sysexits.h: EX_TEMPFAIL


def why(level: int) -> str:
    """Say why no broker takes a pack of this level."""
    if level > -REFUSAL:
        return "the link died each time it was sent"
    return REASONS.get(-level, f"the broker refused it with reason 0x{-level:02x}")


@click.command("dead")
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def dead(path: Path, *, as_json: bool) -> int:
    """List the packs in the buffer FILE that no broker takes, and why.

    They were set aside so that they do not hold up the others. They wait for a person: export --dead writes them out,
    retry has them sent again.

    Exit code 0: FILE was read. 65: it is no buffer. 66: it is not there or cannot be read.
    """
    found = _found(path)
    found.sort(key=lambda each: each.number)
    for each in found:
        click.echo(json.dumps(_as_object(each)) if as_json else _as_text(each))
    if not as_json and not found:
        click.echo("no packs were set aside")
    return 0


def _as_object(found: Found) -> dict[str, object]:
    pack = found.pack
    begun = utc((pack.taken + pack.offset) / NS)
    told = {"dataset": pack.dataset, "epoch": pack.epoch, "seq": pack.n, "readings": pack.readings}
    return told | {"bytes": len(pack.blob), "begun": begun, "why": why(found.level)}


def _as_text(found: Found) -> str:
    told = _as_object(found)
    number = f"{told['dataset']} {told['epoch']}:{told['seq']}"
    return f"{number}, {count(found.pack.readings, 'reading')}, begun {told['begun']}: {told['why']}"


@click.command("retry")
@click.argument("path", metavar="FILE", type=FILE)
def retry(path: Path) -> int:
    """Let the packs in the buffer FILE that were set aside wait again, as if they were new.

    The gateway must be stopped; it sends them when it is started. One that runs tries packs again for who publishes a
    request on its topic command/replay.

    Exit code 0: done. 65: FILE is no buffer. 66: it is not there or cannot be read. 73: it cannot be written. 75: a
    gateway has it open.
    """
    _found(path)
    try:
        number = _retry(path)
    except (SqlError, OSError) as error:
        if is_locked(error):
            raise InUse(f"{path} is in use; stop the gateway first: systemctl stop polegate") from error
        raise NotMade(f"{path} cannot be written: {error}; try it with sudo") from error
    click.echo(f"{count(number, 'pack')} will be sent again")
    return 0


def _retry(path: Path) -> int:
    file = PackFile(path, NO_BOUND)
    file.open("")
    with contextlib.closing(file):
        return file.retry()


def _found(path: Path) -> list[Found]:
    """Return the packs that were set aside. Raises ClickException where the file is no buffer."""
    every = 0
    found: list[Found] = []
    with reading(path):
        for each in Salvage(path):
            every += 1
            if each.level <= SET_ASIDE:
                found.append(each)
        must_be_buffer(path, every)
    return found

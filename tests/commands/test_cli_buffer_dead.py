"""``polegate buffer dead``, ``retry`` and ``export --dead``: packs that no broker takes, for a person to deal with."""

import json
from pathlib import Path

import pytest

from gateway.store.buffer import Buffer
from gateway.store.frame import number_of
from gateway.store.pack_file import PackFile
from gateway.store.pack_sql import Row
from tests.commands.buffer_scene import EX_DATAERR, EX_NOINPUT, numbers, sealed, untouched
from tests.commands.cli_scene import call
from tests.store.buffer_bench import ROOMY, key, live

EX_TEMPFAIL = 75
LEVELS = {2: -0x99, 4: -0x95, 5: -2, 7: -0x91}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the file of a gateway that was stopped: of eight packs four were set aside, the last not in order."""
    file = PackFile(tmp_path / "polegate" / "buffer.db", ROOMY)
    file.open("boot", epoch=5)
    rows = [Row(number_of(5, n), sealed(5, n, "air"), LEVELS.get(n, 0)) for n in range(1, 9)]
    file.write(rows[4:], ())
    file.write(rows[:4], ())
    file.close()
    return file.path


def test_they_are_listed_in_order_with_the_reason(path: Path) -> None:
    with untouched(path.parent):
        code, out, err = call("buffer", "dead", str(path))

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "air 5:2, 37 readings, begun 2026-01-01T00:02:00.000Z: the broker finds its payload invalid",
        "air 5:4, 37 readings, begun 2026-01-01T00:04:00.000Z: it is too large for the broker, also in parts",
        "air 5:5, 37 readings, begun 2026-01-01T00:05:00.000Z: the link died each time it was sent",
        "air 5:7, 37 readings, begun 2026-01-01T00:07:00.000Z: the broker refused it with reason 0x91",
    ]


def test_the_list_for_a_script(path: Path) -> None:
    code, out, _ = call("buffer", "dead", "--json", str(path))

    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [each["seq"] for each in told] == [2, 4, 5, 7]
    assert told[0] == {
        "dataset": "air",
        "epoch": 5,
        "seq": 2,
        "readings": 37,
        "bytes": len(sealed(5, 2, "air").blob),
        "begun": "2026-01-01T00:02:00.000Z",
        "why": "the broker finds its payload invalid",
    }


def test_stats_count_them_and_export_writes_them_out(path: Path) -> None:
    told = json.loads(call("buffer", "stats", "--json", str(path)).out)["datasets"]["air"]
    assert (told["dead"]["packs"], told["waiting"]["packs"]) == (4, 4)
    assert call("buffer", "verify", str(path)).code == 0
    assert numbers(call("buffer", "export", "--dead", str(path)).out) == [(5, n, "air") for n in (2, 4, 5, 7)]
    assert len(numbers(call("buffer", "export", str(path)).out)) == 8


def test_they_are_still_set_aside_in_a_salvaged_file(path: Path, tmp_path: Path) -> None:
    assert call("buffer", "salvage", str(path), "--to", str(tmp_path / "new.db")).code == 0

    assert call("buffer", "dead", str(tmp_path / "new.db")).out == call("buffer", "dead", str(path)).out


def test_a_retry_has_them_sent_with_the_others(path: Path) -> None:
    async def before(buffer: Buffer) -> None:
        assert (buffer.depth.packs, buffer.depth.set_aside) == (4, 4)

    async def after(buffer: Buffer) -> None:
        assert (buffer.depth.packs, buffer.depth.readings, buffer.depth.set_aside) == (8, 8 * 37, 0)
        assert [key(held.pack) for held in await buffer.take(9)] == [("air", 5, n) for n in range(1, 9)]

    live(path, before)
    assert call("buffer", "retry", str(path)) == (0, "4 packs will be sent again\n", "")
    live(path, after)
    assert call("buffer", "dead", str(path)) == (0, "no packs were set aside\n", "")


def test_a_retry_on_a_file_that_a_gateway_has_open_says_what_to_do(path: Path) -> None:
    file = PackFile(path, ROOMY)
    file.open("boot")
    code, out, err = call("buffer", "retry", str(path))
    file.close()

    assert (code, out) == (EX_TEMPFAIL, "")
    assert "stop the gateway first" in err


@pytest.mark.parametrize("command", ["dead", "retry"])
def test_what_is_no_buffer_stays_as_it_is(tmp_path: Path, command: str) -> None:
    (tmp_path / "notes").write_text("nothing of ours")
    with untouched(tmp_path):
        assert call("buffer", command, str(tmp_path / "notes")).code == EX_DATAERR
        assert call("buffer", command, str(tmp_path / "none")).code == EX_NOINPUT

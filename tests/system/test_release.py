"""Releases side by side on a real systemd: a good one takes over, a bad one goes back by itself, nothing is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hil.machine import Machine
from tests.system import scene
from tests.system.scene import LIMIT_S, Site, drop_in, install, packs_come, restarted, status

pytestmark = scene.MARKS

QUICK = "[Service]\nRestartSec=100ms\n"
OLD, NEW = "0.1.0", "0.2.0"
Change = Callable[[Path], object]


def edit(file: str, old: str, new: str) -> Change:
    """Make a release that differs in a piece of text."""

    def change(code: Path) -> None:
        text = (code / file).read_text()
        assert old in text
        (code / file).write_text(text.replace(old, new))

    return change


SOON_HEALTHY = edit("gateway/jobs/prove_release.py", "PROVED_S = 300.0", "PROVED_S = 1.0")
UNTIL_STOPPED = "await _first_of(stop, self._changes.again)"


def after(seconds: int, deed: str) -> str:
    """Have something done while the gateway runs."""
    return f"asyncio.get_running_loop().call_later({seconds}, {deed})\n            {UNTIL_STOPPED}"


def newer_buffer(code: Path) -> None:
    """Crash, and have added to the buffer's file what a later release may."""
    edit("gateway/app.py", UNTIL_STOPPED, after(2, "os.abort"))(code)
    tables = "ALTER TABLE pack ADD COLUMN later ANY DEFAULT 1", "ALTER TABLE epoch ADD COLUMN later ANY"
    added = "; ".join((*tables, "CREATE TABLE later(x)"))
    known = "SELECT count(*) FROM sqlite_schema WHERE name = 'later'"
    begin = '    frame_bytes = one(sql, "PRAGMA page_size")'
    add = f'    if not new and not one(sql, "{known}"):\n        sql.executescript("{added}")\n'
    edit("gateway/store/pack_sql.py", begin, add + begin)(code)


class Broken(NamedTuple):
    """A release that is no good.

    Attributes:
        change: what makes it so.
        end: how systemd says that it ended.
        reads: it reads devices for a while.
    """

    change: Change
    end: str
    reads: bool = True


BROKEN = {
    "it cannot be imported": Broken(
        edit("gateway/app.py", "import asyncio\n", "import asyncio, nothing\n"), "exit-code", reads=False
    ),
    "it crashes soon": Broken(newer_buffer, "signal"),
    "it ends by itself": Broken(edit("gateway/app.py", UNTIL_STOPPED, after(1, "stop.set")), "success"),
    "it is never ready": Broken(edit("gateway/app.py", "READY=1", "STATUS=soon"), "timeout"),
    "it does not know the configuration": Broken(
        edit("gateway/config/settings.py", "commit_within", "committed_within"), "exit-code", reads=False
    ),
}


def runs(machine: Machine) -> str:
    """Return the release in force."""
    return machine.run("readlink", "/var/lib/polegate-release/current").strip().rpartition("/")[2]


def proved(machine: Machine) -> str:
    return machine.run("cat", "/var/lib/polegate/proved", check=False).strip()


def test_a_good_release_goes_on_where_the_one_before_was_and_proves_healthy(
    machine: Machine, around: Site, package: Path, tmp_path: Path
) -> None:
    heard = around.heard()
    packs_come(machine, around)
    before = machine.run("cat", "/etc/polegate/pole.toml")
    install(machine, scene.repacked(package, NEW, tmp_path, SOON_HEALTHY))
    machine.wait(lambda: proved(machine) == NEW, LIMIT_S, "it does not prove healthy")
    packs_come(machine, around)
    machine.wait(lambda: not heard.holes(), LIMIT_S, "packs are missing")
    machine.wait(lambda: heard.state.get("version") == NEW, LIMIT_S, "another version runs")
    assert machine.run("cat", "/etc/polegate/pole.toml") == before
    assert machine.run("polegate", "version") == f"polegate {NEW}\ncurrent   {NEW}\nprevious  {OLD}\n"

    drop_in(machine, QUICK)
    for restart in range(1, 5):
        machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "polegate")
        machine.wait(restarted(machine, restart), LIMIT_S, "it is not back")
    assert runs(machine) == NEW

    install(machine, package)
    packs_come(machine, around)
    machine.wait(lambda: heard.state.get("version") == OLD, LIMIT_S, "another version runs")
    trial = f"polegate {OLD}\ncurrent   {OLD}, on trial: start 1 of 3\nprevious  {NEW}\n"
    assert machine.run("polegate", "version") == trial


@pytest.mark.parametrize("fault", BROKEN)
def test_a_bad_release_goes_back_by_itself_and_loses_nothing(
    machine: Machine, around: Site, package: Path, tmp_path: Path, fault: str
) -> None:
    heard = around.heard()
    change, end, reads = BROKEN[fault]
    drop_in(machine, f"{QUICK}TimeoutStartSec={6 if end == 'timeout' else 60}\n")
    packs_come(machine, around)
    around.broker.kill()  # what is read now waits on the disk, also what the bad release reads
    install(machine, scene.repacked(package, NEW, tmp_path, change))
    back = f"running; release {NEW} was given up: polegate version"
    machine.wait(lambda: status(machine) == back, LIMIT_S, "it does not go back")
    assert runs(machine) == OLD
    assert machine.run("dpkg-query", "--show", "--showformat=${Version} ${db:Status-Status}", "polegate") == (
        f"{NEW} installed"
    )
    around.broker.start()
    epochs = {1, 2, 3, 4, 5} if reads else {1, 2}
    machine.wait(lambda: {epoch for epoch, _ in heard.packs["energy"]} == epochs, LIMIT_S, "epochs are missing")
    machine.wait(lambda: not heard.holes(), LIMIT_S, "packs are missing")
    why = f"it did not prove healthy in three starts; the last ended with {end}"
    machine.wait(lambda: heard.state.get("given_up", {}).get("why") == why, LIMIT_S, "the state does not tell")
    assert (heard.state["version"], heard.state["given_up"]["version"]) == (OLD, NEW)
    log = machine.log()
    assert f"release {NEW} did not prove healthy in 3 starts, the last ended with {end}: back to {OLD}" in log
    assert "a newer release was given up; this is the one before" in log
    told = machine.run("sh", "-c", "polegate version; echo $?")
    assert told.startswith(f"polegate {OLD}\ncurrent   {OLD}\ngiven up  {NEW}, ")
    assert why in told
    assert told.endswith("\n1\n")


def test_a_good_release_takes_the_place_of_one_that_was_given_up(
    machine: Machine, around: Site, package: Path, tmp_path: Path
) -> None:
    drop_in(machine, QUICK)
    install(machine, scene.repacked(package, NEW, tmp_path, BROKEN["it cannot be imported"].change))
    machine.wait(lambda: "given up" in status(machine), LIMIT_S, "it does not go back")
    install(machine, scene.repacked(package, "0.3.0", tmp_path))
    assert status(machine) == "running"
    assert runs(machine) == "0.3.0"
    packs_come(machine, around)


@pytest.mark.parametrize("base", scene.bases(), ids=lambda base: base.name)
def test_what_ends_in_order_is_no_failure(machine: Machine, around: Site, package: Path, tmp_path: Path) -> None:
    install(machine, scene.repacked(package, NEW, tmp_path))
    for _ in range(4):
        machine.run("systemctl", "restart", "polegate")
    machine.reboot()
    machine.wait(lambda: status(machine) == "running", LIMIT_S, "it does not run")
    packs_come(machine, around)
    assert "on trial: start 1 of 3" in machine.run("polegate", "version")
    assert runs(machine) == NEW


def test_an_upgrade_that_is_cut_off_leaves_what_ran_and_can_be_ended(
    machine: Machine, around: Site, package: Path, tmp_path: Path
) -> None:
    heard = around.heard()
    packs_come(machine, around)
    new = scene.repacked(package, NEW, tmp_path)
    (machine.root / "root/new.deb").write_bytes(new.read_bytes())
    machine.run("dpkg", "--unpack", "/root/new.deb")
    machine.run("sync")
    machine.cut()
    machine.boot()
    packs_come(machine, around)
    assert heard.state["version"] == OLD
    machine.run("dpkg", "--configure", "--pending")
    packs_come(machine, around)
    machine.wait(lambda: heard.state.get("version") == NEW, LIMIT_S, "it does not take over")
    machine.wait(lambda: not heard.holes(), LIMIT_S, "packs are missing")

"""The package on a machine with a real systemd: installed, started, ended in every way, upgraded, removed."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from hil.broker import mosquitto
from hil.machine import Machine
from tests.link.pki import Authority
from tests.system import scene
from tests.system.scene import LIMIT_S, Site, drop_in, install, main_pid, packs_come, restarted, status

pytestmark = scene.MARKS

ALLOWED = {
    "a database in the state folder",
    "a file in the runtime folder",
    "the configuration",
    "a credential",
    "the system D-Bus",
    "TCP",
    "a look-up of a name",
    "a thread",
    "the id of this boot",
    "the time since boot",
    "the temporary folder",
    "a USB adapter",
    "an adapter of class ACM",
    "a UART",
    "a UART of another kind",
}
NO_SUCH_DEVICE = {"ENXIO", "ENODEV", "EIO"}  # the filter let it through, and there is none here


@pytest.mark.parametrize("base", scene.bases(), ids=lambda base: base.name)
def test_what_is_installed_waits_for_its_configuration_and_takes_it(
    base: Path, package: Path, around: Site, tmp_path: Path
) -> None:
    with Machine(tmp_path / "machine", [base], around.binds) as machine:
        install(machine, package)
        assert machine.shows("polegate", "ActiveState") == "active"
        assert status(machine).startswith("not provisioned: /etc/polegate/pole.toml: holds no setting; ")
        assert machine.run("systemctl", "is-enabled", "polegate") == "enabled\n"
        pid = main_pid(machine)
        machine.write("/etc/polegate/pole.toml", around.configuration)
        machine.run("systemd-tmpfiles", "--create", "polegate.conf")
        machine.wait(lambda: status(machine) == "running", LIMIT_S, "the configuration is not taken")
        packs_come(machine, around)
        assert main_pid(machine) == pid
        assert machine.run("polegate", "check", "/etc/polegate/pole.toml").endswith("no fault\n")
        assert machine.run("systemd-analyze", "verify", "--man=no", "polegate.service", "polegate-clock.service") == ""
        assert machine.run("stat", "-c", "%a %U %G", "/etc/polegate/pole.toml") == "640 root polegate\n"
        assert machine.run("systemctl", "is-system-running") == "running\n"


def test_a_reload_keeps_the_process_and_what_was_not_touched(machine: Machine, around: Site) -> None:
    heard = around.heard()
    packs_come(machine, around)
    pid = main_pid(machine)
    second = (
        '\n[[device]]\nid = "meter-2"\ndriver = "modbus"\nport = "cabinet"\nprofile = "eastron-sdm630"\nevery = 0.2\n'
    )
    machine.write("/etc/polegate/pole.toml", around.configuration + second)
    machine.run("systemctl", "reload", "polegate")
    machine.wait(
        lambda: any(name.startswith(f"{scene.POLE}/meter-2/") for name in heard.latest), LIMIT_S, "it was not taken"
    )
    packs_come(machine, around)
    assert main_pid(machine) == pid
    assert machine.shows("polegate", "ActiveState") == "active"
    assert {epoch for epoch, _ in heard.packs["energy"]} == {1}


def test_what_is_killed_is_back_and_nothing_is_missing(machine: Machine, around: Site) -> None:
    heard = around.heard()
    packs_come(machine, around)
    pid = main_pid(machine)
    machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "polegate")
    machine.wait(lambda: main_pid(machine) not in {0, pid}, LIMIT_S, "it is not back")
    packs_come(machine, around)
    machine.wait(
        lambda: len({epoch for epoch, _ in heard.packs["energy"]}) == 2 and not heard.holes(), LIMIT_S, "holes"
    )
    assert machine.shows("polegate", "NRestarts") == "1"


def test_a_technician_in_the_group_of_the_service_asks_it_without_root(machine: Machine, around: Site) -> None:
    packs_come(machine, around)
    machine.run("useradd", "--no-create-home", "tech")
    ask = "runuser", "-u", "tech", "--", "polegate", "doctor", "--json"
    refused = json.loads(machine.run(*ask, check=False))
    assert refused["exit"] == 69
    assert refused["findings"][-1]["step"].startswith("sudo polegate doctor; or sudo usermod -aG polegate tech")
    machine.run("usermod", "-aG", "polegate", "tech")
    told = json.loads(machine.run(*ask))
    assert told["state"]["uplink"]["up"]
    wrong = [each for each in told["findings"] if each["level"] == "wrong"]
    assert (told["exit"], wrong) == (0, [])
    (port,) = [each["text"] for each in told["findings"] if "may not be opened by user tech" in each["text"]]
    assert "usermod -aG dialout tech" in port


def test_nothing_ends_its_trying(machine: Machine) -> None:
    drop_in(machine, "[Service]\nRestartSec=100ms\n")
    for restart in range(1, 9):  # five in ten seconds is systemd's limit
        machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "polegate")
        machine.wait(restarted(machine, restart), LIMIT_S, "it gave up")


def test_a_hung_process_is_started_anew_by_the_watchdog(machine: Machine, around: Site) -> None:
    drop_in(machine, "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\nRestartSec=100ms\n")
    machine.run("systemctl", "restart", "polegate")
    packs_come(machine, around)
    pid = main_pid(machine)
    machine.run("systemctl", "kill", "--signal=STOP", "--kill-whom=main", "polegate")
    machine.wait(lambda: main_pid(machine) not in {0, pid}, LIMIT_S, "the watchdog did nothing")
    assert "Watchdog timeout (limit 2s)!" in machine.log()
    packs_come(machine, around)


STUCK = """
import asyncio
from typing import ClassVar, Literal
from drivers.contract import Asked, Channel
from gateway.jobs import progress

progress.LONGEST_LOOK_S, progress.LONGEST_PAUSE_S = -12.0, 0.0  # minutes otherwise

class Stuck(Asked):
    driver: Literal["stuck"]
    MAKE: ClassVar = "nobody's"
    DATASET: ClassVar = "water"
    CHANNELS: ClassVar = {"level": Channel("level", "m")}

    def decode(self, frame: bytes) -> dict:
        return {}

    async def poll(self, port: object) -> dict:
        await asyncio.Event().wait()
"""


def test_a_stuck_job_is_named_and_the_gateway_started_anew(machine: Machine, around: Site) -> None:
    site_packages = "/usr/lib/python3/dist-packages"
    machine.run("mkdir", "-p", f"{site_packages}/stuck-1.dist-info")
    machine.write(f"{site_packages}/stuck.py", STUCK)
    metadata = "Metadata-Version: 2.1\nName: stuck\nVersion: 1\n"
    machine.write(f"{site_packages}/stuck-1.dist-info/METADATA", metadata)
    entry = "[polegate.drivers]\nstuck = stuck:Stuck\n"
    machine.write(f"{site_packages}/stuck-1.dist-info/entry_points.txt", entry)
    drop_in(machine, "[Service]\nWatchdogSec=3\nRestartSec=100ms\n")
    device = '\n[[device]]\nid = "well"\ndriver = "stuck"\nport = "cabinet"\nevery = 0.1\n'
    machine.run("sh", "-c", "cat >> /etc/polegate/pole.toml", text=device)
    machine.run("systemctl", "restart", "polegate")
    packs_come(machine, around)
    pid = main_pid(machine)
    stuck = "stuck: device well; starting anew soon"
    machine.wait(lambda: status(machine) == stuck, LIMIT_S, "it is not named")
    machine.wait(lambda: main_pid(machine) not in {0, pid}, LIMIT_S, "it was not started anew")
    assert '"stuck": "device well"' in machine.log()


def test_a_reboot_loses_nothing(machine: Machine, around: Site) -> None:
    heard = around.heard()
    packs_come(machine, around)
    machine.reboot()
    packs_come(machine, around)
    machine.wait(lambda: not heard.holes(), LIMIT_S, "packs are missing")
    assert len({epoch for epoch, _ in heard.packs["energy"]}) == 2


def test_what_was_committed_outlives_the_cut_of_the_container(machine: Machine, around: Site) -> None:
    packs_come(machine, around)
    around.broker.kill()
    database = machine.root / "var/lib/polegate/buffer.db"
    machine.wait(lambda: len(committed(database)) >= 5, LIMIT_S, "nothing is committed")
    machine.cut()
    kept = committed(database)
    heard = around.heard()
    around.broker.start()
    machine.boot()
    machine.wait(lambda: kept <= set(heard.packs["energy"]) | set(heard.packs["air"]), LIMIT_S, "packs are missing")


def committed(database: Path) -> set[tuple[int, int]]:
    """Return (epoch, n) of what is in a copy of the database."""
    copy = database.parent / "copy.db"
    for suffix in ("", "-wal"):
        source = Path(f"{database}{suffix}")
        if source.exists():
            Path(f"{copy}{suffix}").write_bytes(source.read_bytes())
    with contextlib.closing(sqlite3.connect(copy)) as sql:
        return set(sql.execute("SELECT id >> 32, n FROM pack"))


def test_the_sandbox_allows_what_is_needed_and_refuses_all_else(machine: Machine) -> None:
    machine.run("sh", "-c", "echo secret > /etc/polegate/pole.key; chmod 600 /etc/polegate/pole.key; mkdir -p /boot")
    for number, minor in ((188, 0), (166, 0), (204, 64), (4, 67), (1, 11), (7, 0)):
        kind = "b" if number == 7 else "c"
        node = f"/dev/probe-{number}-{minor}"
        machine.outside("mknod", node, kind, str(number), str(minor))
        machine.run("chmod", "666", node)
    machine.run("systemctl", "stop", "polegate")
    unit = machine.run("cat", "/usr/lib/systemd/system/polegate.service").splitlines()
    kept = [line for line in unit if not line.startswith(("Type=", "Exec", "Restart", "WatchdogSec=", "OOM"))]
    text = "\n".join(kept).replace("[Service]", "[Service]\nType=oneshot\nExecStart=/usr/bin/python3 /opt/probe.py")
    machine.write("/etc/systemd/system/probe.service", text)
    machine.write("/opt/probe.py", (Path(__file__).parent / "probe.py").read_text())
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "probe")
    told = json.loads((machine.root / "var/lib/polegate/probe.json").read_text())
    assert {name for name, what in told.items() if what == "ok" or what in NO_SUCH_DEVICE} == ALLOWED, told
    assert len(told) - len(ALLOWED) >= 22


def test_a_credential_that_is_missing_is_told_and_one_that_is_there_opens_the_broker(
    machine: Machine, around: Site, tmp_path: Path
) -> None:
    ours = Authority(tmp_path)
    own = ours.issue(scene.POLE)
    folder = tmp_path / "tls"
    folder.mkdir()
    asking = f"{ours.issue('broker').lines}\ncafile {ours.cert}\nrequire_certificate true"
    strict = mosquitto(folder, asking)
    strict.start()
    try:
        for name, file in (("ca.pem", ours.cert), ("pole.pem", own.cert)):
            machine.write(f"/etc/polegate/{name}", file.read_text())
        tls = 'ca_file = "/etc/polegate/ca.pem"\ncert_file = "/etc/polegate/pole.pem"\nkey_file = "credential:mqtt-key"'
        plain = f'url = "mqtt://127.0.0.1:{around.broker.port}"'
        text = around.configuration.replace(plain, f'url = "mqtts://127.0.0.1:{strict.port}"\n{tls}')
        machine.run("systemctl", "stop", "polegate")
        machine.write("/etc/polegate/pole.toml", text)
        machine.run("rm", "-r", "/var/lib/polegate/config")  # as on a new pole: it is taken without a trial
        machine.run("systemctl", "start", "polegate")
        assert status(machine) == "running"
        machine.wait(lambda: 'file of the credential \\"mqtt-key\\" is not there' in machine.log(), LIMIT_S, "not told")
        machine.write("/etc/polegate/pole.key", own.key.read_text())
        machine.run("systemctl", "restart", "polegate")
        machine.wait(lambda: "uplink is up" in machine.log().rpartition("not there")[2], LIMIT_S, "no uplink")
    finally:
        strict.stop()


def test_the_time_of_day_is_believed_once_the_kernel_does(machine: Machine, around: Site) -> None:
    heard = around.heard()
    machine.wait(lambda: heard.state.get("clock") == "unsynchronised", LIMIT_S, "no state")
    assert machine.shows("polegate-clock", "ActiveState") == "active"
    folder = "/run/systemd/timesync"

    def is_believed() -> bool:
        """Tell systemd-time-wait-sync again and again: it misses a file that comes at once in a new folder."""
        machine.run("sh", "-c", f"mkdir -p {folder} && rm -f {folder}/synchronized && touch {folder}/synchronized")
        return heard.state.get("clock") == "synchronised"

    machine.wait(is_believed, LIMIT_S, "it is not believed")


def test_what_is_removed_leaves_state_and_configuration_and_what_is_purged_leaves_nothing(
    machine: Machine, around: Site, package: Path, tmp_path: Path
) -> None:
    install(machine, scene.repacked(package, "0.2.0", tmp_path))
    packs_come(machine, around)
    machine.run("apt-get", "remove", "--yes", "polegate")
    assert machine.shows("polegate", "ActiveState") == "inactive"
    assert machine.run("find", "/usr/lib/polegate", "/var/lib/polegate-release", check=False) == ""
    kept = set(machine.run("find", "/etc/polegate", "/var/lib/polegate", "-type", "f").split())
    assert {"/etc/polegate/pole.toml", "/var/lib/polegate/buffer.db"} <= kept
    assert machine.run("sh", "-c", "command -v polegate", check=False) == ""

    machine.run("apt-get", "purge", "--yes", "polegate")
    for folder in ("/etc", "/usr", "/var", "/run", "/opt"):
        left = machine.run("find", folder, "-xdev", "-iname", "*polegate*", "-not", "-path", "/var/cache/*").split()
        assert left == [], left
    for base in ("passwd", "group"):
        assert "polegate" not in machine.run("cat", f"/etc/{base}")
    assert machine.run("systemctl", "--failed", "--no-legend") == ""
    machine.run("systemctl", "is-system-running")

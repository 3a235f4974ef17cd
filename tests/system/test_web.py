"""The page at the pole on a real systemd: it runs while somebody looks, reaches nothing else, and leaves nothing."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.commands.web import IDLE_S
from hil.broker import free_port
from hil.machine import Machine
from tests.system import scene
from tests.system.scene import LIMIT_S, Site, install, main_pid, packs_come

pytestmark = scene.MARKS

SOON = 2.0
SOCKET, SERVICE = "polegate-web.socket", "polegate-web.service"
DROP_INS = f"/etc/systemd/system/{SOCKET}.d"
FETCH = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
connection.request("GET", sys.argv[2])
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""


class Page(NamedTuple):
    """What came."""

    status: int
    text: str


def fetch(machine: Machine, port: int, path: str = "/") -> Page:
    """Ask from within the machine."""
    return Page(*json.loads(machine.run("python3", "-c", FETCH, str(port), path)))


def ends_soon(code: Path) -> None:
    """Make a release whose page does not wait for minutes."""
    file = code / "gateway/commands/web.py"
    text = file.read_text()
    assert f"IDLE_S = {IDLE_S}" in text
    file.write_text(text.replace(f"IDLE_S = {IDLE_S}", f"IDLE_S = {SOON}"))


def page_pid(machine: Machine) -> int:
    return int(machine.shows(SERVICE, "MainPID"))


def must_be_confined(machine: Machine, base: Path) -> None:
    """Fail where the page's process may do more than it needs, or is the gateway's user."""
    lines = machine.run("cat", f"/proc/{page_pid(machine)}/status").splitlines()
    told = {name: fields.split() for name, _, fields in (line.partition(":") for line in lines)}
    assert {*told["CapEff"], *told["CapBnd"]} == {"0" * 16}
    assert (told["NoNewPrivs"], told["Seccomp"]) == (["1"], ["2"])
    gateway = machine.run("stat", "-c", "%u", f"/proc/{main_pid(machine)}").strip()
    assert not {gateway, "0"} & set(told["Uid"])
    if base.name == "bookworm":  # systemd 257 does without where it may not configure the loopback, as in a container
        nets = machine.run("readlink", f"/proc/{page_pid(machine)}/ns/net", "/proc/1/ns/net").split()
        assert len(set(nets)) == 2


def enable(machine: Machine) -> int:
    """Enable the socket, at a free port: the machine shares the network of the test machine."""
    assert machine.run("systemctl", "is-enabled", SOCKET, check=False) == "disabled\n"
    assert machine.shows(SOCKET, "ActiveState") == "inactive"
    port = free_port()
    machine.run("mkdir", DROP_INS)
    machine.write(f"{DROP_INS}/override.conf", f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n")
    machine.run("systemctl", "daemon-reload")
    assert machine.run("systemd-analyze", "verify", "--man=no", SOCKET, SERVICE) == ""
    machine.run("systemctl", "enable", "--now", SOCKET)
    assert machine.shows(SERVICE, "ActiveState") == "inactive"
    return port


@pytest.mark.parametrize("base", scene.bases(), ids=lambda base: base.name)
def test_the_page_runs_while_somebody_looks_and_leaves_nothing(
    machine: Machine, around: Site, base: Path, package: Path, tmp_path: Path
) -> None:
    packs_come(machine, around)
    pid = main_pid(machine)
    port = enable(machine)
    page = fetch(machine, port)
    assert page.status == 200
    assert "<h1>pole-7</h1>" in page.text
    assert "<dt>voltage_l1</dt>" in page.text
    must_be_confined(machine, base)
    state = json.loads(fetch(machine, port, "/status.json").text)["state"]
    assert state["devices"]["dust"]["latest"]["pm10"] > 0
    assert main_pid(machine) == pid

    old = page_pid(machine)
    install(machine, scene.repacked(package, "0.2.0", tmp_path, ends_soon))
    assert page_pid(machine) != old
    packs_come(machine, around)
    pid = main_pid(machine)
    assert "polegate 0.2.0 runs for " in fetch(machine, port).text
    machine.wait(lambda: machine.shows(SERVICE, "ActiveState") == "inactive", LIMIT_S, "the page does not end")
    assert machine.shows(SERVICE, "Result") == "success"
    assert fetch(machine, port).status == 200
    packs_come(machine, around)
    assert main_pid(machine) == pid

    machine.run("systemctl", "stop", "polegate")
    none = fetch(machine, port)
    assert (none.status, "the gateway does not answer" in none.text) == (503, True)
    assert machine.shows("polegate", "ActiveState") == "inactive"

    machine.run("apt-get", "remove", "--yes", "polegate")
    assert {machine.shows(unit, "ActiveState") for unit in (SOCKET, SERVICE)} == {"inactive"}
    with pytest.raises(RuntimeError, match="ConnectionRefusedError"):
        fetch(machine, port)
    machine.run("rm", "-r", DROP_INS)  # whoever wrote it removes it
    machine.run("apt-get", "purge", "--yes", "polegate")
    for place in ("/etc", "/usr", "/var", "/run"):
        left = machine.run("find", place, "-xdev", "-iname", "*polegate*", "-not", "-path", "/var/cache/*").split()
        assert left == [], left
    assert machine.run("systemctl", "--failed", "--no-legend") == ""

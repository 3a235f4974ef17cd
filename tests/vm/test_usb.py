"""An adapter with an FTDI chip is pulled out and plugged in again; its driver, udev and the tty are the real ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.twins.sds011 import Sds011
from hil.uart import Uart
from hil.wire import Wire
from tests.vm.guest import Guest
from tests.vm.scene import LIMIT_S, POLE, Site

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

PULLS = 3
DUST = f"{POLE}/dust/pm10"
NAME = "/dev/polegate/usb-1-1:1.0"  # the first socket of the first controller
CONFIG = f"""
[port.dust]
path = "{NAME}"
[[device]]
id = "dust"
driver = "sds011"
port = "dust"
every = 0
[dataset.air]
send_every = 0.5
commit_within = 1
"""


@pytest.fixture
def wire(around: Site, tmp_path: Path) -> Iterator[Wire]:
    """A pty with a talking sensor, for QEMU's end of the adapter."""
    wire = Wire(tmp_path / "dust")

    async def up() -> Uart:
        uart = Uart(wire, Sds011())
        uart.plug()
        return uart

    async def down() -> None:
        uart.close()

    uart = around.call(up())
    yield wire
    around.call(down())


def plug(guest: Guest) -> None:
    guest.qmp("device_add", driver="usb-serial", chardev="dust", id="adapter", bus="usb.0", port="1")


def pull(guest: Guest) -> None:
    guest.qmp("device_del", id="adapter")


def test_an_adapter_that_is_pulled_and_plugged_is_used_again_and_nobody_else_minds(
    guest: Guest, around: Site, wire: Wire
) -> None:
    def dust() -> int:
        return len(around.heard.values(DUST))

    def exists() -> bool:
        return guest.run("sh", "-c", f"test -e {NAME} && echo yes", check=False) == "yes\n"

    backend = {"type": "serial", "data": {"device": str(wire.link.resolve())}}
    guest.qmp("chardev-add", id="dust", backend=backend)
    guest.write("/etc/polegate/pole.toml", around.configuration + CONFIG)
    guest.run("systemctl", "restart", "polegate")
    pid, asked = guest.shows("polegate", "MainPID"), around.asked()
    guest.wait(lambda: "port-gone" in str(guest.status()), LIMIT_S, "the missing adapter is not told")

    for _ in range(PULLS):
        before = dust()
        plug(guest)
        guest.wait(exists, LIMIT_S, "the adapter has no name")
        assert guest.run("readlink", "-f", NAME).startswith("/dev/ttyUSB")
        around.wait(lambda: dust() >= before + 3, "no values of the adapter")  # noqa: B023  # it waits here
        pull(guest)
        guest.wait(lambda: not exists(), LIMIT_S, "the name stays")
        guest.wait(lambda: "port-gone" in str(guest.status()), LIMIT_S, "it is not told that it is gone")
        around.all_come()

    assert guest.shows("polegate", "MainPID") == pid
    assert "ftdi_sio" in guest.log("--dmesg")
    assert around.gaps(asked) == {}
    assert around.heard.holes() == {}

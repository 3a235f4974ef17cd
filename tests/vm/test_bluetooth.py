"""A tag is heard by the kernel's Bluetooth and the real bluetoothd; only the controller and the air are emulated."""

import threading
from collections.abc import Iterator

import pytest

from hil.twins.ruuvi import RuuviTag
from tests.vm.guest import Guest
from tests.vm.scene import LIMIT_S, POLE, Site

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

ADDRESS = "CB:B8:33:4C:88:4F"
HEARTBEAT_S = 0.5
CONFIG = f"""
[[device]]
id = "tag"
driver = "ruuvi"
address = "{ADDRESS}"
every = 0
[dataset.climate]
send_every = 0.5
commit_within = 1
"""
RADIO = ("systemd-run", "--quiet", "--unit=radio", "--collect", "/usr/bin/python3", "-ISB", "/usr/local/lib/radio.py")


class Beacon:
    """A tag that advertises, from a thread.

    Attributes:
        tag: the twin.
        said: the truth of each advert by its sequence number.
    """

    def __init__(self, guest: Guest) -> None:
        self.tag = RuuviTag(ADDRESS)
        self.said: dict[int, dict[str, float | None]] = {}
        self._air = guest.air()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._advertise)
        self._thread.start()

    def close(self) -> None:
        """Fall silent."""
        self._ends.set()
        self._thread.join()
        self._air.close()

    def _advertise(self) -> None:
        while not self._ends.wait(HEARTBEAT_S):
            self.tag.temperature = 20 + (self.tag.sequence or 0) % 100 / 20
            advert = self.tag.heartbeat()
            self.said[self.tag.sequence or 0] = self.tag.truth()
            self._air.send(f"{ADDRESS} -60 {advert.hex()}")


@pytest.fixture
def beacon(guest: Guest) -> Iterator[Beacon]:
    """A tag, and the controller that hears it."""
    guest.run("modprobe", "hci_vhci")
    guest.run(*RADIO)
    beacon = Beacon(guest)
    yield beacon
    beacon.close()


def test_a_tag_is_heard_and_heard_again_after_all_that_happens_to_bluetooth(
    guest: Guest, around: Site, beacon: Beacon
) -> None:
    def heard() -> list[int]:
        return around.heard.values(f"{POLE}/tag/sequence")

    def is_heard(what: str) -> None:
        before = len(heard())
        guest.wait(lambda: len(heard()) >= before + 3, LIMIT_S, f"no tag is heard {what}")

    guest.wait(lambda: guest.shows("bluetooth", "ActiveState") == "active", LIMIT_S, "bluetoothd does not run")
    guest.write("/etc/polegate/pole.toml", around.configuration + CONFIG)
    guest.run("systemctl", "restart", "polegate")
    pid, asked = guest.shows("polegate", "MainPID"), around.asked()
    is_heard("at first")

    guest.run("bluetoothctl", "power", "off")
    guest.run("bluetoothctl", "power", "on")
    is_heard("after the adapter was off")

    guest.run("systemctl", "restart", "bluetooth")
    is_heard("after bluetoothd was restarted")

    guest.run("systemctl", "kill", "--signal=KILL", "bluetooth")
    guest.run("systemctl", "start", "bluetooth")
    is_heard("after bluetoothd was killed")

    guest.run("systemctl", "stop", "radio")
    guest.run(*RADIO)
    is_heard("after the adapter was pulled and plugged")

    assert guest.shows("polegate", "MainPID") == pid
    temperatures = dict(zip(heard(), around.heard.values(f"{POLE}/tag/temperature"), strict=True))
    assert temperatures == {sequence: beacon.said[sequence]["temperature"] for sequence in temperatures}
    assert around.gaps(asked) == {}
    assert around.heard.holes() == {}

"""The power goes, at random moments and again and again, while the gateway reads, stores and sends.

What a meter said longer ago than ``commit_within`` (and a while for the emulated processor) must come in the end, and
what the gateway itself said to be on the disk must be there at the next start.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm.guest import Guest
from tests.vm.image import Image
from tests.vm.scene import LIMIT_S, Site, provision

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

LIVES = ("offline", "booting", "offline", "online", "cut off") * 4
LONGEST_LIFE_S = 12.0
LONGEST_BOOT_S = 25.0
FEW = 3  # packs
NO_SYNC = "[Service]\nEnvironment=LD_PRELOAD=libeatmydata.so\n"


class Lives:
    """One pole whose power is cut again and again.

    Attributes:
        stored: packs that the gateway said to be on the disk, over all cuts.
        short: by how many packs fewer there were at the next start, where there were.
    """

    def __init__(self, guest: Guest, around: Site, seed: int) -> None:
        self._guest = guest
        self._around = around
        self._dice = random.Random(seed)  # noqa: S311  # it picks moments
        self._expected = 0
        self.stored = 0
        self.short: list[int] = []

    def live(self, kind: str) -> None:
        """Live for a while: with an uplink, without, with one that is cut, or until somewhere in the boot."""
        if kind == "booting":
            self._guest.switch_on()
            time.sleep(self._dice.uniform(0, LONGEST_BOOT_S))
            self._around.power_cut(self._guest)
            return
        self.begin(online=kind != "offline")
        life_s = self._dice.uniform(0, LONGEST_LIFE_S)
        if kind != "offline":
            self._around.wait(lambda: self._around.heard.state["status"] == "online", "no uplink")
            time.sleep(life_s * self._dice.random())
        if kind == "cut off":
            self._around.cut_uplink()
        self.end(life_s, online=kind == "online")

    def begin(self, *, online: bool) -> None:
        """Switch it on, and look at what it has before anything is acknowledged."""
        if online:
            self._around.restore_uplink()
        else:
            self._around.cut_uplink()
        asked = self._around.asked()
        self._guest.boot()
        found: list[int] = []
        self._guest.wait(lambda: found or self._look(found), LIMIT_S, "the gateway does not run")
        if not online and found[0] < self._expected:
            self.short.append(self._expected - found[0])
        self._guest.wait(
            lambda: all(now > asked[name] for name, now in self._around.asked().items()), LIMIT_S, "it does not poll"
        )

    def end(self, life_s: float, *, online: bool) -> None:
        """Look at what it says to be on the disk until its power is cut; what is acknowledged leaves the disk."""
        end = time.monotonic() + life_s
        found = [0]
        while self._look(found) and time.monotonic() < end:
            pass
        self._around.power_cut(self._guest)
        self._expected = 0 if online else found[-1]
        self.stored += self._expected

    def _look(self, found: list[int]) -> bool:
        if buffer := self._guest.status().get("buffer"):
            found.append(buffer["stored"])
        return bool(buffer)


def test_twenty_power_cuts_lose_no_committed_reading(
    disk: Image, around: Site, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with disk.booted(tmp_path / "guest") as guest:
        provision(guest, around.configuration)
        around.power_cut(guest)
        lives = Lives(guest, around, seed=79)
        for kind in LIVES:
            lives.live(kind)
        lives.begin(online=True)
        guest.wait(lambda: not around.lost(), LIMIT_S, "readings are lost")
        around.all_come()
        assert around.heard.holes() == {}
        assert lives.short == []
        assert around.invented() == {}
    record_property("stored", lives.stored)
    record_property("promised", sum(map(len, around.promised.values())))
    assert lives.stored > 20


def test_without_syncs_the_loss_is_seen(disk: Image, around: Site, tmp_path: Path) -> None:
    with disk.booted(tmp_path / "guest") as guest:
        guest.write("/etc/systemd/system/polegate.service.d/test.conf", NO_SYNC)
        provision(guest, around.configuration)
        around.power_cut(guest)
        lives = Lives(guest, around, seed=79)
        lives.begin(online=False)
        lives.end(LONGEST_LIFE_S, online=False)
        lives.begin(online=False)
        around.restore_uplink()
        guest.wait(lambda: guest.status()["buffer"]["packs"] < FEW, LIMIT_S, "the backlog does not go")
        around.all_come()
        assert lives.stored > FEW
        assert lives.short
        assert around.lost()

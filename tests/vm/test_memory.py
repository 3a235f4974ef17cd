"""The kernel ends a gateway that takes more memory than its unit may have; systemd starts it anew."""

import pytest

from tests.vm.guest import Guest
from tests.vm.scene import LIMIT_S, Site

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

TOO_LITTLE = "16M"


def test_a_gateway_that_the_kernel_ends_for_its_memory_is_back_with_all_it_had_accepted(
    guest: Guest, around: Site
) -> None:
    limit = guest.shows("polegate", "MemoryMax")
    around.cut_uplink()
    around.be_asked(5)
    pid = guest.shows("polegate", "MainPID")
    guest.run("systemctl", "set-property", "--runtime", "polegate", f"MemoryMax={TOO_LITTLE}", check=False)
    guest.wait(lambda: guest.shows("polegate", "MainPID") != pid, LIMIT_S, "the kernel did not end it")
    accepted = around.asked()
    guest.run("systemctl", "set-property", "--runtime", "polegate", f"MemoryMax={limit}")
    guest.wait(lambda: guest.status().get("buffer"), LIMIT_S, "it is not back")
    assert "Failed with result 'oom-kill'" in guest.log("--unit=polegate")
    assert "Memory cgroup out of memory: Killed process" in guest.log("--dmesg")
    assert int(guest.shows("polegate", "NRestarts")) >= 1

    # The last answer may have been on its way when it was killed
    around.promised = {name: set(range(1, count)) for name, count in accepted.items()}
    around.restore_uplink()
    around.all_come()
    guest.wait(lambda: not around.lost(), LIMIT_S, "readings are lost")
    assert around.heard.holes() == {}
    assert around.invented() == {}

"""A door: the clocks of the machine.

A Pi has no clock chip: at power-up its time of day is wherever it was left. So a reading is stamped with
CLOCK_BOOTTIME, which only counts, and a stamp means something together with the boot it belongs to. The time of
day is put on when a pack is sealed; whether the kernel holds it for right is asked with ``adjtimex``. As a service the
gateway may not ask; there ``systemd/polegate-clock.service`` leaves a file once it is so.
"""

import ctypes
import time
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SYNCHRONISED = Path("/run/polegate-clock/synchronised")
TIME_ERROR = 5  # adjtimex(2): clock not synchronised
_adjtimex = ctypes.CDLL(None).adjtimex
TIMEX_BYTES = 512  # struct timex has 208 on 64 bit, fewer on 32; zeroed, it asks for nothing to be changed


class Clock:
    """The machine's clocks."""

    def __init__(self) -> None:
        """Read which boot this is; "" where the kernel does not say."""
        try:
            self.boot = BOOT_ID.read_text().strip()
        except OSError:  # ProcSubset=pid hides it
            self.boot = ""

    def now(self) -> int:
        """Return nanoseconds since boot, suspended time included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def utc_offset(self) -> int:
        """Return nanoseconds to add to a stamp of ``now`` for the time since 1970, as the machine now has it."""
        return time.time_ns() - self.now()

    def synchronised(self) -> bool:
        """Tell whether the kernel holds the time of day for right; where it may not be asked, whether it did once."""
        state = int(_adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)))
        return state < TIME_ERROR if state >= 0 else SYNCHRONISED.exists()

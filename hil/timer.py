"""A timer that is on time: what asyncio's own timers are not, and bytes on a wire must be.

A selector loop rounds its sleep up to whole milliseconds (epoll's unit), which is ten characters at 115200 baud.
The kernel's timerfd has no such unit, so on a real loop the timer is one more readable file; nothing spins. A virtual
loop jumps to any time exactly, and there the timer is the loop's own.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable

from hil.vclock import VirtualLoop

_CLOCK_MONOTONIC = 1  # the clock of loop.time()
_TFD_TIMER_ABSTIME = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Timer:
    """Calls ``ring`` once at the time it is set to; setting it again forgets the older time.

    Needs a running event loop when made. Close it while that loop still runs.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        if not isinstance(self._loop, VirtualLoop):
            self._fd = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create")
            self._loop.add_reader(self._fd, self._expired)

    def set(self, when: float | None) -> None:
        """Ring at ``when`` (seconds of ``loop.time()``; at once if past), or not at all."""
        if self._fd >= 0:
            # All zero would disarm it, so a time in the past becomes the first nanosecond.
            nanoseconds = 0 if when is None else max(1, round(when * 1e9))
            seconds, nanoseconds = divmod(nanoseconds, 10**9)
            spec = _Itimerspec(0, 0, seconds, nanoseconds)
            if _libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
                raise OSError(ctypes.get_errno(), "timerfd_settime")
            return
        if self._handle:
            self._handle.cancel()
        self._handle = None if when is None else self._loop.call_at(when, self._ring)

    def close(self) -> None:
        """Forget what was set and give back the file descriptor."""
        if self._handle:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set to a later time after it had expired
        self._ring()

"""The signs of trouble of the pole itself: of each device, of the buffer's file and of the clock."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

from gateway.health import DeviceHealth
from gateway.pack_sql import Mended

NS = 1_000_000_000
TIME_SERVER = "See that the pole reaches a time server: timedatectl timesync-status."
SPACE = "Make room where `path` in [buffer] lies, or give it another path."
READ_ONLY = "The card may be worn out or was not shut down in order: see dmesg, and replace it."
ELSE = "See that the folder of `path` in [buffer] is there and the service may write to it; else see dmesg."
BUFFER_CODES = {  # what sqlite3 and the kernel say
    "is full": ("disk-full", SPACE),
    "No space left": ("disk-full", SPACE),
    "readonly": ("read-only", READ_ONLY),
    "Read-only": ("read-only", READ_ONLY),
}


class Sign(NamedTuple):
    """How one subject is.

    Attributes:
        event: class of the alarm.
        subject: whose.
        code: what is wrong, in a word; "" for nothing.
        since: when that changed last, nanoseconds of CLOCK_BOOTTIME.
        times: how often it went wrong since the start, by code; also what was over between two looks shows there.
        text: what is wrong, or that it is over, in words.
        hint: what to do.
    """

    event: Literal["device", "buffer", "clock"]
    subject: str
    code: str
    since: int
    times: Mapping[str, int]
    text: str
    hint: str = ""


class Clock(Protocol):
    """The clocks it looks at; see :class:`gateway.clock.Clock`."""

    def now(self) -> int:
        """Return nanoseconds since boot."""

    def utc_offset(self) -> int:
        """Return what to add for nanoseconds since 1970."""

    def synchronised(self) -> bool:
        """Tell whether that is right."""


class Signs:
    """Looks at them."""

    def __init__(
        self,
        clock: Clock,
        health: Mapping[str, DeviceHealth],
        trouble: Callable[[], str],
        mended: Callable[[], Mended | None],
    ) -> None:
        """Make it.

        Args:
            clock: the machine's.
            health: of each device.
            trouble: why the buffer's file cannot be written, in words; "" while it can.
            mended: what was found damaged in it last.
        """
        self._clock = clock
        self._health = health
        self._trouble = trouble
        self._mended = mended
        self._last_mended: Mended | None = None
        self._buffer = _Course(clock.now())
        self._time = _Course(clock.now())

    def look(self) -> list[Sign]:
        """Look at all."""
        return [*(_of_device(*item) for item in self._health.items()), self._of_buffer(), self._of_clock()]

    def _of_buffer(self) -> Sign:
        trouble, mended = self._trouble(), self._mended()
        code, hint = next((to for said, to in BUFFER_CODES.items() if said in trouble), ("not-writable", ELSE))
        course = self._buffer.go_on(code if trouble else "", self._clock.now())
        if mended is not None and mended is not self._last_mended:
            self._last_mended = mended
            course.times["damaged"] += 1
        if trouble:
            return Sign("buffer", "buffer", course.code, course.since, course.times, trouble, hint)
        text = "the buffer's file works"
        if mended is None:
            return Sign("buffer", "buffer", "", course.since, course.times, text)
        text += (
            f"; it was damaged ({mended.why}): {mended.packs} packs are kept, {mended.damaged} were no packs any more"
        )
        hint = f"polegate buffer salvage {mended.aside}" if mended.aside else ""
        return Sign("buffer", "buffer", "", course.since, course.times, text, hint)

    def _of_clock(self) -> Sign:
        right = self._clock.synchronised()
        course = self._time.go_on("" if right else "unsynchronised", self._clock.now())
        text = f"the kernel {'holds' if right else 'does not hold'} the time of day for right"
        return Sign("clock", "clock", course.code, course.since, course.times, text, "" if right else TIME_SERVER)


class _Course:
    """What went wrong with one subject over time."""

    def __init__(self, now: int) -> None:
        self.code = ""
        self.since = now
        self.times: Counter[str] = Counter()

    def go_on(self, code: str, now: int) -> "_Course":
        if code != self.code:
            self.code, self.since = code, now
            if code:
                self.times[code] += 1
        return self


def _of_device(name: str, health: DeviceHealth) -> Sign:
    if health.lapse:
        return Sign("device", name, health.lapse, health.since, health.lapses, health.text, health.hint)
    return Sign("device", name, "", health.since, health.lapses, "it gives values")

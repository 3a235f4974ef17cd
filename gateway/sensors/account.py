"""What one device gives, on its way from driver to reading: stamped, counted, judged, and logged where it changes.

A value that is not good is never a number. The channel is left out, and one record of quality says why; another
says when it is good again. The same holds for a whole device that does not answer.

What no driver may give is stopped here, before anything of the look is kept: further on it would spoil a whole pack,
and the values of others in it.
"""

import math
import re
import sys
from collections.abc import Callable, Iterable

import structlog

from drivers.contract import NAME_PATTERN, QUALITY, DeviceError, Driver, Value, Values
from gateway.words.health import DeviceHealth
from gateway.words.reading import ACCEPTED, REJECTED, Quality, Reading

KINDS = {bool, int, float, str, type(None)}  # no class made from them: not all that writes a value takes it
LARGEST = int(sys.float_info.max)  # a receiver reads a number as a float
LOG_PAUSE_NS = 60_000_000_000  # a device that flaps is told once a minute, not once a poll

log = structlog.get_logger()


class DriverBug(DeviceError):
    """The driver raised what no driver may raise."""

    word = "bug"
    hint = "Report it, with the traceback in the log."


class Account:
    """The account of one device, kept by the job that reads it."""

    def __init__(
        self,
        driver: Driver,
        *,
        health: DeviceHealth,
        now: Callable[[], int],
        note: Callable[[str, Iterable[str]], None],
        keep: Callable[[Reading], None],
    ) -> None:
        """Open it.

        Args:
            driver: the device.
            health: where its counts go.
            now: nanoseconds of CLOCK_BOOTTIME.
            note: takes the names of its channels as they are first seen.
            keep: takes its readings.
        """
        self._driver = driver
        self._health = health
        self._now = now
        self._note = note
        self._keep = keep
        self._known: set[str] = set()
        self._told = False
        self._logged_at: dict[str, int] = {}

    def took(self, values: Values, thin: Callable[[Values], Values] = lambda values: values) -> None:
        """Take one look at the device that gave values.

        Args:
            values: all that it gave.
            thin: picks what is kept of them, once they are known to be such as a driver may give.

        Raises:
            Exception: the driver gave what no driver may give; nothing of it is kept.
        """
        _must_be_of_a_kind(values)
        if not self._known.issuperset(values):
            self._learn(values)
        values = thin(values)
        self._health.looks += 1
        if not values:
            return
        at = self._now()
        self._health.good += 1
        self._health.last_good = at
        kept: dict[str, int | float | bool | str | Quality] = {}
        if self._health.lapse:
            self._recover(kept, at)
        for name, value in values.items():
            self._judge(name, value, kept)
        if kept:
            self._hand_over(at, kept)

    def lost(self, error: DeviceError) -> None:
        """Take a look that was lost and leaves the device without a reading."""
        self.count(error.word)
        self._health.text, self._health.hint = str(error), error.hint
        if error.word != self._health.lapse:
            at = self._now()
            self._health.lapse, self._health.since = error.word, at
            self._health.lapses[error.word] += 1
            self._hand_over(at, {QUALITY: Quality(REJECTED, error.word)})
        if self._may_log(error.word):
            log.warning(str(error), device=self._driver.id, hint=error.hint)

    def bug(self, error: Exception) -> DriverBug:
        """Log a fault of the driver with its traceback, and return the loss that it is."""
        loss = DriverBug(f"the driver {self._driver.driver} failed: {error!r}")
        if self._may_log(loss.word):
            log.error(str(loss), device=self._driver.id, hint=loss.hint, exc_info=error)
        return loss

    def count(self, word: str) -> None:
        """Count a frame that was lost among good ones, which says nothing of the device yet."""
        self._health.looks += 1
        self._health.lost[word] += 1

    def _learn(self, names: Iterable[str]) -> None:
        """Take in channels that are new."""
        for name in names:
            is_text = isinstance(name, str)  # anybody's driver
            if not (is_text and re.fullmatch(NAME_PATTERN, name)) or name == QUALITY:
                raise ValueError(f"it gave {name!r}, which no channel may be called")
        self._note(self._driver.id, names)
        self._known.update(names)

    def _judge(self, name: str, value: Value, kept: dict[str, int | float | bool | str | Quality]) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        self._health.latest[name] = value
        if value is None:
            if name not in self._health.without:
                self._health.without.add(name)
                kept[f"{name}/{QUALITY}"] = Quality(REJECTED, "no-reading")
            return
        kept[name] = value
        if name in self._health.without:
            self._health.without.remove(name)
            kept[f"{name}/{QUALITY}"] = Quality(ACCEPTED, "ok")

    def _recover(self, kept: dict[str, int | float | bool | str | Quality], at: int) -> None:
        kept[QUALITY] = Quality(ACCEPTED, "ok")
        if self._told:
            log.info("is back", device=self._driver.id, after=self._health.lapse)
        self._told = False
        self._health.lapse = self._health.text = self._health.hint = ""
        self._health.since = at

    def _may_log(self, word: str) -> bool:
        """Tell whether to log a loss of this kind now: once a minute, not each time."""
        now = self._now()
        if now - self._logged_at.get(word, -LOG_PAUSE_NS) < LOG_PAUSE_NS:
            return False
        self._logged_at[word] = now
        self._told = True
        return True

    def _hand_over(self, at: int, values: dict[str, int | float | bool | str | Quality]) -> None:
        self._keep(Reading(self._driver.id, self._driver.home, at, values))


def _must_be_of_a_kind(values: Values) -> None:
    """Raise TypeError, ValueError."""
    for name, value in values.items():
        kind = type(value)
        if kind is float:
            continue
        if kind not in KINDS:
            raise TypeError(f"it gave {name!r} as {kind.__name__}; a value is a number, a text, a bool or None")
        if isinstance(value, str):
            _must_be_unicode(name, value)
        elif isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            raise ValueError(f"it gave {name!r} as a whole number that is too large")


def _must_be_unicode(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"it gave {name!r} as a text with half a character in it") from None

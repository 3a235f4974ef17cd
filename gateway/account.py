"""What one device gives, on its way from driver to reading: stamped, counted, judged, and logged where it changes.

A value that is not good is never a number. The channel is left out, and one record of quality says why; another
says when it is good again. The same holds for a whole device that does not answer.
"""

import math
from collections.abc import Callable, Iterable

import structlog

from drivers.contract import DeviceError, Driver, Value, Values
from gateway.health import DeviceHealth
from gateway.reading import ACCEPTED, REJECTED, Quality, Reading

QUALITY = "quality"
LOG_PAUSE_NS = 60_000_000_000  # a device that flaps is told once a minute, not once a poll

log = structlog.get_logger()


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
        self._without: set[str] = set()
        self._lapse = ""
        self._logged_at = -LOG_PAUSE_NS

    def took(self, values: Values) -> None:
        """Take one look at the device that gave values."""
        if not values:
            return
        at = self._now()
        self._health.good += 1
        self._health.last_good = at
        kept: dict[str, int | float | bool | str | Quality] = {}
        if self._lapse:
            self._recover(kept)
        for name, value in values.items():
            self._judge(name, value, kept)
        if not self._known.issuperset(values):
            self._known.update(values)
            self._note(self._driver.id, values)
        if kept:
            self._hand_over(at, kept)

    def lost(self, error: DeviceError) -> None:
        """Take a look that was lost and leaves the device without a reading."""
        self.count(error.word)
        self._lapsed(error.word, f"{error}. {error.hint}")
        self._log(str(error), error.hint)

    def bug(self, error: Exception) -> None:
        """Take a look that was lost to a fault of the driver; the traceback goes to the log."""
        self.count("bug")
        self._lapsed("bug", f"the driver {self._driver.driver} failed: {error!r}. Report it with the log.")
        log.error("the driver failed", device=self._driver.id, driver=self._driver.driver, exc_info=error)

    def count(self, word: str) -> None:
        """Count a frame that was lost among good ones, which says nothing of the device yet."""
        self._health.lost[word] += 1

    def _judge(self, name: str, value: Value, kept: dict[str, int | float | bool | str | Quality]) -> None:
        self._health.latest[name] = value
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            if name not in self._without:
                self._without.add(name)
                kept[f"{name}/{QUALITY}"] = Quality(REJECTED, "no-reading")
            return
        kept[name] = value
        if name in self._without:
            self._without.remove(name)
            kept[f"{name}/{QUALITY}"] = Quality(ACCEPTED, "ok")

    def _recover(self, kept: dict[str, int | float | bool | str | Quality]) -> None:
        kept[QUALITY] = Quality(ACCEPTED, "ok")
        log.info("is back", device=self._driver.id, after=self._lapse)
        self._lapse = self._health.trouble = ""

    def _lapsed(self, word: str, trouble: str) -> None:
        self._health.trouble = trouble
        if word != self._lapse:
            self._lapse = word
            self._hand_over(self._now(), {QUALITY: Quality(REJECTED, word)})

    def _log(self, what: str, hint: str) -> None:
        now = self._now()
        if now - self._logged_at >= LOG_PAUSE_NS:
            self._logged_at = now
            log.warning(what, device=self._driver.id, hint=hint)

    def _hand_over(self, at: int, values: dict[str, int | float | bool | str | Quality]) -> None:
        self._keep(Reading(self._driver.id, self._driver.home, at, values))

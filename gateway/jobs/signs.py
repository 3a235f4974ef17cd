"""The signs of trouble of the pole itself: each device, the uplink, the buffer's file, the clock, the configuration."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

from gateway.store.pack_sql import Mended
from gateway.words.health import DeviceHealth
from gateway.words.messages import SignState
from gateway.words.standing import Verdict

NS = 1_000_000_000
TIME_SERVER = "See that the pole reaches a time server: timedatectl timesync-status."
SPACE = "Make room where `path` in [buffer] lies, or give it another path."
READ_ONLY = "The card may be worn out or was not shut down in order: see dmesg, and replace it."
ELSE = "See that the folder of `path` in [buffer] is there and the service may write to it; else see dmesg."
LIST_DEAD = "See why: polegate buffer dead FILE. A request on command/replay has them sent again."
CORRECT = "Correct the file (polegate check FILE), then systemctl reload polegate. It is not tried again as it is."
CORRECT_DOCUMENT = "Correct the document, and publish it under the next number. It is not tried again as it is."
OWN_FILE = "local"
RENEW = "Put a certificate that the broker accepts, and its key, where `cert_file` and `key_file` in [uplink] say."
GRACE_NS = {  # how long it is normal: a sensor warms up, a receiver has no fix, there is no network, the broker is busy
    "not-ready": 300 * NS,
    "unsynchronised": 300 * NS,
    "refused": 300 * NS,
}
DAY_S = 86_400
EXPIRES_SOON_S = 14 * DAY_S
CONFIGURATION_CODES = {
    "accepted": "",
    "refused": "not-taken",
    "rolled-back": "rolled-back",
}
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

    event: Literal["device", "uplink", "buffer", "clock", "configuration"]
    subject: str
    code: str
    since: int
    times: Mapping[str, int]
    text: str
    hint: str = ""

    def is_normal(self, now: int) -> bool:
        """Tell whether what is wrong is normal for a while yet."""
        return bool(self.code) and now - self.since < GRACE_NS.get(self.code, 0)


class Refusal(NamedTuple):
    """Why the broker does not take a dataset, in a word and in words, and what to do."""

    code: str
    text: str
    hint: str


class Certificate(NamedTuple):
    """This pole's: when it ends, seconds since 1970, None for none; why a new one was not taken, in words."""

    expires: float | None = None
    trouble: str = ""


class Clock(Protocol):
    """The clocks it looks at; see :class:`gateway.host.clock.Clock`."""

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
        *,
        dead: Callable[[], int],
        refused: Callable[[], Mapping[str, Refusal]],
        certificate: Callable[[], Certificate],
        verdict: Callable[[], Verdict | None],
    ) -> None:
        """Make it.

        Args:
            clock: the machine's.
            health: of each device.
            trouble: why the buffer's file cannot be written, in words; "" while it can.
            mended: what was found damaged in it last.
            dead: packs that no broker takes.
            refused: datasets that the broker does not take at present.
            certificate: how this pole's is.
            verdict: on what is not in force and should be; else the last one.
        """
        self._verdict = verdict
        self._was: dict[str, Sign] = {}
        self._configuration = _Course(clock.now())
        self._dead = dead
        self._refused = refused
        self._certificate = certificate
        self._datasets: dict[str, _Course] = {}
        self._letters = _Course(clock.now())
        self._own = _Course(clock.now())
        self._clock = clock
        self._health = health
        self._trouble = trouble
        self._mended = mended
        self._last_mended: Mended | None = None
        self._buffer = _Course(clock.now())
        self._time = _Course(clock.now())

    def look(self) -> list[Sign]:
        """Look at all."""
        uplink = [*self._of_datasets(), self._of_certificate()]
        pole = [self._of_buffer(), self._of_dead(), self._of_clock(), self._of_configuration()]
        return [*self._of_devices(), *uplink, *pole]

    def told(self) -> list[SignState]:
        """Look at all, for people at the pole."""
        now, utc = self._clock.now(), self._clock.utc_offset()
        return [
            SignState(
                event=sign.event,
                subject=sign.subject,
                code=sign.code,
                since=round((sign.since + utc) / NS, 3),
                is_normal=sign.is_normal(now),
                text=sign.text,
                hint=sign.hint,
            )
            for sign in self.look()
        ]

    def _of_devices(self) -> list[Sign]:
        """Look at those there are, and end what was wrong with those that were taken out."""
        for name in self._was.keys() - self._health.keys():
            if self._was[name].code:
                self._was[name] = self._was[name]._replace(code="", since=self._clock.now(), text=TAKEN_OUT, hint="")
        self._was.update((name, _of_device(name, health)) for name, health in self._health.items())
        return list(self._was.values())

    def _of_datasets(self) -> list[Sign]:
        refused = self._refused()
        for dataset in refused:
            self._datasets.setdefault(dataset, _Course(self._clock.now()))
        signs = []
        for dataset, course in self._datasets.items():
            code, text, hint = refused.get(dataset, TAKEN)
            course.go_on(code, self._clock.now())
            signs.append(Sign("uplink", dataset, code, course.since, course.times, text, hint))
        return signs

    def _of_certificate(self) -> Sign:
        expires, trouble = self._certificate()
        now = (self._clock.now() + self._clock.utc_offset()) / NS
        code, text, hint = "", "the certificate holds", ""
        if trouble:
            code, text, hint = "not-renewed", trouble, RENEW
        elif expires is not None and expires - now < EXPIRES_SOON_S:
            code, text, hint = "expires", f"the pole's certificate ends in {(expires - now) / DAY_S:.1f} days", RENEW
        course = self._own.go_on(code, self._clock.now())
        return Sign("uplink", "certificate", code, course.since, course.times, text, hint)

    def _of_dead(self) -> Sign:
        dead = self._dead()
        course = self._letters.go_on("dead-letters" if dead else "", self._clock.now())
        text = f"packs that no broker takes: {dead}" if dead else "no pack is set aside"
        return Sign("buffer", "dead", course.code, course.since, course.times, text, LIST_DEAD if dead else "")

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

    def _of_configuration(self) -> Sign:
        verdict = self._verdict()
        code = "" if verdict is None else CONFIGURATION_CODES[verdict.result]
        course = self._configuration.go_on(code, self._clock.now())
        text, hint = "what was to be the configuration is", ""
        if verdict is not None and code:
            text, hint = verdict.why, CORRECT if verdict.stream == OWN_FILE else CORRECT_DOCUMENT
        return Sign("configuration", "configuration", code, course.since, course.times, text, hint)

    def _of_clock(self) -> Sign:
        right = self._clock.synchronised()
        course = self._time.go_on("" if right else "unsynchronised", self._clock.now())
        text = f"the kernel {'holds' if right else 'does not hold'} the time of day for right"
        return Sign("clock", "clock", course.code, course.since, course.times, text, "" if right else TIME_SERVER)


TAKEN_OUT = "it was taken out of the configuration"
TAKEN = Refusal("", "the broker takes the dataset", "")


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

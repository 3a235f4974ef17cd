"""A job: tell upstream what is wrong with the pole itself, and when it is over.

A change is told at once, and of one subject once a minute at most: what comes and goes is told with its count. What is
raised is told again, once, on each new link. Some things are normal for a while, and no alarm before that.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from gateway.jobs.signs import GRACE_NS, Clock, Sign
from gateway.link.broker import Message, Refused, UplinkDown
from gateway.link.mqtt_link import Link
from gateway.link.uplink import Uplink
from gateway.words.messages import Alarm

LOOK_S = 1.0
PAUSE_S = 60.0
NS = 1_000_000_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where an alarm stands.

    Attributes:
        raised: it is.
        code: what is or was wrong; "": nothing ever was.
        times: how often that came up.
        began: when it was raised, nanoseconds of CLOCK_BOOTTIME.
        changed: when it was raised or cleared.
        text: in words.
        hint: what to do.
    """

    raised: bool = False
    code: str = ""
    times: int = 0
    began: int = 0
    changed: int = 0
    text: str = ""
    hint: str = ""


class Watched:
    """One subject.

    Attributes:
        stand: where its alarm stands.
        number: how many alarms it had; flaps that were not told apart are one.
    """

    def __init__(self) -> None:
        """Begin with nothing wrong."""
        self.stand = Stand()
        self.number = 0
        self._seen: Mapping[str, int] = {}
        self._told = self.stand
        self._told_at = -math.inf
        self._again = False

    def look(self, sign: Sign, now: int) -> None:
        """Take in how the subject is."""
        grown = [code for code, times in sign.times.items() if times > self._seen.get(code, 0)]
        self._seen = dict(sign.times)
        code = "" if sign.is_normal(now) else sign.code
        before = self.stand
        brief = [each for each in grown if each not in GRACE_NS]
        if code and (not before.raised or code in grown):
            raised, began = True, sign.since
        elif not code and before.raised:
            raised, code, began = False, before.code, before.began
        elif not code and brief:  # over between two looks, or while there was no link
            raised, code, began = False, brief[-1], sign.since
        else:
            return
        if before == self._told and not before.raised:  # what was is told and over: this is another
            self.number += 1
        self.stand = Stand(
            raised=raised,
            code=code,
            times=sign.times[code],
            began=began,
            changed=sign.since,
            text=sign.text,
            hint=sign.hint,
        )

    def on_a_new_link(self) -> None:
        """Tell again what is raised."""
        self._again = self.stand.raised

    def is_due(self, time: float) -> bool:
        """Tell whether to tell it now, seconds of the loop's time."""
        return self._again or (self.stand != self._told and time - self._told_at >= PAUSE_S)

    def told(self, stand: Stand | None, time: float) -> None:
        """It was told so; None: the broker does not take it."""
        self._told_at = time
        self._again = False
        self._told = self._told if stand is None else stand


async def tell_alarms(
    uplink: Uplink, topic: str, *, look: Callable[[], Iterable[Sign]], clock: Clock, epoch: int
) -> None:
    """Tell for ever.

    Args:
        uplink: the way to the broker.
        topic: where it is told, less the class of the alarm.
        look: tells how each subject is.
        clock: the machine's.
        epoch: number of this run.
    """
    watched: dict[tuple[str, str], Watched] = {}
    while True:
        link = await uplink.link()
        for each in watched.values():
            each.on_a_new_link()
        try:
            while await uplink.link() is link:
                for sign in look():
                    each = watched.setdefault((sign.event, sign.subject), Watched())
                    each.look(sign, clock.now())
                    if each.is_due(asyncio.get_running_loop().time()):
                        await _tell(link, topic, each, alarm(sign, each, clock, epoch))
                await asyncio.sleep(LOOK_S)
        except UplinkDown:
            await link.broken()  # until the uplink has seen it too, it hands out this link again


def alarm(sign: Sign, watched: Watched, clock: Clock, epoch: int) -> Alarm:
    """Return the message: see "What it sends" in the README."""
    stand, utc = watched.stand, clock.utc_offset()
    return Alarm(
        event=sign.event,
        id=f"{epoch}-{sign.event}-{sign.subject}-{watched.number}",
        state="raise" if stand.raised else "clear",
        subject=sign.subject,
        code=stand.code,
        text=stand.text,
        hint=stand.hint,
        count=stand.times,
        at=round((stand.changed + utc) / NS, 3),
        since=round((stand.began + utc) / NS, 3),
        clock="synchronised" if clock.synchronised() else "unsynchronised",
        epoch=epoch,
    )


async def _tell(link: Link, topic: str, watched: Watched, content: Alarm) -> None:
    stand: Stand | None = watched.stand
    try:
        await link.send(Message(f"{topic}/{content.event}", content.encoded()))
    except Refused as error:
        log.warning("the broker does not take an alarm", subject=content.subject, why=str(error))
        stand = None
    watched.told(stand, asyncio.get_running_loop().time())

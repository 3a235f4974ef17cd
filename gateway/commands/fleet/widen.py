"""A rollout as it runs: publish a stage, watch its poles, and widen, stop or wait.

::

    stage 1 published ─▶ all good? ─▶ stage 2 published ─▶ all good? ─▶ ... ─▶ stage for all: done
                           │ failure rate                    │ failure rate
                           ▼                                 ▼
                         back published: the settings from before, under a higher number ─▶ who had them goes back

**It stops by going back, always.** Were the bad document left at the broker, each pole of its share that is offline now
would take it when it comes, and some that are worse off in a way that no gate sees would keep it. To clear the topic
would not help: what a pole has noted stays noted. A newer document takes the place of what it noted, and poles that
never took the bad one find that nothing changes. So ``back.json`` is published without a question, which needs no key,
since it was signed with the stages.

What is done is told by the broker and the poles, not by a journal: after a kill the stage is the one that lies there.
If anything else lies there, somebody else is at work on this layer, and the rollout ends.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.commands.broker import Place, first_of, stopped
from gateway.commands.fleet.plan import Plan, Step, Unready, percent
from gateway.commands.fleet.reports import reports
from gateway.commands.fleet.shelf import Shelf, shelf
from gateway.commands.fleet.show import Show, grouped, reasons
from gateway.commands.fleet.tally import Kind, Roll, Tally, counts, some
from gateway.link.broker import UplinkDown
from gateway.link.mqtt_link import Link
from gateway.remote import document, envelope
from gateway.remote.document import WHOLE
from gateway.remote.remote import topic_of
from gateway.remote.verdict import Rejected

EX_TEMPFAIL = 75  # sysexits.h
STOPPED = 1
TICK_S = 0.5
LEAST_S = 10.0  # a stage takes: a broker may not have told at once of all poles that there are
SILENT_S = 120.0  # a pole that is online has noted a document by then
LISTED = 20
SOMEBODY = "something else lies on {} than should: somebody else is at work on this layer; see polegate fleet status"


@dataclass(frozen=True, slots=True)
class Terms:
    """When a stage is good enough.

    Attributes:
        most_failed: share of its poles that may fail.
        least_good: share that must have it in force when the time is over.
        stage_s: seconds a stage may take.
    """

    most_failed: float
    least_good: float
    stage_s: float


class Widening:
    """What runs."""

    def __init__(
        self,
        place: Place,
        stream: str,
        named: Sequence[str],
        terms: Terms,
        show: Show,
        plan: Callable[[bytes, Roll], Plan],
    ) -> None:
        """Make it.

        Args:
            place: the broker.
            stream: the layer.
            named: poles there should be.
            terms: when a stage is good enough.
            show: where it is shown.
            plan: makes the plan, or reads it, when what lies at the broker is known.
        """
        self._place = place
        self._stream = stream
        self._named = named
        self._terms = terms
        self._show = show
        self._make_plan = plan
        self._plan: Plan | None = None
        self._roll = Roll(stream, named)
        self._found = b""  # at the broker, when the plan was made
        self._since: dict[str, float] = {}
        self._code = EX_TEMPFAIL

    async def run(self) -> int:
        """Run until it is done, stopped, or somebody ends it; return the exit code.

        Raises:
            UplinkDown: the broker was never there.
            Refused: it does not let us read or publish.
            Rejected, Unready, SettingsError, OSError, ValueError: something given cannot be used.
        """
        await first_of(self._work(), stopped())
        if self._code == EX_TEMPFAIL:
            self._show.say("not done; what lies at the broker stays there. Run the same command to go on")
        return self._code

    async def _work(self) -> None:
        link = await self._place.dial()
        while True:
            try:
                self._code = await self._on(link)
            except UplinkDown as error:
                self._show.say(f"{error}; connecting again")
            else:
                return
            finally:
                await link.close()
            link = await self._place.dial_again()

    async def _on(self, link: Link) -> int:
        topic = topic_of(self._stream, self._place.prefix)
        async with shelf(link, topic) as there, reports(link, self._place.prefix, self._named, self._roll.take):
            if self._plan is None:
                self._found = there.held
                self._plan = self._make_plan(there.held, self._roll)
                self._roll.begin(self._plan)
            return await self._go_on(there, self._plan)

    async def _go_on(self, there: Shelf, plan: Plan) -> int:
        """Go on from what lies at the broker."""
        step = plan.find(_sha(there.held))
        if step is None:
            if self._since or there.held != self._found or self._roll.has_noted(plan):
                raise Unready(SOMEBODY.format(there.topic))
            step = plan.stages[0]
            await self._publish(there, plan, step)
        while step is not plan.back:
            at = plan.stages.index(step)
            self._since.setdefault(step.sha, _now())
            tally = await self._watched(there, plan, at)
            if tally is None:
                _must_be_valid(plan, step)
                return EX_TEMPFAIL
            if tally.fails(self._terms.most_failed):
                self._tell_failure(step)
                step = plan.back
                await self._publish(there, plan, step)
            elif step is plan.stages[-1]:
                self._show.say(f"{step.document.name} is in force: {counts(tally)}")
                return 0
            else:
                step = plan.stages[at + 1]
                await self._publish(there, plan, step)
        return await self._come_back(there, plan)

    async def _publish(self, there: Shelf, plan: Plan, step: Step) -> None:
        _must_be_valid(plan, step)
        if step is not plan.back:  # who refused a stage, and has said so, refuses that too
            self._roll.begin(plan)
        await there.put(step.raw)
        what = "with the settings from before" if step is plan.back else f"for {step.share} of the poles"
        self._show.say(f"{step.document.name} is published, {what}")

    async def _watched(self, there: Shelf, plan: Plan, at: int) -> Tally | None:
        """Watch a stage until it is good enough, or fails; None: its time is over, and it is neither."""
        step = plan.stages[at]
        while True:
            _must_be(there, step)
            spent = _now() - self._since[step.sha]
            is_late = spent >= min(SILENT_S, self._terms.stage_s)
            tally = self._roll.tally(plan, at, is_late=is_late)
            is_over = spent >= self._terms.stage_s or (is_late and not tally.pending)
            self._show.stage(step, len(plan.stages), tally)
            self._roll.failed.update((pole, why) for why, poles in tally.named(Kind.BAD) for pole in poles)
            good = tally.poles[Kind.GOOD]
            if tally.fails(self._terms.most_failed) or (good and not tally.pending and spent >= LEAST_S):
                self._tell_others(tally)
                return tally
            if is_over:
                self._tell_others(tally)
                if good and good >= self._terms.least_good * tally.counted:
                    return tally
                self._show.say(f"too few poles have {step.document.name} in force by now: {counts(tally)}")
                return None
            await asyncio.sleep(TICK_S)

    def _tell_failure(self, step: Step) -> None:
        most = percent(round(self._terms.most_failed * WHOLE))
        self._show.say(f"stopped: more than {most} of the poles failed with {step.document.name}")

    def _tell_others(self, tally: Tally) -> None:
        for line in reasons(tally, Kind.BAD, Kind.WAITS, Kind.NEITHER):
            self._show.say(f"  {line}")
        if silent := [pole for _, poles in tally.named(Kind.SILENT) for pole in poles]:
            until = "they take what lies at the broker when they come"
            self._show.say(f"  {len(silent):,} silent, {until}: {some(silent, LISTED)}")
        if unreadable := self._roll.unreadable:
            pole, why = next(iter(sorted(unreadable.items())))
            names = some(list(unreadable), LISTED)
            self._show.say(f"  {len(unreadable):,} report what cannot be read: {names} ({pole}: {why})")

    async def _come_back(self, there: Shelf, plan: Plan) -> int:
        """Wait until no pole runs what was rolled out. Trials that run end first, so more poles may fail until then."""
        since = self._since.setdefault(plan.back.sha, _now())
        while left := self._roll.left(plan, is_late=_now() - since >= SILENT_S):
            _must_be(there, plan.back)
            if _now() - since >= self._terms.stage_s:
                break
            await asyncio.sleep(TICK_S)
        for line in grouped(Kind.BAD, self._roll.failed):
            self._show.say(f"  {line}")
        if silently := self._roll.tried - self._roll.failed.keys() - set(left):
            self._show.say(f"  {len(silently):,} more had it, and have gone back: {some(sorted(silently))}")
        if left:
            self._show.say(f"{len(left):,} have not gone back yet: {some(left, LISTED)}")
        else:
            self._show.say(
                f"no pole runs it; {plan.back.document.name} lies at the broker, with the settings from before"
            )
        return STOPPED


def _must_be_valid(plan: Plan, step: Step) -> None:
    """Raise Unready where poles do not take it any more."""
    if step.document.expires <= time.time():
        way = f"polegate fleet revoke {plan.stream} --folder {step.path.parent} --key KEY"
        raise Unready(f"{step.path} has expired; go back: {way}")


def _must_be(there: Shelf, step: Step) -> None:
    """Raise UplinkDown, or Unready where something else lies there."""
    there.must_be_up()
    if _sha(there.held) != step.sha:
        raise Unready(SOMEBODY.format(there.topic))


def _sha(held: bytes) -> str:
    with contextlib.suppress(Rejected):
        return document.digest(envelope.read(held).payload)
    return ""


def _now() -> float:
    return asyncio.get_running_loop().time()

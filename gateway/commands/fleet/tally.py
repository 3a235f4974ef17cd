"""How a stage of a rollout goes, by what its poles report: who has it in force, who took it back and why.

Who is in the share is reckoned as the pole reckons it. A pole that already runs these settings from an earlier stage
counts as good. One that has not even noted the document is silent, for it notes it within seconds where it is online:
neither good nor bad, and nobody waits for it. So are those whose trial could prove nothing either way, since their
broker was away before too, or that heard of it too late. All else that keeps a document from coming into force, or
that a pole says of one it does not believe, is a failure.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from gateway.commands.fleet.plan import Plan
from gateway.commands.fleet.reports import SHOWN, Heard
from gateway.config.toml_text import visible
from gateway.remote.document import FLEET, POLE
from gateway.remote.verdict import Code
from gateway.words.messages import ConfigStream, Reported

NEITHER = {Code.EXPIRED.name, Code.RB_INCONCLUSIVE.name}
EXAMPLES = 5


class Kind(Enum):
    """How a pole stands with a stage."""

    GOOD = "in force"
    BAD = "failed"
    TRIED = "on trial"
    WAITS = "waiting"
    SILENT = "silent"
    NEITHER = "not proven either way"


@dataclass(slots=True)
class Member:
    """What is kept of a pole that takes the layer.

    Attributes:
        stage: the first one that it is in; counted from 0.
        standing: of the stream; None: it has reported none.
        trial: what it tries.
        waits_for: what keeps it from trying, in words.
        refused: why it does not believe what was published, in words; "": it did not say so since.
    """

    stage: int = 0
    standing: ConfigStream | None = None
    trial: str = ""
    waits_for: str = ""
    refused: str = ""


@dataclass(slots=True)
class Tally:
    """How a stage stands.

    Attributes:
        poles: by how they stand.
        reasons: of those that failed or wait: how many, and some of them.
    """

    poles: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    reasons: dict[tuple[Kind, str], list[str]] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """Poles that are waited for."""
        return self.poles[Kind.TRIED] + self.poles[Kind.WAITS]

    @property
    def counted(self) -> int:
        """Poles that are good or bad, or will be."""
        return self.poles[Kind.GOOD] + self.poles[Kind.BAD] + self.pending

    @property
    def all(self) -> int:
        """Poles in the share."""
        return sum(self.poles.values())

    def fails(self, most: float) -> bool:
        """Tell whether more than a share of those that count have failed, however the others end."""
        return self.poles[Kind.BAD] > most * self.counted

    def named(self, kind: Kind) -> Iterable[tuple[str, list[str]]]:
        """Return the reasons of a kind, the most frequent first, each with its poles."""
        of_kind = [(why, poles) for (each, why), poles in self.reasons.items() if each is kind]
        return sorted(of_kind, key=lambda pair: (-len(pair[1]), pair[0]))


class Roll:
    """The poles that take a layer.

    Attributes:
        members: by name.
        unreadable: poles whose report cannot be read, and why.
        failed: poles that said that a stage failed, and why, be it long ago.
        tried: poles that had a stage on trial or in force.
    """

    def __init__(self, stream: str, named: Sequence[str]) -> None:
        """Begin with those that are named; others are known when they report."""
        self._stream = stream
        self._plan: Plan | None = None
        self.members: dict[str, Member] = {}
        self.unreadable: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.tried: set[str] = set()
        for name in [stream.removeprefix(POLE)] if stream.startswith(POLE) else named:
            self.members[name] = Member()

    def begin(self, plan: Plan) -> None:
        """Reckon who is in which stage from now on, and take note of who refuses what is published."""
        self._plan = plan
        for name, member in self.members.items():
            member.stage = self._stage_of(name)
            member.refused = ""

    def take(self, heard: Heard) -> None:
        """Note a report."""
        if heard.report is None:
            if heard.why:
                self.unreadable[heard.pole] = heard.why
            return
        self.unreadable.pop(heard.pole, None)
        if heard.pole not in self.members:
            if self._stream.startswith(POLE) or (self._stream != FLEET and self._stream not in heard.report.streams):
                return
            self.members[heard.pole] = Member(self._stage_of(heard.pole))
        self._note(heard.pole, heard.report, is_live=heard.is_live)

    def _note(self, pole: str, report: Reported, *, is_live: bool) -> None:
        member = self.members[pole]
        member.standing = report.streams.get(self._stream)
        member.trial = report.trial.sha if report.trial else ""
        active = member.standing.active if member.standing else ""
        if self._plan and self._plan.shas & {member.trial, active}:
            self.tried.add(pole)
        last = report.last
        if last is None or last.stream != self._stream:
            return
        if self._plan and last.sha in self._plan.shas and last.code >= Code.TOO_BIG and last.name not in NEITHER:
            self.failed[pole] = visible(f"{last.name}: {last.text}", SHOWN)
        if last.sha and member.standing and last.sha == member.standing.sha:
            member.waits_for = visible(f"{last.name}: {last.text}", SHOWN)
        elif not last.sha and last.code >= Code.TOO_BIG and is_live and self._plan:
            member.refused = visible(f"{last.name}: {last.text}", SHOWN)

    def _stage_of(self, pole: str) -> int:
        stages = self._plan.stages if self._plan else ()
        return next((n for n, s in enumerate(stages) if s.document.rollout and s.document.rollout.takes(pole)), 0)

    def tally(self, plan: Plan, at: int, *, is_late: bool) -> Tally:
        """Count how a stage stands; ``is_late``: who has not noted it by now is silent."""
        tally = Tally()
        ours = {stage.sha for stage in plan.stages[: at + 1]}
        for name, member in self.members.items():
            if member.stage > at:
                continue
            kind, why = self._judged(name, member, plan.stages[at].sha, ours, is_late=is_late)
            tally.poles[kind] += 1
            if kind is not Kind.GOOD:
                tally.reasons.setdefault((kind, why), []).append(name)
        return tally

    def _judged(self, name: str, member: Member, sha: str, ours: set[str], *, is_late: bool) -> tuple[Kind, str]:
        standing = member.standing
        if name in self.unreadable:
            return (Kind.SILENT if is_late else Kind.WAITS), "its report cannot be read"
        if standing and standing.active in ours:
            return Kind.GOOD, ""
        if standing and standing.sha == sha:
            return _noted(standing, member)
        if member.refused:
            return Kind.BAD, member.refused
        return (Kind.SILENT, "") if is_late else (Kind.WAITS, "it has not noted it yet")

    def left(self, plan: Plan, *, is_late: bool) -> list[str]:
        """Name the poles that have not gone back; ``is_late``: who has not noted by now that he should is silent."""
        return [name for name, member in self.members.items() if _is_left(member, plan, is_late=is_late)]

    def has_noted(self, plan: Plan) -> bool:
        """Tell whether any pole has noted a document of a plan."""
        return any(member.standing and plan.find(member.standing.sha) for member in self.members.values())

    def seen(self) -> Counter[int]:
        """Count the poles by the highest number that they have seen."""
        return Counter(member.standing.seq for member in self.members.values() if member.standing)


def _is_left(member: Member, plan: Plan, *, is_late: bool) -> bool:
    active, newest = (member.standing.active, member.standing.sha) if member.standing else ("", "")
    if member.trial in plan.shas or active in plan.shas:
        return True
    return not (is_late or member.refused or newest == plan.back.sha)


def _noted(standing: ConfigStream, member: Member) -> tuple[Kind, str]:
    """Judge a pole whose newest document is the one of the stage, and which has it not in force."""
    if standing.fate:
        why = visible(f"{standing.fate}: {standing.why}", SHOWN)
        return (Kind.NEITHER if standing.fate in NEITHER else Kind.BAD), why
    return (Kind.TRIED, "") if member.trial == standing.sha else (Kind.WAITS, member.waits_for)


def counts(tally: Tally) -> str:
    """Write how many poles stand how."""
    parts = [f"{count:,} {kind.value}" for kind, count in tally.poles.items() if count]
    return f"{', '.join(parts) or 'no pole'} of {tally.all:,}"


def some(poles: Sequence[str], most: int = EXAMPLES) -> str:
    """Name some poles."""
    more = len(poles) - most
    return ", ".join(sorted(poles)[:most]) + (f" and {more:,} more" if more > 0 else "")

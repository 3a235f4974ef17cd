"""Who asks a pole for packs that did not come, as gateway/jobs/replay.py says: one request at a time for each pole.

A pole answers after it has sent what it still holds. Where no answer comes, it may be away: the same is asked again
later, not soon.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.commands.tail_show import Finding
from gateway.words.completeness import Hole, Span, Track, Watch

ANSWER_S = 120.0  # a pole sends the most that it gives for a request in less
ASK_AGAIN_S = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a pole.

    Attributes:
        id: to know the answer by.
        pole: who is asked.
        dataset: what of.
        epoch: of the numbers.
        seq: the numbers.
        at: when.
    """

    id: str
    pole: str
    dataset: str
    epoch: int
    seq: Span
    at: float

    def payload(self) -> bytes:
        """Return it as it is published."""
        first, last = self.seq
        wanted = {"id": self.id, "dataset": self.dataset, "epoch": self.epoch, "from": first, "to": last}
        return json.dumps(wanted).encode()

    def finding(self, kind: str, why: str = "") -> Finding:
        """Tell of it."""
        return Finding(kind, self.pole, self.dataset, self.epoch, [self.seq], why)


class Mending:
    """The requests."""

    def __init__(self, watch: Watch, client: str) -> None:
        """Make it.

        Args:
            watch: knows the holes.
            client: unlike all others who ask.
        """
        self._watch = watch
        self._ids = (f"{client}-{number}" for number in itertools.count(1))
        self._open: dict[str, Request] = {}  # by pole

    def next(self, now: float) -> Iterator[Request]:
        """Give what is to be asked now."""
        for (pole, dataset), track in self._watch.tracks.items():
            hole = next((hole for hole in track.holes if _may_ask(hole, now)), None)
            if hole is not None and pole not in self._open:
                hole.asked = now
                self._open[pole] = Request(next(self._ids), pole, dataset, hole.epoch, (hole.first, hole.last), now)
                yield self._open[pole]

    def unanswered(self, now: float) -> Iterator[Request]:
        """Give, once, the requests that were not answered in time."""
        for request in [each for each in self._open.values() if now - each.at >= ANSWER_S]:
            yield self._open.pop(request.pole)

    def take(self, pole: str, payload: bytes) -> Iterator[Finding]:
        """Take an answer; those to others are theirs."""
        asked = self._open.get(pole)
        try:
            answer = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if asked is None or not isinstance(answer, dict):
            return
        about = answer.get("id")
        if about == asked.id:
            del self._open[pole]
        if "error" in answer and about in {asked.id, None}:  # without an id it may be about another's request
            yield Finding("error", pole, asked.dataset, why=str(answer["error"]))
        elif about == asked.id:
            yield from self._learn(asked, answer)

    def _learn(self, asked: Request, answer: dict[str, Any]) -> Iterator[Finding]:
        track = self._watch.tracks[asked.pole, asked.dataset]
        gone = [span for span in map(_span, _list(answer.get("gone"))) if span and _lose(track, asked, span)]
        if gone:
            yield Finding("gone", asked.pole, asked.dataset, asked.epoch, gone)
        rest = answer.get("ask_again_from")
        if type(rest) is int and asked.seq[0] < rest <= asked.seq[1]:
            for hole in track.within(asked.epoch, (rest, asked.seq[1])):
                hole.asked = None


def _may_ask(hole: Hole, now: float) -> bool:
    return hole.told and not hole.gone and (hole.asked is None or now - hole.asked >= ASK_AGAIN_S)


def _lose(track: Track, asked: Request, span: Span) -> bool:
    """Take it that these are gone; tell whether they were missed."""
    first, last = max(span[0], asked.seq[0]), min(span[1], asked.seq[1])
    return first <= last and track.lose(asked.epoch, (first, last))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _span(value: object) -> Span | None:
    match value:
        case [int() as first, int() as last]:
            return first, last
        case _:
            return None

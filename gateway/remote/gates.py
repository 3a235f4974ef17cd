"""The gates of a trial: what must be well before a change stays, and no more than was well before."""

from typing import NamedTuple

from gateway.remote.config_state import LOCAL, Standing, Trial
from gateway.remote.plant import Plant, Wanted
from gateway.remote.verdict import Code


class Gates(NamedTuple):
    """How they are.

    Attributes:
        upstream: the broker took something since the change was applied.
        downlink: and gave it back.
        silent: devices that gave values before, and none since.
        since: when the way to the broker became as good as it is; 0: it is not.
        why: what the way lacks, in words.
    """

    upstream: bool
    downlink: bool
    silent: list[str]
    since: float
    why: str


class Terms(NamedTuple):
    """How a change must prove itself: all well for ``hold_s`` in one go, within ``window_s``, and confirmed or not."""

    window_s: float
    hold_s: float
    by_server: bool = False


def begin(stream: str, standing: Standing, terms: Terms, wanted: Wanted, plant: Plant[Wanted]) -> Trial:
    """Begin a trial of the newest of a stream now: note what is well.

    Args:
        stream: that.
        standing: how it stands.
        terms: how it must prove itself.
        wanted: the configuration that is tried.
        plant: the pole, as it was before.
    """
    sensors, way = sorted(plant.well_in(wanted)), plant.way()
    return Trial(
        stream=stream,
        epoch=standing.epoch,
        seq=standing.seq,
        sha=standing.sha,
        boot=plant.boot,
        started=plant.now(),
        window_s=max([terms.window_s, *(wanted.patience_s[name] + terms.hold_s for name in sensors)]),
        hold_s=terms.hold_s,
        by_server=terms.by_server,
        upstream=way.back is not None,
        one_way=way.back is None and way.taken is not None,
        sensors=sensors,
    )


def look(trial: Trial, plant: Plant[Wanted], applied_at: float) -> Gates:
    """Look at them.

    Args:
        trial: with what was well before.
        plant: the pole.
        applied_at: when the change was applied; only what was seen since counts.
    """
    way = plant.way()
    taken = way.taken if way.taken is not None and way.taken > applied_at else None
    back = way.back if way.back is not None and way.back > applied_at else None
    silent = sorted(set(trial.sensors) - set(plant.good_since(applied_at)))
    return Gates(taken is not None, back is not None, silent, back or taken or 0.0, way.why)


def lacks(trial: Trial, gates: Gates) -> tuple[Code, str]:
    """Tell what is not well, with the code of a trial that ends so; OK where all is."""
    is_proven = gates.downlink if trial.upstream else gates.upstream
    if (trial.upstream or trial.one_way) and not is_proven:
        return Code.RB_UPSTREAM, f"the uplink did not prove itself since it was applied: {gates.why or 'no answer yet'}"
    if not (trial.upstream or trial.one_way or gates.downlink or trial.stream == LOCAL):
        return Code.RB_INCONCLUSIVE, "the broker could not be reached before, nor since"
    if gates.silent:
        return Code.RB_SENSORS, f"no values since it was applied from {', '.join(gates.silent)}, and before"
    return Code.OK, ""

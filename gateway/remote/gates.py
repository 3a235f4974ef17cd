"""The gates of a trial: what must be well before a change stays, and no more than was well before."""

from gateway.remote.config_state import LOCAL, Trial
from gateway.remote.plant import Plant, Wanted
from gateway.remote.verdict import Code


def lacks(trial: Trial, plant: Plant[Wanted], applied_at: float) -> tuple[Code, str]:
    """Tell what is not well, with the code of a trial that ends so; OK where all is.

    Args:
        trial: with what was well before.
        plant: the pole.
        applied_at: when the change was applied; only what was seen since counts.
    """
    proven = plant.proven_since()
    if proven is None or proven <= applied_at:
        if trial.upstream:
            return Code.RB_UPSTREAM, "the broker took nothing, or gave back no document, since it was applied"
        if trial.stream != LOCAL:
            return Code.RB_INCONCLUSIVE, "the broker could not be reached before, nor since"
    if silent := set(trial.sensors) - set(plant.good_since(applied_at)):
        return Code.RB_SENSORS, f"no values since it was applied from {', '.join(sorted(silent))}"
    return Code.OK, ""

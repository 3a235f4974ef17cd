"""How many examples Hypothesis tries: in ``make test`` the same ones each time, in ``make fuzz`` many new ones."""

import os

from hypothesis import settings

TIMES = int(os.environ.get("FUZZ", "0"))
"""How many times as many as in ``make test``; 0: this is ``make test``."""


def examples(count: int, *, steps: int = 50) -> settings:
    """Return the settings of a test; ``steps`` is how long one example of a state machine is at the most."""
    return settings(
        max_examples=count * max(TIMES, 1),
        stateful_step_count=steps,
        deadline=None,
        derandomize=not TIMES,
        database=None,
    )

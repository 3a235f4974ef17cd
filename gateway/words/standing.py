"""What a running pole offers to those who try another configuration on it, and what comes of that.

A configuration is opaque here. :class:`gateway.app.Pole` is what runs; :mod:`gateway.remote.reload` changes it.
"""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, Protocol, TypeVar

C_contra = TypeVar("C_contra", contravariant=True)


class Echo(NamedTuple):
    """What came of the pole's own state that it published, to read it back.

    Attributes:
        taken: the broker acknowledged it with success. On MQTT 3.1.1 that proves nothing.
        came_back: it came back by a subscription. It never does where the broker does not let the pole read it.
        why: what did not, in words.
    """

    taken: bool
    came_back: bool
    why: str = ""

    def falls_short_of(self, before: "Echo") -> bool:
        """Tell whether the uplink worked better before."""
        return self.taken < before.taken or self.came_back < before.came_back


NOTHING = Echo(taken=False, came_back=False)


class Changeable(Protocol[C_contra]):
    """The running pole."""

    async def apply(self, configuration: C_contra, before: Echo) -> None:
        """Run that configuration from now on. What is equal in it and the one that ran is not touched.

        Args:
            configuration: what is to run.
            before: what came of the uplink before. A link to another broker is used when it does as well; until then
                the one there is goes on.
        """

    def healthy(self) -> frozenset[str]:
        """Name the devices whose last look gave values."""

    def waits_for(self, devices: Collection[str]) -> Mapping[str, float]:
        """Return which of some devices gave nothing good since the last ``apply``, and how many seconds each may take.

        The names are those from before it. A device that was only renamed is still waited for; one that was taken out
        is not.
        """

    async def echo(self) -> Echo:
        """Publish something on a link that belongs to the configuration, and read it back; it takes 10 s at most."""


class Verdict(NamedTuple):
    """What came of a configuration that was to take the place of another.

    Attributes:
        result: ``refused``: it has faults, and was not tried. ``rolled-back``: it was tried and did not work.
            ``unproven``: the gateway ended while it was tried, and was started with it.
        digest: stands for its content; "" where it could not be read.
        why: in words; "" for ``accepted``.
        at: nanoseconds of CLOCK_BOOTTIME.
    """

    result: Literal["accepted", "refused", "rolled-back", "unproven"]
    digest: str
    why: str
    at: int


class Standing(NamedTuple):
    """Which configuration runs.

    Attributes:
        digest: stands for its content.
        since: nanoseconds of CLOCK_BOOTTIME.
        trial: seconds that its trial may still take; None: it is not on trial.
        last: the last verdict, where there was one since the start.
    """

    digest: str
    since: int
    trial: float | None = None
    last: Verdict | None = None

"""A broker as the uplink knows it: where it is, and what came of the connections to it."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.link.broker import Broker, ClosedEarly, NotTrusted, OtherVersion, UplinkDown
from gateway.link.mqtt_link import Link, Version
from gateway.link.tls import Tls

OLDER_VERSION_S = 86_400.0

Proof = Callable[[Link], Awaitable[str]]
"""Tells why a link cannot be used; "" where it can."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """A broker, and what is known of it. Times are loop times.

    Attributes:
        broker: where it is.
        older_until: it is spoken to in MQTT 3.1.1; -inf: it spoke MQTT 5 last, or nothing is known.
        locked_until: it did not let the pole in, and is not asked before.
        shaky_until: a link to it broke soon; others come first.
        trouble: why the last connection to it did not come about.
        proof: a link to it must pass this before it is used; None: nothing.
    """

    broker: Broker
    older_until: float = -math.inf
    locked_until: float = -math.inf
    shaky_until: float = -math.inf
    trouble: str = ""
    proof: Proof | None = None

    @property
    def place(self) -> str:
        """Name it."""
        return f"{self.broker.host}:{self.broker.port}"

    def works(self, version: Version) -> None:
        """There is a link to it, in that version."""
        self.trouble = ""
        if version == Version.V5:
            self.older_until = -math.inf

    def speak_older(self, error: UplinkDown, now: float, minutes_s: float) -> None:
        """Speak MQTT 3.1.1 to it: for a day where MQTT 5 failed because it does not speak that, else for minutes.

        One end without an answer is no proof of that, but a second one is, when 3.1.1 worked in between.
        """
        is_first = isinstance(error, ClosedEarly) and self.older_until == -math.inf
        is_proved = isinstance(error, OtherVersion) and not is_first
        self.older_until = now + (OLDER_VERSION_S if is_proved else minutes_s)


def own_of(tls: Tls | None, worked: Tls | None) -> Tls | None:
    """Return what was read of the files. Raises NotTrusted where it is another pole's than what worked."""
    if tls and worked and tls.subject != worked.subject:
        step = "put this pole's there, or restart the gateway if it is right"
        raise NotTrusted(f"cert_file: the new certificate is made out to another name than the one in use; {step}")
    return tls

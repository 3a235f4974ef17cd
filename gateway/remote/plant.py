"""The pole as something that is configured: what a change of its configuration needs of it."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol, TypeVar

from gateway.remote.document import Document
from gateway.remote.verdict import Verdict


class Configuration(Protocol):
    """What is in force, or is to be; see :mod:`gateway.remote.settings_layers`."""

    @property
    def pole(self) -> str:
        """Id of the pole."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Whose documents the pole takes, the weakest first."""

    @property
    def patience_s(self) -> Mapping[str, float]:
        """How long each device may take for a sample."""

    @property
    def window_s(self) -> float:
        """How long the trial of an edit of the pole's own file takes at the most, but for slow devices."""

    @property
    def hold_s(self) -> float:
        """How long all must be well in one go in such a trial."""

    @property
    def fingerprint(self) -> str:
        """Equal where nothing differs."""

    @property
    def drift(self) -> Mapping[str, str]:
        """SHADOWED, PINNED or OVERRIDDEN by key."""

    @property
    def trouble(self) -> str:
        """Why overrides are left out; "" where none are."""


Wanted = TypeVar("Wanted", bound=Configuration)
Taken_contra = TypeVar("Taken_contra", bound=Configuration, contravariant=True)


class Unfit(Exception):
    """The pole cannot run so. The text says why."""


class NeedsRestart(Unfit):
    """The pole cannot run so before the gateway is started anew."""


class Way(NamedTuple):
    """The way to the broker, on a link that belongs to what is applied.

    Attributes:
        taken: since when the broker takes what the pole publishes, which proves nothing on MQTT 3.1.1; None: it does
            not.
        back: since when it gives it back, too; None: it does not.
        why: what is lacking, in words.
    """

    taken: float | None
    back: float | None
    why: str = ""


class Plant(Protocol[Taken_contra]):
    """The pole that is configured."""

    boot: str

    def now(self) -> float:
        """Return seconds since the boot of the machine."""

    def utc(self) -> int | None:
        """Return seconds since 1970; None while the clock is not set."""

    async def probe(self, wanted: Taken_contra) -> None:
        """Look whether the pole could run so, and change nothing. Raises Unfit, NeedsRestart."""

    async def apply(self, wanted: Taken_contra) -> None:
        """Run so. Where that needs a restart, it begins. Raises Unfit."""

    def way(self) -> Way:
        """Tell how the way to the broker is, as far as that is known; who asks has it proven."""

    async def find_way(self) -> None:
        """Have it proven, and wait for what comes of that."""

    def healthy(self) -> Collection[str]:
        """Name the devices that give values."""

    def well_in(self, wanted: Taken_contra) -> Collection[str]:
        """Name the devices of a configuration that give values now; one that is only renamed by its new name."""

    def good_since(self, at: float) -> Collection[str]:
        """Name the devices that have given a value since."""

    def tell(self, verdict: Verdict) -> None:
        """Tell what became of a document, or of an edit."""


Compose = Callable[[str, Mapping[str, Document]], Wanted]
"""Makes a configuration of the pole's own file and documents by stream. Raises SettingsError, Rejected."""

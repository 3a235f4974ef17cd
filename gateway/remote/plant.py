"""The pole as something that is configured: what a change of its configuration needs of it."""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, TypeVar

from gateway.remote.document import Document
from gateway.remote.verdict import Verdict


class Configuration(Protocol):
    """What is in force, or is to be; see :mod:`gateway.remote.settings_layers`."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Whose documents the pole takes, the weakest first."""

    @property
    def patience_s(self) -> Mapping[str, float]:
        """How long each device may take for a sample."""

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


class Plant(Protocol[Taken_contra]):
    """The pole that is configured."""

    boot: str

    def now(self) -> float:
        """Return seconds since the boot of the machine."""

    def utc(self) -> int | None:
        """Return seconds since 1970; None while the clock is not set."""

    async def probe(self, wanted: Taken_contra) -> None:
        """Look whether the pole could run so, and change nothing. Raises Unfit."""

    async def apply(self, wanted: Taken_contra) -> None:
        """Run so. Raises Unfit."""

    def proven_since(self) -> float | None:
        """Return since when the way to the broker and back is proven, on the link there is; None: it is not."""

    def healthy(self) -> Collection[str]:
        """Name the devices that give values."""

    def good_since(self, at: float) -> Collection[str]:
        """Name the devices that have given a value since."""

    def tell(self, verdict: Verdict) -> None:
        """Tell upstream what became of a document."""


Compose = Callable[[str, Mapping[str, Document]], Wanted]
"""Makes a configuration of the pole's own file and documents by stream. Raises SettingsError, Rejected."""

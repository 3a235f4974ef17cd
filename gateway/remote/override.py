"""A timed override: a technician at the pole sets one key for some hours, above every layer, and says why.

It ends by itself. In the boot it was made in, that is counted by the clock that only counts; after a reboot by the time
of day, which on a pole without a clock chip may be late until it is set.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError


class Override(BaseModel):
    """One of them.

    Attributes:
        key: as it is written: ``device.meter.every``.
        value: as it stands behind ``=`` in a file.
        why: what it is for.
        boot: in which it was made; "" where the machine does not tell.
        until_boottime: seconds since that boot.
        until: seconds since 1970, by the pole's clock.
    """

    model_config = ConfigDict(frozen=True)  # a later release may add a field

    key: str
    value: str
    why: Annotated[str, Field(min_length=1, max_length=400, description="Say what it is for; operators read it.")]
    boot: str
    until_boottime: float
    until: float

    def is_over(self, boot: str, boottime: float, utc: float) -> bool:
        """Tell whether it has ended.

        Args:
            boot: which boot this is.
            boottime: seconds since it.
            utc: seconds since 1970, by the machine.
        """
        return boottime >= self.until_boottime if boot and boot == self.boot else utc >= self.until


_LIST = TypeAdapter(list[Override])


def written(overrides: Sequence[Override]) -> bytes:
    """Return the file of overrides."""
    return _LIST.dump_json(list(overrides), indent=1) + b"\n"


def read(file: bytes | None) -> list[Override]:
    """Read it; None: there is no file. Raises ValueError where it is damaged."""
    try:
        return _LIST.validate_json(file) if file else []
    except ValidationError as error:
        raise ValueError("the file of overrides is damaged") from error

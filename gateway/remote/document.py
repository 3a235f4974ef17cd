"""What an operator signs for poles: a configuration document, which is the whole of one layer, and a command.

The settings are TOML, the text of a file as it would lie on the pole: one language for technician and operator, and a
fault in it is told by its line in the operator's own file.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.contract import NAME_PATTERN
from gateway.remote import strict_json
from gateway.remote.trust_root import Number, Role, Time
from gateway.remote.verdict import Code, Rejected

SCHEMA = "polegate.config/1"
FLEET = "fleet"
GROUP = "group/"
POLE = "pole/"
STREAM_PATTERN = rf"^({FLEET}|({GROUP}|{POLE}){NAME_PATTERN.removeprefix('^').removesuffix('$')})$"
HOUR_PATTERN = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
AGENT_PATTERN = r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$"
WHOLE = 10_000
DAYS = "mon", "tue", "wed", "thu", "fri", "sat", "sun"
FIRST_DAY = 3  # 1970 began on a Thursday
DAY_S = 86_400

Stream = Annotated[str, Field(pattern=STREAM_PATTERN)]
Hour = Annotated[str, Field(pattern=HOUR_PATTERN)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class _Signed(BaseModel):
    # Built when the first one comes: a pole that nobody configures over the air keeps the memory
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class Rollout(_Signed):
    """Which share of the poles takes it."""

    salt: Annotated[str, Field(max_length=64)]
    permyriad: Annotated[int, Field(ge=0, le=WHOLE, description="Ten-thousandths.")]

    def takes(self, pole: str) -> bool:
        """Tell whether a pole is among them. Who is in a smaller share is in each larger one of the same salt."""
        return _spread(f"{self.salt}|{pole}", WHOLE) < self.permyriad


class Window(_Signed):
    """When it may be applied, UTC; each pole at a time of its own within ``spread_s`` of the begin."""

    days: Annotated[list[Day], Field(min_length=1)] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    begin: Hour = Field(alias="from", description="Hours and minutes, such as 01:30.")
    end: Hour = Field(alias="to", description="The same.")
    spread_s: Annotated[int, Field(ge=0, le=86_400)] = 0

    @model_validator(mode="after")
    def _on_one_day(self) -> Self:
        if _minutes(self.begin) * 60 + self.spread_s >= _minutes(self.end) * 60:
            raise ValueError('"from" with "spread_s" must be before "to"; a window ends on the day it begins')
        return self

    def is_open(self, at: int, pole: str) -> bool:
        """Tell whether it is open at a time, seconds since 1970."""
        day, second = divmod(at, DAY_S)  # not by datetime, which ends with the year 9999; a signed time may be later
        begin = _minutes(self.begin) * 60 + (_spread(pole, self.spread_s) if self.spread_s else 0)
        return DAYS[(FIRST_DAY + day) % len(DAYS)] in self.days and begin <= second < _minutes(self.end) * 60


class TrialTerms(_Signed):
    """How it must prove itself."""

    window_s: Annotated[int, Field(ge=10, le=86_400)] = 300
    hold_s: Annotated[int, Field(ge=1, le=3600)] = 60
    confirm: Literal["auto", "server"] = "auto"

    @model_validator(mode="after")
    def _can_be_held(self) -> Self:
        if self.hold_s >= self.window_s:
            raise ValueError('"hold_s" must be less than "window_s"')
        return self


class Document(_Signed):
    """The whole of one layer."""

    stream: Annotated[Stream, Field(description='"fleet", "group/NAME" or "pole/NAME".')]
    seq: Number
    epoch: Number
    issued: Time
    not_before: Time
    expires: Time
    layout: Literal["polegate.config/1"] = Field(alias="schema")
    min_agent: Annotated[str, Field(pattern=AGENT_PATTERN, description="A version of polegate, such as 0.2.")] = "0"
    requires: dict[Stream, Number] = {}
    rollout: Rollout | None = None
    window: Window | None = None
    trial: TrialTerms = TrialTerms()
    settings: str
    note: Annotated[str, Field(max_length=400)] = ""

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.stream} seq {self.seq}"

    @property
    def role(self) -> Role:
        """Who may sign it."""
        return role_of(self.stream)

    def must_be_timely(self, now: int) -> None:
        """Raise Rejected, EXPIRED or NOT_YET, by a time, seconds since 1970."""
        if now >= self.expires:
            raise Rejected(Code.EXPIRED, f"it expired at {_utc(self.expires)}; sign it anew, with the next seq")
        if now < self.not_before:
            raise Rejected(Code.NOT_YET, f"it is for {_utc(self.not_before)} and later")

    def fits_agent(self, version: str) -> bool:
        """Tell whether a version of polegate is new enough for it."""
        return _version(version) >= _version(self.min_agent)


class Command(_Signed):
    """What is done with a trial that runs."""

    pole: Annotated[str, Field(pattern=NAME_PATTERN)]
    do: Literal["confirm", "cancel"]
    trial: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the document that is tried.")]
    epoch: Number
    issued: Time
    expires: Time


def digest(payload: bytes) -> str:
    """Return what a document is known by: SHA-256 of its payload. Who signed is no part of it."""
    return hashlib.sha256(payload).hexdigest()


def role_of(stream: str) -> Role:
    """Return who may sign the documents of a stream."""
    if stream == FLEET:
        return "fleet"
    return "group" if stream.startswith(GROUP) else "pole"


def parsed(payload: bytes) -> Document:
    """Read a document. Raises Rejected: PARSE, SCHEMA."""
    content = strict_json.parse(payload)
    if isinstance(content, dict) and content.get("schema") != SCHEMA:
        raise Rejected(Code.SCHEMA, f"its schema is not {SCHEMA}, which is the one this polegate knows")
    return _read(Document, content)


def parsed_command(payload: bytes) -> Command:
    """Read a command. Raises Rejected: PARSE."""
    return _read(Command, strict_json.parse(payload))


def written(content: Mapping[str, Any]) -> bytes:
    """Write a document as it is signed. Raises Rejected, PARSE, where it is none."""
    return _written(_read(Document, content))


def written_command(content: Mapping[str, Any]) -> bytes:
    """Write a command as it is signed. Raises Rejected, PARSE, where it is none."""
    return _written(_read(Command, content))


def _written(found: BaseModel) -> bytes:
    return found.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()


def _read(model: type[strict_json.Model], content: object) -> strict_json.Model:
    return strict_json.fitted(model, content, model.__name__.lower())


def _spread(text: str, over: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()) % over


def _minutes(hour: str) -> int:
    return int(hour[:2]) * 60 + int(hour[3:])


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _utc(at: int) -> str:
    try:
        return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError):
        return f"second {at}"

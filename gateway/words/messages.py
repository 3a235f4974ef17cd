"""What the pole says and hears, as models: what goes out is made by them, and ``config/schema`` is made from them.

What is not known is left out; nothing is null. Times are seconds since 1970. A receiver passes over fields it does
not know, since more may come. The catalogue has a file of its own, :mod:`gateway.words.thing`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Clock = Literal["synchronised", "unsynchronised"]
Span = Annotated[list[int], Field(min_length=2, max_length=2, description="First and last number of a range.")]


class Content(BaseModel):
    """What a message holds."""

    # A model is built when it is first used, not at import: each takes memory, and a run does not need all
    model_config = ConfigDict(frozen=True, defer_build=True)

    def encoded(self) -> bytes:
        """Return it as it is sent."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class UplinkState(Content):
    """The way to the broker."""

    up: bool
    trouble: str = Field("", description="Why there is no link, in words; empty while there is one.")
    broker: str | None = Field(None, description="The one it is connected to, host:port.")
    mqtt: Literal["5", "3.1.1"] | None = Field(
        None,
        description="Version that is spoken. On 3.1.1 a broker cannot say that it refused a message: it looks taken.",
    )
    note: str = Field("", description="What one should know of the connection, in words.")
    certificate_expires: float | None = Field(None, description="When the pole's own certificate ends.")
    certificate_trouble: str = Field("", description="Why a new certificate was not taken, in words.")
    refused: dict[str, str] = Field({}, description="Datasets that the broker does not take at present, and why.")


class MendedState(Content):
    """What was found damaged in the buffer's file last, and what came of it."""

    why: str
    packs: int = Field(description="Packs that were taken over.")
    damaged: int = Field(description="Rows that were no packs any more.")
    aside: str = Field(description="Where the damaged file lies on the pole; empty where only its log was damaged.")


class BufferState(Content):
    """Where packs wait."""

    packs: int = Field(description="Packs that the broker did not acknowledge yet, in RAM and on the disk.")
    readings: int = Field(description="Values in them.")
    stored: int = Field(description="Packs of them on the disk.")
    dead: int = Field(0, description="Packs that the broker refuses for good; they are kept aside.")
    commits: int = Field(description="Transactions since the start, each with one fsync.")
    written: int | None = Field(None, description="Bytes that went to storage since the start.")
    dropped: int = Field(description="Packs that had to give way since the start.")
    dropped_readings: int = Field(description="Values in them.")
    trouble: str = Field("", description="Why the file cannot be written, in words; empty while it can.")
    journal: str = Field(description='"ok", or why a crash would lose what is not on the disk yet.')
    mended: MendedState | None = None


class DeviceState(Content):
    """One device."""

    good: int = Field(description="Looks at it that gave values, since the start.")
    lost: dict[str, int] = Field(description="Looks that gave none, by the word of the error.")
    age: float | None = Field(None, description="Seconds since the last good one; left out where there was none.")
    lapse: str = Field("", description="Word of the error that keeps it from giving values now; empty for none.")
    trouble: str = Field("", description="The same in words, with what to do.")


class VerdictState(Content):
    """What came of a document, or of an edit of the pole's own file."""

    result: Literal["accepted", "refused", "rolled-back"] = Field(
        description='"refused": it was not tried. "rolled-back": it was tried and did not work.'
    )
    stream: str = Field(description='Whose document; "local" is the pole\'s own file.')
    seq: int | None = Field(None, description="Number of the document, where it was believed.")
    digest: str = Field(description="First digits of its SHA-256; empty where it was not believed or not read.")
    why: str = Field("", description="In words; empty where it was accepted.")
    at: float = Field(description="When, by the pole's clock.")


class ConfigurationState(Content):
    """Which configuration runs."""

    digest: str = Field(description="Stands for its content.")
    since: float = Field(description="Since when it runs.")
    streams: dict[str, int] | None = Field(
        None, description="Number of the document that is in force, by stream; left out where none is."
    )
    trial: float | None = Field(None, description="Seconds that its trial may still take; left out without one.")
    tried: str | None = Field(
        None, description='Whose document is on trial; "local" is an edit of the pole\'s own file.'
    )
    last: VerdictState | None = Field(None, description="The last verdict, where there was one since the start.")


class GivenUpState(Content):
    """A release of polegate that did not prove healthy, so that the pole went back to the one before by itself."""

    version: str
    why: str = Field(description="In words.")
    at: float = Field(description="When, by the pole's clock.")


class State(Content):
    """How the pole is. Retained; published on change and once a minute."""

    status: Literal["online", "stopped"]
    version: str = Field(description="Of polegate, as it runs.")
    given_up: GivenUpState | None = Field(
        None, description="A newer one that went back by itself; left out once another one is installed."
    )
    python: str
    boot: str = Field(description="Id of this boot of the machine; empty where it does not tell.")
    epoch: int = Field(description="Number of this run of the gateway; grows at each start.")
    uptime: int = Field(description="Seconds since the gateway started.")
    at: float = Field(description="When this was so, by the pole's clock.")
    clock: Clock = Field(description="Whether the kernel holds the time of day for right.")
    uplink: UplinkState
    buffer: BufferState
    configuration: ConfigurationState
    devices: dict[str, DeviceState]


class Gone(Content):
    """The last will: the broker publishes it, retained, when the pole goes without a word."""

    status: Literal["gone"] = "gone"


class Alarm(Content):
    """Something is wrong, or is over.

    It is published when that changes, and once more on each new connection while it is raised. What comes and goes
    is told once a minute, with its count. What was over before it could be told is told as cleared. An alarm ends with
    its epoch: once ``state`` shows another, those of older ones mean nothing.
    """

    event: Literal["device", "uplink", "buffer", "clock", "configuration"] = Field(
        description="Its class, the last level of the topic."
    )
    id: str = Field(description="The same from raise to clear, and when it is told again.")
    state: Literal["raise", "clear"]
    subject: str = Field(
        description='Id of the device; dataset that the broker does not take, or "certificate"; "buffer", or "dead": '
        'packs that no broker takes; "clock"; "configuration".'
    )
    code: str = Field(
        description="What is wrong, in a word. Of a device one of the words of quality records; of the buffer "
        "disk-full, read-only, not-writable, or damaged, which is mended by then; of such packs dead-letters; of a "
        "dataset not-authorised or refused; of the certificate expires or not-renewed; of the clock unsynchronised; "
        "of the configuration not-taken or rolled-back, until one is accepted."
    )
    text: str = Field(description="The same in words.")
    hint: str = Field("", description="What to do.")
    count: int = Field(ge=1, description="How often this came up with this subject since the start.")
    at: float = Field(description="When it was raised or cleared, by the pole's clock.")
    since: float = Field(description="When it was raised.")
    clock: Clock = Field(description="Whether the kernel held the time of day for right when this was told.")
    epoch: int = Field(description="The run of the gateway.")


class Loss(Content):
    """Packs of one dataset and epoch that no receiver will get."""

    dataset: str
    reason: str = Field(description='"evicted": the buffer was full; "refused"; "damaged".')
    packs: int
    readings: int
    epoch: int
    seq: Span
    taken: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, description="When the first reading of the first and of the last of them was taken, where that is known."
    )


class Lost(Content):
    """What was lost since the last such message. It is told until the broker has it, under the same id."""

    event: Literal["lost"] = "lost"
    id: int
    losses: list[Loss]


class Replay(Content):
    """A request for packs that a receiver missed. It must not be retained."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field("", max_length=64, description="Any text; the answer carries it.")
    dataset: str = Field(max_length=63)
    epoch: int = Field(ge=1, lt=1 << 31)
    first: int = Field(alias="from", ge=1, lt=1 << 53)
    last: int = Field(alias="to", ge=1, lt=1 << 53)


class Replayed(Content):
    """The answer to a replay."""

    event: Literal["replay"] = "replay"
    id: str
    dataset: str
    epoch: int
    sent: list[Span] = Field(description="Packs that were sent again.")
    gone: list[Span] = Field(description="Packs of those asked for that are no longer held.")
    ask_again_from: int | None = Field(None, description="The answer ends before this one: too many were asked for.")


class NotReplayed(Content):
    """Nothing was sent again, and why."""

    event: Literal["replay"] = "replay"
    id: str | None = Field(None, description="Left out where what came was no request.")
    error: str


class ConfigStream(Content):
    """The documents of one stream, or, as "local", the pole's own file."""

    seq: int = Field(description="Number of the newest document that was believed; 0: none, or the pole's own file.")
    sha: str = Field(description="SHA-256 of its payload; empty: none.")
    active_seq: int = Field(description="Number of the one that is in force.")
    active: str = Field(description="SHA-256 of it; empty: none.")
    waits: bool = Field(description="The newest one is to be tried, or is being tried.")
    fate: str = Field("", description="Why the newest one did not come into force: name of the code; empty: it did.")
    why: str = Field("", description="The same in words.")


class ConfigGates(Content):
    """What has proved itself since it was applied."""

    upstream: bool = Field(description="The broker took what the pole published.")
    downlink: bool = Field(description="And gave it back.")
    sensors: list[str] = Field(description="Devices that gave values before, and none since.")


class ConfigTrial(Content):
    """A document, or an edit, that is being tried."""

    stream: str
    seq: int
    sha: str = Field(description="SHA-256 of its payload; a command names it.")
    attempt: int = Field(description="Starts of the gateway that tried it.")
    confirmed: bool = Field(description="An operator has confirmed it.")
    left_s: int = Field(description="Seconds that it may still take, when this was told.")
    gates: ConfigGates | None = None


class ConfigVerdict(Content):
    """What became of a document."""

    stream: str = Field(description='Or "root", "command", or "local" for the pole\'s own file; empty: no stream.')
    seq: int = Field(description="Its number; 0 where it was not believed.")
    sha: str = Field("", description="SHA-256 of its payload; empty where it was not believed.")
    code: int
    name: str = Field(description="Of the code.")
    text: str = Field(description="The same in words.")


class Reported(Content):
    """Which configuration is in force, and why."""

    root: int = Field(description="Version of the root of trust that came over the air last; 0: none did.")
    streams: dict[str, ConfigStream]
    trial: ConfigTrial | None = None
    last: ConfigVerdict | None = Field(None, description="What was told last.")
    drift: dict[str, str] = Field({}, description="SHADOWED, PINNED or OVERRIDDEN by key.")
    effective: str = Field(description="Equal for poles whose settings do not differ.")
    trouble: str = Field("", description="Why the overrides are left out; empty while they are not.")


class SignState(Content):
    """How one subject of the pole is: what an alarm would tell of it."""

    event: str = Field(description="Class of the alarm.")
    subject: str
    code: str = Field("", description="What is wrong, in a word; empty: nothing.")
    since: float = Field(description="Since when that is so, by the pole's clock.")
    is_normal: bool = Field(default=False, description="It is wrong, and that is normal for a while yet.")
    text: str = Field(description="The same in words.")
    hint: str = Field("", description="What to do.")


class Details(Content):
    """What the gateway tells beside its state to who asks at its status socket."""

    pole: str = Field("", description="Its id.")
    units: dict[str, dict[str, str]] = Field(
        {}, description="Of the latest values: by device and channel, as in SenML."
    )
    signs: list[SignState]
    reported: Reported | None = Field(None, description="Left out where nothing can be changed.")
    drift: list[str] = Field([], description="What of the pole's own file has no effect, in words.")


class Status(State):
    """What the status socket tells."""

    details: Details


def _one_value(schema: dict[str, Any]) -> None:
    """A record of a pack has one value; ``bver`` to ``cat`` stand in the first, which is asked for by :data:`PACK`."""
    schema["oneOf"] = [{"required": [key]} for key in ("v", "vb", "vs")]


class Record(Content):
    """A record of a SenML pack (RFC 8428). Base fields hold until they are set again."""

    model_config = ConfigDict(json_schema_extra=_one_value)

    bver: int | None = Field(None, description="26: the secondary units of RFC 8798 may stand here (RFC 9100).")
    bt: float | None = Field(None, description="Base time, absolute: of this record and those behind it.")
    bn: str | None = Field(None, description="Base name: pole/device/.")
    n: str = Field(description="Channel; is appended to the base name.")
    u: str | None = Field(None, description="Unit.")
    v: float | None = Field(None, description="A number.")
    vb: bool | None = Field(None, description="A flag.")
    vs: str | None = Field(None, description="A text.")
    epoch: int | None = Field(None, description="First record: run of the gateway.")
    seq: int | None = Field(None, ge=1, description="First record: number in its dataset and epoch: 1, 2, 3 ...")
    cat: str | None = Field(None, description="First record: version.instance of the catalogue that holds.")
    after: str | None = Field(
        None,
        pattern="^[0-9]+:[0-9]+$",
        description="First pack of an epoch: epoch and seq of the last one that is known of from before it.",
    )
    clock: Literal["unsynchronised"] | None = Field(None, description="The times are a guess.")
    boot: str | None = Field(None, description="The boot of the machine they belong to.")
    earliest: int | None = Field(None, description="That boot was not before.")
    latest: int | None = Field(None, description="That boot was not after.")
    backfill: bool | None = Field(
        None, description="The pack waited in the buffer; it is not live. MQTT 5 tells it by user property instead."
    )
    part: str | None = Field(
        None,
        pattern="^[0-9]+/[0-9]+$",
        description='"1/4": the first of four parts of a pack that is too large for the broker.',
    )
    why: str | None = Field(None, description="In a record of quality: why there are no values from here on, or ok.")


PACK: dict[str, Any] = {
    "title": "Pack",
    "description": "A SenML pack. Above 200 bytes it is compressed by zstd.",
    "type": "array",
    "minItems": 1,
    "contains": {"required": ["bver", "bt", "bn", "epoch", "seq", "cat"]},
}
"""What holds for a pack beside that its items are records."""

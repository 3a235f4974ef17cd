"""The configuration as frozen values.

The ``[[device]]`` sections belong to the drivers: each is the model of the driver it names. The rest is here.
"""

import contextlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from drivers.contract import Driver, Fact, LineSettings, Name, OnPort
from gateway.config import layers
from gateway.config.faults import ADAPTER_PATTERN, DURATION_PATTERN, PACE_PATTERN, TOPIC_PATTERN, Fault, at_key, show
from gateway.config.toml_text import quoted
from gateway.host.secret_file import CREDENTIAL

MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
WITH_TLS = ("mqtts", "wss")
WEB_SOCKET_PATH = "/mqtt"
STATE = "config"
TCP = "tcp://"
LARGEST_PORT = 65_535
LONGEST_LABEL = 63  # RFC 1035, section 2.3.4: what the resolver takes between two dots
NUMBER = re.compile("[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
"""A host of nothing but these is no name: the resolver takes 192.168.001.020 as octal and 192.168.1 as 192.168.0.1."""
UNIT_S = {"m": 60, "h": 3600, "d": 86_400}
HOST = r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\])"
BROKER = re.compile(rf"mqtts?://{HOST}(:(?P<port>.*?))?/?", re.IGNORECASE)
WEB_BROKER = re.compile(rf"wss?://{HOST}(:(?P<port>[^/]*))?(/[!-~]*)?", re.IGNORECASE)
LIKELY_HOST = re.compile(rf"([a-z+]+:?//|mqtts?:/?)?(?P<meant>{HOST}(:[0-9]+)?)(/|$)", re.IGNORECASE)
TCP_PATH = re.compile(rf"tcp://{HOST}:(?P<port>.*)")


def _is_port(text: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", text) is not None and 0 < int(text) <= LARGEST_PORT


def _whole(path: Path, info: ValidationInfo) -> Path:
    if not path.is_absolute() or not str(path).isprintable():
        raise ValueError(f'"{info.field_name}" must be a whole path, one that begins with /')
    return path


def _host_fault(host: str) -> str:
    """Tell why no host can have this name; "" where one can, whether there is one or not."""
    if host.startswith("["):
        with contextlib.suppress(ValueError):
            IPv6Address(host[1:-1])
            return ""
        return "what stands in [ ] must be an IPv6 address, such as [2001:db8::7]"
    labels = host.removesuffix(".").split(".")
    if "" in labels:
        return "the host has a dot too many, or a part of it is missing; correct it"
    if all(map(NUMBER.fullmatch, labels)):
        try:
            IPv4Address(host)
        except ValueError:
            return "write an IPv4 address as four numbers up to 255 without zeros in front, such as 192.168.1.20"
    if max(map(len, labels)) > LONGEST_LABEL:
        return f"a part of the host between dots has {LONGEST_LABEL} characters at the most; correct it"
    return ""


FilePath = Annotated[Path, AfterValidator(_whole)]
"""A path that does not depend on the folder that the gateway was started in."""


def _whole_or_credential(place: str, info: ValidationInfo) -> str:
    if place.startswith(CREDENTIAL):
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", place.removeprefix(CREDENTIAL)):
            step = 'write "credential:NAME", with the name that LoadCredential= has'
            raise ValueError(f'"{info.field_name}" is {quoted(place)}; {step}')
        return place
    return str(_whole(Path(place), info))


SecretFile = Annotated[str, AfterValidator(_whole_or_credential)]
"""The same, or ``credential:NAME``."""


class Section(BaseModel):
    """A section of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PoleSettings(Section):
    """``[pole]``: who this is."""

    id: Name = Field(description="Name of the pole; its MQTT user and client id, one level of every topic.")
    description: Fact | None = Field(None, description="Where it stands, in words.")
    latitude: float | None = Field(None, ge=-90, le=90, description="Degrees north, WGS 84.")
    longitude: float | None = Field(None, ge=-180, le=180, description="Degrees east, WGS 84.")

    @model_validator(mode="after")
    def _a_whole_position(self) -> Self:
        for key, other in (("latitude", "longitude"), ("longitude", "latitude")):
            if getattr(self, key) is not None and getattr(self, other) is None:
                raise at_key(key, f'"{key}" needs a "{other}" beside it')
        return self


class Endpoint(NamedTuple):
    """Where a broker is: host, port, whether TLS is spoken, and the path of WebSocket ("": MQTT without it)."""

    host: str
    port: int
    tls: bool
    path: str


class UplinkSettings(Section):
    """``[uplink]``: where readings go."""

    url: tuple[str, ...] = Field(
        description="mqtts://HOST[:PORT], or mqtt://HOST[:PORT] without encryption; several in [ ], the best first."
    )
    username: str | None = Field(None, description="The pole's id unless it is set; only sent with a password.")
    password_file: SecretFile | None = Field(None, description="File that holds the password.")
    ca_file: SecretFile | None = Field(None, description="CA that signed the broker's certificate (PEM).")
    cert_file: SecretFile | None = Field(None, description="This pole's certificate (PEM), for a broker that asks.")
    key_file: SecretFile | None = Field(None, description="The private key of that certificate (PEM).")
    backfill: str = Field(
        "50%",
        pattern=PACE_PATTERN,
        description="What the backlog may take beside live packs: a share, or bytes a second.",
    )
    prefix: str = Field("pole/1", pattern=TOPIC_PATTERN, description="Begin of all topics.")

    @field_validator("url", mode="before")
    @classmethod
    def _one_or_several(cls, url: object) -> object:
        if isinstance(url, list):
            if not url:
                raise ValueError('"url" is an empty list; write one broker, or several with the best first')
            return tuple(url)
        if not isinstance(url, str):
            raise ValueError(f'"url" must be a text in quotes, or a list of them in [ ], not {show(url)}')  # noqa: TRY004  # pydantic's
        return (url,)

    @field_validator("url")
    @classmethod
    def _name_brokers(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            _must_name_a_broker(url)
        if len({endpoint.tls for endpoint in map(_endpoint, urls)}) > 1:
            step = "who blocks the one gets all that goes to the other in clear; write mqtts:// or wss:// for all"
            raise ValueError(f'"url" has brokers with TLS and without; {step}')
        if len(set(urls)) < len(urls):
            raise ValueError('"url" has the same broker twice; remove one')
        return urls

    @model_validator(mode="after")
    def _files_are_used(self) -> Self:
        if bool(self.cert_file) != bool(self.key_file):
            has, lacks = ("cert_file", "key_file") if self.cert_file else ("key_file", "cert_file")
            raise at_key(has, f'"{has}" is of no use without "{lacks}"; a certificate and its key go together')
        for key in ("ca_file", "cert_file"):
            if getattr(self, key) and not self.brokers[0].tls:
                raise at_key(key, f'"{key}" is for TLS, which "url" does not use; write mqtts:// or wss:// there')
        return self

    @property
    def pace(self) -> tuple[float, float | None]:
        """Share of the packs under way that may be backlog, and bytes a second where it is bound by that."""
        if self.backfill.endswith("%"):
            return int(self.backfill[:-1]) / 100, None
        return 1.0, 1000.0 * int(self.backfill.removesuffix("kB/s"))

    @property
    def brokers(self) -> list[Endpoint]:
        """The brokers, the best first."""
        return [_endpoint(url) for url in self.url]


def _must_name_a_broker(url: str) -> None:
    if "@" in url:
        raise ValueError('"url" holds a user or a password; put them in username and password_file')
    found = BROKER.fullmatch(url) or WEB_BROKER.fullmatch(url)
    if found is None:
        host = LIKELY_HOST.match(url)
        meant = host["meant"] if host else "HOST"
        raise ValueError(f'"url" is {quoted(url)}; write mqtts://{meant}, or mqtt://{meant} for a broker without TLS')
    if found["port"] and not _is_port(found["port"]):
        raise ValueError(f'"url" is {quoted(url)}; the port is a number from 1 to 65535')
    if fault := _host_fault(found["host"]):
        raise ValueError(f'"url" is {quoted(url)}; {fault}')


def _endpoint(url: str) -> Endpoint:
    parts = urlsplit(url)
    path = ""
    if parts.scheme in ("ws", "wss"):
        path = parts.path + (f"?{parts.query}" if parts.query else "") or WEB_SOCKET_PATH
    return Endpoint(parts.hostname or "", parts.port or MQTT_PORTS[parts.scheme], parts.scheme in WITH_TLS, path)


class BufferSettings(Section):
    """``[buffer]``: where packs wait that were not acknowledged."""

    path: FilePath = Field(Path("/var/lib/polegate/buffer.db"), strict=False, description="The database file.")
    max_bytes: int = Field(256 * 1024 * 1024, ge=4 * 1024 * 1024, le=1 << 40, description="Largest size of it.")
    durability: Literal["ram-first", "disk-first"] = Field(
        "ram-first", description="What comes first of a pack: that it is sent, or that it is on the disk."
    )
    history: str | None = Field(
        None, pattern=DURATION_PATTERN, description="How long acknowledged packs are kept for those who missed some."
    )

    @property
    def history_s(self) -> int:
        """Seconds of history; 0: there is none."""
        return int(self.history[:-1]) * UNIT_S[self.history[-1]] if self.history else 0


class ReloadSettings(Section):
    """``[reload]``: the terms of the trial of an edited file. A document brings its own."""

    uplink_within: float = Field(
        120.0, gt=0, le=3600, description="Seconds in which all that worked before must work again."
    )
    device_within: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds that each device has for that at least; three of its intervals if longer.",
    )
    hold: float = Field(10.0, ge=0, le=600, description="Seconds for which all of it must work in one go.")


class RemoteSettings(Section):
    """``[remote]``: whether operators may configure this pole, and whose word it takes."""

    enabled: bool = Field(default=False, description="Whether it takes signed documents.")
    trust: FilePath = Field(Path("/etc/polegate/trust"), strict=False, description="Folder with root.json.")
    state: FilePath | None = Field(
        None,
        strict=False,
        description='Folder for edits, documents and what became of them; "config" beside the buffer if unset.',
    )
    groups: list[Name] = Field([], description="Whose documents it takes beside the fleet's; the last is strongest.")
    pins: list[str] = Field([], description="Keys that no document sets.")

    @field_validator("pins")
    @classmethod
    def _are_keys(cls, pins: list[str]) -> list[str]:
        for pin in pins:
            try:
                layers.key_of(pin)
            except ValueError:
                raise ValueError(f'"pins" has {quoted(pin)}; write a key, such as "device.meter.every"') from None
        return pins


class BluetoothSettings(Section):
    """``[bluetooth]``."""

    adapter: str = Field("hci0", pattern=ADAPTER_PATTERN, description="As `bluetoothctl list` and `hciconfig` name it.")


class PortSettings(Section):
    """``[port.NAME]``: a serial port, or a TCP connection to devices."""

    path: str = Field(description="/dev/serial/by-id/..., or tcp://HOST:PORT.")
    baud: int | None = Field(None, ge=50, le=4_000_000, description="As the devices are set; their default if unset.")
    parity: Literal["none", "even", "odd"] | None = None
    stop_bits: Literal[1, 2] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.path.lower().startswith(TCP):
            found = TCP_PATH.fullmatch(self.path)
            if found is None or not _is_port(found["port"]):
                example = "tcp://HOST:PORT, for instance tcp://192.168.1.20:502"
                raise at_key("path", f'"path" is {quoted(self.path)}; write {example}')
            if fault := _host_fault(found["host"]):
                raise at_key("path", f'"path" is {quoted(self.path)}; {fault}')
            if wrong := [key for key in ("baud", "parity", "stop_bits") if getattr(self, key) is not None]:
                raise at_key(wrong[0], f"a tcp:// port has no {' or '.join(wrong)}; remove what is set")
        elif not self.path.startswith("/") or not self.path.isprintable():
            raise at_key("path", f'"path" is {quoted(self.path)}; write /dev/serial/by-id/... or tcp://HOST:PORT')
        return self

    @property
    def tcp(self) -> tuple[str, int] | None:
        """Host and port of a TCP connection; None for a serial port."""
        parts = urlsplit(self.path)
        return (parts.hostname or "", parts.port or 0) if parts.scheme else None

    def line(self, default: LineSettings) -> LineSettings:
        """Return how the line is set: as the section says, else as its devices are by default."""
        return LineSettings(
            self.baud or default.baud, self.parity or default.parity, self.stop_bits or default.stop_bits
        )


class DatasetSettings(Section):
    """``[dataset.NAME]``: how its readings travel, and on what terms others may use them."""

    send_every: float = Field(5.0, gt=0, le=3600, description="Seconds of readings in a pack.")
    commit_within: float = Field(
        10.0, gt=0, le=86_400, description="Seconds after which a reading that was not acknowledged is on the disk."
    )
    priority: int = Field(5, ge=0, le=9, description="Who stays when the buffer is full: the highest stays longest.")
    when_full: Literal["drop-oldest", "thin", "keep"] = Field(
        "drop-oldest", description="What gives way then: the oldest packs, nine of ten of them, or none."
    )
    owner: str = ""
    licence: str = ""
    access: str = ""

    @model_validator(mode="after")
    def _sent_before_committed(self) -> Self:
        if self.send_every > self.commit_within:
            key = "send_every" if "send_every" in self.model_fields_set else "commit_within"
            text = f'"send_every" ({self.send_every:g}) must not be more than "commit_within" ({self.commit_within:g})'
            raise at_key(key, f"{text}: a pack is sealed before it is stored")
        return self


URGENT = {"send_every": 0.2, "commit_within": 0.2, "priority": 9, "when_full": "keep"}
"""What these datasets have by default: what is in them is rare, and each counts."""
HURRY = "alarm", "configuration"


class Root(Section):
    """The file, with devices still as they stand there."""

    pole: PoleSettings
    uplink: UplinkSettings
    buffer: BufferSettings = BufferSettings()
    remote: RemoteSettings = RemoteSettings()
    bluetooth: BluetoothSettings = BluetoothSettings()
    reload: ReloadSettings = ReloadSettings()
    port: dict[Name, PortSettings] = {}
    dataset: dict[Name, DatasetSettings] = Field({}, validate_default=True)
    device: list[dict[str, Any]] = []

    @property
    def state(self) -> Path:
        """The folder for edits, documents and what became of them."""
        return self.remote.state or self.buffer.path.with_name(STATE)

    @field_validator("dataset", mode="before")
    @classmethod
    def _some_hurry(cls, sections: object) -> object:
        if not isinstance(sections, dict):
            return sections
        written = {name: sections.get(name, {}) for name in HURRY}
        return sections | {name: URGENT | each for name, each in written.items() if isinstance(each, dict)}


@dataclass(frozen=True, slots=True)
class Settings:
    """A sound configuration.

    Attributes:
        root: all sections but the devices.
        devices: as their drivers read them.
        warnings: what may be meant so, and may be a mistake.
    """

    root: Root
    devices: tuple[Driver, ...]
    warnings: tuple[Fault, ...]

    def dataset(self, name: str) -> DatasetSettings:
        """Return the terms of a dataset, the default where the file has no section for it."""
        return self.root.dataset.get(name, DatasetSettings())

    def line(self, port: str) -> LineSettings:
        """Return how the line of a port is set."""
        on_it = [d for d in self.devices if isinstance(d, OnPort) and d.port == port]
        return self.root.port[port].line(on_it[0].line())

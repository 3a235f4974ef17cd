"""The configuration as frozen values.

The ``[[device]]`` sections belong to the drivers: each is the model of the driver it names. The rest is here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from drivers.contract import Driver, LineSettings, Name, OnPort
from gateway.faults import Fault

MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
TCP = "tcp://"


class Section(BaseModel):
    """A section of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PoleSettings(Section):
    """``[pole]``: who this is."""

    id: Name = Field(description="Name of the pole; its MQTT user and client id, one level of every topic.")


class UplinkSettings(Section):
    """``[uplink]``: where readings go."""

    url: str = Field(description="mqtts://HOST[:PORT], or mqtt://HOST[:PORT] without encryption.")
    username: str | None = Field(None, description="The pole's id unless it is set; only sent with a password.")
    password_file: Path | None = Field(None, strict=False, description="File that holds the password.")
    ca_file: Path | None = Field(None, strict=False, description="CA that signed the broker's certificate (PEM).")
    prefix: str = Field("pole/1", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", description="Begin of all topics.")

    @field_validator("url")
    @classmethod
    def _has_scheme(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in MQTT_PORTS or not parts.hostname:
            host = url.rpartition("//")[2] or "HOST"
            raise ValueError(f'url is "{url}"; write mqtts://{host}, or mqtt://{host} for a broker without TLS')
        if parts.username or parts.password:
            raise ValueError("url holds a user or password; put them in username and password_file")
        try:
            _ = parts.port
        except ValueError:
            raise ValueError(f'url is "{url}"; the port is a number up to 65535') from None
        return url

    @property
    def broker(self) -> tuple[str, int, bool]:
        """Host, port, and whether TLS is spoken."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or MQTT_PORTS[parts.scheme], parts.scheme == "mqtts"


class BufferSettings(Section):
    """``[buffer]``: where packs wait that were not acknowledged."""

    path: Path = Field(Path("/var/lib/polegate/buffer.db"), strict=False, description="The database file.")
    max_bytes: int = Field(256 * 1024 * 1024, ge=4 * 1024 * 1024, description="Largest size of it.")


class BluetoothSettings(Section):
    """``[bluetooth]``."""

    adapter: str = Field("hci0", pattern=r"^hci[0-9]+$", description="As `bluetoothctl list` and `hciconfig` name it.")


class PortSettings(Section):
    """``[port.NAME]``: a serial port, or a TCP connection to devices."""

    path: str = Field(description="/dev/serial/by-id/..., or tcp://HOST:PORT.")
    baud: int | None = Field(None, ge=50, le=4_000_000, description="As the devices are set; their default if unset.")
    parity: Literal["none", "even", "odd"] | None = None
    stop_bits: Literal[1, 2] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.path.startswith(TCP):
            try:
                complete = urlsplit(self.path).hostname and urlsplit(self.path).port
            except ValueError:
                complete = None
            if not complete:
                raise ValueError(f'path is "{self.path}"; write tcp://HOST:PORT, for instance tcp://192.168.1.20:502')
            if (self.baud, self.parity, self.stop_bits) != (None, None, None):
                raise ValueError("a tcp:// port has no baud, parity or stop_bits; remove them")
        elif not self.path.startswith("/"):
            raise ValueError(f'path is "{self.path}"; write /dev/serial/by-id/... or tcp://HOST:PORT')
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
    owner: str = ""
    licence: str = ""
    access: str = ""

    @model_validator(mode="after")
    def _sent_before_committed(self) -> Self:
        if self.send_every > self.commit_within:
            raise ValueError("send_every must not be more than commit_within: a pack is sealed before it is stored")
        return self


class Root(Section):
    """The file, with devices still as they stand there."""

    pole: PoleSettings
    uplink: UplinkSettings
    buffer: BufferSettings = BufferSettings()
    bluetooth: BluetoothSettings = BluetoothSettings()
    port: dict[Name, PortSettings] = {}
    dataset: dict[Name, DatasetSettings] = {}
    device: list[dict[str, Any]] = []


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

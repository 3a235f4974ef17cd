"""What a driver is, and all it may know of the world.

One kind of device is one frozen model, made from its ``[[device]]`` section. There are three kinds:

===================  ==============================================================================
:class:`Asked`       speaks when asked, over a line it may share: ``poll(port)``
:class:`Streamed`    talks by itself on a line of its own: ``seek(buffer)`` finds its frames
:class:`Advertised`  sends Bluetooth LE advertisements: ``payload(advert)`` picks its part
===================  ==============================================================================

All have ``decode``, which turns one frame into values. ``decode`` and ``seek`` are pure and total: any bytes at
all give values, :class:`BadFrame` or :class:`NotReady`, never another exception. A driver reaches the world only
through the :class:`Port` it is handed.

The gateway stamps, names, counts, logs and retries; a driver does none of it. An error tells the gateway what to
do by its class, and a technician what to do by its hint.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Value = int | float | bool | str | None
"""One measured value. ``None``: the device itself says that it has no reading."""

Values = Mapping[str, Value]
"""One look at a device: channel name to value. A channel that was not looked at is absent."""

QUALITY = "quality"
"""No channel has this name: it is that of the record by which the gateway tells why a device gives no values."""

Span = tuple[int, int]
"""Where a frame lies in a buffer: first byte, one past the last."""

Seek = Callable[[bytes], Span | None]
"""Finds the first complete frame in a buffer, at any offset; None while there is none yet."""


@dataclass(frozen=True, slots=True)
class Channel:
    """What the values of one channel mean.

    Attributes:
        title: the quantity in words, for people.
        unit: a symbol of :data:`drivers.units.UNITS`, or "" for text, states and flags.
        lwm2m: ``object/resource`` of the OMA LwM2M / uCIFI registry, where one fits.
        kind: what its values are, as JSON calls it.
    """

    title: str
    unit: str = ""
    lwm2m: str | None = None
    kind: Literal["number", "boolean", "string"] = "number"


class DeviceError(Exception):
    """A sample is lost. The class says why in a word, the message in the device's terms, the hint what to do."""

    word: ClassVar[str]
    hint: str

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class BadFrame(DeviceError):
    """Bytes came that are not what the device should send."""

    word = "bad-frame"
    hint = "Wrong driver for this device, wrong baud rate, or a cable that picks up noise."


class NotReady(DeviceError):
    """The device works and has nothing to report now: warming up, no fix, no new sample."""

    word = "not-ready"
    hint = "Wait. If it stays so for minutes, look at the sensor: antenna, fan, air inlet."


class NoReply(DeviceError):
    """Nothing came."""

    word = "no-reply"
    hint = (
        "Check the power of the device, its address, that the two wires (A/B, or TX/RX) are not swapped, "
        "and whether it needs a longer `timeout`."
    )


class PortGone(DeviceError):
    """The port itself is not there."""

    word = "port-gone"
    hint = "Check that the adapter is plugged in and that `path` in the [port] section names it."


@dataclass(frozen=True, slots=True)
class LineSettings:
    """How a serial line is set: what a driver expects unless the file says otherwise."""

    baud: int = 9600
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1


class Port(Protocol):
    """All that a driver which asks can do to the world. One port belongs to one device; the line may be shared."""

    transport: Literal["serial", "tcp"]

    async def ask(self, request: bytes, seek: Seek, *, size: int, tagged: bool = False) -> bytes:
        """Send and return the first frame that ``seek`` finds in what comes back.

        Args:
            request: the bytes to send.
            seek: finds the answer; it must refuse all that cannot be the answer to this request.
            size: bytes of the longest answer, from which the time it may take on the wire follows.
            tagged: the answer repeats a number of this very request, so a late answer to an earlier
                request cannot be taken for it. Where it cannot be told, the gateway leaves the device
                alone for a second after a time-out.

        Raises:
            NoReply: nothing came in time, or only the question itself or a late answer to an earlier one.
            BadFrame: something came in time, but no answer.
            PortGone: the port is not there.
        """

    async def wait(self, seconds: float) -> None:
        """Let time pass without holding the line: a sensor warms up."""


@dataclass(frozen=True, slots=True)
class Advert:
    """One Bluetooth LE advertisement as the radio gives it.

    Attributes:
        address: upper-case, colons.
        rssi: dBm.
        manufacturer: company id to the bytes after it.
        service: service UUID (lower-case, 128 bit) to its data.
    """

    address: str
    rssi: int
    manufacturer: Mapping[int, bytes]
    service: Mapping[str, bytes]


NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
ADDRESS_PATTERN = r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A name that is one level of an MQTT topic on every broker, and of a SenML name."""

Fact = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""What a person wrote for the catalogue."""

BluetoothAddress = Annotated[str, StringConstraints(pattern=ADDRESS_PATTERN, to_upper=True, strip_whitespace=True)]


class Driver(BaseModel, ABC):  # noqa: PLW1641  # pydantic makes the hash of a frozen model, of the same settings
    """A ``[[device]]`` section: the settings of one device, and how to read it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Name = Field(description="Name of the device, unique on the pole; part of every name it sends.")
    driver: str = Field(description="Which driver reads it.")
    dataset: Name | None = Field(None, description="Dataset its readings belong to; each driver has a default.")
    serial: Fact | None = Field(None, description="Its serial number.")
    accuracy: Fact | None = Field(None, description="How right it is, as its data sheet or certificate puts it.")
    calibrated: date | None = Field(None, description="When it was calibrated last.")
    certificate: Fact | None = Field(None, description="What says so: number and laboratory.")
    height: float | None = Field(None, ge=-100, le=1000, description="Metres above ground.")
    heading: float | None = Field(None, ge=0, lt=360, description="Where it looks: degrees from north over east.")
    siting: Fact | None = Field(None, description="How it is mounted, in words.")

    DATASET: ClassVar[str]
    """Where its readings go unless the section says otherwise."""

    CHANNELS: ClassVar[Mapping[str, Channel]] = {}
    """The channels such a device has, where they are the same for all of the kind."""

    MAKE: ClassVar[str]
    """Maker and model."""

    RECORDED: ClassVar[bool] = False
    """True: there are vectors recorded from hardware; False: it was written from the datasheet only."""

    def __eq__(self, other: object) -> bool:
        """Compare the settings alone: whatever a driver keeps of what it has heard makes no other device of it."""
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, key) == getattr(other, key) for key in type(self).model_fields)

    @abstractmethod
    def decode(self, frame: bytes) -> Values:
        """Read one frame.

        Raises:
            BadFrame: it is not a whole and sound frame of this device.
            NotReady: it is, and says that there is no reading now.
        """

    def channel(self, name: str) -> Channel:
        """Describe a channel that ``decode`` or ``poll`` gave."""
        return self.CHANNELS[name]

    def make(self) -> str:
        """Name maker and model, for the catalogue."""
        return self.MAKE

    def expected(self) -> tuple[str, ...]:
        """Name the channels that are certain to come, for a catalogue made before the first reading."""
        return tuple(self.CHANNELS)

    @property
    def home(self) -> str:
        """Name the dataset its readings go to."""
        return self.dataset or self.DATASET


class OnPort(Driver):
    """A device on a ``[port.NAME]``."""

    port: Name = Field(description="Name of the [port] section the device hangs on.")

    def line(self) -> LineSettings:
        """Return how the device leaves the factory, used where the [port] section does not say."""
        return LineSettings()

    def misfits(self, transport: Literal["serial", "tcp"]) -> Mapping[str, str]:
        """Tell what of the section no device on such a port can have: by key, in words. A file with that is refused."""
        del transport
        return {}


class Asked(OnPort):
    """A device that speaks when asked."""

    every: float = Field(10.0, ge=0.001, le=86_400, description="Seconds between two polls.")
    timeout: float = Field(
        0.3, ge=0.01, le=60, description="Seconds the device may take to begin its answer; wire time comes on top."
    )

    @abstractmethod
    async def poll(self, port: Port) -> Values:
        """Look at the device once. Raises any :class:`DeviceError`."""

    def place(self) -> str:
        """Name the device among those on its line, as the line sees it (a Modbus unit id, say)."""
        return self.id


class Streamed(OnPort):
    """A device that talks by itself and has its port to itself."""

    every: float = Field(10.0, ge=0, le=86_400, description="Seconds between two readings kept; 0 keeps all.")

    LONGEST: ClassVar[int]
    """Bytes of the longest frame: more than that without a frame is noise."""

    SILENT_AFTER_S: ClassVar[float] = 10.0
    """Silence that is longer than this means that the device does not work."""

    @abstractmethod
    def seek(self, buffer: bytes) -> Span | None:
        """Find the first complete frame, sound or not; a false start costs one byte, not a frame."""


class Advertised(Driver):
    """A device that sends Bluetooth LE advertisements."""

    address: BluetoothAddress = Field(description="Bluetooth address, as AA:BB:CC:DD:EE:FF.")
    every: float = Field(10.0, ge=0, le=86_400, description="Seconds between two readings kept; 0 keeps all.")

    MANUFACTURER: ClassVar[int | None] = None
    """Company id its data stand under, or"""

    SERVICE: ClassVar[str | None] = None
    """the service UUID they stand under."""

    SILENT_AFTER_S: ClassVar[float] = 60.0
    """Silence that is longer than this means that the device does not work, or is out of range."""

    def payload(self, advert: Advert) -> bytes | None:
        """Return the part of an advertisement that ``decode`` reads, or None: not for this driver."""
        if self.MANUFACTURER is not None and self.MANUFACTURER in advert.manufacturer:
            return advert.manufacturer[self.MANUFACTURER]
        if self.SERVICE is not None:
            return advert.service.get(self.SERVICE)
        return None

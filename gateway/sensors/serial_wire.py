"""A door: serial ports, by pyserial. The only file that opens one.

pyserial sets the port; reading is the event loop's, on the file descriptor: no thread, and a cancelled reader
loses nothing. A USB adapter that is pulled shows as a read error or as an empty read; a replugged one comes back
under another number, so the path in the file should be one of ``/dev/serial/by-id``.

Source of the silence: "MODBUS over Serial Line" V1.02, section 2.5.1.1; 3.5 characters, 1.75 ms above 19200 baud.
"""

import asyncio
import contextlib
import os
import termios
from collections.abc import Callable
from typing import Literal

import serial

from drivers.contract import LineSettings, PortGone

PARITY = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}
SILENCE_CHARACTERS = 3.5
FIXED_SILENCE_S, FIXED_ABOVE_BAUD = 0.00175, 19_200
CHUNK = 4096


class SerialWire:
    """One serial port: a :class:`gateway.sensors.line.Wire`."""

    transport: Literal["serial", "tcp"] = "serial"

    def __init__(self, path: str, settings: LineSettings) -> None:
        """Set it; ``open`` opens it."""
        self._path = path
        self._settings = settings
        bits = 1 + 8 + (settings.parity != "none") + settings.stop_bits
        self.character_s = bits / settings.baud
        self.silence_s = FIXED_SILENCE_S if settings.baud > FIXED_ABOVE_BAUD else SILENCE_CHARACTERS * self.character_s
        self._port: serial.Serial | None = None
        self._on_lost: Callable[[PortGone], None] = lambda _error: None

    async def open(self, on_data: Callable[[bytes], None], on_lost: Callable[[PortGone], None]) -> None:
        """Open it for us alone, 8 bits, no flow control. Raises PortGone."""
        try:
            port = serial.Serial(
                self._path,
                self._settings.baud,
                parity=PARITY[self._settings.parity],
                stopbits=self._settings.stop_bits,
                timeout=0,
                exclusive=True,
            )
        except (OSError, ValueError, OverflowError, termios.error) as error:  # the driver may lack baud or parity
            raise self._cannot_open(error) from error
        # Where the adapter can, it hands bytes over at once instead of every 16 ms; many cannot.
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            port.set_low_latency_mode(True)
        self._port, self._on_lost = port, on_lost
        asyncio.get_running_loop().add_reader(port.fileno(), self._readable, port.fileno(), on_data)

    def write(self, data: bytes) -> None:
        """Send. A port that does not take the few bytes of a request is gone."""
        if self._port is None:
            return
        try:
            if os.write(self._port.fileno(), data) != len(data):
                self._lose("does not take what is sent")
        except OSError as error:
            self._lose(f"cannot be written: {error.strerror}")

    def close(self) -> None:
        """Close it."""
        if self._port is not None:
            asyncio.get_running_loop().remove_reader(self._port.fileno())
            self._port.close()
            self._port = None

    def _readable(self, fd: int, on_data: Callable[[bytes], None]) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"was pulled: {error.strerror}")
            return
        if data:
            on_data(data)
        else:
            self._lose("was pulled")

    def _lose(self, what: str) -> None:
        self.close()
        self._on_lost(PortGone(f"{self._path} {what}"))

    def _cannot_open(self, error: Exception) -> PortGone:
        number = getattr(error, "errno", None)
        if isinstance(error, PermissionError) or number == 13:  # noqa: PLR2004  # EACCES, as pyserial passes it on
            hint = "Let the user of the gateway open it: sudo usermod -aG dialout USER, then start it again."
            return PortGone(f"{self._path} may not be opened", hint=hint)
        if "exclusively lock" in str(error):
            hint = f"Something else has it open; see it with: sudo fuser -v {self._path}"
            return PortGone(f"{self._path} is in use", hint=hint)
        if not os.path.exists(self._path):  # noqa: PTH110  # a device node
            return PortGone(f"{self._path} is not there")
        if isinstance(error, ValueError | OverflowError | termios.error):
            how = self._settings
            set_to = f"{how.baud} baud 8{how.parity[0].upper()}{how.stop_bits}"
            hint = "This adapter cannot do that; compare the [port] section with the manuals of adapter and device."
            return PortGone(f"{self._path} cannot be set to {set_to}: {error}", hint=hint)
        return PortGone(f"{self._path} cannot be opened: {error}")

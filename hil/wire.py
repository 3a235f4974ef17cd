"""A pty that can be plugged and pulled like a USB-serial adapter.

The slave end is reached through a symlink, as udev makes it in ``/dev/serial/by-id``. Pulling closes the master:
whoever has the port open sees the hang-up that a pulled adapter gives, with the same errors from pyserial.

Three things a pty does not do by itself:

* A replugged adapter whose old port is still held open gets the next number (``ttyUSB1``). Here every plug gets
  another number than the one before, so a gateway that keeps the resolved path is caught.
* Between two openers the master would read EIO, and the line settings would be lost. The wire holds the slave open.
* Settings are read from the master, as the opener made them: speed and stop bits. Parity cannot be seen, the kernel
  clears it on a pty (and refuses the second opener who asks for it).

What it does not do either is pace: bytes arrive the moment they are sent. Time is the business of ``hil.line``.
"""

import asyncio
import fcntl
import os
import struct
import termios
import tty
from collections.abc import Callable
from pathlib import Path

_TCGETS2 = 0x802C542A
"""linux/asm-generic/ioctls.h. Unlike tcgetattr it gives speeds as numbers, so that odd ones can be read too."""

_TERMIOS2 = struct.Struct("4I B 19s 2I")
"""struct termios2: iflag, oflag, cflag, lflag, line, cc, ispeed, ospeed."""

_DATA_BITS = {termios.CS5: 5, termios.CS6: 6, termios.CS7: 7, termios.CS8: 8}


class Wire:
    """One emulated USB-serial adapter. Made unplugged.

    Attributes:
        link: where the gateway finds the port while it is plugged.
        on_bytes: called with what the gateway wrote.
        lost: bytes that found the gateway's input buffer full.
    """

    on_bytes: Callable[[bytes], None]

    def __init__(self, link: Path) -> None:
        self.link = link
        self.on_bytes = lambda _: None
        self.lost = 0
        self._master = -1
        self._slave = -1
        self._path = ""
        self._baud = 9600
        self._bits = 10

    @property
    def plugged(self) -> bool:
        """Whether the adapter is in its socket."""
        return self._master >= 0

    @property
    def baud(self) -> int:
        """Bits per second, as set by the last one who opened the port."""
        self._read_settings()
        return self._baud

    @property
    def char_s(self) -> float:
        """Seconds one character takes: start, data, parity and stop bits at the present speed."""
        self._read_settings()
        return self._bits / self._baud

    def plug(self) -> None:
        """Put the adapter in: a new pty, and the link to it. Needs a running event loop.

        Raises:
            RuntimeError: it is in already.
        """
        if self.plugged:
            raise RuntimeError(f"{self.link}: already plugged")
        master, slave = os.openpty()
        if os.ttyname(slave) == self._path:
            used = master, slave
            master, slave = os.openpty()
            for fd in used:
                os.close(fd)
        self._master, self._slave, self._path = master, slave, os.ttyname(slave)
        tty.setraw(slave, termios.TCSANOW)
        os.set_blocking(master, False)
        asyncio.get_running_loop().add_reader(master, self._readable)
        self.link.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.link.with_name(self.link.name + ".new")
        fresh.symlink_to(self._path)
        fresh.replace(self.link)

    def unplug(self) -> None:
        """Pull the adapter out: the gateway's open port hangs up, the link is gone. Does nothing if it is out."""
        if not self.plugged:
            return
        self.link.unlink(missing_ok=True)
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def send(self, data: bytes) -> None:
        """Give bytes to the gateway, now. Without an adapter, or without room at the gateway, they are lost."""
        if not self.plugged:
            return
        try:
            taken = os.write(self._master, data)
        except BlockingIOError:
            taken = 0
        self.lost += len(data) - taken

    def _readable(self) -> None:
        self.on_bytes(os.read(self._master, 4096))

    def _read_settings(self) -> None:
        if not self.plugged:
            return
        settings = fcntl.ioctl(self._master, _TCGETS2, bytes(_TERMIOS2.size))
        _, _, flags, _, _, _, _, speed = _TERMIOS2.unpack(settings)
        if speed:  # 0 is a modem's "hang up"; no character ever had that length
            self._baud = speed
        start = 1
        parity = 1 if flags & termios.PARENB else 0
        stop = 2 if flags & termios.CSTOPB else 1
        self._bits = start + _DATA_BITS[flags & termios.CSIZE] + parity + stop

"""A private D-Bus: a ``dbus-daemon`` of its own, and the canary that tells when nothing is under way on it.

Who is to use it instead of the system's bus gets its address in ``DBUS_SYSTEM_BUS_ADDRESS``. It lets every user call,
own and hear everything. It can be killed and started again at the same address, as on a pole whose bus daemon died.
"""

import os
import socket
import struct
import subprocess
from pathlib import Path

from hil.vclock import STUCK_S

_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""

_HEAD = struct.Struct("<c3B3I")  # endianness, type, flags, version, bytes of body, serial, bytes of header fields
_METHOD_CALL, _METHOD_RETURN, _ERROR = 1, 2, 3


class PrivateBus:
    """A bus daemon as a process of its own.

    Args:
        directory: where its socket (``bus``), its configuration and what it says (``dbus-daemon.log``) go. The path
            of a socket has at most 107 bytes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens, in the form of ``DBUS_SYSTEM_BUS_ADDRESS``; the same after each start."""
        return f"unix:path={self._directory / 'bus'}"

    def start(self) -> str:
        """Start the daemon and block until it listens, some 20 ms.

        Returns:
            Its address.

        Raises:
            RuntimeError: it ended at once; the message is what it said.
        """
        config, log = self._directory / "bus.conf", self._directory / "dbus-daemon.log"
        config.write_text(_CONFIG.format(socket=self._directory / "bus"))
        ours, theirs = os.pipe()
        with os.fdopen(ours, "rb") as address, log.open("wb") as stderr:
            try:
                self._process = subprocess.Popen(  # noqa: S603  # the arguments are ours
                    [
                        *("setpriv", "--pdeathsig", "TERM"),
                        *("dbus-daemon", "--nofork", "--nopidfile"),
                        *(f"--config-file={config}", f"--print-address={theirs}"),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=[theirs],
                )
            finally:
                os.close(theirs)
            listening = address.readline()
        if not listening:
            self.stop()
            raise RuntimeError(f"dbus-daemon did not start: {log.read_text()}")
        return self.address

    def stop(self) -> None:
        """End the daemon in order; harmless if it does not run."""
        self._end(kill=False)

    def kill(self) -> None:
        """End the daemon with SIGKILL, so that its clients see their connections break."""
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait()
        self._process = None


class BusCanary:
    """Tells ``hil.vclock`` when a bus is idle, by asking the daemon for its id three times.

    The daemon serves its clients in turn. After one answer it has at least polled everybody's socket, after two it has
    read what was sent before the first question, after three it has passed it on. A client of our own on a blocking
    socket is needed: a D-Bus library would want the loop whose clock waits here.

    A daemon that does not run carries nothing, so there is nothing to wait for.

    Args:
        address: as ``PrivateBus.address`` gives it.
    """

    _ROUND_TRIPS = 3

    def __init__(self, address: str) -> None:
        self._path = address.removeprefix("unix:path=")
        self._socket: socket.socket | None = None

    def sing(self) -> None:
        """Block until what was sent on the bus before is in its receiver's socket."""
        try:
            if self._socket is None:
                self._socket = _join(self._path)
            for _ in range(self._ROUND_TRIPS):
                _ask(self._socket, "GetId")
        except (ConnectionError, FileNotFoundError):
            self.close()

    def close(self) -> None:
        """Leave the bus."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _join(path: str) -> socket.socket:
    """Connect, authenticate as the user we are, say hello (D-Bus Specification, "Authentication Protocol")."""
    joined = socket.socket(socket.AF_UNIX)
    try:
        joined.settimeout(STUCK_S)
        joined.connect(path)
        joined.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        while _read(joined, 1) != b"\n":  # "OK" and the id of the bus
            pass
        joined.sendall(b"BEGIN\r\n")
        _ask(joined, "Hello")
    except BaseException:
        joined.close()
        raise
    return joined


def _ask(bus: socket.socket, member: str) -> None:
    """Call a method of the daemon that takes no arguments, and block until it has answered.

    Source: D-Bus Specification, "Message Protocol". A message is a head of 16 bytes, header fields padded to 8 bytes,
    and a body; the head tells how long the other two are.
    """
    fields = b""
    for code, kind, text in (
        (1, "o", "/org/freedesktop/DBus"),
        (2, "s", "org.freedesktop.DBus"),
        (3, "s", member),
        (6, "s", "org.freedesktop.DBus"),
    ):
        fields += bytes(-len(fields) % 8) + struct.pack("<BB1sBI", code, 1, kind.encode(), 0, len(text))
        fields += text.encode() + b"\0"
    bus.sendall(_HEAD.pack(b"l", _METHOD_CALL, 0, 1, 0, 1, len(fields)) + fields + bytes(-len(fields) % 8))
    kind_of_message = None
    while kind_of_message not in {_METHOD_RETURN, _ERROR}:
        _, kind_of_message, _, _, body, _, header_fields = _HEAD.unpack(_read(bus, _HEAD.size))
        _read(bus, header_fields + -header_fields % 8 + body)


def _read(bus: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = bus.recv(size - len(data))
        if not got:
            raise ConnectionResetError("the bus daemon hung up")
        data += got
    return data

"""A job: hear one device that talks by itself, for ever.

Frames come by call, not by waiting: the line or the radio hands them over as they arrive. The job itself only
watches for silence. One lost frame among good ones is counted; a device is in trouble when it gave nothing at all
for longer than its kind ever pauses.

``every`` thins what is kept: of each channel the value next to each instant of a grid, so that one that is said just
that often is kept each time, though it comes some milliseconds early or late. It is taken as next to it where the one
after it, going by the last pause, would be further off. A talker that sends its channels in different sentences keeps
all of them that way. A channel that is new takes the grid of the others: what one sentence says stays together.
What no driver may give is found before the look is thinned: it is told whether its instant is due or not, and takes no
instant from the good look after it.
"""

import asyncio
from collections.abc import Callable

from drivers.contract import (
    Advert,
    Advertised,
    BadFrame,
    DeviceError,
    NoReply,
    NotReady,
    PortGone,
    Span,
    Streamed,
    Values,
)
from gateway.sensors.account import Account

HINT_WIRES = "Check the power of the device, and that the two wires (TX/RX, or A/B) are not swapped."
HINT_AIR = "Check the battery of the device, its `address`, and that it is near enough."
HINT_UNREAD = "Set the device to send what its driver reads; the README has it under Devices."
SHOWN = 32  # bytes of a frame that gives nothing, for the log


def silence(device: Streamed | Advertised) -> NoReply:
    """Tell that a device said nothing for longer than its kind ever pauses."""
    hint = HINT_AIR if isinstance(device, Advertised) else HINT_WIRES
    return NoReply(f"nothing came for {device.SILENT_AFTER_S:.0f} s", hint=hint)


def unread(frame: bytes) -> NotReady:
    """Tell that a device says only what its driver does not read; ``frame`` is the last of it."""
    is_text = frame.isascii() and frame.decode().strip().isprintable()
    shown = frame[:SHOWN].decode().strip() if is_text else frame[:SHOWN].hex(" ")
    dots = " ..." if len(frame) > SHOWN else ""
    return NotReady(f"whole frames came, none with a value that is read; the last: {shown}{dots}", hint=HINT_UNREAD)


class Ear:
    """Takes the frames of one device."""

    def __init__(self, device: Streamed | Advertised, account: Account) -> None:
        self._device = device
        self._account = account
        self._loop = asyncio.get_running_loop()
        self._said_at: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._heard_at = self._loop.time()
        self._loss: DeviceError | None = None
        self._unread = b""
        self._unread_at = self._heard_at

    def seek(self, buffer: bytes) -> Span | None:
        """Find the first frame of a device that streams."""
        assert isinstance(self._device, Streamed)  # noqa: S101  # who wired it knows
        try:
            return self._device.seek(buffer)
        except Exception as error:  # noqa: BLE001  # anybody's driver: its fault must not end the others
            self._lose(self._account.bug(error))
            return None

    def frame(self, frame: bytes) -> bool:
        """Take one frame; tell whether it was a whole one."""
        try:
            values = self._device.decode(frame)
            if values:
                self._account.took(values, self._thin)
        except (BadFrame, NotReady) as loss:
            self._lose(loss)
            return isinstance(loss, NotReady)
        except Exception as error:  # noqa: BLE001  # anybody's driver: its fault must not end the others
            self._lose(self._account.bug(error))
            return False
        if values:
            self._heard_at = self._loop.time()
            self._loss = None
        else:
            self._unread, self._unread_at = frame, self._loop.time()
        return True

    def advert(self, advert: Advert) -> None:
        """Take one advertisement of a device that sends them."""
        assert isinstance(self._device, Advertised)  # noqa: S101  # who wired it knows
        try:
            payload = self._device.payload(advert)
        except Exception as error:  # noqa: BLE001  # anybody's driver: its fault must not end the others
            self._lose(self._account.bug(error))
            return
        if payload is not None:
            self.frame(payload)

    async def listen(self, trouble: Callable[[], DeviceError | None]) -> None:
        """Hear the device for ever: watch for silence.

        Args:
            trouble: tells what is wrong with the port or the radio; None: nothing that it knows of.
        """
        silent_after = self._device.SILENT_AFTER_S
        hindered = False
        while True:
            await asyncio.sleep(max(self._heard_at + silent_after - self._loop.time(), silent_after / 10))
            if self._loop.time() - self._heard_at >= silent_after:
                wrong = trouble()
                if isinstance(wrong, PortGone):
                    self._account.lost(wrong)
                elif said := self._loss or self._idle_talk() or wrong:  # what frames say tells more than noise
                    self._account.lost(said)
                elif not hindered:  # else its port came back a moment ago: it gets its whole time
                    self._account.lost(silence(self._device))
                hindered = isinstance(wrong, PortGone)
                self._loss = None
                self._said_at.clear()
                self._due.clear()  # the first good frame after a silence is kept
                self._heard_at = self._loop.time()

    def _idle_talk(self) -> NotReady | None:
        """Tell what is still said, though long after the last value; a talker ends its turns with such, too."""
        talks = self._unread_at - self._heard_at > self._device.SILENT_AFTER_S / 2
        return unread(self._unread) if talks else None

    def _lose(self, loss: DeviceError) -> None:
        """Note a loss among what may be good frames, which says nothing of the device yet."""
        self._loss = loss
        self._account.count(loss.word)

    def _thin(self, values: Values) -> Values:
        if self._device.every == 0:
            return values
        now = self._loop.time()
        return {name: value for name, value in values.items() if self._is_due(name, now)}

    def _is_due(self, name: str, now: float) -> bool:
        half_a_pause = (now - self._said_at.get(name, now)) / 2
        self._said_at[name] = now
        if now < self._due.get(name, now) - half_a_pause:
            return False
        following = self._due.get(name, now) + self._device.every
        if name not in self._due:  # one that is new joins those that are there
            following = max(self._due.values(), default=following)
        self._due[name] = following if following - half_a_pause > now else now + self._device.every
        return True

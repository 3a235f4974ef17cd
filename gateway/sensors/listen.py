"""A job: hear one device that talks by itself, for ever.

Frames come by call, not by waiting: the line or the radio hands them over as they arrive. The job itself only
watches for silence. One lost frame among good ones is counted; a device is in trouble when it gave nothing at all
for longer than its kind ever pauses.

``every`` thins what is kept: time is cut into slots of that length, and each channel keeps its first value in a
slot. A talker that sends its channels in different sentences keeps all of them that way.
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


class Ear:
    """Takes the frames of one device."""

    def __init__(self, device: Streamed | Advertised, account: Account) -> None:
        self._device = device
        self._account = account
        self._loop = asyncio.get_running_loop()
        self._slots: dict[str, int] = {}
        self._heard_at = self._loop.time()
        self._loss: DeviceError | None = None

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
        except (BadFrame, NotReady) as loss:
            self._lose(loss)
            return isinstance(loss, NotReady)
        except Exception as error:  # noqa: BLE001  # anybody's driver: its fault must not end the others
            self._lose(self._account.bug(error))
            return False
        if values:
            self._heard_at = self._loop.time()
            self._loss = None
            self._account.took(self._thin(values))
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
                elif said := self._loss or wrong:  # what the frames said tells more than that there was noise
                    self._account.lost(said)
                elif not hindered:  # else its port came back a moment ago: it gets its whole time
                    self._account.lost(NoReply(f"nothing came for {silent_after:.0f} s"))
                hindered = isinstance(wrong, PortGone)
                self._loss = None
                self._slots.clear()  # the first good frame after a silence is kept
                self._heard_at = self._loop.time()

    def _lose(self, loss: DeviceError) -> None:
        """Note a loss among what may be good frames, which says nothing of the device yet."""
        self._loss = loss
        self._account.count(loss.word)

    def _thin(self, values: Values) -> Values:
        if self._device.every == 0:
            return values
        slot = int(self._loop.time() // self._device.every)
        new = {name: value for name, value in values.items() if self._slots.get(name) != slot}
        self._slots.update(dict.fromkeys(new, slot))
        return new

"""A driver by itself: the port of a test, and a stream cut as the gateway cuts it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Literal

from drivers.contract import BadFrame, DeviceError, NoReply, NotReady, Seek, Streamed, Values

Hear = Callable[[bytes], bytes]
"""A device as its line sees it: what is sent to it, and what it sends back."""


class TwinPort:
    """A port with a device behind it, on any loop; ``sent`` and ``seeks`` are what the driver gave it.

    An answer comes byte by byte: ``seek`` must wait for the last one, and not want more than the driver announced.
    """

    def __init__(self, hear: Hear, *, transport: Literal["serial", "tcp"] = "serial") -> None:
        self.transport: Literal["serial", "tcp"] = transport
        self.sent: list[bytes] = []
        self.seeks: list[Seek] = []
        self.tagged: list[bool] = []
        self._hear = hear

    async def ask(self, request: bytes, seek: Seek, *, size: int, tagged: bool = False) -> bytes:
        """Send and return the answer."""
        self.sent.append(request)
        self.seeks.append(seek)
        self.tagged.append(tagged)
        answer = self._hear(request)
        for end in range(len(answer) + 1):
            if span := seek(answer[:end]):
                assert span[1] == end, "it could have been found earlier"
                assert span[1] - span[0] <= size, "longer than the driver announced"
                return answer[slice(*span)]
        if answer:
            raise BadFrame(f"{len(answer)} bytes came that are no answer")
        raise NoReply("no reply in time")

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)


def heard(device: Streamed, stream: bytes) -> Iterator[Values | DeviceError]:
    """Read a stream as the gateway does: what is no frame costs one byte, and all that came is tried."""
    while span := device.seek(stream):
        start, end = span
        try:
            yield device.decode(stream[start:end])
        except NotReady as error:
            yield error
        except BadFrame as error:
            yield error
            end = start + 1
        stream = stream[end:]

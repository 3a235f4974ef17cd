"""A job: send packs, and let them leave the buffer once the broker has them.

A pack leaves only after a successful PUBACK. When the link breaks between the two, the broker may have it and gets
it again: (epoch, seq) tells the copies apart. A pack the broker refuses stays, and is tried again later; it does
not hold up the others, until a great many are refused.
"""

import asyncio
from collections.abc import Callable

import structlog

from gateway.buffer import Buffer
from gateway.held import Held
from gateway.mqtt_link import Link, Message, Refused, UplinkDown
from gateway.payload import is_packed
from gateway.reading import Pack
from gateway.uplink import Uplink

REFUSED_PAUSE_S = 60.0
MOST_REFUSED = 200  # packs kept aside at a time; with more, forwarding waits
SENML = "application/senml+json"

log = structlog.get_logger()


class Forward:
    """The way of the packs from the buffer to the broker."""

    def __init__(
        self, buffer: Buffer, uplink: Uplink, *, topic: Callable[[str], str], payload: Callable[[Pack], bytes]
    ) -> None:
        """Make it.

        Args:
            buffer: where packs come from.
            uplink: where they go.
            topic: gives the topic of a dataset.
            payload: gives what is sent of a pack.
        """
        self._buffer = buffer
        self._uplink = uplink
        self._topic = topic
        self._payload = payload
        self._loop = asyncio.get_running_loop()
        self._aside = asyncio.Semaphore(MOST_REFUSED)
        self._free = asyncio.Event()
        self._going: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                link = await self._uplink.link()
                if len(self._going) >= link.window:
                    self._free.clear()
                    await self._free.wait()
                    continue
                for held in await self._buffer.take(link.window - len(self._going)):
                    task = group.create_task(self._send(link, held))
                    self._going.add(task)
                    task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._going.discard(task)
        self._free.set()

    async def send_once(self, link: Link, pack: Pack) -> None:
        """Send a pack. Raises UplinkDown, Refused."""
        await link.send(self._message(pack))

    async def _send(self, link: Link, held: Held) -> None:
        try:
            await self.send_once(link, held.pack)
        except UplinkDown:
            self._buffer.release(held)
        except Refused as error:
            log.warning(str(error), dataset=held.pack.dataset, epoch=held.pack.epoch, seq=held.pack.n)
            await self._aside.acquire()
            self._loop.call_later(REFUSED_PAUSE_S, self._again, held)
        except BaseException:
            self._buffer.release(held)
            raise
        else:
            self._buffer.acknowledge(held)

    def _again(self, held: Held) -> None:
        self._aside.release()
        self._buffer.release(held)

    def _message(self, pack: Pack) -> Message:
        payload = self._payload(pack)
        encoding = "zstd" if is_packed(payload) else ""
        return Message(self._topic(pack.dataset), payload, content_type=SENML, encoding=encoding)

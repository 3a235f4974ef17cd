"""A job: send packs, and let them leave the buffer once the broker has them.

A pack leaves only after a successful PUBACK. When the link breaks between the two, the broker may have it and gets
it again: (epoch, seq) tells the copies apart.

What the broker refuses is treated by its reason (MQTT 5 section 3.4.2.1):

==============================  ===================================================================================
0x87 not authorised             the dataset rests, and is tried again every few minutes; a person must look
0x95 packet too large           the pack is sent in two parts, or more; one that cannot be divided is set aside
0x90 topic name invalid,        the pack is set aside: no other try can end otherwise
0x99 payload format invalid
all others, like 0x97 quota     the dataset rests, from a second to a minute, longer from time to time, at random
==============================  ===================================================================================

A broker may end the link instead (section 3.14.2.1). Where it says 0x87, 0x96 or 0x97, what was under way goes alone on
the next link, a pack at a time. The dataset over which the link ends then rests as above, and as the link is the price
of each try, one of them is tried every few minutes, however many they are. Where a broker is busy or stops, no pack is
to blame.

A pack on which the link dies ``DEATHS`` times is suspected, and sent alone, a large one in parts as well: brokers of
3.1.1 end the link on what is too large for them. If a link dies again that was good until then, it is set aside.
A death counts against a pack that was under way only if the broker ended the link, or acknowledged later ones instead:
where the network is gone, or a cluster takes minutes to find itself, no pack is to blame. Nor is one on a link on which
another was refused: mosquitto 2.0.11 with ``max_queued_messages 0`` ends a link for that.

The backlog, what lay on the disk when the link came up, is sent beside live packs at a rate of its own.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable

import structlog

from gateway.jobs.signs import Refusal
from gateway.link.backfill import Backfill
from gateway.link.broker import Cut, Denied, Message, NotAcknowledged, Refused, UplinkDown
from gateway.link.mqtt_link import ACK_S, Link, Version
from gateway.link.reason import HOPELESS, NOT_AUTHORISED, PACKET_TOO_LARGE
from gateway.link.uplink import Uplink
from gateway.store.buffer import Buffer
from gateway.store.held import Held
from gateway.words import senml
from gateway.words.payload import is_packed, packed, unpacked
from gateway.words.reading import Pack

FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0
LOCKED_OUT_REST_S = 300.0
DEATHS = 3
SUSPECT_PARTS = 1, 4, 16  # into which a suspected pack is divided, one try each: the broker may not say it is too large
LARGE_BYTES = 4096  # a smaller one is not suspected of that
KILLS = -2  # the level of a pack on which the link dies; of one that is refused it is the reason code with a minus
SENML = "application/senml+json"

log = structlog.get_logger()


class Forward:
    """The way of the packs from the buffer to the broker.

    Attributes:
        refused: why the broker does not take a dataset at present.
    """

    def __init__(
        self,
        buffer: Buffer,
        uplink: Uplink,
        *,
        topic: Callable[[str], str],
        payload: Callable[[Pack], bytes],
        backfill: Backfill,
    ) -> None:
        """Make it.

        Args:
            buffer: where packs come from.
            uplink: where they go.
            topic: gives the topic of a dataset.
            payload: gives what is sent of a pack.
            backfill: how much of the backlog may be sent.
        """
        self._buffer = buffer
        self._uplink = uplink
        self._topic = topic
        self._payload = payload
        self._backfill = backfill
        self._loop = asyncio.get_running_loop()
        self._pauses = random.Random()  # noqa: S311  # spreads what is tried again, keeps no secret
        self._link: Link
        self._up = asyncio.Event()
        self._fewer = asyncio.Event()
        self._going = 0
        self._group: asyncio.TaskGroup
        self._resting: set[str] = set()
        self._doubted: set[str] = set()  # datasets of which a pack goes alone, until one is taken
        self._alone: Held | None = None  # the pack that is under way alone
        self._last_refusal: Link | None = None
        self._refusals: Counter[str] = Counter()
        self._deaths: Counter[int] = Counter()
        self.refused: dict[str, Refusal] = {}

    async def run(self) -> None:
        """Send for ever."""
        self._buffer.allow_backlog(0)
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._follow_links())
            while True:
                await self._up.wait()
                link = self._link
                await link.until_free()
                if link.ended.done():
                    await link.broken()  # lets _follow_links see it too
                    continue
                for held in await self._buffer.take(max(1, link.free)):
                    await link.until_free()  # meanwhile others may have sent
                    await self._start(link, held)

    async def _follow_links(self) -> None:
        """Begin with each link anew, also while nobody has anything to send."""
        while True:
            link = await self._uplink.link()
            self._begin(link)
            await link.broken()  # until the uplink has seen it too, it hands out this link again
            self._up.clear()

    async def send_once(self, link: Link, pack: Pack) -> None:
        """Send a pack that is not live. Raises UplinkDown, Refused."""
        try:
            await link.send(self._message(pack, self._payload(pack), link, old=True))
        except Refused as error:
            if error.code != PACKET_TOO_LARGE:
                raise
            await self._send_in_parts(link, pack, old=True)

    def _begin(self, link: Link) -> None:
        self._link = link
        self._up.set()
        self._buffer.begin_backlog()
        self._backfill.begin(link.window, self._buffer.allow_backlog)

    def _is_suspect(self, held: Held) -> bool:
        return self._deaths[held.number] >= DEATHS

    async def _none_going(self) -> None:
        while self._going:
            self._fewer.clear()
            await self._fewer.wait()

    async def _start(self, link: Link, held: Held) -> None:
        if link.ended.done():  # maybe while there was nothing to send; on the next link this is another matter
            self._buffer.release(held)
            if held.old:
                self._backfill.gave_back()
        elif self._is_suspect(held) or held.pack.dataset in self._doubted:
            await self._none_going()
            # The pole's state goes out on each link, and shows whether it is good; what others send is not to be beside
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACK_S):
                    await link.until_idle()
            self._alone = held
            self._send(link, held)
            await self._none_going()
            self._alone = None
        else:
            self._send(link, held)

    def _send(self, link: Link, held: Held) -> None:
        self._going += 1
        if held.old:
            self._backfill.sends(len(held.pack.blob))
        parts = SUSPECT_PARTS[self._deaths[held.number] - DEATHS] if self._is_suspect(held) else 1
        if parts > 1:
            self._divide(link, held, parts)
            return
        try:
            ack = link.post(self._message(held.pack, self._payload(held.pack), link, old=held.old))
        except (UplinkDown, Refused) as error:
            self._answered(link, held, error)
        else:
            ack.add_done_callback(lambda ack: self._answered(link, held, ack.exception()))

    def _answered(self, link: Link, held: Held, error: BaseException | None) -> None:
        if isinstance(error, Refused) and error.code == PACKET_TOO_LARGE:
            self._divide(link, held, 2)
        else:
            self._settle(link, held, error)

    def _divide(self, link: Link, held: Held, parts: int) -> None:
        self._group.create_task(self._send_divided(link, held, parts))

    async def _send_divided(self, link: Link, held: Held, parts: int) -> None:
        try:
            await self._send_in_parts(link, held.pack, old=held.old, parts=parts)
        except (UplinkDown, Refused) as error:
            self._settle(link, held, error)
        else:
            self._settle(link, held, None)

    async def _send_in_parts(self, link: Link, pack: Pack, *, old: bool, parts: int = 2) -> None:
        """Send a pack in parts, in twice as many until the broker finds none too large. Raises UplinkDown, Refused."""
        raw = unpacked(self._payload(pack))
        while True:
            some = senml.parts(raw, parts)
            try:
                for part in some:
                    await link.send(self._message(pack, packed(part), link, old=old))
            except Refused as error:
                if error.code != PACKET_TOO_LARGE or len(some) < parts:
                    raise
            else:
                return
            parts *= 2

    def _message(self, pack: Pack, payload: bytes, link: Link, *, old: bool) -> Message:
        if old and link.version != Version.V5:
            payload = packed(senml.labelled(unpacked(payload), "backfill"))
        encoding = "zstd" if is_packed(payload) else ""
        return Message(self._topic(pack.dataset), payload, content_type=SENML, encoding=encoding, backfill=old)

    def _settle(self, link: Link, held: Held, error: BaseException | None) -> None:
        """Deal with what became of a pack."""
        self._going -= 1
        self._fewer.set()
        if held.old:
            self._backfill.sent()
        if error is None:
            self._was_taken(held)
        elif isinstance(error, Refused):
            self._last_refusal = link
            self._was_refused(held, error)
        elif isinstance(error, Denied):
            self._was_denied(link, held, error)
        elif isinstance(error, Cut | NotAcknowledged) and link is not self._last_refusal:
            self._link_died_on(link, held, error)
        else:
            self._not_sent(held)

    def _was_taken(self, held: Held) -> None:
        dataset = held.pack.dataset
        self._deaths.pop(held.number, None)
        self._doubted.discard(dataset)
        if self._refusals.pop(dataset, 0):
            log.info("the broker takes a dataset again", dataset=dataset)
            self.refused.pop(dataset, None)
        self._buffer.acknowledge(held)

    def _was_refused(self, held: Held, error: Refused | Denied) -> None:
        pack = held.pack
        if error.code in HOPELESS:
            self._set_aside(held, -error.code, str(error))
            return
        self._buffer.release(held)
        if pack.dataset not in self._resting:
            self._rest(pack.dataset, error)

    def _was_denied(self, link: Link, held: Held, error: Denied) -> None:
        if held is self._alone and link.acked and len(link.unanswered) == 1:
            self._was_refused(held, error)
        else:
            self._doubted.add(held.pack.dataset)
            self._not_sent(held)

    def _rest(self, dataset: str, error: Refused | Denied) -> None:
        """Let a dataset rest; the others go on."""
        locked_out = error.code in NOT_AUTHORISED
        refusal = Refusal("refused", str(error), "See the broker's log; the pole tries again by itself.")
        if locked_out:
            hint = f"Let the pole publish on {self._topic(dataset)} in the broker's rules."
            refusal = Refusal("not-authorised", str(error), hint)
        if refusal != self.refused.get(dataset):  # the same again and again is told once
            log.warning(refusal.text, dataset=dataset, hint=refusal.hint)
        self.refused[dataset] = refusal
        longest = min(FIRST_REST_S * 2.0 ** min(self._refusals[dataset], 10), LONGEST_REST_S)
        if isinstance(error, Denied):
            longest = LOCKED_OUT_REST_S * len(self.refused)  # each try of each of these costs the link
        elif locked_out:
            longest = LOCKED_OUT_REST_S
        self._refusals[dataset] += 1
        self._resting.add(dataset)
        self._buffer.rest(dataset)
        self._loop.call_later(self._pauses.uniform(0.5, 1) * longest, self._resume, dataset)

    def _resume(self, dataset: str) -> None:
        self._resting.discard(dataset)
        self._buffer.resume(dataset)

    def _not_sent(self, held: Held) -> None:
        if self._is_suspect(held):  # it was alone, and nothing is proved: the others wait no longer
            del self._deaths[held.number]
        self._buffer.release(held)

    def _link_died_on(self, link: Link, held: Held, error: UplinkDown) -> None:
        if self._is_suspect(held) and not link.acked:  # a broker that acknowledges nothing proves nothing
            self._not_sent(held)
            return
        self._deaths[held.number] += 1
        tries = len(SUSPECT_PARTS) if len(held.pack.blob) > LARGE_BYTES else 1
        if self._deaths[held.number] < DEATHS + tries:
            self._buffer.release(held)
        else:
            self._set_aside(held, KILLS, f"the link died on it again and again: {error}")

    def _set_aside(self, held: Held, level: int, why: str) -> None:
        pack = held.pack
        log.error(
            "a pack that no broker takes is set aside",
            why=why,
            dataset=pack.dataset,
            epoch=pack.epoch,
            seq=pack.n,
            hint="polegate buffer dead FILE lists such packs; a request on command/replay tries them again.",
        )
        self._deaths.pop(held.number, None)
        self._buffer.set_aside(held, level)

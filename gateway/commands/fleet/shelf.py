"""What lies retained at a broker for poles to take: it is looked at, and replaced by what is newer.

A broker's acknowledgement proves nothing on MQTT 3.1.1, so what was published must come back. What lies there is not
believed for lying there: it counts if enough of the root's keys signed it, like at a pole.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from gateway.link.broker import Message, Received, UplinkDown
from gateway.link.mqtt_link import Link
from gateway.remote import admission, document, envelope, trust_root
from gateway.remote.admission import Now
from gateway.remote.config_state import Standing
from gateway.remote.document import Document
from gateway.remote.envelope import COMMAND_TYPE, CONFIG_TYPE, ROOT_TYPE
from gateway.remote.remote import FLEET_TOPIC, topic_of
from gateway.remote.trust_root import Root
from gateway.remote.verdict import Code, Rejected

QUIET_S = 2.0  # after the last that came, all that was retained has come
BACK_S = 30.0
REPLACE = "publish --replace puts a document in its place"


class NotThere(Exception):
    """What was published did not come back."""


class Behind(Exception):
    """It would take the place of what is newer, or nobody knows of what."""


class Post(NamedTuple):
    """What is to be published.

    Attributes:
        topic: where.
        stream: whose document it is; "": it is none.
        raw: what.
        name: what a person calls it.
        rank: what is newer has a higher one.
        sha: what it is known by.
        is_command: it must not be retained, since it would be obeyed again at each connect.
    """

    topic: str
    stream: str
    raw: bytes
    name: str
    rank: tuple[int, int]
    sha: str
    is_command: bool = False


class Shelf:
    """What lies on one topic, while somebody follows it.

    Attributes:
        topic: that.
        held: what lies there; empty: nothing.
    """

    def __init__(self, link: Link, topic: str) -> None:
        self.topic = topic
        self.held = b""
        self._link = link
        self._came = asyncio.Event()

    async def put(self, raw: bytes) -> None:
        """Put something there, and return when it lies there.

        Raises:
            UplinkDown: the link broke; it may lie there.
            Refused: the broker does not take it.
            NotThere: the broker took it and does not give it back.
        """
        self._came.clear()
        await self._link.send(Message(self.topic, raw, retain=True))
        try:
            async with asyncio.timeout(BACK_S):
                while self.held != raw:
                    await self._came.wait()
                    self._came.clear()
                    self.must_be_up()
        except TimeoutError:
            raise NotThere(
                f"{self.topic}: the broker took it and does not give it back; may you publish there?"
            ) from None

    def must_be_up(self) -> None:
        """Raise UplinkDown where the link is broken."""
        if self._link.ended.done():
            raise UplinkDown(self._link.why())

    async def follow(self, heard: AsyncIterator[Received]) -> None:
        """Hear what comes."""
        with contextlib.suppress(UplinkDown):  # who puts something there, or waits, is told it
            async for received in heard:
                self.held = received.payload
                self._came.set()
        self._came.set()

    async def look(self) -> None:
        """Wait until what is retained has come, or will not come any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                await self._came.wait()


@contextlib.asynccontextmanager
async def shelf(link: Link, topic: str) -> AsyncIterator[Shelf]:
    """Follow a topic. Raises UplinkDown, Refused."""
    async with link.subscribed(topic) as heard:
        found = Shelf(link, topic)
        following = asyncio.create_task(found.follow(heard))
        try:
            await found.look()
            yield found
        finally:
            following.cancel()
            await asyncio.wait([following])


def post(raw: bytes, root: Root, prefix: str, now: int) -> Post:
    """Read what is to be published. Raises Rejected where poles with that root of trust would not take it now."""
    sealed = envelope.read(raw)
    sha = document.digest(sealed.payload)
    if sealed.kind == ROOT_TYPE:
        new = trust_root.parsed(sealed.payload)
        if new.version == root.version:
            root.must_sign(sealed, "root")
        else:
            trust_root.following(root, raw)
        return Post(f"{FLEET_TOPIC}/root/{new.version}", "", raw, f"root of trust {new.version}", (new.version, 0), sha)
    if sealed.kind == COMMAND_TYPE:
        said = document.parsed_command(sealed.payload)
        admission.admit_command(raw, root, said.pole, Now(now, 0), retained=False)
        topic, name = f"{prefix}/{said.pole}/command/config", f"command to pole {said.pole}: {said.do}"
        return Post(topic, "", raw, name, (said.epoch, 0), sha, is_command=True)
    stream = document.parsed(sealed.payload).stream
    found = admission.admit(raw, stream, root, Standing(), Now(now, 0)).document
    return Post(topic_of(stream, prefix), stream, raw, found.name, (found.epoch, found.seq), sha)


def signed_document(raw: bytes, stream: str, root: Root) -> Document:
    """Read what lies on the topic of a stream, as a pole would, whether it is in time or not. Raises Rejected."""
    sealed = envelope.read(raw, CONFIG_TYPE)
    root.must_sign(sealed, document.role_of(stream))
    found = document.parsed(sealed.payload)
    if found.stream != stream:
        raise Rejected(Code.TARGET, f"it is for {found.stream}")
    admission.must_be_of_epoch(found.epoch, root)
    return found


def is_there(held: bytes, new: Post, root: Root) -> bool:
    """Tell whether it lies there already, and signed. Raises Behind where it must not take the place of what does."""
    if not held:
        return False
    try:
        sealed = envelope.read(held)
        if new.stream:
            old = signed_document(held, new.stream, root)
            name, rank = old.name, (old.epoch, old.seq)
        else:
            root.must_sign(sealed, "root")
            name, rank = "another root", new.rank
    except Rejected as error:
        raise Behind(
            f"what lies on {new.topic} is not signed for this root of trust: {error.text}; {REPLACE}"
        ) from error
    if document.digest(sealed.payload) == new.sha:
        return True
    if rank > new.rank:
        raise Behind(f"{name} lies on {new.topic}, which is newer than {new.name}; sign it with a higher number")
    if rank == new.rank:
        raise Behind(f"{name} lies on {new.topic}, with another content; sign it with a higher number")
    return False

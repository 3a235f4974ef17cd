"""A job: tell upstream what no receiver will get: packs that gave way, were refused or were damaged.

One message for what was lost since the last one, with counts and time span; it is told again until the broker has it,
under the same ``id``. What is too much for one message, from very many runs, is told in several.
"""

import asyncio
from collections.abc import Iterable

import structlog

from gateway.link.broker import Message, Refused, UplinkDown
from gateway.link.uplink import Uplink
from gateway.store.buffer import Buffer
from gateway.store.pack_sql import Loss, SqlError
from gateway.words import messages
from gateway.words.timeline import Epoch

PAUSE_S = 60.0  # losses go on for as long as the buffer is full: one message a minute

NS = 1_000_000_000

log = structlog.get_logger()


async def tell_losses(buffer: Buffer, uplink: Uplink, topic: str) -> None:
    """Tell for ever.

    Args:
        buffer: knows what was lost.
        uplink: the way to the broker.
        topic: where it is told.
    """
    while True:
        link = await uplink.link()
        try:
            batch, losses = await buffer.losses()
            if losses:
                await link.send(Message(topic, event(batch, losses, buffer.epochs).encoded()))
                await buffer.told(batch)
        except UplinkDown:
            await link.broken()  # until the uplink has seen it too, it hands out this link again
            continue
        except Refused as error:
            log.warning("the broker does not take what was lost", why=str(error))
        except (SqlError, OSError) as error:
            log.warning("what was lost cannot be told now", why=str(error))
        await asyncio.sleep(PAUSE_S)


def event(batch: int, losses: Iterable[Loss], epochs: Iterable[Epoch]) -> messages.Lost:
    """Return the message: see "What it sends" in the README."""
    utc = {epoch.id: epoch.utc for epoch in epochs}
    return messages.Lost(id=batch, losses=[_told(loss, utc.get(loss.epoch)) for loss in losses])


def _told(loss: Loss, utc: int | None) -> messages.Loss:
    return messages.Loss(
        dataset=loss.dataset,
        reason=loss.reason,
        packs=loss.packs,
        readings=loss.readings,
        epoch=loss.epoch,
        seq=[loss.first, loss.last],
        taken=None if utc is None else [round((at + utc) / NS, 3) for at in (loss.since, loss.until)],
    )

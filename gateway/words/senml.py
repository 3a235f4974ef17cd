"""SenML JSON (RFC 8428) as it goes on the wire: one pack, ordered by channel.

A run of records for each channel: its first record sets the base name (the whole name: ``pole/device/channel``)
and the base unit; the rest carry value and time only. The first record of the pack also sets the base time, the
version, and our labels, which a reader that does not know them ignores (section 4.4):

=========  ====================================================================================
``epoch``  run of the gateway
``seq``    number of the pack in its dataset and epoch, from 1: holes and repeats show
``after``  in the first pack of an epoch: "E:N", the last pack before it that reached the disk
``cat``    hash of the catalogue that describes the channels
``clock``  "unsynchronised" where the times are a guess; it may stand beside
``part``   "1/3" where the broker takes no pack that large: the first of three, all with the same ``seq``
``backfill``  true where it waited on the disk; only told here where MQTT 5 cannot tell it
``boot``   the boot of the machine they belong to, and
``earliest``, ``latest``: seconds since 1970 between which that boot must have been
=========  ====================================================================================

A record of quality carries the reason as ``why``. Channels come by unit, so that each unit is named once, then by name;
those without a unit first: a base unit cannot be taken back. Version 26 allows the secondary units of RFC 8798
(RFC 9100 section 4: 10 + 2 to the 4th).

Per value Python does nothing, per channel next to nothing. The text of the records is made with blanks, once for all
channels of a device; pydantic's JSON writer writes all numbers of the pack at once, shortest form, and they are put
into the blanks.
"""

import functools
import itertools
import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from gateway.words.reading import Quality, Reading

VERSION = 26
NS = 1_000_000_000
NS_PER_MS = 1_000_000
NUMBERS = frozenset((int, float))

Value = int | float | bool | str | Quality
Values = Mapping[str, Value]
Shape = tuple[str, tuple[str, ...]]
"""A device and its channels."""

Looks = tuple[list[bytes], list[Values]]
"""Of one device: how the records of each look end, its time in them, and what there was."""

Column = tuple[bytes, Sequence[int | float]]
"""The records of one channel, without the name; and the numbers for the blanks in them."""

OF_A_RECORD = {"bn", "bu", "n", "u", "v", "vb", "vs", "t", "why"}

Record = dict[str, int | float | bool | str]


def encode(
    readings: Sequence[Reading],
    *,
    pole: str,
    unit_of: Callable[[str, str], str],
    utc_offset: int,
    labels: Mapping[str, int | str],
) -> bytes:
    """Write one pack.

    Args:
        readings: at least one.
        pole: what all names begin with.
        unit_of: device and channel to SenML unit, "" for none; what it says of a channel it says for ever.
        utc_offset: what to add to a stamp for nanoseconds since 1970.
        labels: ours, for the first record.
    """
    stamps = [reading.at for reading in readings]
    base = (min(stamps) + utc_offset) // NS  # whole seconds: times stay short
    looks: dict[str, Looks] = {}
    for reading, end in zip(readings, _ends(stamps, base * NS - utc_offset), strict=True):
        ends, values = looks.setdefault(reading.device, ([], []))
        ends.append(end)
        values.append(reading.values)
    shapes: list[Shape] = []
    texts: list[bytes] = []
    columns: list[Sequence[int | float]] = []
    for device in sorted(looks):
        channels, some, numbers = _columns(*looks[device])
        shapes.append((device, channels))
        texts += some
        columns += numbers
    heads, in_order = _plan(pole, tuple(shapes), unit_of)
    first = to_json({"bver": VERSION, **labels})[1:-1].replace(b"%", b"%%")
    body = b"".join(itertools.chain.from_iterable(zip(heads, in_order(texts), strict=False)))
    template = b'[{%b,"bt":%%b,%b]' % (first, body[1:-1])
    blanks = itertools.chain.from_iterable(in_order(columns)[: len(heads)])
    return template % tuple(to_json([base, *blanks])[1:-1].split(b","))


def amended(pack: bytes, *, shift: int = 0, labels: Mapping[str, int | str] | None = None, without: str = "") -> bytes:
    """Write a pack anew with other times or labels; values stay as they were.

    Args:
        pack: as ``encode`` wrote it.
        shift: nanoseconds by which all its times are wrong.
        labels: to be added to the first record.
        without: a label that goes.
    """
    records: list[Record] = json.loads(pack)
    first = records[0]
    base = first["bt"]
    assert isinstance(base, int | float)  # noqa: S101  # encode wrote it
    ms = round(base * 1000) + round(shift / NS_PER_MS)
    first["bt"] = ms // 1000 if ms % 1000 == 0 else ms / 1000
    first.pop(without, None)
    records[0] = first | dict(labels or {})
    return json.dumps(records, separators=(",", ":"), ensure_ascii=False).encode()


def labelled(pack: bytes, label: str) -> bytes:
    """Write one more label, true, into the first record."""
    return f'[{{"{label}":true,'.encode() + pack.removeprefix(b"[{")


def parts(pack: bytes, number: int) -> list[bytes]:
    """Divide a pack into so many, or into one for each record where there are fewer.

    Each is a pack of its own with the labels of the whole, and one more: ``part``, "1/3" for the first of three.
    """
    records: list[Record] = json.loads(pack)
    number = min(number, len(records))
    common = {key: fact for key, fact in records[0].items() if key not in OF_A_RECORD}
    base: Record = {}
    heads = []
    for record in records:
        base |= {key: record[key] for key in ("bn", "bu") if key in record}
        heads.append(dict(base))
    cuts = [len(records) * part // number for part in range(number + 1)]
    some = [records[first:last] for first, last in itertools.pairwise(cuts)]
    for part, (first, of_part) in enumerate(zip(cuts, some, strict=False), 1):
        of_part[0] = common | {"part": f"{part}/{number}"} | heads[first] | of_part[0]
    return [_json(of_part).encode() for of_part in some]


def _ends(stamps: Iterable[int], zero: int) -> list[bytes]:
    """Write how a record ends that was taken at a stamp: seconds since ``zero``, to the millisecond; nothing for 0."""
    ms = [round((stamp - zero) / NS_PER_MS) for stamp in stamps]
    texts = to_json([some // 1000 if some % 1000 == 0 else some / 1000 for some in ms])[1:-1].split(b",")
    return [b',"t":%b},' % text if text != b"0" else b"}," for text in texts]


def _columns(
    ends: Sequence[bytes], values: Sequence[Values]
) -> tuple[tuple[str, ...], list[bytes], list[Sequence[int | float]]]:
    """Return the channels of one device, and for each the text of its records and the numbers for its blanks."""
    shapes = list(map(tuple, values))
    channels = shapes[0]
    if shapes.count(channels) < len(shapes):
        channels = tuple(dict.fromkeys(itertools.chain.from_iterable(values)))
        columns = [_column(*_of_channel(channel, ends, values)) for channel in channels]
    else:
        looks: list[Sequence[Any]] = list(zip(*[some.values() for some in values], strict=True))
        if NUMBERS.issuperset(map(type, itertools.chain.from_iterable(looks))):
            return channels, [_blanks(ends)] * len(channels), looks
        columns = [_column(ends, column) for column in looks]
    return channels, [text for text, _ in columns], [numbers for _, numbers in columns]


def _of_channel(channel: str, ends: Iterable[bytes], values: Iterable[Values]) -> tuple[list[bytes], list[Any]]:
    """Return what there is of a channel that not every look has."""
    there = [(end, some[channel]) for end, some in zip(ends, values, strict=True) if channel in some]
    return [end for end, _ in there], [value for _, value in there]


def _column(ends: Sequence[bytes], values: Sequence[Any]) -> Column:
    if NUMBERS.issuperset(map(type, values)):
        return _blanks(ends), values
    records = [_value(value).replace(b"%", b"%%") for value in values]
    return b"{".join(map(bytes.__add__, records, ends)), ()


def _blanks(ends: Iterable[bytes]) -> bytes:
    """Write the records of a channel with blanks for the numbers."""
    return b'"v":%b' + b'{"v":%b'.join(ends)


@functools.lru_cache(maxsize=256)
def _plan(
    pole: str, shapes: Sequence[Shape], unit_of: Callable[[str, str], str]
) -> tuple[list[bytes], Callable[[Sequence[Any]], Sequence[Any]]]:
    """Return how the channels follow each other: what each run begins with; and what puts their columns in that order.

    It gives the first once more at the end: of one alone it would give no sequence. The same devices come with the same
    channels again and again.
    """
    names = [(device, channel) for device, channels in shapes for channel in channels]
    units = [unit_of(*name) for name in names]
    order = sorted(range(len(names)), key=lambda place: (units[place] != "", units[place], *names[place]))
    heads, unit = [], ""
    for place in order:
        named = f'{{"bu":{_text(units[place])},' if units[place] != unit else "{"
        heads.append(f'{named}"bn":{_text("/".join((pole, *names[place])))},'.encode().replace(b"%", b"%%"))
        unit = units[place]
    return heads, operator.itemgetter(*order, order[0])


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return b'"vb":true' if value else b'"vb":false'
    if isinstance(value, Quality):
        return f'"v":{value.code},"why":{_text(value.why)}'.encode()
    return f'"vs":{_text(value)}'.encode() if isinstance(value, str) else b'"v":' + to_json(value)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

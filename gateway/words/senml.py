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

Per value Python does next to nothing. The text of the records is made with blanks, once for all channels of a device;
pydantic's JSON writer writes all numbers of the pack at once, shortest form, and they are put into the blanks.
"""

import functools
import itertools
import json
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

Look = tuple[str, Values]
"""What a record says of its time, and what there was."""

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
    stamps = [reading.at + utc_offset for reading in readings]
    base = min(stamps) // NS  # whole seconds: times stay short
    looks: dict[str, list[Look]] = {}
    for reading, time in zip(readings, _times(stamps, base * NS), strict=True):
        looks.setdefault(reading.device, []).append((time, reading.values))
    shapes: list[Shape] = []
    columns: list[Column] = []
    for device in sorted(looks):
        channels, some = _columns(looks[device])
        shapes.append((device, channels))
        columns += some
    heads, order = _plan(pole, tuple(shapes), unit_of)
    texts: list[bytes] = []
    numbers: list[int | float] = [base]
    for head, place in zip(heads, order, strict=True):
        text, values = columns[place]
        texts.append(head + text)
        numbers += values
    first = _json({"bver": VERSION, **labels})[1:-1].encode().replace(b"%", b"%%")
    template = b'[{%b,"bt":%%b,%b]' % (first, b",".join(texts)[1:])
    return template % tuple(to_json(numbers)[1:-1].split(b","))


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


def _times(stamps: Iterable[int], zero: int) -> list[str]:
    """Write stamps as what a record says of its time: seconds since ``zero``, to the millisecond; "" for none."""
    ms = [round((stamp - zero) / NS_PER_MS) for stamp in stamps]
    texts = to_json([some // 1000 if some % 1000 == 0 else some / 1000 for some in ms])[1:-1].decode().split(",")
    return [f',"t":{text}' if text != "0" else "" for text in texts]


def _columns(looks: Iterable[Look]) -> tuple[tuple[str, ...], list[Column]]:
    """Return the channels of one device, and the column of each."""
    times, values = zip(*looks, strict=True)
    shapes = set(map(tuple, values))
    if len(shapes) > 1:
        channels = tuple(dict.fromkeys(itertools.chain(*values)))
        return channels, [_column(*_of_channel(channel, times, values)) for channel in channels]
    blanks = _blanks(times)  # the same for all
    return shapes.pop(), [
        (blanks, column) if NUMBERS.issuperset(map(type, column)) else (_spelled(times, column), ())
        for column in zip(*[some.values() for some in values], strict=True)
    ]


def _of_channel(channel: str, times: Iterable[str], values: Iterable[Values]) -> tuple[list[str], list[Any]]:
    """Return what there is of a channel that not every look has."""
    there = [(time, some[channel]) for time, some in zip(times, values, strict=True) if channel in some]
    return [time for time, _ in there], [value for _, value in there]


def _column(times: Sequence[str], values: Sequence[Any]) -> Column:
    if NUMBERS.issuperset(map(type, values)):
        return _blanks(times), values
    return _spelled(times, values), ()


def _blanks(times: Iterable[str]) -> bytes:
    """Write the records of a channel with blanks for the numbers."""
    return ("},{".join(['"v":%b' + time for time in times]) + "}").encode()


def _spelled(times: Iterable[str], values: Iterable[Value]) -> bytes:
    """Write the records of a channel where not all are numbers, without blanks."""
    records = [_value(value) + time for time, value in zip(times, values, strict=True)]
    return ("},{".join(records) + "}").encode().replace(b"%", b"%%")


@functools.lru_cache(maxsize=256)
def _plan(pole: str, shapes: Sequence[Shape], unit_of: Callable[[str, str], str]) -> tuple[list[bytes], list[int]]:
    """Return how the channels follow each other: what each run begins with, and its place among the columns.

    The same devices come with the same channels again and again.
    """
    names = [(device, channel) for device, channels in shapes for channel in channels]
    units = [unit_of(*name) for name in names]
    order = sorted(range(len(names)), key=lambda place: (units[place] != "", units[place], *names[place]))
    heads, unit = [], ""
    for place in order:
        named = f'{{"bu":{_text(units[place])},' if units[place] != unit else "{"
        heads.append(f'{named}"bn":{_text("/".join((pole, *names[place])))},'.encode().replace(b"%", b"%%"))
        unit = units[place]
    return heads, order


def _value(value: Value) -> str:
    if isinstance(value, Quality):
        return f'"v":{value.code},"why":{_text(value.why)}'
    if isinstance(value, bool):
        return '"vb":true' if value else '"vb":false'
    return f'"vs":{_text(value)}' if isinstance(value, str) else f'"v":{to_json(value).decode()}'


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

"""SenML JSON (RFC 8428) as it goes on the wire: one pack, look by look.

The looks at a device follow each other in the order they were taken. The first record of a device sets the base name
(``pole/device/``), the first record of each look the base time; every record names its channel and its unit. So a look
is the text of the look before it with other numbers, and that is what compression takes away: ordered by channel, with
the unit and the whole name told once and a time in every record, packs are shorter before compression and longer after
it, by 2 to 36 % as they hold less or more of each channel.

The first record of the pack also sets the version and our labels, which a reader that does not know them ignores
(section 4.4):

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

A record of quality carries the reason as ``why``. Version 26 allows the secondary units of RFC 8798 (RFC 9100 section
4: 10 + 2 to the 4th).

Python does nothing for a number and little for a look. The text of a look is made once, with blanks; pydantic's JSON
writer writes all numbers of the pack at once, shortest form, and they are put into the blanks.
"""

import functools
import itertools
import json
import operator
from collections.abc import Callable, Mapping, Sequence

from pydantic_core import to_json

from gateway.words.reading import Quality, Reading

VERSION = 26
NS_PER_MS = 1_000_000
KNOWN_LOOKS = 512  # a pole has some dozens

Value = int | float | bool | str | Quality
UnitOf = Callable[[str, str], str]

BASE = "bn", "bt"
OF_A_RECORD = {*BASE, "n", "u", "v", "vb", "vs", "why"}

Record = dict[str, int | float | bool | str]


def encode(
    readings: Sequence[Reading],
    *,
    pole: str,
    unit_of: UnitOf,
    utc_offset: int,
    labels: Mapping[str, int | str],
) -> bytes:
    """Write one pack.

    Args:
        readings: at least one.
        pole: what all names begin with.
        unit_of: device and channel to SenML unit, "" for none; what one says of a channel it says for ever.
        utc_offset: what to add to a stamp for nanoseconds since 1970.
        labels: ours, for the first record.
    """
    texts = [b"[{", _escaped(to_json({"bver": VERSION, **labels})[1:-1]), b","]
    blanks: list[Value] = []
    device = ""
    for reading in sorted(readings, key=operator.attrgetter("device")):
        if reading.device != device:
            device = reading.device
            texts.append(_base_name(pole, device))
        values = reading.values
        texts.append(_look(device, tuple(values), unit_of))
        blanks.append(_seconds(reading.at + utc_offset))
        blanks += values.values()
    template = b"".join(texts).removesuffix(b",{") + b"]"
    return template % tuple(_filled(blanks))


def amended(pack: bytes, *, shift: int = 0, labels: Mapping[str, int | str] | None = None, without: str = "") -> bytes:
    """Write a pack anew with other times or labels; values stay as they were.

    Args:
        pack: as ``encode`` wrote it.
        shift: nanoseconds by which all its times are wrong.
        labels: to be added to the first record.
        without: a label that goes.
    """
    records: list[Record] = json.loads(pack)
    for record in records:
        if "bt" in record:
            record["bt"] = _seconds(round(float(record["bt"]) * 1000) * NS_PER_MS + shift)
    records[0].pop(without, None)
    records[0] |= labels or {}
    return to_json(records)


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
        base |= {key: record[key] for key in BASE if key in record}
        heads.append(dict(base))
    cuts = [len(records) * part // number for part in range(number + 1)]
    some = [records[first:last] for first, last in itertools.pairwise(cuts)]
    for part, (first, of_part) in enumerate(zip(cuts, some, strict=False), 1):
        of_part[0] = common | {"part": f"{part}/{number}"} | heads[first] | of_part[0]
    return [to_json(of_part) for of_part in some]


@functools.lru_cache(maxsize=KNOWN_LOOKS)
def _base_name(pole: str, device: str) -> bytes:
    """Write how the first record of a device begins."""
    return _escaped(b'"bn":%b,' % to_json(f"{pole}/{device}/"))


@functools.lru_cache(maxsize=KNOWN_LOOKS)
def _look(device: str, channels: Sequence[str], unit_of: UnitOf) -> bytes:
    """Write a look with blanks for its time and its values; they begin behind "bt" and "v"."""
    names = [_escaped(_name(channel, unit_of(device, channel))) for channel in channels]
    return b'"bt%b,' + b"".join(b'%b,"v%%b},{' % name for name in names)


def _name(channel: str, unit: str) -> bytes:
    return to_json({"n": channel, "u": unit} if unit else {"n": channel})[1:-1]


def _filled(blanks: Sequence[Value]) -> list[bytes]:
    """Return what goes into the blanks."""
    told = to_json(blanks)[1:-1]
    if b'"' in told:  # a text, or why there is no value
        return list(map(_value, blanks))
    numbers = b'":' + told.replace(b",", b',":')
    return numbers.replace(b'":t', b'b":t').replace(b'":f', b'b":f').split(b",")  # flags are not "v", but "vb"


def _value(value: Value) -> bytes:
    if isinstance(value, Quality):
        return b'":%d,"why":%b' % (value.code, to_json(value.why))
    kind = b"b" if isinstance(value, bool) else b"s" if isinstance(value, str) else b""
    return b'%b":%b' % (kind, to_json(value))


def _escaped(text: bytes) -> bytes:
    """Write it so that it has no blank."""
    return text.replace(b"%", b"%%")


def _seconds(ns: int) -> int | float:
    """Return nanoseconds as seconds, to the millisecond; whole ones without a point."""
    ms = (ns + NS_PER_MS // 2) // NS_PER_MS
    return ms // 1000 if ms % 1000 == 0 else ms / 1000

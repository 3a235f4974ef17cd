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

A record of quality carries the reason as ``why``. Channels without a unit come first: a base unit cannot be taken
back. Version 26 allows the secondary units of RFC 8798 (RFC 9100 section 4: 10 + 2 to the 4th).
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from gateway.reading import Quality, Reading

VERSION = 26
NS = 1_000_000_000
NS_PER_MS = 1_000_000

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
        unit_of: device and channel to SenML unit, "" for none.
        utc_offset: what to add to a stamp for nanoseconds since 1970.
        labels: ours, for the first record.
    """
    base = (min(reading.at for reading in readings) + utc_offset) // NS  # whole seconds: times stay short
    runs = _by_channel(readings, base * NS - utc_offset)
    units = {key: unit_of(*key) for key in runs}
    unit = ""
    records: list[str] = []
    for key in sorted(runs, key=lambda key: (units[key] != "", key)):
        head = f'{{"bn":{_name(pole, *key)},'
        if units[key] != unit:
            unit = units[key]
            head += f'"bu":{_name(unit)},'
        first, *others = runs[key]
        records.append(head + first)
        records += ["{" + record for record in others]
    labels = {"bver": VERSION, "bt": base, **labels}
    records[0] = f"{{{_json(labels)[1:-1]},{records[0][1:]}"
    return f"[{','.join(records)}]".encode()


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
    some = [records[first:last] for first, last in pairwise(cuts)]
    for part, (first, of_part) in enumerate(zip(cuts, some, strict=False), 1):
        of_part[0] = common | {"part": f"{part}/{number}"} | heads[first] | of_part[0]
    return [_json(of_part).encode() for of_part in some]


def _by_channel(readings: Iterable[Reading], zero: int) -> dict[tuple[str, str], list[str]]:
    """Write each value as the rest of a record, and sort them by channel.

    A value is most often a number: that way is short. ``repr`` is how JSON writes them.
    """
    runs: dict[tuple[str, str], list[str]] = {}
    for reading in readings:
        ms = round((reading.at - zero) / NS_PER_MS)
        time = f',"t":{ms // 1000 if ms % 1000 == 0 else ms / 1000}' if ms else ""
        device = reading.device
        for channel, value in reading.values.items():
            kind = type(value)
            shown = f'"v":{value!r}{time}}}' if kind is float or kind is int else f"{_other(value)}{time}}}"
            run = runs.get((device, channel))
            if run is None:
                runs[device, channel] = [shown]
            else:
                run.append(shown)
    return runs


def _other(value: object) -> str:
    if isinstance(value, Quality):
        return f'"v":{value.code},"why":{_text(value.why)}'
    if isinstance(value, bool):
        return f'"vb":{"true" if value else "false"}'
    return f'"vs":{_text(value)}' if isinstance(value, str) else f'"v":{value!r}'


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@functools.lru_cache(maxsize=4096)
def _name(*levels: str) -> str:
    """Write a name, the same few hundred again and again."""
    return _text("/".join(levels))


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

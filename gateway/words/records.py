"""SenML as a receiver reads it: a pack resolved to records, RFC 8428 section 4.6.

It reads what anybody may have published, so a pack is either sound in full or :class:`NoSenml`. Sums are left out:
polegate sends none. What the version and a label that ends with ``_`` ask for is not guessed (section 4.4).
"""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import zstandard

from gateway.words.payload import is_packed
from gateway.words.senml import VERSION

MOST_BYTES = 16 * 1024 * 1024  # of a pack that is unpacked
RELATIVE_BELOW = 1 << 28  # seconds; a smaller time counts from now, section 4.5.3
BASE = {"bn": "", "bt": 0, "bu": "", "bv": 0, "bver": 10}
VALUES = ("v", "vb", "vs", "vd")
NUMBER = (int, float)
KINDS = {  # section 5; bool is not a number here, as in JSON
    **dict.fromkeys(("bn", "bu", "n", "u", "vs", "vd"), (str,)),
    **dict.fromkeys(("bt", "bv", "bs", "t", "ut", "v", "s"), NUMBER),
    "bver": (int,),
    "vb": (bool,),
}

Value = int | float | bool | str


class NoSenml(Exception):
    """This is no SenML pack, or one that asks for more than is known here."""


class Record(NamedTuple):
    """One resolved record.

    Attributes:
        name: whole name.
        time: seconds since 1970.
        unit: "" where there is none.
        value: number, flag or text.
        labels: what SenML does not define, with what it says.
    """

    name: str
    time: float
    unit: str
    value: Value
    labels: dict[str, Any]


def read(payload: bytes, now: float) -> list[Record]:
    """Read a pack as it comes over MQTT. Raises NoSenml.

    Args:
        payload: compressed or not.
        now: seconds since 1970, for times that count from when the pack came.
    """
    try:
        records = list(resolve(json.loads(_unpacked(payload), parse_constant=_no_number), now))
    except (zstandard.ZstdError, ValueError, OverflowError, RecursionError) as error:
        raise NoSenml(f"it cannot be read: {error}") from error
    if not records:
        raise NoSenml("there is no value in it")
    return records


def resolve(pack: object, now: float) -> Iterator[Record]:
    """Give the records of a pack as JSON has it: base fields hold until they are set anew.

    Raises:
        NoSenml: it is not one.
        OverflowError: a whole number in it is larger than any other kind of number.
    """
    if not isinstance(pack, list):
        raise NoSenml("it is no list of records")
    base: dict[str, Any] = dict(BASE)
    for raw in pack:
        labels = _labels(raw)
        if not BASE.keys().isdisjoint(raw):
            base.update((key, raw[key]) for key in BASE if key in raw)
            if base["bver"] > VERSION:  # RFC 9100: its features are bits, and one that is not known is a higher one
                raise NoSenml(f"it is of version {base['bver']}, and this reads version {VERSION}")
        kinds = [key for key in VALUES if key in raw]
        if len(kinds) > 1:
            raise NoSenml(f"a record has more than one value: {' and '.join(kinds)}")
        if kinds:
            yield _record(raw, base, kinds[0], now, labels)


def _record(raw: dict[str, Any], base: dict[str, Any], kind: str, now: float, labels: dict[str, Any]) -> Record:
    value = raw[kind] + base["bv"] if kind == "v" and base["bv"] else raw[kind]
    time = base["bt"] + raw.get("t", 0)
    if not math.isfinite(time) or (kind == "v" and not math.isfinite(value)):
        raise NoSenml("a number is too large")
    if time < RELATIVE_BELOW:
        time += now
    return Record(base["bn"] + raw.get("n", ""), time, raw.get("u", base["bu"]), value, labels)


def _labels(raw: object) -> dict[str, Any]:
    """Return what SenML does not define of a record, all of which is of the kind that it must be. Raises NoSenml."""
    if not isinstance(raw, dict):
        raise NoSenml("one of its records is no object")
    labels = {}
    for key, value in raw.items():
        kinds = KINDS.get(key)
        if kinds is None:
            if key.endswith("_"):
                raise NoSenml(f'it has a label that must be understood, "{key}"')
            labels[key] = value
        elif type(value) not in kinds:
            raise NoSenml(f'"{key}" has a value of another kind')
    return labels


def _unpacked(payload: bytes) -> bytes:
    if not is_packed(payload):
        return payload
    if zstandard.frame_content_size(payload) > MOST_BYTES:
        raise NoSenml(f"unpacked it has more than {MOST_BYTES} bytes")
    return zstandard.ZstdDecompressor().decompress(payload, max_output_size=MOST_BYTES)


def _no_number(word: str) -> NoReturn:
    raise NoSenml(f"{word} is no number")

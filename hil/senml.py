"""A reader of SenML packs that shares no line with the writer: RFC 8428 section 4.6, resolved record by record."""

import json
from dataclasses import dataclass, field
from typing import Any

import zstandard

ZSTD_MAGIC = bytes.fromhex("28b52ffd")
MOST_BYTES = 16 * 1024 * 1024
BASE = {"bn": "", "bt": 0, "bu": "", "bver": 10}
VALUES = ("v", "vb", "vs", "vd")
RELATIVE_BELOW = 2**28  # seconds; a smaller time counts from now, section 4.5.3
FIELDS = {*BASE, *VALUES, "n", "t", "u", "s", "bv", "bs", "ut"}

Value = float | int | bool | str


@dataclass(frozen=True, slots=True)
class Record:
    """One resolved record.

    Attributes:
        name: whole name.
        time: seconds since 1970.
        unit: "" where there is none.
        value: number, flag or text.
        labels: what SenML does not define.
    """

    name: str
    time: float
    unit: str
    value: Value
    labels: dict[str, Any] = field(default_factory=dict)


def read(payload: bytes) -> list[Record]:
    """Read a pack as it came over MQTT, compressed or not. Raises ValueError for what is no pack."""
    return resolve(json.loads(plain(payload)))


def plain(payload: bytes) -> bytes:
    """Return what came over MQTT, compressed or not, as JSON."""
    if payload.startswith(ZSTD_MAGIC):
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=MOST_BYTES)
    return payload


def resolve(pack: list[dict[str, Any]], now: float = 0) -> list[Record]:
    """Resolve a pack: base fields hold until they are set anew. Raises ValueError.

    Args:
        pack: as JSON has it.
        now: when it came, for packs whose times are relative; polegate's never are.
    """
    base: dict[str, Any] = dict(BASE)
    records = []
    for raw in pack:
        base |= {key: value for key, value in raw.items() if key in BASE}
        must = [key for key in raw if key.endswith("_")]
        if must:
            raise ValueError(f"a label that must be understood: {must[0]}")
        kinds = [key for key in VALUES if key in raw]
        if len(kinds) > 1:
            raise ValueError(f"more than one value: {raw}")
        if kinds:
            time = base["bt"] + raw.get("t", 0)
            records.append(
                Record(
                    name=base["bn"] + raw.get("n", ""),
                    time=time + now if time < RELATIVE_BELOW else time,
                    unit=raw.get("u", base["bu"]),
                    value=raw[kinds[0]],
                    labels={key: value for key, value in raw.items() if key not in FIELDS},
                )
            )
    return records

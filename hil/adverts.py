"""Bluetooth LE advertising data as it is on the air: a run of AD structures, each length, type, data.

Source: Bluetooth Core Specification, vol. 3 part C section 11 (the format) and Core Specification Supplement part A
(the types). Broken data is read as BlueZ reads it (``eir_parse``): a length of 0 ends the data early, a structure that
runs past the end is dropped with all behind it, and what came before stays.

The 31 bytes of a legacy advert are no limit here: extended adverts carry up to 254 bytes in one structure.
"""

import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_FLAGS = 0x01
_SERVICE_UUIDS = {0x02: 2, 0x03: 2, 0x04: 4, 0x05: 4, 0x06: 16, 0x07: 16}  # by type, the bytes of one UUID
_ALL_UUIDS_16, _ALL_UUIDS_128 = 0x03, 0x07
_SHORT_NAME, _COMPLETE_NAME = 0x08, 0x09
_TX_POWER = 0x0A
_SERVICE_DATA = {0x16: 2, 0x20: 4, 0x21: 16}  # by type, the bytes of the UUID in front
_SERVICE_DATA_16, _SERVICE_DATA_128 = 0x16, 0x21
_MANUFACTURER_DATA = 0xFF

_BASE_UUID = "-0000-1000-8000-00805f9b34fb"
"""The end of every UUID that has a short form (Core Specification, vol. 3 part B section 2.5.1)."""


@dataclass(frozen=True, slots=True)
class Advert:
    """What an advert says; None and empty mean that it says nothing about it.

    Attributes:
        flags: discoverability bits; 0x06 is usual.
        local_name: the short or the complete one.
        tx_power: dBm.
        service_uuids: 128-bit UUIDs as lower-case text.
        manufacturer_data: company id to payload, without the id.
        service_data: 128-bit UUID as lower-case text to payload, without the UUID.
    """

    flags: int | None = None
    local_name: str | None = None
    tx_power: int | None = None
    service_uuids: tuple[str, ...] = ()
    manufacturer_data: Mapping[int, bytes] = field(default_factory=dict)
    service_data: Mapping[str, bytes] = field(default_factory=dict)


def encode(advert: Advert) -> bytes:
    """Write the advert as AD structures, flags first; UUIDs take their 16-bit form where they have one."""
    parts = []
    if advert.flags is not None:
        parts.append(structure(_FLAGS, bytes([advert.flags])))
    uuids = [_uuid_to_bytes(text) for text in advert.service_uuids]
    for kind, size in ((_ALL_UUIDS_16, 2), (_ALL_UUIDS_128, 16)):
        if of_this_size := b"".join(raw for raw in uuids if len(raw) == size):
            parts.append(structure(kind, of_this_size))
    for text, payload in advert.service_data.items():
        raw = _uuid_to_bytes(text)
        parts.append(structure(_SERVICE_DATA_16 if len(raw) == 2 else _SERVICE_DATA_128, raw + payload))  # noqa: PLR2004  # bytes of a 16-bit UUID
    for company, payload in advert.manufacturer_data.items():
        parts.append(structure(_MANUFACTURER_DATA, struct.pack("<H", company) + payload))
    if advert.tx_power is not None:
        parts.append(structure(_TX_POWER, struct.pack("b", advert.tx_power)))
    if advert.local_name is not None:
        parts.append(structure(_COMPLETE_NAME, advert.local_name.encode()))
    return b"".join(parts)


def structure(ad_type: int, data: bytes) -> bytes:
    """Write one AD structure: its length, its type, its data of at most 254 bytes."""
    return bytes([1 + len(data), ad_type]) + data


def structures(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, data) of each whole AD structure, in order, up to the first broken one."""
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        if data[at] == 0 or end > len(data):
            return
        yield data[at + 1], data[at + 2 : end]
        at = end


def parse(data: bytes) -> Advert:
    """Read advertising data. Never raises; what is broken is left out.

    Of two structures about the same thing the later one holds, except service UUIDs, which add up.
    """
    flags = local_name = tx_power = None
    service_uuids: dict[str, None] = {}
    manufacturer_data = {}
    service_data = {}
    for kind, body in structures(data):
        if kind == _FLAGS and body:
            flags = body[0]
        elif size := _SERVICE_UUIDS.get(kind):
            whole = len(body) - len(body) % size
            service_uuids |= dict.fromkeys(_uuid_to_text(body[at : at + size]) for at in range(0, whole, size))
        elif kind in {_SHORT_NAME, _COMPLETE_NAME}:
            local_name = _name(body)
        elif kind == _TX_POWER and body:
            tx_power = int.from_bytes(body[:1], "little", signed=True)
        elif (size := _SERVICE_DATA.get(kind)) and len(body) >= size:
            service_data[_uuid_to_text(body[:size])] = body[size:]
        elif kind == _MANUFACTURER_DATA and len(body) >= 2:  # noqa: PLR2004  # bytes of a company id
            manufacturer_data[int.from_bytes(body[:2], "little")] = body[2:]
    return Advert(flags, local_name, tx_power, tuple(service_uuids), manufacturer_data, service_data)


def from_report(report: bytes) -> tuple[bytes, int]:
    """Take an advertising report apart: a length, the advertising data, the RSSI (Core vol. 4 part E 7.7.65.2).

    Returns:
        The advertising data and the RSSI in dBm. The length is not looked at: published captures disagree whether
        it counts the RSSI byte.
    """
    return report[1:-1], int.from_bytes(report[-1:], "little", signed=True)


def _uuid_to_bytes(text: str) -> bytes:
    number = uuid.UUID(text)
    if text.startswith("0000") and text.endswith(_BASE_UUID):
        return struct.pack("<H", int(text[4:8], 16))
    return number.bytes[::-1]


def _uuid_to_text(raw: bytes) -> str:
    if len(raw) == 16:  # noqa: PLR2004  # bytes of a UUID that has no short form
        return str(uuid.UUID(bytes=raw[::-1]))
    return f"{int.from_bytes(raw, 'little'):08x}{_BASE_UUID}"


def _name(raw: bytes) -> str:
    """Read a name as BlueZ does: up to a NUL; what is not UTF-8 is taken for ASCII with holes."""
    raw = raw.split(b"\0")[0]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("ascii", "replace").replace("\ufffd", " ").strip()

"""``polegate decode``: the values of a frame, without a configuration."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from drivers.contract import (
    Advert,
    Advertised,
    BadFrame,
    DeviceError,
    Driver,
    NotReady,
    OnPort,
    Span,
    Streamed,
    Values,
)
from gateway.commands.check import report
from gateway.commands.values import table
from gateway.config import driver_index, faults
from gateway.config.faults import SettingsError, mean
from gateway.config.settings_file import PROFILE, profile, profile_names
from gateway.config.toml_file import TomlFile
from gateway.config.toml_text import quoted

SHORT = 4  # hex digits of a piece that is not a frame by itself
TEXT = {"$", "!"}  # how a text of a text protocol begins
ANY_ADDRESS = "00:00:00:00:00:00"
LARGEST_ID = 0xFFFF
BASE_UUID = "-0000-1000-8000-00805f9b34fb"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class CompanyId(click.ParamType[int]):
    """A number of 16 bits, as 0x0499, 0499 or 1177."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        try:
            number = int(value, 16 if value.startswith("0") else 10)  # the registry writes four digits of hex
        except ValueError:
            number = -1
        if not 0 <= number <= LARGEST_ID:
            self.fail(f"{quoted(value)} is no company id; write it as 0x0499", param, ctx)
        return number


class ServiceUuid(click.ParamType[str]):
    """A UUID of 128 bits, or of the 16 that stand for them."""

    name = "uuid"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Write it with 128 bits."""
        text = value.lower().removeprefix("0x")
        text = f"0000{text}{BASE_UUID}" if len(text) == SHORT else text
        if not UUID.fullmatch(text):
            self.fail(f"{quoted(value)} is no UUID; write it as fcd2 or as 0000fcd2{BASE_UUID}", param, ctx)
        return text


@click.command("decode", epilog=f"Drivers: {', '.join(driver_index.names())}.")
@click.argument("driver")
@click.argument("pieces", metavar="HEX...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a frame.")
@click.option("--profile", "profile_name", metavar="NAME", help="Modbus: the register map, by name or as a .toml file.")
@click.option("--manufacturer", type=CompanyId(), help="Bluetooth: company id the payload stood behind, as 0x0499.")
@click.option("--service-data", type=ServiceUuid(), help="Bluetooth: service UUID the payload stood behind.")
@click.option("--address", metavar="AA:BB:CC:DD:EE:FF", help="Bluetooth: address of the sender.")
@click.option("--key", metavar="HEX", help="Bluetooth: key of an encrypted sender.")
def command(
    driver: str,
    pieces: tuple[str, ...],
    *,
    as_json: bool,
    profile_name: str | None,
    manufacturer: int | None,
    service_data: str | None,
    address: str | None,
    key: str | None,
) -> int:
    """Print the values in frames that DRIVER reads.

    HEX is a frame as it was seen on the wire; 0x, commas, dashes and colons in it do not count. Pieces of one or two
    bytes are joined; a longer piece stands for itself, and may hold several frames. A text protocol may be given as
    text, in single quotes.

    \b
      polegate decode sds011 aa c0 d4 04 3a 0a a1 60 1d ab
      polegate decode modbus --profile rs485-noise-meter 01 03 02 02 4b f9 13
      polegate decode nmea0183 '$GPGLL,4916.45,N,12311.12,W,225444,A*31'

    Exit code 1: a frame cannot be read. 64: the command is wrong. 78: the register map has faults.
    """  # noqa: D301  # click keeps the lines behind a backspace as they are
    try:
        device = _device(driver, {"address": address, "key": key, PROFILE: profile_name})
    except SettingsError as error:
        return report(error.faults)
    if not isinstance(device, Advertised) and (manufacturer is not None or service_data is not None):
        raise click.UsageError(f"{driver} hears no Bluetooth; --manufacturer and --service-data do not apply")
    worst = 0
    frames = [frame for frame in _frames(device, pieces) if frame]
    if not frames:
        raise click.UsageError("there is no byte in what was given")
    for number, frame in enumerate(frames):
        if number and not as_json:
            click.echo()
        try:
            _must_be_for(device, frame, manufacturer, service_data)
            values = device.decode(frame)
        except (BadFrame, NotReady) as error:
            worst = 1
            _print_error(error, as_json=as_json)
        else:
            _print_values(device, values, as_json=as_json)
    return worst


def _device(name: str, given: dict[str, str | None]) -> Driver:
    """Make the driver, with what a configuration would say filled in. Raises SettingsError."""
    try:
        model = driver_index.driver(name)
    except KeyError:
        raise click.UsageError(f"driver {quoted(name)} does not exist{mean(name, driver_index.names())}") from None
    fields: dict[str, Any] = {"id": "decode", "driver": name}
    if issubclass(model, OnPort):
        fields["port"] = "decode"
    if issubclass(model, Advertised):
        fields["address"] = ANY_ADDRESS
    for key, value in given.items():
        if value is not None and key not in model.model_fields:
            raise click.UsageError(f"{name} takes no --{key}")
        if value is not None:
            fields[key] = value
    file = None
    if PROFILE in model.model_fields:
        file = _profile(name, given[PROFILE])
        fields[PROFILE] = file.content
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        found = list(faults.from_pydantic(error, model))
        if file is not None and all(place[:1] == (PROFILE,) for place, _ in found):
            raise SettingsError(file.fault(place[1:], text) for place, text in found) from error
        raise click.UsageError("; ".join(text for _, text in found)) from None


def _profile(driver: str, name: str | None) -> TomlFile:
    if name is None:
        raise click.UsageError(f"{driver} needs --profile NAME{mean('', profile_names(None))}")
    if name.endswith(".toml"):
        return TomlFile(Path(name))
    try:
        return profile(name, None)
    except KeyError as error:
        raise click.UsageError(error.args[0]) from None


def _frames(device: Driver, pieces: tuple[str, ...]) -> Iterator[bytes]:
    for piece in _joined(map(_plain, pieces)):
        rest = _bytes_of(piece)
        while isinstance(device, Streamed) and (span := _frame_in(device, rest)):
            yield rest[slice(*span)]
            rest = rest[span[1] :]
            if not rest.strip():
                break
        else:
            yield rest


def _frame_in(device: Streamed, stream: bytes) -> Span | None:
    """Find the first frame; a false start before a sound one costs one byte, as it does the gateway."""
    span = first = device.seek(stream)
    while first and span and span[0] < first[1]:
        if _is_sound(device, stream[slice(*span)]):
            return span
        at = span[0] + 1
        found = device.seek(stream[at:])
        span = (found[0] + at, found[1] + at) if found else None
    return first


def _is_sound(device: Streamed, frame: bytes) -> bool:
    try:
        device.decode(frame)
    except BadFrame:
        return False
    except NotReady:
        return True
    return True


def _plain(piece: str) -> str:
    """Take away what tools put between the digits; a text stays as it is."""
    return piece if piece[:1] in TEXT else re.sub(r"0x|[\s:,-]", "", piece, flags=re.IGNORECASE)


def _joined(pieces: Iterable[str]) -> Iterator[str]:
    """Put single bytes and words together: ``aa c0 d4`` is one piece."""
    run = ""
    for piece in pieces:
        if len(piece) <= SHORT:
            run += piece
            continue
        if run:
            yield run
        run = ""
        yield piece
    if run:
        yield run


def _bytes_of(piece: str) -> bytes:
    if piece[:1] in TEXT:
        return piece.encode()
    try:
        return bytes.fromhex(piece)
    except ValueError:
        odd = re.fullmatch("[0-9A-Fa-f]*", piece) and f"it has {len(piece)} digits, and a byte has two"
        why = odd or "text of a text protocol begins with $ or ! and stands in single quotes"
        raise click.UsageError(f"{quoted(piece)} is not hex; {why}") from None


def _must_be_for(device: Driver, frame: bytes, manufacturer: int | None, service: str | None) -> None:
    """Raise BadFrame where the payload stood behind an id that the driver does not read."""
    if not isinstance(device, Advertised) or (manufacturer is None and service is None):
        return
    advert = Advert(
        device.address,
        rssi=0,
        manufacturer={} if manufacturer is None else {manufacturer: frame},
        service={} if service is None else {service: frame},
    )
    if device.payload(advert) is None:
        behind = f"company {manufacturer:#06x}" if manufacturer is not None else f"service {service}"
        reads = (
            f"company {device.MANUFACTURER:#06x}" if device.MANUFACTURER is not None else f"service {device.SERVICE}"
        )
        raise BadFrame(f"{device.driver} does not read what stands behind {behind}", hint=f"It reads {reads}.")


def _print_values(device: Driver, values: Values, *, as_json: bool) -> None:
    if as_json:
        units = {name: device.channel(name).unit for name in values}
        click.echo(json.dumps({"values": dict(values), "units": units}))
    else:
        click.echo("\n".join(table(device, values)))


def _print_error(error: DeviceError, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": type(error).__name__, "reason": str(error)}))
    else:
        click.echo(f"{error.word}: {error}. {error.hint}", err=True)

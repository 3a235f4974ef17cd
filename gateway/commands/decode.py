"""``polegate decode``: the values of a frame, without a configuration.

Each HEX is a piece of what was seen on the wire; pieces of one or two bytes, as most tools print them, are joined.
A piece may hold several frames. Text protocols may be given as text.
"""

import json
from collections.abc import Iterator
from typing import Any

import click
from pydantic import ValidationError

from drivers.contract import Advert, Advertised, BadFrame, DeviceError, Driver, NotReady, OnPort, Streamed, Values
from gateway import driver_index, faults
from gateway.faults import SettingsError, mean
from gateway.settings_file import PROFILE, profile, profile_names

SHORT = 4  # hex digits of a piece that is not a frame by itself
ANY_ADDRESS = "00:00:00:00:00:00"


@click.command("decode")
@click.argument("driver")
@click.argument("pieces", metavar="HEX...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a frame.")
@click.option("--profile", "profile_name", help="Modbus: the register map.")
@click.option("--manufacturer", type=lambda text: int(text, 0), help="Bluetooth: company id the payload stood behind.")
@click.option("--service-data", help="Bluetooth: service UUID the payload stood behind.")
@click.option("--address", help="Bluetooth: address of the sender.")
@click.option("--key", help="Bluetooth: key of an encrypted sender.")
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
    """Print the values of frames that DRIVER reads, given as HEX; exit 1 where one cannot be read."""
    device = _device(driver, {"address": address, "key": key, PROFILE: profile_name})
    worst = 0
    for frame in _frames(device, pieces):
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
    """Make the driver, with what a configuration would say filled in."""
    try:
        model = driver_index.driver(name)
    except KeyError:
        raise click.UsageError(f'driver "{name}" does not exist{mean(name, driver_index.names())}') from None
    fields: dict[str, Any] = {"id": "decode", "driver": name}
    if issubclass(model, OnPort):
        fields["port"] = "decode"
    if issubclass(model, Advertised):
        fields["address"] = ANY_ADDRESS
    for key, value in given.items():
        if value is not None and key not in model.model_fields:
            raise click.UsageError(f"{name} has no {key}")
        if value is not None:
            fields[key] = value
    if PROFILE in model.model_fields:
        fields[PROFILE] = _profile(name, given[PROFILE])
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        texts = [text for _, text in faults.from_pydantic(error, model, name)]
        raise click.UsageError("; ".join(texts)) from None


def _profile(driver: str, name: str | None) -> dict[str, Any]:
    if name is None:
        raise click.UsageError(f"{driver} needs --profile NAME{mean('', profile_names(None))}")
    try:
        return profile(name, None).content
    except KeyError as error:
        raise click.UsageError(error.args[0]) from None
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def _frames(device: Driver, pieces: tuple[str, ...]) -> Iterator[bytes]:
    for piece in _joined(pieces):
        rest = _bytes_of(piece)
        while isinstance(device, Streamed) and (span := device.seek(rest)):
            yield rest[slice(*span)]
            rest = rest[span[1] :]
            if not rest.strip():
                break
        else:
            yield rest


def _joined(pieces: tuple[str, ...]) -> Iterator[str]:
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
    if piece[:1] in {"$", "!"}:
        return piece.encode()
    try:
        return bytes.fromhex(piece.removeprefix("0x").replace(":", " "))
    except ValueError:
        raise click.UsageError(f'"{piece}" is not hex') from None


def _must_be_for(device: Driver, frame: bytes, manufacturer: int | None, service: str | None) -> None:
    """Raise BadFrame where the payload stood behind an id that the driver does not read."""
    if not isinstance(device, Advertised) or (manufacturer is None and service is None):
        return
    advert = Advert(
        device.address,
        rssi=0,
        manufacturer={} if manufacturer is None else {manufacturer: frame},
        service={} if service is None else {_uuid(service): frame},
    )
    if device.payload(advert) is None:
        behind = f"company {manufacturer:#06x}" if manufacturer is not None else f"service {service}"
        raise BadFrame(f"{device.driver} does not read what stands behind {behind}")


def _uuid(text: str) -> str:
    """Write a 16 bit UUID as the 128 bits it stands for."""
    return f"0000{text.lower()}-0000-1000-8000-00805f9b34fb" if len(text) == SHORT else text.lower()


def _print_values(device: Driver, values: Values, *, as_json: bool) -> None:
    units = {name: device.channel(name).unit for name in values}
    if as_json:
        click.echo(json.dumps({"values": dict(values), "units": units}))
        return
    width = max(map(len, values), default=0)
    for name, value in values.items():
        click.echo(f"{name:<{width}}  {'no reading' if value is None else value} {units[name]}".rstrip())
    if not values:
        click.echo("a sound frame, with nothing that is read")


def _print_error(error: DeviceError, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": type(error).__name__, "reason": str(error)}))
    else:
        click.echo(f"{type(error).__name__}: {error}. {error.hint}", err=True)

"""Values as a person at a pole reads them."""

from collections.abc import Iterator

from drivers.contract import Driver, Value, Values

READ_AS = {"lat": "deg", "lon": "deg", "/": "", "1": "", "/100": "%"}
"""Symbols of SenML that nobody says."""


def table(device: Driver, values: Values) -> Iterator[str]:
    """Write values one a line: channel, value, unit."""
    if not values:
        yield "a sound frame, with nothing in it that is read"
    width = max(map(len, values), default=0)
    for name, value in values.items():
        yield f"{name:<{width}}  {said(value, device.channel(name).unit)}"


def said(value: Value, unit: str) -> str:
    """Write a value with its unit."""
    return f"{_said(value)} {READ_AS.get(unit, unit)}".rstrip()


def _said(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "no reading" if value is None else str(value)

"""What must agree between sections that are sound each by itself: ids, ports, and who shares them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from drivers.contract import Driver, OnPort, Streamed
from gateway.faults import Fault, mean
from gateway.settings import PortSettings
from gateway.toml_file import TomlFile

Devices = Sequence[tuple[int, Driver]]
"""Each device with its index among the [[device]] sections."""


def of_names(file: TomlFile, has_port: Callable[[str], bool]) -> Iterator[Fault]:
    """Find names that stand twice or nowhere; this needs no section to be sound.

    Args:
        file: the configuration.
        has_port: tells whether the devices of a driver hang on a port.
    """
    first: dict[str, int] = {}
    ports = file.content.get("port", {})
    for index, section in enumerate(file.sections("device")):
        if not isinstance(section, dict):
            continue
        name, driver, port = section.get("id"), section.get("driver"), section.get("port")
        if isinstance(name, str) and name in first:
            text = f'[[device]] number {index + 1}: id "{name}" is that of number {first[name] + 1} already'
            yield file.fault(("device", index, "id"), f"{text}; each device needs its own")
        elif isinstance(name, str):
            first[name] = index
        if isinstance(port, str) and port not in ports and has_port(str(driver)):
            text = f"[[device]] number {index + 1}: there is no section [port.{port}]{mean(port, ports)}"
            yield file.fault(("device", index, "port"), text)


def of_ports(file: TomlFile, devices: Devices, ports: Mapping[str, PortSettings]) -> Iterator[Fault]:
    """Find ports that cannot be opened, or not as all who share them need it."""
    first: dict[str, str] = {}
    for name, port in ports.items():
        if port.path in first:
            text = f"[port.{name}]: {port.path} is [port.{first[port.path]}] already; devices may share a port"
            yield file.fault(("port", name, "path"), text)
        first.setdefault(port.path, name)
        if _exists(port.path) and not os.access(port.path, os.R_OK | os.W_OK):
            text = f"[port.{name}]: {port.path} may not be opened by this user; sudo usermod -aG dialout USER"
            yield file.fault(("port", name, "path"), text)
    for name, group in _by_port(devices).items():
        if name in ports:
            yield from _one_port(file, name, ports[name], group)


def warnings(file: TomlFile, devices: Devices, ports: Mapping[str, PortSettings]) -> Iterator[Fault]:
    """Find what may be a mistake."""
    used = _by_port(devices)
    for name, port in ports.items():
        if port.tcp is None and not _exists(port.path):
            text = f"[port.{name}]: {port.path} is not there now; it is opened as soon as it is"
            yield file.fault(("port", name, "path"), text)
        if name not in used:
            yield file.fault(("port", name), f"[port.{name}]: no device uses it")
    if not devices:
        yield file.fault((), "there is no [[device]]: the pole reports only its own state")


def _by_port(devices: Devices) -> dict[str, list[tuple[int, OnPort]]]:
    groups: dict[str, list[tuple[int, OnPort]]] = {}
    for index, device in devices:
        if isinstance(device, OnPort):
            groups.setdefault(device.port, []).append((index, device))
    return groups


def _one_port(file: TomlFile, name: str, port: PortSettings, group: list[tuple[int, OnPort]]) -> Iterator[Fault]:
    for index, device in group:
        if isinstance(device, Streamed) and len(group) > 1:
            text = f'[[device]] "{device.id}": {device.driver} talks by itself and needs a port of its own'
            yield file.fault(("device", index, "port"), text)
    if port.tcp is not None:
        return
    _, first = group[0]
    for index, device in group[1:]:
        if port.line(device.line()) != port.line(first.line()):
            text = (
                f'[[device]] "{device.id}" speaks {_said(device)} by default and "{first.id}", on the same port, '
                f"{_said(first)}; set all to one, and say so in [port.{name}]"
            )
            yield file.fault(("device", index, "port"), text)


def _said(device: OnPort) -> str:
    line = device.line()
    return f"{line.baud} baud 8{line.parity[0].upper()}{line.stop_bits}"


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110  # a device node

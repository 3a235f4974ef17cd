"""What must agree between sections that are sound each by itself, or with the pole: ids, ports, who shares them."""

import grp
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from drivers.contract import Driver, OnPort, Streamed
from gateway.config.faults import LONGEST_TEXT, Fault, mean
from gateway.config.settings import BufferSettings, PortSettings, Root
from gateway.config.toml_file import Source, sections, tables, user
from gateway.config.toml_text import key_text, visible

Devices = Sequence[tuple[int, Driver]]
"""Each device with its index among the [[device]] sections."""

BY_GROUP = stat.S_IRGRP | stat.S_IWGRP


def of_names(file: Source, has_port: Callable[[str], bool]) -> Iterator[Fault]:
    """Find names that stand twice or nowhere; this needs no section to be sound.

    Args:
        file: the configuration.
        has_port: tells whether the devices of a driver hang on a port.
    """
    first: dict[str, int] = {}
    ports = tables(file, "port")
    ports_told = ports != file.content.get("port", {})  # what is no section is told, and may be the one that is meant
    for index, section in enumerate(sections(file, "device")):
        if not isinstance(section, dict):
            continue
        name, driver, port = section.get("id"), section.get("driver"), section.get("port")
        if isinstance(name, str) and name in first:
            text = (
                f"this id stands in line {file.line(('device', first[name], 'id'))} already; each device needs its own"
            )
            yield file.fault(("device", index, "id"), text)
        elif isinstance(name, str):
            first[name] = index
        if isinstance(port, str) and port not in ports and not ports_told and has_port(str(driver)):
            yield file.fault(
                ("device", index, "port"), f"there is no section [port.{key_text(port)}]{mean(port, ports)}"
            )


def of_buffer(file: Source) -> Iterator[Fault]:
    """Find a folder that is named as the buffer: it would be moved away like a damaged one, with all that is in it.

    A folder in the place of a buffer that was there, which NAME.epoch beside it tells, the buffer mends by itself.
    """
    section = file.content.get("buffer")
    written = section.get("path") if isinstance(section, dict) else None
    if not isinstance(written, str) or not written.startswith("/"):
        return  # it is told already, or is where it is by default
    path = Path(written)
    if os.path.isdir(written) and not _exists(f"{path}.epoch"):  # noqa: PTH112  # any text
        meant = visible(str(path / BufferSettings().path.name), LONGEST_TEXT)
        yield file.fault(("buffer", "path"), f'"path" is a folder; name the file in it: "{meant}"')


def of_ports(file: Source, devices: Devices, ports: Mapping[str, PortSettings]) -> Iterator[Fault]:
    """Find ports that cannot be opened, or not as all who share them need it."""
    first: dict[str, str] = {}
    for name, port in ports.items():
        path = port.path if port.tcp else os.path.realpath(port.path)
        if path in first:
            text = f"{port.path} is [port.{first[path]}] already; remove one of the two, devices may share a port"
            yield file.fault(("port", name, "path"), text)
        elif port.tcp is None and (why := _is_no_port(port.path)):
            yield file.fault(("port", name, "path"), why)
        elif port.tcp is None and (why := _may_not_open(port.path)):
            yield replace(file.fault(("port", name, "path"), why), of_user=True)
        first.setdefault(path, name)
    for name, group in _by_port(devices).items():
        if name in ports:
            yield from _one_port(file, name, ports[name], group)


def warnings(file: Source, devices: Devices, root: Root) -> Iterator[Fault]:
    """Find what may be a mistake."""
    used = _by_port(devices)
    for name, port in root.port.items():
        if port.tcp is None and not _exists(port.path):
            text = f"{port.path} is not there now; the gateway opens it as soon as it is"
            yield file.fault(("port", name, "path"), text)
        if name not in used:
            yield file.fault(("port", name), "no device uses this port")
    for name in ("password_file", "ca_file", "cert_file", "key_file"):
        path = getattr(root.uplink, name)
        if path is not None and path.startswith("/") and not _exists(path):  # a credential is there in the service only
            yield file.fault(("uplink", name), f"{path} is not there now; the gateway does not connect without it")
    if not devices:
        yield file.fault((), "there is no [[device]]: the pole reports only its own state")


def _is_no_port(path: str) -> str:
    """Tell that what is there is something else; "" where it is not, or nothing is there: it may come."""
    node = _node(path)
    return f"{path} is no serial port; see ls -l /dev/serial/by-id" if node and not stat.S_ISCHR(node.st_mode) else ""


def _may_not_open(path: str) -> str:
    """Tell why this user cannot open a port that is there; "" where he can."""
    node = _node(path)
    if node is None or os.access(path, os.R_OK | os.W_OK):
        return ""
    step = f"see ls -l {path}"
    if node.st_mode & BY_GROUP == BY_GROUP:
        step = f"sudo usermod -aG {_group(node.st_gid)} {user()}, then log in again"
    return f"{path} may not be opened by user {user()}; {step}"


def _node(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116  # a device node
    except OSError:
        return None


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _by_port(devices: Devices) -> dict[str, list[tuple[int, OnPort]]]:
    groups: dict[str, list[tuple[int, OnPort]]] = {}
    for index, device in devices:
        if isinstance(device, OnPort):
            groups.setdefault(device.port, []).append((index, device))
    return groups


def _one_port(file: Source, name: str, port: PortSettings, group: list[tuple[int, OnPort]]) -> Iterator[Fault]:
    for index, device in group:
        for key, text in device.misfits("serial" if port.tcp is None else "tcp").items():
            yield file.fault(("device", index, key), text)
        if isinstance(device, Streamed) and len(group) > 1:
            other = next(other.id for _, other in group if other is not device)
            text = f'{device.driver} talks by itself and needs a port of its own; "{other}" is on [port.{name}] too'
            yield file.fault(("device", index, "port"), text)
    if port.tcp is not None:
        return
    _, first = group[0]
    for index, device in group[1:]:
        if port.line(device.line()) != port.line(first.line()):
            text = (
                f'it speaks {_said(device)} and "{first.id}", on the same port, {_said(first)}; '
                f"set the devices alike and write their baud, parity and stop_bits into [port.{name}]"
            )
            yield file.fault(("device", index, "port"), text)


def _said(device: OnPort) -> str:
    line = device.line()
    return f"{line.baud} baud 8{line.parity[0].upper()}{line.stop_bits}"


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110  # a device node

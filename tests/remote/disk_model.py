"""A disk that may lose power: what the gateway did to a folder, and every folder that a cut could leave behind.

What was written and not brought to the disk may be lost, torn or there; what was created, renamed or removed in a
folder that was not brought to the disk may have happened or not, each for itself.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

Image = dict[str, bytes]


@dataclass(slots=True)
class _File:
    durable: bytes = b""
    content: bytes = b""

    def versions(self) -> list[bytes]:
        if self.content == self.durable:
            return [self.content]
        torn = self.content[: len(self.content) // 2] + bytes(len(self.content) - len(self.content) // 2)
        return [self.durable, self.content[: len(self.content) // 2], torn, self.content]


@dataclass(slots=True)
class Disk:
    """Stands in for ``os`` in the door to the folder, and notes what is done.

    Attributes:
        ops: what was done, in order.
        begin: how many of them lie before any cut.
    """

    ops: list[tuple[Any, ...]] = field(default_factory=list)
    begin: int = 0
    _names: dict[str, int] = field(default_factory=dict)
    _open: dict[int, int | None] = field(default_factory=dict)
    _count: int = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any function of os
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        """Note which file is opened; None: a folder."""
        handle = os.open(path, flags, mode)
        self._open[handle] = None
        if not flags & os.O_DIRECTORY:
            if path.name not in self._names:
                self._count += 1
                self._names[path.name] = self._count
                self.ops.append(("name", path.name, self._count))
            self._open[handle] = self._names[path.name]
            if flags & os.O_TRUNC:
                self.ops.append(("truncate", self._names[path.name]))
        return handle

    def write(self, handle: int, data: bytes) -> int:
        """Write a part, as a kernel may."""
        part = data[: max(1, len(data) // 2)] if len(data) > 40 else data
        self.ops.append(("write", self._open[handle], bytes(part)))
        return os.write(handle, part)

    def fsync(self, handle: int) -> None:
        """Note it; there is no need to do it."""
        number = self._open[handle]
        self.ops.append(("folder",) if number is None else ("sync", number))

    def close(self, handle: int) -> None:
        """Forget the handle."""
        del self._open[handle]
        os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """Note it."""
        number = self._names.pop(old.name)
        self._names[new.name] = number
        self.ops.append(("rename", old.name, new.name, number))
        os.rename(old, new)  # noqa: PTH104  # what it stands for

    def unlink(self, path: Path) -> None:
        """Note it."""
        self._names.pop(path.name, None)
        self.ops.append(("unlink", path.name))
        os.unlink(path)  # noqa: PTH108  # what it stands for

    def noting(self) -> Any:  # noqa: ANN401  # a patch
        """Stand in for ``os``."""
        return mock.patch("gateway.remote.config_folder.os", self)

    @classmethod
    def holding(cls, image: Image) -> "Disk":
        """Begin with what a cut left."""
        disk = cls()
        for name, content in image.items():
            disk._count += 1
            disk._names[name] = disk._count
            disk.ops += [("name", name, disk._count), ("write", disk._count, content), ("sync", disk._count)]
        disk.ops.append(("folder",))
        disk.begin = len(disk.ops)
        return disk


def images(ops: list[tuple[Any, ...]]) -> list[Image]:
    """Return each folder that a cut after these could leave, once."""
    files: dict[int, _File] = {}
    durable: dict[str, int] = {}
    pending: list[tuple[Any, ...]] = []
    for op in ops:
        match op:
            case ("name", _, number):
                files[number] = _File()
                pending.append(op)
            case ("truncate", number):
                files[number].content = b""
            case ("write", number, data):
                files[number].content += data
            case ("sync", number):
                files[number].durable = files[number].content
            case ("folder",):
                durable = _names(durable, pending)
                pending = []
            case _:
                pending.append(op)
    found = {}
    for kept in _subsets(pending):
        names = _names(durable, kept)
        choices = [files[number].versions() for number in names.values()]
        for contents in itertools.product(*choices):
            image = dict(zip(names, contents, strict=True))
            found[tuple(sorted(image.items()))] = image
    return list(found.values())


def _subsets(ops: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    for length in range(len(ops) + 1):
        for chosen in itertools.combinations(ops, length):
            yield list(chosen)


def _names(before: dict[str, int], ops: list[tuple[Any, ...]]) -> dict[str, int]:
    names = dict(before)
    for op in ops:
        match op:
            case ("name", name, number):
                names[name] = number
            case ("rename", old, new, number):
                names.pop(old, None)
                names[new] = number
            case (_, name):
                names.pop(name, None)
            case _:
                raise AssertionError(op)
    return names


def lay(image: Image, folder: Path) -> None:
    """Make a folder of an image."""
    folder.mkdir()
    for name, content in image.items():
        (folder / name).write_bytes(content)

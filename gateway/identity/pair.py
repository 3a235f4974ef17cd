"""A key and its certificate on the disk, where `key_file` and `cert_file` name them. Both are switched in one step.

The first certificate turns the two names into links, as Kubernetes does with its secrets::

    /etc/polegate/pole.key -> identity/current/pole.key
    /etc/polegate/pole.pem -> identity/current/pole.pem
    /etc/polegate/identity/current -> 2          what a rename switches
    /etc/polegate/identity/1/, .../2/            the pair before, the pair of now; each with its pole.key and pole.pem
    /etc/polegate/pole.key.new                   a key that waits for its certificate

A power cut at any point leaves a key and the certificate that belongs to it: a pair is whole on the disk before
``current`` names it. What lies under the two names already, whoever put it there, becomes a pair of its own first, so
that making links of the names changes nothing that is read.
"""

import contextlib
import fcntl
import grp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.host import durable

GROUP = "polegate"
CURRENT = "current"
KEY, CERT = "pole.key", "pole.pem"


class Pair(NamedTuple):
    """What lies in the files, in PEM; None: there is no such file."""

    key: bytes | None
    cert: bytes | None


class PairFiles:
    """The files.

    Attributes:
        key: where the private key is.
        cert: where the certificate is.
        next_key: where a key waits for its certificate.
    """

    def __init__(self, key: Path, cert: Path, *, shared: bool) -> None:
        """Set it; nothing is read yet.

        Args:
            key: where the private key is.
            cert: where the certificate is.
            shared: whether the user of the service reads the key itself; else root alone does.
        """
        self.key = key
        self.cert = cert
        self.next_key = key.with_name(f"{key.name}.new")
        self._group = _group() if shared else None
        self._folder = key.parent / "identity"
        self._current = self._folder / CURRENT

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing the files meanwhile. Raises OSError."""
        descriptor = os.open(self.key.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Pair:
        """Read what is in use. Raises OSError."""
        return Pair(_content(self.key), _content(self.cert))

    def read_next(self) -> bytes | None:
        """Read the key that waits for its certificate. Raises OSError."""
        return _content(self.next_key)

    def add_key(self, path: Path, pem: bytes) -> None:
        """Put a key where none is. Raises OSError."""
        new = path.with_name(f"{path.name}.part")
        new.unlink(missing_ok=True)
        self._write_key(new, pem)
        new.rename(path)
        durable.sync_folder(path.parent)

    def install(self, key: bytes, cert: bytes) -> None:
        """Put a key and its certificate in the place of those in use. Raises OSError."""
        if self.read() != Pair(key, cert):
            before = self._adopted()
            self._switch_to(self._add(Pair(key, cert)))
            for path, name in ((self.key, KEY), (self.cert, CERT)):
                self._link(path, name)
            self._keep_only(before, self._current.readlink().name)
        if self.read_next() == key:
            self.next_key.unlink()
            durable.sync_folder(self.next_key.parent)

    def _adopted(self) -> str | None:
        """Make a pair of what lies under the two names, and links of these; return its folder's name."""
        places = [(self.key, KEY), (self.cert, CERT)]
        present = [(path, name) for path, name in places if path.exists()]
        if not all(_links_to(path, self._current / name) for path, name in present):
            self._switch_to(self._add(self.read()))
            for path, name in present:
                self._link(path, name)
        return self._current.readlink().name if self._current.is_symlink() else None

    def _add(self, pair: Pair) -> str:
        """Write a pair into a folder of its own; return that one's name."""
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(0o755)
        number = 1 + max((int(each.name) for each in self._folder.iterdir() if each.name.isdecimal()), default=0)
        new = self._folder / f"{number}.part"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        new.chmod(0o755)
        if pair.key is not None:
            self._write_key(new / KEY, pair.key)
        if pair.cert is not None:
            _write(new / CERT, pair.cert, 0o644)
        durable.sync_folder(new)
        new.rename(self._folder / str(number))
        durable.sync_folder(self._folder)
        durable.sync_folder(self._folder.parent)
        return str(number)

    def _switch_to(self, name: str) -> None:
        _replace_link(self._current, name)

    def _link(self, path: Path, name: str) -> None:
        target = self._current / name
        if not _links_to(path, target):
            _replace_link(path, target.relative_to(path.parent) if target.is_relative_to(path.parent) else target)

    def _keep_only(self, *names: str | None) -> None:
        for each in self._folder.iterdir():
            if each.name not in {*names, CURRENT}:
                shutil.rmtree(each)

    def _write_key(self, path: Path, pem: bytes) -> None:
        _write(path, pem, 0o600 if self._group is None else 0o640, self._group)


def _write(path: Path, data: bytes, mode: int, group: int | None = None) -> None:
    """Write a new file to the disk; nobody else can ever open it before it has its mode."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if group is not None:
            os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace_link(path: Path, target: str | Path) -> None:
    new = path.with_name(f"{path.name}.part")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.rename(path)
    durable.sync_folder(path.parent)


def _links_to(path: Path, target: Path) -> bool:
    return path.is_symlink() and path.parent / path.readlink() == target


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _group() -> int | None:
    """Return the number of the service's group; None where there is none, or we may not give it files."""
    if os.geteuid():
        return None
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None

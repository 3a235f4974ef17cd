"""A door: the folder in which documents and their state outlive power cuts.

``state.a`` and ``state.b`` are written in turn, each with the hash of the rest in its first line and a generation: one
that rots costs a generation, not all. ``obj-<sha256>`` are documents, ``root-000002`` roots of trust that came later,
``overrides`` what technicians set for some hours; that file is written by ``polegate override`` and only read by the
gateway. Every file is written beside its place, brought to the disk, renamed, and the folder brought to the disk.

What writes here waits for the disk. The running gateway writes by :class:`gateway.remote.config_ledger.Ledger` only,
which does so beside the event loop.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.remote import override
from gateway.remote.config_state import LOCAL, State
from gateway.remote.document import Document, digest, parsed
from gateway.remote.override import Override

SLOTS = "state.a", "state.b"
LAYOUT = 1
OBJECT, ROOT, NEW = "obj-", "root-", ".new"
OVERRIDES = "overrides"


class NewerState(Exception):
    """A newer polegate wrote the state. It is not touched."""


class InUse(Exception):
    """Another gateway has the folder; the message says so."""


@contextlib.contextmanager
def kept_from_others(path: Path) -> Iterator[None]:
    """Let no other gateway have a folder: a start of that one would count in a trial of this one. Raises InUse."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # no state can be kept there either; that is told where it is tried
        yield
        return
    try:
        _lock(path, folder)
        yield
    finally:
        os.close(folder)


def _lock(path: Path, folder: int) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        text = (
            "stop that, or give this one another `path` in [buffer], or another `state` in [remote] where that is set"
        )
        raise InUse(f"{path} is in use by another gateway; {text}") from error


class ConfigFolder:
    """The folder."""

    def __init__(self, path: Path) -> None:
        """Name it; it need not be there."""
        self._path = path
        self._slots: dict[str, State] = {}
        self._generation = 0
        self._next = SLOTS[0]

    def must_be_readable(self) -> None:
        """Look whether this user may read it: what may not be read looks as if it was not there.

        Raises:
            PermissionError: he may not.
        """
        with contextlib.suppress(FileNotFoundError):
            for name in {*SLOTS, OVERRIDES} & {*os.listdir(self._path)}:  # noqa: PTH208  # as in ``clean``
                (self._path / name).open("rb").close()

    def load(self) -> State:
        """Read the newest state that is whole; an empty one where there is none. Raises NewerState."""
        found = {slot: content for slot in SLOTS if (content := _content(self.read(slot)))}
        for content in found.values():
            if isinstance(layout := content["state"].get("layout"), int) and layout > LAYOUT:
                text = f"{self._path} was written by a newer polegate; install that one, or empty the folder"
                raise NewerState(text)
        states = {}
        for slot, content in found.items():
            with contextlib.suppress(ValidationError):
                states[slot] = (content["generation"], State.model_validate(content["state"]))
        self._slots = {slot: state for slot, (_, state) in states.items()}
        if not states:
            return State()
        newest = max(states, key=lambda slot: states[slot][0])
        self._generation = states[newest][0]
        self._next = SLOTS[1 - SLOTS.index(newest)]
        return self._slots[newest]

    def save(self, state: State) -> None:
        """Bring a state to the disk. Raises OSError."""
        # Without what is as it is by default: so an older polegate reads it where nothing is used that is new
        content = {"generation": self._generation + 1, "state": state.model_dump(exclude_defaults=True)}
        body = json.dumps(content).encode()
        self.put(self._next, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        self._generation += 1
        self._slots[self._next] = state
        self._next = SLOTS[1 - SLOTS.index(self._next)]

    def keep(self, payload: bytes) -> str:
        """Bring a document to the disk, and return what it is known by. Raises OSError."""
        sha = digest(payload)
        if self.document(sha) is None:
            self.put(OBJECT + sha, payload)
        return sha

    def document(self, sha: str) -> bytes | None:
        """Return a document; None where it is not there, or damaged."""
        payload = self.read(OBJECT + sha) if sha else None
        return payload if payload is not None and digest(payload) == sha else None

    def own(self) -> str | None:
        """Return the pole's own file as it was in force last; None where that is not known. Raises NewerState."""
        own = self.document(self.load().of(LOCAL).active)
        return None if own is None else own.decode()

    def layers(self, state: State) -> tuple[str | None, dict[str, Document]]:
        """Return the pole's own file and the documents that a state has in force; what is damaged is left out."""
        own = self.document(state.of(LOCAL).active)
        payloads = {name: self.document(each.active) for name, each in state.streams.items() if name != LOCAL}
        documents = {name: parsed(payload) for name, payload in payloads.items() if payload is not None}
        return None if own is None else own.decode(), documents

    def overrides(self) -> list[Override]:
        """Return what technicians set for some hours. Raises ValueError where the file is damaged."""
        return override.read(self.read(OVERRIDES))

    def keep_overrides(self, overrides: Sequence[Override]) -> None:
        """Bring it to the disk. Raises OSError."""
        self.put(OVERRIDES, override.written(overrides))

    def keep_root(self, version: int, raw: bytes) -> None:
        """Bring a root of trust to the disk. Raises OSError."""
        self.put(_root_name(version), raw)

    def root(self, version: int) -> bytes | None:
        """Return a root of trust that came later; None where there is none."""
        return self.read(_root_name(version))

    def clean(self) -> None:
        """Remove what neither state needs."""
        needed = {OBJECT + sha for state in self._slots.values() for sha in state.documents}
        with contextlib.suppress(OSError):  # what is left does no harm
            for name in os.listdir(self._path):  # noqa: PTH208  # seen by the tests' model of a disk
                unfinished = name.endswith(NEW) and not name.startswith(OVERRIDES)  # that one is another program's
                if (name.startswith(OBJECT) and name not in needed) or unfinished:
                    os.unlink(self._path / name)  # noqa: PTH108  # the same

    def read(self, name: str) -> bytes | None:
        """Return a file; None where it cannot be read."""
        try:
            return (self._path / name).read_bytes()
        except OSError:
            return None

    def put(self, name: str, data: bytes) -> None:
        """Bring a file to the disk, whole or not at all. Raises OSError."""
        new = self._path / (name + NEW)
        if not self._path.is_dir():
            self._path.mkdir(mode=0o700, parents=True)
            _sync(self._path.parent)
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            if os.geteuid() == 0:  # a technician's file is for the gateway to read
                owner = self._path.stat()
                os.fchown(file, owner.st_uid, owner.st_gid)
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(new, self._path / name)  # noqa: PTH104  # seen by the tests' model of a disk
        _sync(self._path)


def _sync(path: Path) -> None:  # with the `os` of this file, for which the tests have a model of a disk
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _content(file: bytes | None) -> dict[str, Any] | None:
    """Read a slot; None where it is damaged."""
    head, _, body = (file or b"").partition(b"\n")
    if head != hashlib.sha256(body).hexdigest().encode():
        return None
    content: dict[str, Any] = json.loads(body)
    return content


def _root_name(version: int) -> str:
    return f"{ROOT}{version:06}"

"""A TOML file as a person wrote it: its content, and where each key stands."""

import functools
import os
import pwd
from pathlib import Path
from typing import Any, Protocol

from gateway.config import toml_syntax, toml_text
from gateway.config.faults import Fault, NotProvisioned, SettingsError, mean
from gateway.config.toml_text import key_text, quoted

LARGEST_BYTES = 262_144
NAMES = ("id", "channel")  # keys that a [[section]] is called by


class Source(Protocol):
    """Where a configuration comes from: a file, or several that lie over one another.

    Attributes:
        name: what a person calls it.
        content: what it holds.
        folder: where the files are that it names.
    """

    name: str
    content: dict[str, Any]
    folder: Path

    def line(self, place: toml_text.Path) -> int:
        """Return the line of a place; 0 where there is none."""

    def fault(self, place: toml_text.Path, text: str) -> Fault:
        """Blame a place."""


def sections(source: Source, name: str) -> list[Any]:
    """Return the sections [[name]]; none where something else stands under that name."""
    found = source.content.get(name)
    return found if isinstance(found, list) else []


def tables(source: Source, name: str) -> dict[str, Any]:
    """Return the sections [name.X] by X; none where something else stands under that name."""
    found = source.content.get(name)
    return {key: table for key, table in found.items() if isinstance(table, dict)} if isinstance(found, dict) else {}


def read(path: Path) -> str:
    """Read the text of a TOML file, without what Windows editors put into it. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
        if len(data) > LARGEST_BYTES:
            text = f"has more than {LARGEST_BYTES:,} bytes; a configuration has a few thousand. Is it the right file?"
            raise _unusable(path, text)
        return _plain(data.decode())
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        text = f"byte {error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise _unusable(path, text, line) from error
    except FileNotFoundError as error:
        near = f"; there is no folder {path.parent}"
        if path.parent.is_dir():
            near = mean(path.name, (other.name for other in path.parent.glob("*.toml")))
        raise NotProvisioned([Fault(str(path), 0, f"is not there{near}")]) from error
    except IsADirectoryError as error:
        raise _unusable(path, "is a folder; name the file in it") from error
    except PermissionError as error:
        text = f"may not be read by user {user()}; see ls -l {path}"
        raise SettingsError([Fault(str(path), 0, text, of_user=True)]) from error
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error


def _plain(text: str) -> str:
    """Take away the mark that Windows editors put before a text, and what they put before the end of a line."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _unusable(path: Path, text: str, line: int = 0) -> SettingsError:
    return SettingsError([Fault(str(path), line, text)])


class TomlFile:
    """A TOML file that parses, and where its keys stand."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        """Read it, or a text that stands for it. Raises SettingsError."""
        self.name = str(path)
        self.folder = path.parent
        # What ends without a newline is told as "at end of document" instead of by its line.
        self._text = (read(path) if text is None else _plain(text)) + "\n"
        try:
            self.content = toml_syntax.parse(self._text)
        except toml_syntax.Unreadable as error:
            raise _unusable(path, f"cannot be read: {error}", error.line) from error

    def line(self, place: toml_text.Path) -> int:
        """Return the line of a place, or of the nearest section around it; 0 where there is none."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 0)

    def fault(self, place: toml_text.Path, text: str) -> Fault:
        """Blame a place: name its section, and its line."""
        return Fault(self.name, self.line(place), self._label(place) + text)

    @functools.cached_property
    def _lines(self) -> dict[toml_text.Path, int]:
        return toml_text.lines_of(self._text)

    def _label(self, place: toml_text.Path) -> str:
        """Call the section a place lies in as the file does: ``[port.rs485]: ``, ``[[device]] "meter": ``."""
        here: Any = self.content
        header = label = ""
        if len(place) == 1:
            return ""  # the section itself is to blame
        for step in place:
            try:
                here = here[step]
            except (LookupError, TypeError):
                break
            if isinstance(step, str) and isinstance(here, dict | list):
                header = f"{header}.{key_text(step)}" if header else key_text(step)
            if isinstance(here, dict) and isinstance(step, int):
                names = (quoted(here[name]) for name in NAMES if isinstance(here.get(name), str))
                return f"[[{header}]] {next(names, f'number {step + 1}')}: "
            if isinstance(here, dict):
                label = f"[{header}]: "
        return label


def user() -> str:
    """Return the name of the user we are."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())

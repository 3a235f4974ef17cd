"""A TOML file as a person wrote it: its content, and where each key stands."""

import tomllib
from pathlib import Path
from typing import Any

from gateway import faults, toml_text
from gateway.faults import Fault, SettingsError

LARGEST_BYTES = 1_048_576


class TomlFile:
    """A TOML file that parses, and where its keys stand."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises SettingsError."""
        self.name = str(path)
        text = self._read(path)
        try:
            self.content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError([Fault(self.name, *faults.syntax(error))]) from error
        if not self.content:
            raise self._unusable("is empty; begin with config/minimal.toml")
        self._lines = toml_text.lines_of(text)

    def sections(self, name: str) -> list[Any]:
        """Return the sections [[name]]; none where something else stands under that name."""
        found = self.content.get(name)
        return found if isinstance(found, list) else []

    def fault(self, place: toml_text.Path, text: str) -> Fault:
        """Blame a place: its line, or that of the nearest section around it."""
        while place and place not in self._lines:
            place = place[:-1]
        return Fault(self.name, self._lines.get(place, 0), text)

    def _read(self, path: Path) -> str:
        try:
            size = path.stat().st_size
            if size > LARGEST_BYTES:
                raise self._unusable(f"has {size:,} bytes; a configuration has a few thousand. Is it the right file?")
            return path.read_bytes().decode()
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            bad = error.object[error.start]
            text = f"byte {bad:02x} is not UTF-8; save the file as UTF-8"
            raise SettingsError([Fault(self.name, line, text)]) from error
        except FileNotFoundError as error:
            raise self._unusable("is not there") from error
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from error

    def _unusable(self, text: str) -> SettingsError:
        return SettingsError([Fault(self.name, 0, text)])

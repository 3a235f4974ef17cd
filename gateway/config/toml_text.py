"""Where in a TOML text each key stands, which tomllib does not tell; and how its words are shown to a person.

One pass over the strings, comments and brackets of a text finds its keys; what lies between them is keys and plain
values. The time it takes grows with the text, whatever stands in it.
"""

import datetime as dt
import os
import re
import tomllib
from collections.abc import Iterator, Mapping

Path = tuple[str | int, ...]

TOKEN = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:"{3,5}|\Z)'
    r"|'''(?:[^']++|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]++|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+"
    r"|[\[\]{}=,\n]",
    re.DOTALL,
)
KEY = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')"""
PARTS = re.compile(KEY)
DOT = r"[ \t]*+\.[ \t]*+"
HEADER = re.compile(rf"\[(\[?)[ \t]*+({KEY}(?:{DOT}{KEY})*+)")
SHOWN = 60  # characters of what stands in the file


def quoted(text: str) -> str:
    """Put a text of the file in quotes."""
    return f'"{visible(text, SHOWN)}"'


def visible(text: str, most: int) -> str:
    """Cut a text where it is long, and write out what could steer a terminal."""
    shown = text if len(text) <= most else text[:most] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def key_text(text: str) -> str:
    """Write a key as it stands in the file: in quotes where it must."""
    return text if re.fullmatch("[A-Za-z0-9_-]{1,60}", text) else quoted(text)


def in_toml(value: object) -> str:
    """Write a value as it stands in a file."""
    match value:
        case bool():
            return str(value).lower()
        case str() | os.PathLike():
            return quoted(str(value))
        case list() | tuple():
            return f"[{', '.join(map(in_toml, value))}]"
        case Mapping():
            return f"{{{', '.join(f'{key} = {in_toml(inner)}' for key, inner in value.items())}}}"
        case dt.date():
            return value.isoformat()
        case _:
            return str(value)


def lines_of(text: str) -> dict[Path, int]:
    """Map each table and key of a sound TOML text to the line, from 1, where it first stands.

    An element of an array that is a table or an array is named by its index: ``("device", 0, "id")``.
    """
    scan = _Scan(text)
    for match in TOKEN.finditer(text):
        scan.take(match[0], match.start(), match.end())
    return scan.places


class _Inside:
    """What is open: an array, with the number of its present element, or an inline table."""

    __slots__ = ("index", "is_array", "path")

    def __init__(self, path: Path, *, is_array: bool) -> None:
        self.path = path
        self.is_array = is_array
        self.index = 0


class _Scan:
    """The state of one pass.

    ``_start`` is where the present key begins; None where no key can begin.
    """

    def __init__(self, text: str) -> None:
        self.places: dict[Path, int] = {}
        self._text = text
        self._counts: dict[Path, int] = {}
        self._inside: list[_Inside] = []
        self._line = 1
        self._start: int | None = 0
        self._header = False
        self._table: Path = ()
        self._value: Path = ()

    def take(self, mark: str, start: int, end: int) -> None:
        """Take the next mark."""
        if mark == "\n":
            self._line += 1
            if not self._inside:
                self._start, self._header = end, False
        elif mark[0] in "\"'#":
            self._line += mark.count("\n")
        elif self._header:
            pass  # the brackets of [x] and [[x]], which were read at the first
        elif mark == "=":
            self._equals(start)
        elif mark in "[{":
            self._open(mark, start, end)
        elif mark in "]}":
            self._inside.pop()
            self._start = None
        elif self._inside[-1].is_array:
            self._inside[-1].index += 1
        else:
            self._start = end

    def _equals(self, end: int) -> None:
        value = self._inside[-1].path if self._inside else self._table
        for part in _keys(self._text[self._start : end]):
            value = (*value, part)
            self.places.setdefault(value, self._line)
        self._value = value
        self._start = None

    def _open(self, mark: str, start: int, end: int) -> None:
        if not self._inside and self._start is not None:
            self._section(start)
            return
        path = self._value
        if self._inside and self._inside[-1].is_array:
            path = (*self._inside[-1].path, self._inside[-1].index)
            self.places[path] = self._line
        self._inside.append(_Inside(path, is_array=mark == "["))
        self._start = end if mark == "{" else None

    def _section(self, start: int) -> None:
        self._header = True
        found = HEADER.match(self._text, start)
        if found is None:
            return  # not sound
        self._table = ()
        keys = list(_keys(found[2]))
        for place, part in enumerate(keys, 1):
            self._table = (*self._table, part)
            self.places.setdefault(self._table, self._line)
            if self._table in self._counts and place < len(keys):  # [device.x] is in the last device
                self._table = (*self._table, self._counts[self._table])
        if found[1]:
            self._counts[self._table] = self._counts.get(self._table, -1) + 1
            self._table = (*self._table, self._counts[self._table])
            self.places[self._table] = self._line


def _keys(text: str) -> Iterator[str]:
    """Read a key, dotted or not."""
    for part in PARTS.findall(text):
        if part[0] not in "\"'":
            yield part
        elif part[0] == "'" or "\\" not in part:
            yield part[1:-1]
        else:
            yield next(iter(tomllib.loads(f"{part}=0")))

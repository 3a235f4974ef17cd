"""Where in a TOML text each key stands, which tomllib does not tell.

The text is cut into statements, and each statement is parsed by itself with tomllib: the shortest run of lines that
parses is one. No grammar of our own is needed, and multi-line strings and arrays come out right.
"""

import tomllib
from typing import Any

Path = tuple[str | int, ...]


def lines_of(text: str) -> dict[Path, int]:
    """Map each table and key of a sound TOML text to the line, from 1, where its statement begins.

    An element of an array of tables is named by its index: ``("device", 0, "id")``.
    """
    places: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, statement in _statements(text):
        keys = _keys(tomllib.loads(statement))
        if statement.lstrip().startswith("["):
            table = _indexed(keys, counts)
            if statement.lstrip().startswith("[["):
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            keys = ()
        for depth in range(len(keys) + 1):
            places.setdefault(table + keys[:depth], number)
    return places


def _statements(text: str) -> list[tuple[int, str]]:
    statements = []
    lines = text.splitlines()
    start = 0
    while start < len(lines):
        stripped = lines[start].strip()
        end = start + 1
        if stripped and not stripped.startswith("#"):
            while not _parses("\n".join(lines[start:end])) and end < len(lines):
                end += 1
            statements.append((start + 1, "\n".join(lines[start:end])))
        start = end
    return statements


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _keys(parsed: dict[str, Any]) -> Path:
    """Return the path of the one key in a parsed statement; a value that is itself a table counts as value."""
    keys: list[str | int] = []
    value: Any = parsed
    while isinstance(value, dict) and len(value) == 1:
        key, value = next(iter(value.items()))
        keys.append(key)
    return tuple(keys)


def _indexed(keys: Path, counts: dict[Path, int]) -> Path:
    """Put in the indices of the arrays of tables that a header passes through: ``[device.x]`` is in the last device."""
    path: Path = ()
    for place, key in enumerate(keys):
        path = (*path, key)
        if path in counts and place < len(keys) - 1:
            path = (*path, counts[path])
    return path

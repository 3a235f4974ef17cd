"""What is wrong with a file, in the words of the file, with the line and the next step."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from drivers.contract import ADDRESS_PATTERN, NAME_PATTERN
from gateway.toml_text import Path

PATTERNS = {
    NAME_PATTERN: "begins with a letter or digit and holds only letters, digits, - and _, 63 at the most",
    ADDRESS_PATTERN: "is written AA:BB:CC:DD:EE:FF",
}
SYNTAX = {
    "Invalid value": "a text stands in quotes, a number does not; true and false are small",
    "Expected '='": "a line is KEY = VALUE, [SECTION] or # a comment",
    "Invalid statement": "a line is KEY = VALUE, [SECTION] or # a comment",
    "Expected ']'": "a bracket is not closed",
    "Unclosed": "a bracket or brace is not closed",
    "Illegal character": "a quote is not closed, or a character stands outside of quotes",
    "Unterminated": "a quote is not closed",
    "Cannot overwrite": "this key stands twice in its section; remove one",
    "Cannot declare": "this section stands twice; join the two",
    "Expected newline": "something stands behind the value; a comment begins with #",
    "Unescaped '\\'": "write \\\\ for a backslash, or use single quotes",
}


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        file: as it was named.
        line: from 1; 0 where no line is to blame.
        text: what is wrong and what to do.
    """

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        """Put it as compilers do: file, line, text."""
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class SettingsError(Exception):
    """A file that cannot be used, with all its faults."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(set(faults))
        super().__init__("\n".join(map(str, self.faults)))


def mean(word: str, known: Iterable[str]) -> str:
    """Return a hint to the known word that is meant: ``; did you mean "x"?``, or all there are if they are few."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; there is {_list(known)}" if known else ""


def syntax(error: tomllib.TOMLDecodeError) -> tuple[int, str]:
    """Put a TOML syntax error in words: line and text."""
    message, _, place = str(error).partition(" (at ")
    step = next((step for start, step in SYNTAX.items() if message.startswith(start)), "see https://toml.io")
    line = re.search(r"line (\d+)", place)
    return int(line[1]) if line else 0, f"not TOML: {message.lower()}. Here: {step}."


def from_pydantic(error: ValidationError, model: type[BaseModel], what: str) -> Iterable[tuple[Path, str]]:
    """Put what pydantic found in words.

    Args:
        error: what it raised.
        model: what was validated; it knows the keys.
        what: how to call the section.

    Returns:
        Where in the section, and the text.
    """
    for details in error.errors(include_url=False):
        loc = tuple(details["loc"]) + tuple(details.get("ctx", {}).get("at", ()))
        yield loc, f"{what}: {_text(details, model)}"


def _text(error: ErrorDetails, model: type[BaseModel]) -> str:
    loc, given = error["loc"], error["input"]
    key = str(loc[-1]) if loc else ""
    match error["type"]:
        case "missing":
            return f'key "{key}" is missing'
        case "extra_forbidden":
            return f'"{key}" is not a known key{mean(key, _keys(model, loc[:-1]))}'
        case "literal_error":
            choices = re.findall("'([^']*)'|([0-9]+)", error["ctx"]["expected"])
            return f'"{key}" cannot be {_show(given)}{mean(str(given), map("".join, choices))}'
        case "string_pattern_mismatch":
            rule = PATTERNS.get(error["ctx"]["pattern"], "has another form")
            what = "its name" if key == "[key]" else f'"{key}"'  # [key] is how pydantic blames the name of a section
            return f"{what} {rule}; {_show(given)} does not"
        case "value_error":
            return str(error["ctx"]["error"])
        case kind:
            limit = next(iter(error.get("ctx", {}).values()), "")
            rule = RULES.get(kind, error["msg"]).format(limit=limit)
            return f'"{key}" must be {rule}, not {_show(given)}' if kind in RULES else f'"{key}": {rule}'


RULES = {
    "string_type": "a text in quotes",
    "int_type": "a whole number without quotes",
    "int_from_float": "a whole number",
    "float_type": "a number without quotes",
    "bool_type": "true or false without quotes",
    "dict_type": "a section",
    "model_type": "a section",
    "list_type": "a list in [ ]",
    "tuple_type": "a list in [ ]",
    "greater_than": "more than {limit}",
    "greater_than_equal": "{limit} or more",
    "less_than": "less than {limit}",
    "less_than_equal": "{limit} or less",
    "finite_number": "a finite number",
}


def _show(value: Any) -> str:  # noqa: ANN401  # whatever stands in a TOML file
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= SHOWN else f'"{value[:SHOWN]}..."'
    return str(value) if isinstance(value, int | float) else "a section" if isinstance(value, Mapping) else "a list"


SHOWN = 40


def _list(words: list[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _keys(model: type[BaseModel], loc: Path) -> list[str]:
    """Return the keys that are known at a place below a model."""
    if not loc:
        return [field.alias or name for name, field in model.model_fields.items()]
    if isinstance(loc[0], int):
        return _keys(model, loc[1:])
    for name, field in model.model_fields.items():
        if loc[0] == (field.alias or name) and (inner := _model_in(field.annotation)):
            return _keys(inner, loc[1:])
    return []


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  # any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _model_in(inner))), None)

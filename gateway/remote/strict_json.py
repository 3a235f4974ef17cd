"""JSON from who is not trusted yet: its size, depth and letters are looked at before anything is made of it."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config.faults import from_pydantic
from gateway.config.toml_text import Path
from gateway.remote.verdict import Code, Rejected

LARGEST_BYTES = 262_144
MOST_DEPTH = 16
TEXT = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
BRACKETS = re.compile(r"[\[\]{}]")

Model = TypeVar("Model", bound=BaseModel)


class Misfit(Rejected):
    """It is read, and is not what it should be. The text tells the first fault.

    Attributes:
        what: it should be.
    """

    def __init__(self, what: str, model: type[BaseModel], error: ValidationError) -> None:
        self.what = what
        self._model, self._error = model, error
        place, text = next(self.found())
        above = f"{'.'.join(map(str, place[:-1]))}: " if place[:-1] else ""
        super().__init__(Code.PARSE, f"it is no {what}: {above}{text}")

    def found(self) -> Iterator[tuple[Path, str]]:
        """Tell all faults: where, and what."""
        return from_pydantic(self._error, self._model)


def parse(raw: bytes) -> Any:  # noqa: ANN401  # any JSON
    """Read it. Raises Rejected: TOO_BIG, PARSE."""
    if len(raw) > LARGEST_BYTES:
        raise Rejected(Code.TOO_BIG, f"it has {len(raw):,} bytes; {LARGEST_BYTES:,} are the most")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(f"byte {error.start} is not UTF-8") from error
    _must_be_flat(text)
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # JSON can escape it, and nobody could write it down
        raise _unreadable("half of a character stands there, as \\ud800 is") from error
    except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
        raise _unreadable(str(error)) from error
    return found


def fitted(model: type[Model], content: object, what: str) -> Model:
    """Make a model of what was read. Raises Misfit."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise Misfit(what, model, error) from error


def _must_be_flat(text: str) -> None:
    depth = 0
    for mark in BRACKETS.findall(TEXT.sub("", text)):
        depth += 1 if mark in "[{" else -1
        if depth > MOST_DEPTH:
            raise _unreadable(f"more than {MOST_DEPTH} brackets stand in one another")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _unreadable(why: str) -> Rejected:
    return Rejected(Code.PARSE, f"it cannot be read as JSON: {why}")

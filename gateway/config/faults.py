"""What is wrong with a file, in the words of the file, with the line and the next step."""

import datetime as dt
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from drivers.contract import ADDRESS_PATTERN, NAME_PATTERN
from gateway.config.toml_text import SHOWN, Path, key_text, quoted, visible

ADAPTER_PATTERN = r"^hci[0-9]+$"
DURATION_PATTERN = r"^[1-9][0-9]{0,4}[mhd]$"
PACE_PATTERN = r"^(100|[1-9][0-9]?)%$|^[1-9][0-9]{0,6} ?kB/s$"
TOPIC_PATTERN = r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"
PATTERNS = {
    NAME_PATTERN: "must begin with a letter or digit and hold only letters, digits, - and _, 63 at the most",
    ADDRESS_PATTERN: "is written AA:BB:CC:DD:EE:FF",
    ADAPTER_PATTERN: "is written hci0, hci1 and so on",
    DURATION_PATTERN: 'is written "30m", "12h" or "7d"',
    PACE_PATTERN: 'is written "50%" or "20 kB/s"',
    TOPIC_PATTERN: "is made of letters, digits, - and _, with a / between two words",
}
RULES = {
    "string_type": "a text in quotes",
    "path_type": "a text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "date_type": "a date such as 2026-03-14",
    "list_type": "a list in [ ]",
    "tuple_type": "a list in [ ]",
    "greater_than": "more than {limit}",
    "greater_than_equal": "{limit} or more",
    "less_than": "less than {limit}",
    "less_than_equal": "{limit} or less",
    "finite_number": "a number",
    "string_too_long": "{limit} characters or fewer",
}
UNQUOTED = ("int_type", "float_type", "bool_type", "date_type")
TABLE = ("dict_type", "model_type")
LIST = ("list_type", "tuple_type")
HEADERS = {
    "pole": "[pole]",
    "uplink": "[uplink]",
    "port": "[port.NAME]",
    "dataset": "[dataset.NAME]",
    "device": "[[device]]",
    "register": "[[register]]",
}
NAMED = ("port", "dataset")
BLAMED_NAME = "[key]"  # the last step to where pydantic finds fault with the name of a section
LISTED = 20  # words that are named when none is close
LONGEST_BITS = 128  # of a number that is shown
LONGEST_TEXT = 400  # characters of what a driver finds wrong with its section
MOST_FAULTS = 1000


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        file: as it was named.
        line: from 1; 0 where no line is to blame.
        text: what is wrong and what to do.
        of_user: it is so for the user who asks; the service may be allowed what he is not.
    """

    file: str
    line: int
    text: str
    of_user: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        """Put it as compilers do: file, line, text."""
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class SettingsError(Exception):
    """A file that cannot be used, with all its faults."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(set(faults))
        super().__init__("\n".join(map(str, self.faults)))


class NotProvisioned(SettingsError):
    """There is no configuration yet: no file, or one without a setting, as the package brings it."""


class Findings:
    """The faults of a configuration, as they are found."""

    def __init__(self, file: str) -> None:
        """Begin with none; ``file`` is the configuration."""
        self._file = file
        self.faults: set[Fault] = set()

    def add(self, faults: Iterable[Fault]) -> None:
        """Take faults. Raises SettingsError when there are more than anybody reads."""
        for fault in faults:
            self.faults.add(fault)
            if len(self.faults) >= MOST_FAULTS:
                text = f"has more than {MOST_FAULTS} faults; is it the right file? Some of them:"
                raise SettingsError({*self.faults, Fault(self._file, 0, text)})


def mean(word: str, known: Iterable[str]) -> str:
    """Return a hint to the known word that is meant: ``; did you mean "x"?``, else what there is."""
    words = sorted(set(known))
    if close := _closest(word, words):
        return f"; did you mean {quoted(close)}?"
    if len(words) > LISTED:
        return f"; there are {len(words)}, such as {_list(words[:3], 'and')}"
    if len(words) > 1:
        return f"; there are {_list(words, 'and')}"
    return f"; there is only {quoted(words[0])}" if words else ""


def show(value: object) -> str:
    """Put a value of the file as it stands there, or call it what it is."""
    match value:
        case bool():
            shown = str(value).lower()
        case str():
            shown = quoted(value)
        case int() if value.bit_length() > LONGEST_BITS:  # Python refuses to write the longest
            shown = "a number of that length"
        case int() | float():
            shown = str(value)
        case dt.date() | dt.time():
            shown = "a date or time"
        case Mapping():
            shown = "a section"
        case _:
            shown = "a list"
    return shown


def at_key(key: str, message: str) -> PydanticCustomError:
    """Make the error of a section that one of its keys is to blame for."""
    return PydanticCustomError("value_error", "{error}", {"error": message, "at": (key,)})


def from_pydantic(
    error: ValidationError, model: type[BaseModel], elsewhere: Mapping[str, str] | None = None
) -> Iterator[tuple[Path, str]]:
    """Put what pydantic found in words.

    Args:
        error: what it raised.
        model: what was validated; it knows the keys.
        elsewhere: keys that people put here, and what to tell of them: that they belong in another section.

    Returns:
        Where in the section, and the text.
    """
    for details in error.errors(include_url=False):
        loc = tuple(details["loc"])
        if details["type"] == "extra_forbidden" and not _holds_tables(details["input"]):
            told = _belongs(loc, model) or (elsewhere or {}).get(str(loc[-1]))
            if told:
                yield loc, f"{quoted(str(loc[-1]))} {told}"
                continue
        yield loc + tuple(details.get("ctx", {}).get("at", ())), _text(details, loc, model)


def homes(root: type[BaseModel], device: type[BaseModel]) -> dict[str, str]:
    """Tell of each key that one kind of section alone has which that is; a key may not be the name of a section."""
    kinds = {name: _fields(root, (name,), below=True) for name in root.model_fields} | {"device": _fields(device, ())}
    often = Counter(key for keys in kinds.values() for key in keys)
    return {
        key: HEADERS.get(name, f"[{name}]")
        for name, keys in kinds.items()
        for key in keys
        if often[key] == 1 and key not in kinds
    }


def _belongs(loc: Path, model: type[BaseModel]) -> str:
    """Tell that a key belongs above or below the header of a [[section]] near it; "" where it does not."""
    *place, key = loc
    if place and isinstance(place[-1], int) and key in _fields(model, tuple(place[:-2])):
        return f"belongs above the first {HEADERS.get(str(place[-2]), f'[[{place[-2]}]]')}"
    below = (
        header
        for name, header in HEADERS.items()
        if header.startswith("[[") and key in _fields(model, (*place, name), below=True)
    )
    return next((f"belongs in {header}" for header in below), "")


def _text(error: ErrorDetails, loc: Path, model: type[BaseModel]) -> str:
    given = error["input"]
    key = str(loc[-1]) if loc else ""
    known = _fields(model, loc[:-1])
    match error["type"]:
        case "missing" if key in HEADERS and (inner := _fields(model, loc, below=True)):
            needs = [name for name, field in inner.items() if field.is_required()]
            text = f"section {HEADERS[key]} is missing; it needs {_list(needs, 'and')}"
        case "missing":
            text = f'key "{key}" is missing{_about(known.get(key))}'
        case "extra_forbidden":
            what = "section" if _holds_tables(given) else "key"
            text = f"{quoted(key)} is not a known {what}{mean(key, known)}"
        case "literal_error":
            text = _choice(_called(loc), given, error["ctx"]["expected"])
        case "string_pattern_mismatch":
            rule = PATTERNS.get(error["ctx"]["pattern"], f"has another form{_about(known.get(key))}")
            text = f"{_called(loc)} is {show(given)}; it {rule}"
        case "value_error":
            text = visible(str(error["ctx"]["error"]), LONGEST_TEXT)
        case "too_short" | "too_long":
            limits = error["ctx"]
            limit = f"{limits['min_length']} or more" if "min_length" in limits else f"{limits['max_length']} or fewer"
            text = f"{_called(loc)} must hold {limit}"
        case kind if kind in TABLE or (kind in LIST and key in HEADERS):
            text = _no_section(loc, given, known)
        case kind if kind in RULES:
            text = f"{_called(loc)} must be {_rule(kind, error)}, not {show(given)}"
        case _:
            text = f"{_called(loc)} cannot be {show(given)}{_about(known.get(key))}"
    return text


def _called(loc: Path) -> str:
    """Call what is at a place: a key, one of the values in its list, or the name of a section."""
    if not loc:
        return "it"
    if isinstance(loc[-1], int):
        return f'"{loc[-2]}" number {loc[-1] + 1}'
    return "its name" if loc[-1] == BLAMED_NAME else f'"{loc[-1]}"'


def _choice(called: str, given: object, expected: str) -> str:
    """Word a value that is none of a few; ``expected`` is how pydantic lists them: ``'a', 'b' or 'c'``, ``1 or 2``."""
    texts = re.findall("'([^']*)'", expected)
    if not texts:
        unquoted = " without quotes" if isinstance(given, str) else ""
        return f"{called} must be {expected}{unquoted}, not {show(given)}"
    close = _closest(given, texts) if isinstance(given, str) and len(texts) > 1 else None
    return f"{called} must be {_list(texts, 'or')}, not {show(given)}" + (f'; did you mean "{close}"?' if close else "")


def _rule(kind: str, error: ErrorDetails) -> str:
    given = error["input"]
    if kind == "float_type" and isinstance(given, int) and not isinstance(given, bool):
        return "a smaller number"  # too large for a float
    limit = next(iter(error.get("ctx", {}).values()), "")
    rule = RULES[kind].format(limit=f"{limit:.12g}" if isinstance(limit, float) else limit)
    return f"{rule} without quotes" if kind in UNQUOTED and isinstance(given, str) else rule


def _no_section(loc: Path, given: object, known: Mapping[str, FieldInfo]) -> str:
    """Word a value that stands where a section should, or where all of them should."""
    if not loc:
        return f"it must be a table of keys and values, not {show(given)}"
    *above, last = loc
    if isinstance(last, int):
        return f"each {HEADERS.get(str(above[-1]), above[-1])} is a section, not {show(given)}"
    is_named = len(above) == 1 and above[0] in NAMED
    if is_named and last in known:  # [port] without a name, and the keys of a port in it
        return f'"{last}" stands in a section with a name: [{above[0]}.NAME]'
    header = f"[{above[0]}.{key_text(last)}]" if is_named else HEADERS.get(last, f"[{key_text(last)}]")
    if isinstance(given, Mapping):
        return f"write {header}, not [{key_text(last)}]"
    if _holds_tables(given):
        return f"write {header}, not [[{key_text(last)}]]"
    return f"write {header}, not {key_text(last)} = {'[...]' if isinstance(given, list) else show(given)}"


def _about(field: FieldInfo | None) -> str:
    """Say what a key is, as its model describes it."""
    text = ((field.description if field else None) or "").rstrip(".")
    return f": {text[0].lower() if text[1:2].islower() else text[0]}{text[1:]}" if text else ""


def _list(words: list[str], last: str) -> str:
    marked = [quoted(word) for word in words]
    return f"{', '.join(marked[:-1])} {last} {marked[-1]}" if len(marked) > 1 else "".join(marked)


def _closest(word: str, known: list[str]) -> str | None:
    """Return the known word that is most like it; capitals do not count."""
    small = {other.lower(): other for other in known}
    close = difflib.get_close_matches(word[:SHOWN].lower(), small, n=1)
    return small[close[0]] if close else None


def _holds_tables(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(item, Mapping) for item in value))


def _fields(model: type[BaseModel], loc: Path, *, below: bool = False) -> dict[str, FieldInfo]:
    """Return the keys that are known at a place below a model.

    Args:
        model: what was validated.
        loc: the place of a section. Of many of a kind each has a name or a number, which is a step of its own.
        below: ``loc`` ends before that step.
    """
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    if not loc:
        return fields
    field = fields.get(str(loc[0]))
    inner = _model_in(field.annotation) if field else None
    if field is None or inner is None:
        return {}
    steps = 1 if below or get_origin(field.annotation) is None else 2
    return _fields(inner, loc[steps:])


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  # any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _model_in(inner))), None)

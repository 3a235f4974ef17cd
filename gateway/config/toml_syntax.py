"""Why a text is no TOML, in plain words: what tomllib found, and what a person would do about it."""

import re
import tomllib
from typing import Any

from gateway.config.toml_text import DOT, KEY, SHOWN, TOKEN, quoted, visible

MOST_PARTS = 16  # of a dotted key; tomllib takes hours over very many
MOST_BRACKETS = 50  # in one another; tomllib gives up at some hundred
MOST_DIGITS = 4300  # of a number; Python reads no longer one
LONG_NUMBER = re.compile(rf"(?<![\d_])[\d_]{{{MOST_DIGITS + 1}}}")
LONG_KEY = re.compile(rf"(?:^[ \t]*+\[{{0,2}}|[{{,])[ \t]*+(?:{KEY}{DOT}){{{MOST_PARTS}}}", re.MULTILINE)

REPEATED = "device", "register"  # the sections of which there are several
HEADER_LINE = re.compile(rf"[ \t]*+([\[ \t]++)({KEY}(?:{DOT}{KEY})*+)[ \t]*+([\] \t]++)(?:#.*)?$")
CURVED = "[`\N{ACUTE ACCENT}\u2018-\u201f\u00ab\u00bb]"  # what word processors make of quotes
LINE = "a line is KEY = VALUE, [SECTION] or # COMMENT"
UNPRINTED = "a character that cannot be seen stands here; type the line anew"
JOIN = "join the two; only [[device]] and [[register]] may stand again"
DATE = "a date is written YEAR-MONTH-DAY: 2026-03-14"
BACKSLASH = "in quotes a \\ is written \\\\"
SYNTAX = (
    ("Invalid value", r"[ \t]*(#.*)?$", "a value is missing behind ="),
    ("Invalid value", CURVED, 'quotes are straight: "TEXT"'),
    ("Invalid value", r"(?i:true|yes|on)\b", "write true, in small letters and without quotes"),
    ("Invalid value", r"(?i:false|no|off)\b", "write false, in small letters and without quotes"),
    ("Invalid value", r"[+-]?\.\d", "a number begins with a digit: 0.5"),
    ("Invalid value", r",", "a value is missing before the comma"),
    ("Invalid value", r"", 'a text stands in quotes: KEY = "TEXT"'),
    ("Invalid date", r"", "there is no such date or time"),
    ("Expected '='", r".*:", "between key and value stands =, not a colon"),
    ("Expected '='", r"", LINE),
    ("Invalid statement", r"=", "a key is missing before ="),
    ("Invalid statement", r"//|;|--", "a comment begins with #"),
    ("Invalid statement", r"\w", "a key holds only the letters a to z, digits, - and _"),
    ("Invalid statement", r"", LINE),
    ("Expected ']'", r"", "a section is written [NAME], and no space stands in the name"),
    ("Expected ']]'", r"", "what begins with [[ ends with ]]"),
    ("Invalid initial character", r"[].]", "a name is missing in the brackets"),
    ("Invalid initial character", r"", "what {{ opens is closed with }} on the same line, without a comma before it"),
    ("Unclosed inline", r"", "what {{ opens is closed with }} on the same line, with a comma between two keys"),
    ("Unclosed array", r"", "a comma or a ] is missing"),
    ("Illegal character '\\n'", r"", "a quote is not closed"),
    ("Found invalid character '\\n'", r"", "a quote is not closed"),
    ("Illegal character", r"", UNPRINTED),
    ("Found invalid character", r"", UNPRINTED),
    ("Duplicate", r"", "a key stands twice between {{ and }}; remove one"),
    ("Cannot", r"", "{what} stands above already; {again}"),
    ("Expected newline", r"(?<=\d),\d", "a decimal has a point: 1.5"),
    ("Expected newline", r"(?<=\d)(\.\d{4}\b|-\d|/\d)", DATE),
    ("Expected newline", r"(?<=\d)\.\d", 'a number has one point; a text stands in quotes: KEY = "TEXT"'),
    ("Expected newline", r"(?<=\d)\.", "behind a point stands a digit: 1.0"),
    ("Expected newline", r"(?<=\d)[\d_:xoe-]", "no number, date or time is written so"),
    ("Expected newline", r"", "something stands behind the value or the ]; a comment begins with #"),
    ("Unescaped", r"", BACKSLASH),
    ("Escaped", r"", BACKSLASH),
    ("Invalid hex", r"", BACKSLASH),
    ("", r"", "see https://toml.io for how it is written"),
)
"""How tomllib's message begins, how the text goes on where it stopped, and what to tell. The first that fits."""


class Unreadable(Exception):
    """A text that is no TOML: the line, from 1, and why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def parse(text: str) -> dict[str, Any]:
    """Read a text, whose last line ends like the others. Raises Unreadable."""
    if found := LONG_KEY.search(text):
        raise Unreadable(_line(text, found.start()), f"a key has at most {MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unreadable(*_why(str(error), text)) from error
    except RecursionError as error:
        raise Unreadable(_deep(text), "brackets stand in brackets, too many of them") from error
    except ValueError as error:  # what int() does not take
        found = LONG_NUMBER.search(text)
        raise Unreadable(_line(text, found.start() if found else 0), "a number has too many digits") from error


def _why(message: str, text: str) -> tuple[int, str]:
    """Put what tomllib found in words."""
    found = re.search(r"\(at line (\d+), column (\d+)\)$", message)
    if found is None:  # at the end of the document
        mark, line = _unclosed(text) or ("", 0)
        return line, f"the {mark} is not closed"
    line = int(found[1])
    above, row = _row(text, line)
    at = int(found[2]) - 1
    if better := _bad_header(text, line, above):
        return better
    why = next(why for start, form, why in SYNTAX if message.startswith(start) and re.compile(form).match(row, at))
    what = re.split("[=#]", row)[0].strip()
    again = JOIN if what.startswith("[") else "keep one of the two"
    why = why.format(what=quoted(what) if re.match(r"[\w\['\"-]", what) else "this", again=again)
    opened = _unclosed(text[: above + at])
    return line, why if opened is None or opened[1] == line else f"{why}; the {opened[0]} opens in line {opened[1]}"


def _bad_header(text: str, line: int, above: int) -> tuple[int, str] | None:
    """Tell which header is written wrong, and how to write it; None where the fault is no such one.

    Args:
        text: the whole.
        line: where tomllib stopped.
        above: where that begins.
    """
    found = HEADER_LINE.match(text, above, text.index("\n", above))
    if found is None or _unclosed(text[:above]):
        return None
    name = found[2]
    right = f"[[{name}]]" if name in REPEATED else f"[{visible(name, SHOWN)}]"
    if (found[1].strip(), found[3].strip()) not in {("[", "]"), ("[[", "]]")}:
        return line, f"write {right}, not {visible(found[0].partition('#')[0].strip(), SHOWN)}"
    first = name in REPEATED and re.search(rf"^[ \t]*(\[[ \t]*{name}\b[^\[\]\n]*\])", text, re.MULTILINE)
    return (_line(text, first.start(1)), f"write {right}, not {first[1]}, each time") if first else None


def _row(text: str, line: int) -> tuple[int, str]:
    """Return where a line begins, and the line."""
    start = 0
    for _ in range(line - 1):
        start = text.index("\n", start) + 1
    return start, text[start : text.index("\n", start)]


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _unclosed(text: str) -> tuple[str, int] | None:
    """Find what a text opens and does not close, the innermost bracket or a quote: what it is, and its line."""
    line = 1
    opened: list[tuple[str, int]] = []
    for match in TOKEN.finditer(text):
        mark = match[0]
        quote = mark[:3] if mark.startswith(('"""', "'''")) else mark[:1] if mark[0] in "\"'" else ""
        if quote and not (len(mark) >= 2 * len(quote) and mark.endswith(quote)):
            return quote, line
        if mark in "[{":
            opened.append((mark, line))
        elif mark in "]}" and opened:
            opened.pop()
        line += mark.count("\n")
    return opened[-1] if opened else None


def _deep(text: str) -> int:
    """Find the line in which too many brackets stand in one another."""
    line, depth = 1, 0
    for match in TOKEN.finditer(text):
        depth += (match[0] in "[{") - (match[0] in "]}")
        if depth > MOST_BRACKETS:
            break
        line += match[0].count("\n")
    return line

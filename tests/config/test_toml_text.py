"""Every key that tomllib finds has a line, and it stands there."""

import itertools
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.toml_syntax import MOST_PARTS, Unreadable, parse
from gateway.config.toml_text import Path, key_text, lines_of, visible
from tests.examples import examples

DECOYS = ("a = 1", "[a]", "[[a]]", "# a = 1", "a.b = { c = 1 }", "]", "}", '"', "'", "=", ",", "é")
"""What looks like a key, a section or a bracket where it is only text."""


class Writer:
    """Writes a TOML text of which no two keys are alike."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.numbers = itertools.count()

    def document(self) -> str:
        """Write statements, then sections with statements, and sections in sections."""
        lines = [*self.statements()]
        for _ in range(self.draw(st.integers(0, 4))):
            name = self.key()
            if self.draw(st.booleans()):
                for _ in range(self.draw(st.integers(1, 3))):
                    lines += [f"{self.space()}[[{self.space()}{name} ]] # ]", *self.statements()]
                    if self.draw(st.booleans()):
                        lines += [f"[{name}.{self.key()}]", *self.statements()]
            else:
                lines += [f"[{name}.{self.key()}]", *self.statements()]
        return "\n".join(lines) + self.draw(st.sampled_from(["", "\n"]))

    def statements(self) -> Iterator[str]:
        """Write keys with values, comments and empty lines."""
        for _ in range(self.draw(st.integers(0, 4))):
            yield self.draw(st.sampled_from(["", "   ", "# [comment]", '# "comment', "\t# a = '''"]))
            yield f"{self.space()}{self.keys()}{self.space()}={self.space()}{self.value(2)}{self.space()}"

    def space(self) -> str:
        """Write what may stand between two words."""
        return self.draw(st.sampled_from(["", " ", "\t"]))

    def keys(self) -> str:
        """Write a key, dotted or not."""
        parts = [self.key() for _ in range(self.draw(st.integers(1, 3)))]
        return f"{self.space()}.{self.space()}".join(parts)

    def key(self) -> str:
        """Write a key that no other is a part of."""
        name = f"k{next(self.numbers)}k"
        return self.draw(st.sampled_from([name, f'"{name} ]= #"', f"'{name} [[x]]'", f'"{name} \\" \\u00e9 = {{"']))

    def value(self, depth: int) -> str:
        """Write any value, over one line or many."""
        kinds = [self.plain, self.text, self.long_text]
        if depth:
            kinds += [lambda: self.array(depth - 1), lambda: self.table(depth - 1)]
        return self.draw(st.sampled_from(kinds))()

    def plain(self) -> str:
        """Write a number, a date or the like."""
        return self.draw(st.sampled_from(["1", "-1.5e3", "true", "2026-01-01", "12:00:00", "inf", "0xff"]))

    def text(self) -> str:
        """Write a text on one line that looks like something else."""
        decoy = self.draw(st.sampled_from(DECOYS))
        if self.draw(st.booleans()):
            return '"' + decoy.replace('"', '\\"') + '"'
        return "'" + decoy.replace("'", "") + "'"

    def long_text(self) -> str:
        """Write a text over many lines that look like something else."""
        decoy = self.draw(st.sampled_from(DECOYS))
        if self.draw(st.booleans()):
            return f"'''\n{decoy}\n'{decoy}\n" + self.draw(st.sampled_from(["", "'", "''"])) + "'''"
        ends = self.draw(st.sampled_from(["", '"', '""', "\\\\", '\\"', "\\\n"]))
        return f'"""\n{decoy}\n{decoy} {ends}"""'

    def array(self, depth: int) -> str:
        """Write a list, over one line or many."""
        between = self.draw(st.sampled_from([", ", ",\n", ", # ] [\n\n"]))
        begin, end = self.draw(st.sampled_from([("[", "]"), ("[\n", "\n]"), ("[ # [\n", ", ]")]))
        return begin + between.join(self.value(depth) for _ in range(self.draw(st.integers(1, 3)))) + end

    def table(self, depth: int) -> str:
        """Write a table on one line."""
        pairs = (f"{self.keys()} = {self.value(depth)}" for _ in range(self.draw(st.integers(0, 3))))
        return f"{{ {', '.join(pairs)} }}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    return Writer(draw).document()


def places_in(value: Any, above: Path = ()) -> Iterator[Path]:  # noqa: ANN401  # any TOML
    """Find the place of every key and table, and of every table and array in an array."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*above, key)
            yield from places_in(inner, (*above, key))
    if isinstance(value, list):
        for number, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield (*above, number)
            yield from places_in(inner, (*above, number))


@examples(300)
@given(documents())
def test_every_key_that_tomllib_finds_has_a_line_and_stands_in_it(text: str) -> None:
    rows = text.split("\n")

    lines = lines_of(text)

    content = tomllib.loads(text)
    assert set(lines) == set(places_in(content))
    for place, line in lines.items():
        name = next(step for step in reversed(place) if isinstance(step, str))
        if isinstance(place[-1], str):
            assert name.split(" ")[0] in rows[line - 1]
        else:
            assert rows[line - 1].count("[") + rows[line - 1].count("{")


@examples(100)
@given(documents())
def test_a_sound_text_is_read_as_tomllib_reads_it(text: str) -> None:
    assert repr(parse(text + "\n")) == repr(tomllib.loads(text))


def why_not(text: str) -> Unreadable | None:
    try:
        parse(text)
    except Unreadable as error:
        return error
    return None


TYPED = st.sampled_from(["", "\n", '"', "'", "[", "]", "{", "}", "=", ".", "x", "1", "\\", "#", "'''", '"""'])


@examples(400)
@given(documents(), st.integers(0, 10_000), st.integers(0, 5), TYPED)
def test_a_damaged_text_is_read_or_its_line_is_told(text: str, at: int, less: int, more: str) -> None:
    at %= len(text) + 1
    damaged = text[:at] + more + text[at + less :] + "\n"

    error = why_not(damaged)

    if error is None:
        assert set(lines_of(damaged)) == set(places_in(tomllib.loads(damaged)))
    else:
        assert 1 <= error.line <= damaged.count("\n")
        assert str(error).isprintable()


def test_a_key_stands_where_it_is_first_named() -> None:
    text = """\
# a pole
[pole]
id = "p" # id = "q"

[port.a]
[port.b]
path = '''
path = 1'''
[[device]]
id = "one"
list = [
  { x = 1 },
  # x = 2
  { x = 3, y.z = [
    [], [ { u = 1 } ] ] },
]
[device.more]
k = 1
[[device]]
"id" = "two"
x.y = 1
x . z = 2
[[device.part]]
[[device.part]]
n = 1
"""
    assert lines_of(text) == {
        ("pole",): 2,
        ("pole", "id"): 3,
        ("port",): 5,
        ("port", "a"): 5,
        ("port", "b"): 6,
        ("port", "b", "path"): 7,
        ("device",): 9,
        ("device", 0): 9,
        ("device", 0, "id"): 10,
        ("device", 0, "list"): 11,
        ("device", 0, "list", 0): 12,
        ("device", 0, "list", 0, "x"): 12,
        ("device", 0, "list", 1): 14,
        ("device", 0, "list", 1, "x"): 14,
        ("device", 0, "list", 1, "y"): 14,
        ("device", 0, "list", 1, "y", "z"): 14,
        ("device", 0, "list", 1, "y", "z", 0): 15,
        ("device", 0, "list", 1, "y", "z", 1): 15,
        ("device", 0, "list", 1, "y", "z", 1, 0): 15,
        ("device", 0, "list", 1, "y", "z", 1, 0, "u"): 15,
        ("device", 0, "more"): 17,
        ("device", 0, "more", "k"): 18,
        ("device", 1): 19,
        ("device", 1, "id"): 20,
        ("device", 1, "x"): 21,
        ("device", 1, "x", "y"): 21,
        ("device", 1, "x", "z"): 22,
        ("device", 1, "part"): 23,
        ("device", 1, "part", 0): 23,
        ("device", 1, "part", 1): 24,
        ("device", 1, "part", 1, "n"): 25,
    }


def test_five_thousand_lines_have_each_its_line() -> None:
    text = "".join(f"[[device]]\nid = {number}\n" for number in range(2500))

    lines = lines_of(text)

    assert [lines["device", number, "id"] for number in range(2500)] == list(range(2, 5001, 2))


def test_a_key_may_have_some_parts_and_not_very_many() -> None:
    parse(".".join("a" * MOST_PARTS) + " = 1\n")
    with pytest.raises(Unreadable, match=f"a key has at most {MOST_PARTS} parts"):
        parse(".".join("a" * (MOST_PARTS + 1)) + " = 1\n")


@pytest.mark.parametrize("text", ['x = "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a"\n', f"x = {[0.5] * 30}\n"])
def test_dots_in_a_text_or_in_numbers_make_no_long_key(text: str) -> None:
    assert list(parse(text)) == ["x"]


def test_a_key_is_shown_as_it_stands_in_the_file() -> None:
    assert [key_text(key) for key in ("a-1_B", "", "a b", "a\n")] == ["a-1_B", '""', '"a b"', '"a\\n"']


def test_a_text_is_shown_without_what_steers_a_terminal() -> None:
    assert visible("a\x1b[2J\u202eb é", 20) == "a\\x1b[2J\\u202eb é"
    assert visible("x" * 30, 20) == "x" * 20 + "..."

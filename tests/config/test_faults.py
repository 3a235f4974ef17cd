"""Faults are told in the words of the file, of any driver there may be, in order and each once."""

from typing import Annotated, Any, ClassVar, Literal, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from drivers.contract import Asked, Channel, Port, Values
from gateway.config.faults import MOST_FAULTS, Fault, Findings, SettingsError, at_key, from_pydantic, mean, show


class Somebodys(Asked):
    """A driver of somebody else, with kinds of keys that ours do not have."""

    driver: Literal["somebodys"] = "somebodys"
    mode: Literal["fast", "slow"] = "fast"
    gain: Literal[1, 2, 4] = 1
    code: Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")] = Field("ABC", description="Three capitals.")
    text: Annotated[str, StringConstraints(min_length=3)] = Field("abc", description="At least three letters.")
    low: float = 0.0
    high: float = 1.0
    table: dict[str, int] = Field(default_factory=dict)

    DATASET = "x"
    CHANNELS: ClassVar = {"x": Channel("x")}

    @field_validator("text")
    @classmethod
    def _no_tabs(cls, text: str) -> str:
        if "\t" in text:
            raise ValueError(f"text is {text!r}; it has no tabs")
        return text

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise at_key("low", "low is above high")
        return self

    def decode(self, frame: bytes) -> Values:
        """Read nothing."""
        return {"x": len(frame)}

    async def poll(self, port: Port) -> Values:
        """Ask nothing."""
        return {"x": port.transport}


def told(model: type[BaseModel], **content: Any) -> list[tuple[tuple[str | int, ...], str]]:  # noqa: ANN401  # any TOML
    with pytest.raises(ValidationError) as caught:
        model.model_validate(content)
    return list(from_pydantic(caught.value, model))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("mode", "fsat", '"mode" must be "fast" or "slow", not "fsat"; did you mean "fast"?'),
        ("mode", 5, '"mode" must be "fast" or "slow", not 5'),
        ("gain", 3, '"gain" must be 1, 2 or 4, not 3'),
        ("gain", "2", '"gain" must be 1, 2 or 4 without quotes, not "2"'),
        ("code", "abc", '"code" is "abc"; it has another form: three capitals'),
        ("text", "a", '"text" cannot be "a": at least three letters'),
        ("table", 5, "write [table], not table = 5"),
        ("timeout", [], '"timeout" must be a number, not a list'),
    ],
)
def test_the_keys_of_any_driver_are_told_in_plain_words(key: str, value: object, expected: str) -> None:
    assert told(Somebodys, **{"id": "d", "port": "p", key: value}) == [((key,), expected)]


def test_what_a_driver_says_itself_is_told_as_it_is_and_cannot_steer_a_terminal() -> None:
    assert told(Somebodys, id="d", port="p", text="a\tb\x1b") == [(("text",), "text is 'a\\tb\\x1b'; it has no tabs")]
    assert told(Somebodys, id="d", port="p", text="\t" + "x" * 5000)[0][1].startswith("text is '\\txxx")
    assert len(told(Somebodys, id="d", port="p", text="\t" + "x" * 5000)[0][1]) < 500


def test_a_fault_between_two_keys_is_told_at_the_one_that_is_named() -> None:
    assert told(Somebodys, id="d", port="p", low=2.0) == [(("low",), "low is above high")]


def test_a_key_that_stands_elsewhere_is_sent_there() -> None:
    with pytest.raises(ValidationError) as caught:
        Somebodys.model_validate({"id": "d", "port": "p", "baud": 9600})

    assert list(from_pydantic(caught.value, Somebodys, {"baud": "belongs in [port.p]"})) == [
        (("baud",), '"baud" belongs in [port.p]')
    ]


class Empty(BaseModel):
    """A section without keys."""

    model_config = ConfigDict(extra="forbid")


def test_an_unknown_key_of_a_section_without_keys_has_no_hint() -> None:
    assert told(Empty, x=1) == [(("x",), '"x" is not a known key')]


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("ruvi", ["ruuvi", "modbus"], '; did you mean "ruuvi"?'),
        ("RUUVI", ["ruuvi", "modbus"], '; did you mean "ruuvi"?'),
        ("ruuvi", ["RUUVI", "modbus"], '; did you mean "RUUVI"?'),
        ("x", ["b", "a"], '; there are "a" and "b"'),
        ("x", ["c", "b", "a"], '; there are "a", "b" and "c"'),
        ("x", ["only"], '; there is only "only"'),
        ("x", [], ""),
        ("", ["b", "a"], '; there are "a" and "b"'),
        ("zz", [f"d-{number}" for number in range(10, 40)], '; there are 30, such as "d-10", "d-11" and "d-12"'),
    ],
)
def test_a_word_that_is_not_known_gets_the_one_that_is_meant_or_all_there_are(
    word: str, known: list[str], hint: str
) -> None:
    assert mean(word, known) == hint


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (1, "1"),
        (-1.5, "-1.5"),
        ("a\nb", '"a\\nb"'),
        ("x" * 100, f'"{"x" * 60}..."'),
        ([1], "a list"),
        ({"a": 1}, "a section"),
    ],
)
def test_a_value_is_shown_as_it_stands_in_the_file(value: object, shown: str) -> None:
    assert show(value) == shown


def test_a_number_that_python_does_not_write_is_called_one() -> None:
    assert show(16**5000) == "a number of that length"


def test_a_fault_reads_as_a_compiler_puts_it() -> None:
    assert str(Fault("pole.toml", 7, "x")) == "pole.toml:7: x"
    assert str(Fault("pole.toml", 0, "x")) == "pole.toml: x"


def test_faults_come_in_the_order_of_the_lines_and_each_once() -> None:
    two, ten = Fault("a", 2, "x"), Fault("a", 10, "x")

    error = SettingsError([ten, two, ten, Fault("a", 0, "x")])

    assert [fault.line for fault in error.faults] == [0, 2, 10]
    assert str(error) == "a: x\na:2: x\na:10: x"


def test_more_faults_than_anybody_reads_end_the_search() -> None:
    found = Findings("a")
    found.add(Fault("a", line, "x") for line in range(1, MOST_FAULTS))
    with pytest.raises(SettingsError, match="is it the right file"):
        found.add(Fault("a", line, "y") for line in iter(int, 1))  # it would never end

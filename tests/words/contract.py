"""What a receiver may rely on: the schemas in config/, and those of others that ours are held against."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.protocols import Validator

from gateway.words.messages import BufferState, ConfigurationState, State, UplinkState

CONFIG = Path(__file__).parents[2] / "config"
OTHERS = Path(__file__).parents[1] / "schemas"


@cache
def ours(name: str) -> Validator:
    """Return the validator of one kind of message."""
    schema = json.loads((CONFIG / "schema" / f"{name}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


@cache
def theirs(name: str) -> Validator:
    """Return the validator of a standard."""
    schema = json.loads((OTHERS / f"{name}.json").read_text())
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER)


def faults(validator: Validator, content: Any) -> list[str]:  # noqa: ANN401  # any JSON
    """Return where something is not as it must be."""
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(content)]


def must_be(name: str, content: Any) -> None:  # noqa: ANN401  # any JSON
    """Fail where a message is not as its schema says."""
    assert faults(ours(name), content) == [], name


def some_state(status: Literal["online", "stopped"], **facts: Any) -> State:  # noqa: ANN401  # fields of any type
    """Return a state of a pole that is well, with some of its fields otherwise."""
    buffer = BufferState(packs=0, readings=0, stored=0, commits=0, dropped=0, dropped_readings=0, journal="ok")
    state = State(
        status=status,
        version="1",
        python="3.11",
        boot="",
        epoch=1,
        uptime=0,
        at=0.0,
        clock="synchronised",
        uplink=UplinkState(up=True),
        buffer=buffer,
        configuration=ConfigurationState(digest="0", since=0.0),
        devices={},
    )
    return state.model_copy(update=facts)

"""The examples a technician copies: they work as they stand, lack no key, and say the truth about defaults."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from drivers.contract import Advertised, Asked, Driver, OnPort, Streamed
from gateway.config import driver_index
from gateway.config.settings import Root
from gateway.config.settings_file import load

CONFIG = Path(__file__).parents[2] / "config"
POLE = CONFIG / "pole.toml"
COMMENTED_KEY = re.compile(r"# (?=[a-z_]+ = )")
KINDS = (Driver, OnPort, Asked, Streamed, Advertised)
"""What devices have in common is explained at the first of a kind."""


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """The example with every default written out."""
    path = tmp_path / "pole.toml"
    path.write_text("\n".join(COMMENTED_KEY.sub("", line, count=1) for line in POLE.read_text().splitlines()))
    return path


@pytest.mark.parametrize("name", ["pole.toml", "minimal.toml"])
def test_an_example_has_no_fault(name: str) -> None:
    assert load(CONFIG / name).devices


def test_the_example_has_no_fault_with_every_default_written_out(complete: Path) -> None:
    assert load(complete).devices


def test_the_minimal_example_is_one_sensor_and_nothing_that_could_be_left_out(tmp_path: Path) -> None:
    lines = (CONFIG / "minimal.toml").read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if " = " in line]
    assert len(keys) == 6

    for number in keys:
        path = tmp_path / "pole.toml"
        path.write_text("\n".join(line for at, line in enumerate(lines) if at != number))
        with pytest.raises(Exception, match="is missing"):
            load(path)


def sections(annotation: Any, content: Any) -> Iterator[tuple[type[BaseModel], Mapping[str, Any]]]:  # noqa: ANN401  # any annotation, any TOML
    """Find the sections of a file with the model each belongs to."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, content
        for name, field in annotation.model_fields.items():
            yield from sections(field.annotation, content.get(name))
    elif get_origin(annotation) is dict:
        for section in (content or {}).values():
            yield from sections(get_args(annotation)[-1], section)


def test_the_example_names_every_key_of_every_section(complete: Path) -> None:
    content = tomllib.loads(complete.read_text())
    named: dict[type[BaseModel], set[str]] = {}
    for model, section in sections(Root, content):
        named.setdefault(model, set()).update(section)

    assert {model.__name__ for model in named} >= {"Root", "PoleSettings", "PortSettings", "DatasetSettings"}
    for model, keys in named.items():
        assert keys == set(model.model_fields), model


def test_the_example_names_every_driver_and_every_key_of_it(complete: Path) -> None:
    devices = tomllib.loads(complete.read_text())["device"]
    keys: dict[type[Driver], set[str]] = {}
    for section in devices:
        keys.setdefault(driver_index.driver(section["driver"]), set()).update(section)

    assert {section["driver"] for section in devices} == set(driver_index.names())
    for model, named in keys.items():
        explained = {key for kind in KINDS if issubclass(model, kind) for key in _named_at_a(kind, keys)}
        assert set(model.model_fields) == named | explained, model


def _named_at_a(kind: type[Driver], keys: Mapping[type[Driver], set[str]]) -> set[str]:
    return {key for model, named in keys.items() if issubclass(model, kind) for key in named & set(kind.model_fields)}


def test_a_key_that_is_commented_out_shows_its_default_or_is_called_an_example() -> None:
    shown = 0
    lines = POLE.read_text().splitlines()
    models = dict(_models())
    header = driver = ""
    for number, line in enumerate(lines):
        header = line.strip("[]").partition(".")[0] if line.startswith("[") else header
        driver = line.partition('"')[2].strip('"') if line.startswith("driver = ") else driver
        if not COMMENTED_KEY.match(line):
            continue
        ((key, value),) = tomllib.loads(line.removeprefix("# ")).items()
        field = models[driver if header == "device" else header].model_fields[key]
        default = field.get_default(call_default_factory=True, validated_data={})
        if "xample" in lines[number - 1]:
            assert value != default or default is None, line
        else:
            assert value == (str(default) if isinstance(default, Path) else default), line
            assert type(value) is type(str(default) if isinstance(default, Path) else default), line
        shown += 1
    assert shown > 10


def _models() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in Root.model_fields.items():
        for annotation in (field.annotation, *get_args(field.annotation)):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield name, annotation
    for name in driver_index.names():
        yield name, driver_index.driver(name)


def test_the_example_explains_in_sentences() -> None:
    text = POLE.read_text()
    prose = [line for line in text.splitlines() if line.startswith("## ")]
    blocks = re.findall(r"(?:^## .*\n)+", text, re.MULTILINE)

    assert len(prose) > 40
    for block in blocks:
        assert block.rstrip().endswith((".", ":", "FILE")), block
    assert all(len(line) <= 120 for line in text.splitlines())
    assert not any(
        line.startswith("#") and not line.startswith(("## ", "# ")) and line != "##" for line in text.splitlines()
    )


def test_the_example_names_serial_ports_so_that_they_stay_the_same() -> None:
    for port in load(POLE).root.port.values():
        assert port.tcp or port.path.startswith("/dev/serial/by-id/")

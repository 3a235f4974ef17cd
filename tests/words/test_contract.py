"""The contract with a receiver: the files are those of the models, and they are what they call themselves."""

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.commands.schema import files
from gateway.words.asyncapi import CHANNELS
from gateway.words.messages import Replay
from hil.daemon import polegate
from tests.words.contract import CONFIG, faults, must_be, ours, theirs

DOCUMENT = json.loads((CONFIG / "asyncapi.json").read_text())
LABELS = {"epoch": 1, "seq": 1, "cat": "0123abcd"}
PACK: list[dict[str, object]] = [
    {"bver": 26, "bt": 1.8e9, "bn": "p/d/", "n": "c", "v": 1.5, **LABELS},
    {"n": "e", "v": 2},
]


def test_the_files_are_those_that_the_models_give() -> None:
    made = files()
    there = {path.relative_to(CONFIG): path.read_text() for path in (CONFIG / "schema").iterdir()}
    there[Path("asyncapi.json")] = (CONFIG / "asyncapi.json").read_text()
    assert set(there) == set(made)
    assert there == made, "run: polegate schema config"


def test_the_command_writes_them_and_says_where_it_cannot(tmp_path: Path) -> None:
    subprocess.run([polegate(), "schema", str(tmp_path / "new")], check=True)  # noqa: S603
    assert {path.name for path in (tmp_path / "new" / "schema").iterdir()} == {f"{name}.json" for name in CHANNELS}
    (tmp_path / "file").touch()
    run = subprocess.run(  # noqa: S603
        [polegate(), "schema", str(tmp_path / "file" / "x")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "file/x" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_document_is_asyncapi_3() -> None:
    assert faults(theirs("asyncapi-3.0.0"), DOCUMENT) == []


def _without_channel(document: dict[str, Any]) -> None:
    del document["operations"]["state"]["channel"]


def _misspelt(document: dict[str, Any]) -> None:
    document["channels"]["state"]["adress"] = document["channels"]["state"].pop("address")


def _no_type(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["State"]["type"] = "objekt"


def _no_qos(document: dict[str, Any]) -> None:
    document["operations"]["state"]["bindings"]["mqtt"]["qos"] = 3


@pytest.mark.parametrize("spoil", [_without_channel, _misspelt, _no_type, _no_qos])
def test_what_is_no_asyncapi_is_found(spoil: Any) -> None:  # noqa: ANN401  # one of those above
    document = copy.deepcopy(DOCUMENT)
    spoil(document)
    assert faults(theirs("asyncapi-3.0.0"), document)


def test_all_that_the_document_refers_to_is_there_and_has_all_parameters() -> None:
    for ref in re.findall(r'"\$ref": "([^"]*)"', json.dumps(DOCUMENT)):
        place: Any = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            place = place[step]
    for channel in DOCUMENT["channels"].values():
        assert set(channel["parameters"]) == set(re.findall(r"{(\w+)}", channel["address"]))


def test_the_document_says_the_same_as_the_schemas() -> None:
    for name in CHANNELS:
        alone = ours(name).schema
        assert isinstance(alone, dict)
        inside = DOCUMENT["components"]["messages"][name]["payload"]
        for key in set(inside) - {"title", "description"}:
            assert json.dumps(inside[key]).replace("components/schemas", "$defs") == json.dumps(alone[key])
        for model, schema in alone["$defs"].items():
            said = DOCUMENT["components"]["schemas"][model]
            assert json.dumps(said).replace("components/schemas", "$defs") == json.dumps(schema)


@pytest.mark.parametrize(
    "spoilt",
    [
        [],
        {},
        [{}],
        [PACK[1]],  # a pack begins with a record that says which it is
        [{**PACK[0], "vs": "two values"}],
        [{key: value for key, value in PACK[0].items() if key != "v"}],
        [{**PACK[0], "v": "1.5"}],
        [{**PACK[0], "after": "the last one"}],
        [{**PACK[0], "seq": 0}],
    ],
)
def test_what_is_no_pack_is_found(spoilt: object) -> None:
    must_be("data", PACK)
    assert faults(ours("data"), spoilt)


@pytest.mark.parametrize("state", [{}, {"status": "dead"}, {"status": "online"}, {"status": "stopped", "version": "1"}])
def test_what_is_no_state_is_found(state: object) -> None:
    must_be("state", {"status": "gone"})
    assert faults(ours("state"), state)


def test_a_request_is_what_the_pole_takes_for_one() -> None:
    for request in (
        {"dataset": "air", "epoch": 1, "from": 1, "to": 2},
        {"id": "x", "dataset": "air", "epoch": 1, "from": 1, "to": 2},
    ):
        must_be("replay", request)
        assert Replay.model_validate_json(json.dumps(request)).last == 2
    for wrong in ({"dataset": "air"}, {"dataset": "air", "epoch": 1, "from": 0, "to": 2}):
        assert faults(ours("replay"), wrong)

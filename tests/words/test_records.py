"""SenML as ``polegate tail`` reads it: the examples of RFC 8428, what the gateway writes, and what anybody may send."""

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.words import records
from gateway.words.payload import packed
from gateway.words.records import MOST_BYTES, NoSenml, read, resolve
from hil.senml import resolve as resolve_for_the_bench
from tests.examples import examples

NOW = 1_800_000_000.0
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "senml.json").read_text())["vectors"]

words = st.sampled_from(["", "a", "pole-7/", "dust/pm10"])
times = st.integers(-10, 10) | st.just(1.5) | st.integers(1 << 28, 1 << 33)
fields: dict[str, st.SearchStrategy[object]] = {
    "bn": words,
    "bt": times,
    "bu": words,
    "bver": st.sampled_from([5, 10, 26]),
    "n": words,
    "t": times,
    "u": words,
    "epoch": st.integers(),
    "why": words,
}
value = st.one_of(
    st.tuples(st.just("v"), st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("vb"), st.booleans()),
    st.tuples(st.just("vs"), st.text()),
    st.tuples(st.just("vd"), st.just("aGk")),
).map(lambda pair: dict([pair]))
raws = st.builds(lambda base, v: base | v, st.fixed_dictionaries({}, optional=fields), value | st.just({}))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_the_examples_of_the_standard_are_resolved_as_it_does(vector: dict[str, Any]) -> None:
    found = list(resolve(vector["pack"], vector.get("now", 0)))
    assert len(found) >= vector.get("records", len(vector.get("resolved", [])))
    for record, expected in zip(found, vector.get("resolved", []), strict=False):
        value = next(expected[kind] for kind in ("v", "vb", "vs", "vd") if kind in expected)
        assert (record.name, record.time, record.unit) == (expected["n"], expected["t"], expected.get("u", ""))
        assert (record.value, type(record.value)) == (value, type(value))
        assert record.labels == {}


@examples(300)
@given(st.lists(raws, max_size=6))
def test_any_pack_is_resolved_as_a_reader_does_that_shares_no_line_with_it(pack: list[dict[str, Any]]) -> None:
    expected = [(r.name, r.time, r.unit, r.value, r.labels) for r in resolve_for_the_bench(pack, NOW)]
    assert repr([tuple(record) for record in resolve(pack, NOW)]) == repr(expected)  # repr: True is not 1


def test_a_base_value_is_added_to_numbers_and_to_nothing_else() -> None:
    # RFC 8428 section 4.1, "Base Value: A base value is added to the value found in an entry"
    pack = [{"bn": "a", "bv": 20, "v": 1.5}, {"v": 2}, {"vs": "x"}, {"vb": True}, {"bv": 0, "v": 3}]
    assert [record.value for record in resolve(pack, NOW)] == [21.5, 22, "x", True, 3]


def test_a_small_time_counts_from_when_the_pack_came() -> None:
    found = resolve([{"n": "a", "v": 1}, {"n": "a", "t": -5, "v": 1}, {"n": "a", "bt": NOW - 60, "t": 1, "v": 1}], NOW)
    assert [record.time for record in found] == [NOW, NOW - 5, NOW - 59]


@pytest.mark.parametrize("pack", [list(range(3)), [[]], {}, None, 7, "x"])
def test_what_is_no_list_of_objects_is_no_pack(pack: object) -> None:
    with pytest.raises(NoSenml, match=r"no object|no list"):
        list(resolve(pack, NOW))


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ('{"n": "a", "v": 1, "must_": 1}', 'must be understood, "must_"'),
        ('{"n": "a", "v": 1, "vs": "x"}', "more than one value: v and vs"),
        ('{"n": "a", "v": 1, "bver": 42}', "version 42, and this reads version 26"),
        ('{"n": "a", "v": true}', '"v" has a value of another kind'),
        ('{"n": "a", "vb": 1}', '"vb" has a value of another kind'),
        ('{"n": null, "v": 1}', '"n" has a value of another kind'),
        ('{"n": "a", "t": "1", "v": 1}', '"t" has a value of another kind'),
        ('{"n": "a", "v": NaN}', "NaN is no number"),
        ('{"n": "a", "v": 1e999}', "too large"),
        ('{"n": "a", "t": -1e999, "v": 1}', "too large"),
        ('{"n": "a", "bt": 1e308, "t": 1e308, "v": 1}', "too large"),
        (f'{{"n": "a", "bt": {10**400}, "t": 0.5, "v": 1}}', "cannot be read"),
        ('{"bn": "a"}', "no value in it"),
        ('{"n": "a"', "cannot be read"),
        ('{"n": "\xff"}', "cannot be read"),
    ],
)
def test_what_is_not_sound_in_full_is_not_read_and_the_reason_is_told(record: str, says: str) -> None:
    with pytest.raises(NoSenml, match=says):
        read(f"[{record}]".encode("latin-1"), NOW)


def test_a_pack_is_read_compressed_or_not() -> None:
    raw = json.dumps([{"n": "a", "v": number, "vx": "padding"} for number in range(50)]).encode()
    assert packed(raw) != raw
    assert read(packed(raw), NOW) == read(raw, NOW)
    streamed = zstandard.ZstdCompressor(write_content_size=False).compress(raw)  # as other writers may
    assert read(streamed, NOW) == read(raw, NOW)


@pytest.mark.parametrize(("says_so", "refusal"), [(True, f"more than {MOST_BYTES} bytes"), (False, "decompress")])
def test_a_pack_that_would_fill_the_memory_is_not_unpacked(*, says_so: bool, refusal: str) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=says_so).compress(bytes(2 * MOST_BYTES))
    with pytest.raises(NoSenml, match=refusal):
        read(bomb, NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*records.KINDS, "x", "y_"]), inner),
    max_leaves=12,
)


@examples(300)
@given(st.binary(max_size=60) | st.binary(max_size=40).map(zstandard.compress) | json_values.map(json.dumps))
def test_anything_at_all_is_read_or_no_senml(payload: bytes | str) -> None:
    try:
        found = read(payload.encode() if isinstance(payload, str) else payload, NOW)
    except NoSenml:
        return
    assert found
    json.dumps([record.value for record in found], allow_nan=False)

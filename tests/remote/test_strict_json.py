"""JSON of strangers: what is refused before anybody looks at what it says."""

import pytest

from gateway.remote.strict_json import LARGEST_BYTES, MOST_DEPTH, parse
from gateway.remote.verdict import Code, Rejected


def refusal(raw: bytes) -> Rejected:
    with pytest.raises(Rejected) as refused:
        parse(raw)
    return refused.value


@pytest.mark.parametrize("raw", [b"[NaN]", b"[Infinity]", b"[-Infinity]", b"[1e400]", b'{"a": {"b": NaN}}'])
def test_what_is_no_number_is_refused(raw: bytes) -> None:
    assert "number" in refusal(raw).text


def test_depth_is_counted_outside_of_texts() -> None:
    assert parse(b"[" * MOST_DEPTH + b"]" * MOST_DEPTH)
    assert "brackets" in refusal(b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1)).text
    assert "brackets" in refusal(b"[" * LARGEST_BYTES).text
    assert parse(b'["' + b"[" * 100 + b'\\"[[", 1]') == ["[" * 100 + '"[[', 1]


def test_a_doubled_key_is_found_at_any_depth() -> None:
    assert "twice" in refusal(b'{"a": [{"b": 1, "b": 1}]}').text


@pytest.mark.parametrize("raw", [rb'["\ud800"]', rb'{"\udfff": 1}', rb'[{"a": ["x\udc00\ud83d"]}]'])
def test_half_of_a_character_is_refused(raw: bytes) -> None:
    assert "half of a character" in refusal(raw).text
    assert parse(rb'["\ud83d\ude00"]') == ["\N{GRINNING FACE}"]


def test_size_is_told() -> None:
    assert refusal(b" " * (LARGEST_BYTES + 1)).code is Code.TOO_BIG
    assert refusal(b" " * LARGEST_BYTES).code is Code.PARSE

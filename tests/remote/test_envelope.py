"""What is signed, before anything in it is believed."""

import json
import subprocess
import sys

import pytest

from gateway.remote import envelope
from gateway.remote.envelope import COMMAND_TYPE, CONFIG_TYPE, Envelope, Signature
from gateway.remote.strict_json import LARGEST_BYTES
from gateway.remote.verdict import Code, Rejected
from tests.remote.operator import KEYS, signed

TWO = [KEYS["c1"].public, KEYS["c2"].public]


def refusal(sent: Envelope, keys: list[bytes] = TWO, threshold: int = 2) -> Code:
    with pytest.raises(Rejected) as refused:
        sent.must_be_signed(keys, threshold)
    return refused.value.code


def unread(raw: bytes, kind: str | None = CONFIG_TYPE) -> Code:
    with pytest.raises(Rejected) as refused:
        envelope.read(raw, kind)
    return refused.value.code


def test_it_travels_whole() -> None:
    sent = signed(b"\x00\xff any bytes", CONFIG_TYPE, "c1", "c2")
    got = envelope.read(sent.written(), CONFIG_TYPE)
    assert (got.payload, got.signers(TWO)) == (sent.payload, set(TWO))
    got.must_be_signed(TWO, 2)


def test_the_signed_text_is_that_of_the_standard() -> None:
    example = Envelope("http://example.com/HelloWorld", b"hello world")  # protocol.md of DSSE
    assert example.signed == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_an_unknown_key_counts_for_nothing() -> None:
    assert refusal(signed(b"{}", CONFIG_TYPE, "x")) is Code.SIG
    assert refusal(signed(b"{}", CONFIG_TYPE, "x", "c1")) is Code.THRESHOLD


def test_the_name_of_a_key_proves_nothing() -> None:
    sent = signed(b"{}", CONFIG_TYPE, "x")
    named = Envelope(sent.kind, sent.payload, [Signature("c1", sent.signatures[0].signature)])
    assert refusal(named, threshold=1) is Code.SIG


def test_one_flipped_bit_is_found() -> None:
    sent = signed(b"dim 20 %", CONFIG_TYPE, "c1", "c2")
    for place in range(len(sent.payload)):
        flipped = bytearray(sent.payload)
        flipped[place] ^= 1
        assert refusal(Envelope(sent.kind, bytes(flipped), sent.signatures)) is Code.SIG


def test_keys_count_and_not_signatures() -> None:
    assert refusal(signed(b"{}", CONFIG_TYPE, "c1", "c1", "c1")) is Code.THRESHOLD
    assert refusal(signed(b"{}", CONFIG_TYPE, "c1"), [TWO[0], TWO[0]]) is Code.THRESHOLD


def test_a_bad_signature_beside_good_ones_does_no_harm() -> None:
    sent = signed(b"{}", CONFIG_TYPE, "c1", "c2")
    Envelope(sent.kind, sent.payload, [Signature("c1", b"\x00"), *sent.signatures]).must_be_signed(TWO, 2)


def test_a_signature_holds_for_one_type_only() -> None:
    sent = signed(b"{}", COMMAND_TYPE, "c1", "c2")
    assert refusal(Envelope(CONFIG_TYPE, sent.payload, sent.signatures)) is Code.SIG
    assert unread(sent.written()) is Code.TYPE


GARBAGE = {
    "nothing": b"",
    "cut": b"{",
    "null": b"null",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"payloadType": "\xff"}',
    "a mark before it": b"\xef\xbb\xbf{}",
    "doubled key": b'{"payload": "", "payload": "", "payloadType": "", "signatures": []}',
    "wrong types": b'{"payload": 1, "payloadType": [], "signatures": {}}',
    "more behind it": signed(b"{}", CONFIG_TYPE, "c1").written() + b"{}",
    "unknown key": b'{"payload": "", "payloadType": "", "signatures": [], "more": 1}',
    "no base64": b'{"payload": "!", "payloadType": "application/vnd.polegate.config.v1+json", "signatures": []}',
    "digits": b"9" * 10_000,
    "infinite": b"[1e999]",
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused(raw: bytes) -> None:
    assert unread(raw) is Code.PARSE


def test_brackets_in_a_text_are_not_depth() -> None:
    sent = json.loads(signed(b"{}", CONFIG_TYPE).written())
    sent["signatures"] = [{"keyid": '[[[[\\"' * 8, "sig": ""}]
    assert envelope.read(json.dumps(sent).encode()).payload == b"{}"


def test_more_signatures_than_anybody_needs_are_not_looked_at() -> None:
    assert unread(signed(b"{}", CONFIG_TYPE, *["c1"] * 17).written()) is Code.PARSE


def test_size_comes_first() -> None:
    assert unread(b"\xff" * (LARGEST_BYTES + 1)) is Code.TOO_BIG
    assert unread(b"\xff" * LARGEST_BYTES) is Code.PARSE


@pytest.mark.parametrize("text", ["-----BEGIN nothing", "", "\xff"])
def test_what_is_no_private_key_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        type(KEYS["c1"])(text.encode("latin-1"))


def test_a_pole_that_is_not_configured_over_the_air_does_not_carry_the_library() -> None:
    modules = "cryptography", "gateway.remote.incoming", "gateway.remote.remote"
    code = f"import sys, gateway.app; sys.exit(any(each in sys.modules for each in {modules}))"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  # our own
    code = "import sys, gateway.remote.incoming, gateway.remote.remote; sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  # our own

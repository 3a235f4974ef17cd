"""Whose signatures count, and how that changes."""

from typing import Any

import pytest

from gateway.remote import trust_root
from gateway.remote.envelope import CONFIG_TYPE, ROOT_TYPE
from gateway.remote.verdict import Code, Rejected
from tests.remote.operator import NOW, ROLES, public, root, root_content, signed

FIRST = trust_root.first(root())
NEW_KEYS = {**ROLES, "root": {"keys": ["s1", "s2"], "threshold": 2}}


def refusal(raw: bytes) -> Code:
    with pytest.raises(Rejected) as refused:
        trust_root.following(FIRST, raw)
    return refused.value.code


def test_old_and_new_keys_sign_a_rotation() -> None:
    new = trust_root.following(FIRST, root(["r1", "r2", "s1", "s2"], version=2, epoch=2, roles=NEW_KEYS))
    assert (new.version, new.epoch) == (2, 2)
    newer = root(["s1", "s2"], version=3, epoch=2, roles=NEW_KEYS)
    assert trust_root.following(new, newer).version == 3
    assert refusal(newer) is Code.SIG


def test_one_signature_is_not_enough() -> None:
    assert refusal(root(["r1"], version=2)) is Code.THRESHOLD
    assert refusal(root(["r1", "r1"], version=2)) is Code.THRESHOLD


def test_the_new_keys_must_sign_too() -> None:
    assert refusal(root(["r1", "r2"], version=2, roles=NEW_KEYS)) is Code.SIG
    assert refusal(root(["r1", "r2", "s1"], version=2, roles=NEW_KEYS)) is Code.THRESHOLD


def test_no_version_is_skipped_or_repeated() -> None:
    assert refusal(root(version=3)) is Code.STALE
    assert refusal(root(version=1)) is Code.STALE


def test_an_epoch_never_falls() -> None:
    first = trust_root.first(root(epoch=5))
    with pytest.raises(Rejected) as refused:
        trust_root.following(first, root(version=2, epoch=4))
    assert refused.value.code is Code.EPOCH


def test_a_root_is_no_configuration_and_the_other_way_round() -> None:
    assert refusal(signed(root_content(version=2), CONFIG_TYPE, "r1", "r2").written()) is Code.TYPE


def test_the_first_root_is_signed_by_its_own_keys() -> None:
    with pytest.raises(Rejected) as refused:
        trust_root.first(root(["c1", "c2"]))
    assert refused.value.code is Code.SIG


def test_a_role_that_nobody_has_signs_nothing() -> None:
    bare = trust_root.first(root(roles={"root": ROLES["root"]}))
    with pytest.raises(Rejected, match='no role "pole"'):
        bare.must_sign(signed(b"{}", CONFIG_TYPE, "c1"), "pole")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"keys": {}}, '"keys" must hold 1 or more'),
        ({"keys": {"r1": "AAAA"}}, "no public key"),
        ({"keys": {"r1": "!"}}, "no public key"),
        ({"keys": {name: public("r1") for name in ("r1", "r2", "r3", "c1", "c2", "c3", "cmd")}}, "under two names"),
        ({"keys": {"r1": public("r1")}}, "not among the keys"),
        ({"roles": {"pole": ROLES["pole"]}}, '"root" is missing'),
        ({"roles": {"root": {"keys": ["r1"], "threshold": 2}}}, "names fewer"),
        ({"roles": {"root": {"keys": ["r1", "r1"], "threshold": 2}}}, "names fewer"),
        ({"roles": {"root": {"keys": ["r1"], "threshold": 0}}}, 'roles.root: "threshold" must be 1 or more, not 0'),
        ({"version": True}, '"version" must be a whole number, not true'),
        ({"version": 1.0}, '"version" must be a whole number, not 1.0'),
        ({"epoch": 2**53}, "must be 9007199254740991 or less"),
        ({"more": 1}, '"more" is not a known key'),
        ({"issued": -NOW}, '"issued" must be 0 or more'),
    ],
)
def test_a_root_that_cannot_hold_is_refused(changes: dict[str, Any], why: str) -> None:
    raw = signed(root_content(**changes), ROOT_TYPE, "r1", "r2").written()
    with pytest.raises(Rejected, match=why) as refused:
        trust_root.first(raw)
    assert refused.value.code is Code.PARSE

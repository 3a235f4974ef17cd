"""Operators with their keys: what they sign, right or wrong in one way."""

import base64
import json
from collections.abc import Sequence
from typing import Any

from gateway.remote import ed25519
from gateway.remote.ed25519 import PrivateKey
from gateway.remote.envelope import COMMAND_TYPE, CONFIG_TYPE, ROOT_TYPE, Envelope, Signature

NOW = 1_800_000_000
WEEK = 7 * 86_400
POLE = "pole-1"
KEYS = {
    name: PrivateKey(ed25519.new_private_key()) for name in ("r1", "r2", "r3", "s1", "s2", "c1", "c2", "c3", "cmd", "x")
}
ROLES: dict[str, Any] = {
    "root": {"keys": ["r1", "r2", "r3"], "threshold": 2},
    "fleet": {"keys": ["c1", "c2", "c3"], "threshold": 2},
    "group": {"keys": ["c1", "c2", "c3"], "threshold": 2},
    "pole": {"keys": ["c1", "c2", "c3"], "threshold": 1},
    "command": {"keys": ["cmd"], "threshold": 1},
}


def public(name: str) -> str:
    """Return a public key as it stands in a root."""
    return base64.b64encode(KEYS[name].public).decode()


def signed(payload: bytes | dict[str, Any], kind: str, *names: str) -> Envelope:
    """Sign a payload with keys."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    bare = Envelope(kind, body)
    return Envelope(kind, body, [Signature(name, KEYS[name].sign(bare.signed)) for name in names])


def root_content(**changes: Any) -> dict[str, Any]:  # noqa: ANN401  # any JSON
    """Return what a root says."""
    roles = changes.pop("roles", ROLES)
    names = {name for signers in roles.values() for name in signers["keys"]}
    content = {
        "version": 1,
        "epoch": 1,
        "issued": NOW - WEEK,
        "keys": {name: public(name) for name in sorted(names)},
        "roles": roles,
    }
    return content | changes


def root(signers: Sequence[str] = ("r1", "r2"), **changes: Any) -> bytes:  # noqa: ANN401  # any JSON
    """Return a root of trust."""
    return signed(root_content(**changes), ROOT_TYPE, *signers).written()


def document_content(settings: str = "", **changes: Any) -> dict[str, Any]:  # noqa: ANN401  # any JSON
    """Return what a document says: for the pole, number 1, unless it is changed."""
    content = {
        "stream": f"pole/{POLE}",
        "seq": 1,
        "epoch": 1,
        "issued": NOW,
        "not_before": NOW,
        "expires": NOW + WEEK,
        "schema": "polegate.config/1",
        "settings": settings,
    }
    return content | changes


def document(settings: str = "", signers: Sequence[str] = ("c1", "c2"), **changes: Any) -> bytes:  # noqa: ANN401  # any JSON
    """Return a signed document."""
    return signed(document_content(settings, **changes), CONFIG_TYPE, *signers).written()


def command(do: str, trial: str, signers: Sequence[str] = ("cmd",), **changes: Any) -> bytes:  # noqa: ANN401  # any JSON
    """Return a signed command."""
    content = {"pole": POLE, "do": do, "trial": trial, "epoch": 1, "issued": NOW, "expires": NOW + 600}
    return signed(content | changes, COMMAND_TYPE, *signers).written()

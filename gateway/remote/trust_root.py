"""The root of trust: which keys there are, and how many of which must sign what.

The first root is put on the pole when it is set up. A later one is the next in number, and is signed by as many of the
root keys as the one before asks for, and by as many of its own as it asks for itself: then neither the old keys alone
can be followed by keys nobody holds, nor the new ones put themselves in.

``epoch`` is raised when a key was stolen: documents of an older epoch are refused, and sequences begin anew.
"""

import base64
import binascii
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.remote import strict_json
from gateway.remote.ed25519 import PUBLIC_BYTES
from gateway.remote.envelope import ROOT_TYPE, Envelope, read
from gateway.remote.verdict import Code, Rejected

MOST_KEYS = 16
LARGEST_NUMBER = 2**53 - 1  # what every JSON reader keeps whole

Role = Literal["root", "fleet", "group", "pole", "command"]
Number = Annotated[int, Field(ge=1, le=LARGEST_NUMBER)]
Time = Annotated[int, Field(ge=0, le=LARGEST_NUMBER, description="Seconds since 1970.")]


class Signers(BaseModel):
    """Who may sign something: keys by name, and how many of them it takes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)

    keys: Annotated[list[str], Field(min_length=1, max_length=MOST_KEYS)]
    threshold: Annotated[int, Field(ge=1, le=MOST_KEYS)]


class Root(BaseModel):
    """A root of trust."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)

    version: Number
    epoch: Number
    issued: Time
    keys: dict[str, str] = Field(min_length=1, max_length=MOST_KEYS, description="Public keys, base64, by name.")
    roles: dict[Role, Signers]

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, keys: dict[str, str]) -> dict[str, str]:
        for name, text in keys.items():
            try:
                size = len(base64.b64decode(text, validate=True))
            except binascii.Error:
                size = 0
            if size != PUBLIC_BYTES:
                raise ValueError(f'key "{name}" is no public key; write what polegate fleet keygen printed')
        if len({base64.b64decode(text) for text in keys.values()}) < len(keys):
            raise ValueError("a key stands there under two names; it would count twice")
        return keys

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if "root" not in self.roles:
            raise ValueError('role "root" is missing; without it no later root can follow')
        for role, signers in self.roles.items():
            if unknown := [name for name in signers.keys if name not in self.keys]:
                raise ValueError(f'role "{role}" names key "{unknown[0]}", which is not among the keys')
            if signers.threshold > len(set(signers.keys)):
                raise ValueError(f'role "{role}" asks for {signers.threshold} keys and names fewer')
        return self

    def must_sign(self, envelope: Envelope, role: Role) -> None:
        """Raise Rejected, SIG or THRESHOLD, unless enough keys of a role signed."""
        signers = self.roles.get(role)
        if signers is None:
            raise Rejected(Code.SIG, f'nobody may sign it: the root of trust has no role "{role}"')
        envelope.must_be_signed([base64.b64decode(self.keys[name]) for name in signers.keys], signers.threshold)


def first(raw: bytes) -> Root:
    """Read the root that was put on the pole. It must be signed by its own keys: that finds a damaged file.

    Raises Rejected.
    """
    envelope = read(raw, ROOT_TYPE)
    root = parsed(envelope.payload)
    root.must_sign(envelope, "root")
    return root


def following(root: Root, raw: bytes) -> Root:
    """Read the root that follows another. Raises Rejected."""
    envelope = read(raw, ROOT_TYPE)
    root.must_sign(envelope, "root")
    new = parsed(envelope.payload)
    new.must_sign(envelope, "root")
    if new.version <= root.version:
        raise Rejected(Code.STALE, f"root {new.version} is not newer than the one in force, {root.version}")
    if new.version != root.version + 1:
        raise Rejected(Code.STALE, f"root {new.version} cannot follow {root.version}; send {root.version + 1} first")
    if new.epoch < root.epoch:
        raise Rejected(Code.EPOCH, f"its epoch {new.epoch} is before that of the root in force, {root.epoch}")
    return new


def parsed(payload: bytes) -> Root:
    """Read the payload of a root. Raises Rejected: PARSE."""
    return _read(strict_json.parse(payload))


def written(content: object) -> bytes:
    """Write a root as it is signed. Raises Rejected, PARSE, where it is none."""
    return _read(content).model_dump_json(indent=1).encode()


def _read(content: object) -> Root:
    return strict_json.fitted(Root, content, "root of trust")

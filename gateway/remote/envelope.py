"""The envelope of what is signed: DSSE, https://github.com/secure-systems-lab/dsse.

The signature is over the exact bytes of the payload and its type, so nothing needs to be brought into a canonical form,
and a signature under one type is worth nothing under another. The payload is read only once it is signed.
"""

import base64
import binascii
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.remote import ed25519, strict_json
from gateway.remote.verdict import Code, Rejected

CONFIG_TYPE = "application/vnd.polegate.config.v1+json"
COMMAND_TYPE = "application/vnd.polegate.command.v1+json"
ROOT_TYPE = "application/vnd.polegate.root.v1+json"
MOST_SIGNATURES = 16


class _Signature(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True)

    keyid: Annotated[str, Field(max_length=64)]
    sig: Annotated[str, Field(max_length=128)]


class _Written(BaseModel):
    """The envelope as it is written."""

    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True)

    payloadType: str  # noqa: N815  # DSSE's name
    payload: str
    signatures: Annotated[list[_Signature], Field(max_length=MOST_SIGNATURES)]


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature, and the name that the signer gives his key; nothing is decided by the name."""

    name: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is signed, and the signatures, not looked at yet."""

    kind: str
    payload: bytes
    signatures: Sequence[Signature] = ()

    @property
    def signed(self) -> bytes:
        """The text that is signed: DSSE's pre-authentication encoding."""
        kind = self.kind.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)

    def signers(self, keys: Collection[bytes]) -> set[bytes]:
        """Return those of some public keys that signed it; a key counts once, however often it signed."""
        return {
            key
            for key in set(keys)
            if any(ed25519.is_signed(key, each.signature, self.signed) for each in self.signatures)
        }

    def must_be_signed(self, keys: Collection[bytes], threshold: int) -> None:
        """Raise Rejected, SIG or THRESHOLD, unless at least that many of these keys signed."""
        found = len(self.signers(keys))
        if not found:
            raise Rejected(Code.SIG, "no key that may sign it has signed it")
        if found < threshold:
            raise Rejected(Code.THRESHOLD, f"{found} of the keys that may sign it signed; it takes {threshold}")

    def written(self) -> bytes:
        """Return it as it travels."""
        signatures = [{"keyid": each.name, "sig": _base64(each.signature)} for each in self.signatures]
        content = {"payloadType": self.kind, "payload": _base64(self.payload), "signatures": signatures}
        return json.dumps(content, indent=1).encode()


def read(raw: bytes, kind: str | None = None) -> Envelope:
    """Read an envelope, of a kind if one is named. Raises Rejected: TOO_BIG, PARSE, TYPE."""
    content = strict_json.parse(raw)
    try:
        written = _Written.model_validate(content)
        signatures = [Signature(each.keyid, _bytes(each.sig)) for each in written.signatures]
        envelope = Envelope(written.payloadType, _bytes(written.payload), signatures)
    except (ValidationError, binascii.Error, ValueError) as error:
        raise Rejected(Code.PARSE, "it is no signed document; see polegate fleet sign") from error
    if kind is not None and envelope.kind != kind:
        raise Rejected(Code.TYPE, f"it is of another type than {kind}")
    return envelope


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)

"""A door: X.509, by ``cryptography``: keys, requests for certificates, certificates, and what is wrong with one.

Chains are followed here by signature and name. The library's own verifier keeps the rules of the web, and refuses what
brokers take: certificates of version 1, as ``openssl x509 -req`` makes them, or without another name.
"""

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LONGEST_CHAIN = 8
LONGEST_NAME = 64  # RFC 5280, ub-common-name
NOT_KNOWN = UnsupportedAlgorithm, x509.InvalidVersion, x509.UnsupportedGeneralNameType, x509.DuplicateExtension


@contextlib.contextmanager
def _known_kinds() -> Iterator[None]:
    """Make what the library does not know a fault of the text, as all else is. Raises ValueError."""
    try:
        yield
    except NOT_KNOWN as error:
        raise ValueError(str(error)) from error


def new_key() -> bytes:
    """Make a private key on P-256, in PEM."""
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(*pem)


def public_of(key: bytes) -> bytes:
    """Return the public key of a private one in PEM. Raises ValueError."""
    return _spki(_private(key).public_key())


def request(key: bytes, name: str) -> bytes:
    """Make a request for a client's certificate with this common name, in PEM. Raises ValueError."""
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a certificate holds a name of at most {LONGEST_NAME} letters, and {name} has {len(name)}")
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    signed = builder.add_extension(usage, critical=False).sign(_private(key), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate.

    Attributes:
        pem: it, and those that followed.
        names: common names of whom it is made out to; it should have one.
        subject: all that it calls him (RFC 4514).
        issuer: who signed it, likewise.
        serial: its number, in hexadecimal.
        begins: from when it is valid.
        ends: until when.
        public: the public key in it, DER.
        for_clients: whether it may be shown to a broker.
    """

    pem: bytes
    names: tuple[str, ...]
    subject: str
    issuer: str
    serial: str
    begins: dt.datetime
    ends: dt.datetime
    public: bytes
    for_clients: bool

    def life_left(self, now: dt.datetime) -> float:
        """Return the share of its life that is left: 0 and less when it is over."""
        return (self.ends - now) / (self.ends - self.begins)


@_known_kinds()
def read(pem: bytes) -> Certificate:
    """Read the first certificate in PEM; those that may follow are of authorities. Raises ValueError."""
    found = x509.load_pem_x509_certificates(pem)
    first = found[0]
    return Certificate(
        pem=b"".join(each.public_bytes(serialization.Encoding.PEM) for each in found),
        names=tuple(str(each.value) for each in first.subject.get_attributes_for_oid(NameOID.COMMON_NAME)),
        subject=first.subject.rfc4514_string(),
        issuer=first.issuer.rfc4514_string(),
        serial=f"{first.serial_number:x}",
        begins=first.not_valid_before_utc,
        ends=first.not_valid_after_utc,
        public=_spki(first.public_key()),
        for_clients=_for_clients(first),
    )


@_known_kinds()
def chain_fault(pem: bytes, authorities: bytes, now: dt.datetime | None) -> str:
    """Tell why the first certificate is not signed by one of these authorities; "" where it is. Raises ValueError.

    Between may be those that follow in ``pem``. Without ``now`` the times of the authorities are let be.
    """
    at, *between = x509.load_pem_x509_certificates(pem)
    trusted = x509.load_pem_x509_certificates(authorities)
    for _ in range(LONGEST_CHAIN):
        if issuer := next(_issuers(at, trusted), None):
            return _authority_fault(issuer, now)
        above = next(_issuers(at, between), None)
        if above is None:
            return f"nobody in it signed {at.subject.rfc4514_string()}, whose issuer is {at.issuer.rfc4514_string()}"
        if fault := _authority_fault(above, now):
            return fault
        at = above
    return "the chain has no end"


def _issuers(cert: x509.Certificate, among: Sequence[x509.Certificate]) -> Iterator[x509.Certificate]:
    for each in among:
        try:
            cert.verify_directly_issued_by(each)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):  # another name, kind of key, or key
            continue
        yield each


def _authority_fault(cert: x509.Certificate, now: dt.datetime | None) -> str:
    name = cert.subject.rfc4514_string()
    if now and not cert.not_valid_before_utc <= now <= cert.not_valid_after_utc:
        return f"{name} is valid from {cert.not_valid_before_utc:%Y-%m-%d} to {cert.not_valid_after_utc:%Y-%m-%d}"
    try:
        is_authority = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = cert.version is x509.Version.v1  # it cannot say so
    return "" if is_authority else f"{name} is no authority"


def _for_clients(cert: x509.Certificate) -> bool:
    try:
        usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:  # any use is allowed
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


@_known_kinds()
def _private(pem: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError as error:
        raise ValueError("it has a passphrase, and nobody is there to type it") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("it is a key of another kind than EC or RSA")  # noqa: TRY004  # of the file, not of an argument
    return key


def _spki(key: object) -> bytes:
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(*form)  # type: ignore[attr-defined, no-any-return]  # every public key has it

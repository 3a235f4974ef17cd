"""Certificates for the tests: authorities, brokers, poles; good ones, and such as are wrong in one way."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from gateway.link.tls import TlsFiles

DAY = dt.timedelta(days=1)
LOOPBACK = "127.0.0.1"
FOR_CLIENTS, FOR_SERVERS = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


LISTENER = """
listener {port} 127.0.0.1
{broker.lines}
cafile {authority}
crlfile {revoked}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in files."""

    cert: Path
    key: Path

    @property
    def lines(self) -> str:
        """What a mosquitto needs in its configuration to have it."""
        return f"certfile {self.cert}\nkeyfile {self.key}"

    def copy_to(self, other: "Pair") -> None:
        """Put this in the place of another one, as a renewal does."""
        other.cert.write_bytes(self.cert.read_bytes())
        other.key.write_bytes(self.key.read_bytes())


class Authority:
    """A certificate authority that signs what it is asked to."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        cert = _builder(self._name, self._name, self._key.public_key(), dt.datetime.now(dt.UTC) + 30 * DAY)
        cert = cert.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.cert = folder / f"{name}.pem"
        self.cert.write_bytes(_pem(cert.sign(self._key, hashes.SHA256())))

    def issue(self, name: str, *, file: str = "", host: str = LOOPBACK, days: float = 10) -> Pair:
        """Issue a certificate.

        Args:
            name: common name.
            file: what its files begin with; the name.
            host: the address it is for, or the name.
            days: until it ends; it began a day before that or before now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        cert = _builder(_name(name), self._name, key.public_key(), dt.datetime.now(dt.UTC) + days * DAY)
        cert = cert.add_extension(x509.SubjectAlternativeName([_host(host)]), critical=False)
        pair = Pair(self._folder / f"{file or name}.pem", self._folder / f"{file or name}.key")
        pair.cert.write_bytes(_pem(cert.sign(self._key, hashes.SHA256())))
        pair.key.write_bytes(private(key))
        return pair

    def sign(
        self,
        request: bytes,
        *,
        name: str = "",
        organisation: str = "",
        days: float = 10,
        usage: ObjectIdentifier | None = FOR_CLIENTS,
    ) -> bytes:
        """Sign a request; return the certificate in PEM.

        Args:
            request: in PEM.
            name: common name; that of the request.
            organisation: of the subject too, where there is a name.
            days: as for ``issue``.
            usage: what it is for; None: anything.
        """
        asked = x509.load_pem_x509_csr(request)
        assert asked.is_signature_valid
        end = dt.datetime.now(dt.UTC) + days * DAY
        cert = _builder(_name(name, organisation) if name else asked.subject, self._name, asked.public_key(), end)
        if usage:
            cert = cert.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return _pem(cert.sign(self._key, hashes.SHA256()))

    def below(self, name: str, *, days: float = 20, is_authority: bool = True) -> "Authority":
        """Return an authority that this one has signed, or what signs and is none; its file holds its own alone."""
        other = Authority(self._folder, name)
        own = x509.load_pem_x509_certificate(other.cert.read_bytes())
        cert = _builder(own.subject, self._name, own.public_key(), dt.datetime.now(dt.UTC) + days * DAY)
        limit = x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None)
        cert = cert.add_extension(limit, critical=True)
        other.cert.write_bytes(_pem(cert.sign(self._key, hashes.SHA256())))
        return other

    def revoke(self, *pairs: Pair, days: float = 1) -> Path:
        """Write the list of the certificates that are not to be trusted any more; it is good for so many days."""
        now = dt.datetime.now(dt.UTC)
        revoked = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        revoked = revoked.last_update(now - DAY).next_update(now + days * DAY)
        for pair in pairs:
            number = x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now - DAY).build()
            revoked = revoked.add_revoked_certificate(entry)
        path = self.cert.with_name(f"{self.cert.stem}-revoked.pem")
        path.write_bytes(revoked.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def listener(self, port: int) -> str:
        """Return what makes a mosquitto listen there for poles of this authority too; so far none is revoked."""
        return LISTENER.format(port=port, broker=self.issue("broker"), authority=self.cert, revoked=self.revoke())

    def files(self, own: Pair | None = None) -> TlsFiles:
        """Return what a pole needs that trusts this authority."""
        return TlsFiles(ca=str(self.cert), cert=str(own.cert) if own else None, key=str(own.key) if own else None)


def private(key: ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> bytes:
    """Write a key in PEM."""
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(end, dt.datetime.now(dt.UTC)) - DAY)
        .not_valid_after(end)
    )


def _name(name: str, organisation: str = "") -> x509.Name:
    more = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
    return x509.Name([*more, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def asking(authority: Authority) -> str:
    """Return the lines of a mosquitto that asks for certificates of this authority."""
    return f"{authority.issue('broker').lines}\ncafile {authority.cert}\nrequire_certificate true"

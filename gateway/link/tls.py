"""TLS to the broker: what lies in files, and what is wrong with it or with the broker, in the words of the file.

The broker's certificate and the name in it are always checked, and nothing older than TLS 1.2 is spoken; there is no
way to do with less. Python 3.13 would refuse what 3.11 takes, certificates of authorities that write no key
identifiers; here both take them. Certificate and key are this pole's own, for a broker that asks for them.

The end of the certificate and whom it is made out to are read here from its DER form (RFC 5280, section 4.1): Python's
ssl tells them of the other side only, and the library that could takes 11 MB.
"""

import contextlib
import hashlib
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.host import secret_file
from gateway.host.secret_file import Unusable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# As OpenSSL finds them, and behind a byte order mark too. One that is cut off is none the less handed over, and told.
CERTIFICATE = re.compile(
    r"^(?:\xef\xbb\xbf)?(-----BEGIN CERTIFICATE-----.*?(?:^-----END CERTIFICATE-----|\Z))", re.DOTALL | re.MULTILINE
)
VERSION_TAG, UTC_TIME_TAG = 0xA0, 0x17
# OpenSSL's X509_V_ERR_...
NOT_YET_VALID, EXPIRED, HOST_MISMATCH, ADDRESS_MISMATCH = 9, 10, 62, 64
OTHER_AUTHORITY = {2, 18, 19, 20, 21}
# OpenSSL's reasons. An alert of the broker is about this pole
TOO_OLD = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"}
NOT_TLS = {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}
NO_PAIR = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}
TOO_WEAK = {"EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"}
ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "asks for a certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "may ask for a certificate: it ends the handshake",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "says that it has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "says that it was revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "does not accept it",
    "SSLV3_ALERT_BAD_CERTIFICATE": "does not accept it",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "does not accept its kind",
    "TLSV1_ALERT_UNKNOWN_CA": "does not know the CA that signed it",
    "TLSV1_ALERT_ACCESS_DENIED": "does not let it in",
    "TLSV1_ALERT_DECRYPT_ERROR": "cannot verify it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where certificates and key lie: paths, or ``credential:NAME``.

    Attributes:
        ca: who must have signed the broker's certificate; None: any CA the machine trusts.
        cert: this pole's own certificate, with those between it and its CA; None: it has none.
        key: the private key that belongs to it.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def mark(self) -> bytes:
        """Return what is different when a file has become another; a file that cannot be read counts as empty."""
        digest = hashlib.sha256()
        for key, place in (("ca_file", self.ca), ("cert_file", self.cert), ("key_file", self.key)):
            try:
                text = secret_file.read_pem(key, place) if place else ""
            except Unusable:
                text = ""
            digest.update(hashlib.sha256(text.encode()).digest())
        return digest.digest()

    def read(self) -> "Tls":
        """Read them. Raises Unusable."""
        mark = self.mark()
        context = self._context()
        expires, subject = self._own(context, self.cert, self.key) if self.cert and self.key else (None, b"")
        return Tls(context, mark, expires, subject)

    def _context(self) -> ssl.SSLContext:
        pem = None if self.ca is None else self._authorities(self.ca)
        try:
            context = ssl.create_default_context(cadata=pem)
        except (ssl.SSLError, TypeError) as error:  # TypeError: a letter that is none of ASCII
            reason = error.reason if isinstance(error, ssl.SSLError) else None
            raise Unusable(f"ca_file: {self.ca} is damaged{_in_brackets(reason)}; copy it there again") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # a newer Python must not cut a pole off from its broker
        context.sslsocket_class = TlsSocket
        return context

    def _authorities(self, ca: str) -> str:
        """Return the certificates of a bundle without its comments, of which ssl takes only those in ASCII."""
        found = CERTIFICATE.findall(secret_file.read_pem("ca_file", ca))
        if not found:
            raise Unusable(f"ca_file: {ca} holds no certificate; put the CA's there, in PEM")
        return "\n".join(found)

    def _own(self, context: ssl.SSLContext, cert: str, key: str) -> tuple[int, bytes]:
        """Load this pole's certificate and key; return when it ends and whom it is made out to."""
        found = CERTIFICATE.search(secret_file.read_pem("cert_file", cert))
        if found is None:
            raise Unusable(f"cert_file: {cert} holds no certificate; put this pole's there, in PEM")
        private = secret_file.read_pem("key_file", key)
        if "PRIVATE KEY-----" not in private:
            raise Unusable(f"key_file: {key} holds no private key; put there the one that cert_file was made with")
        if "ENCRYPTED" in private:  # OpenSSL would ask for the passphrase at the terminal
            step = "nobody is there to type the passphrase; openssl pkey -in OLD -out NEW writes it without"
            raise Unusable(f"key_file: {key} is encrypted; {step}")
        try:
            end, subject = _validity(ssl.PEM_cert_to_DER_cert(found[1]))
            context.load_cert_chain(secret_file.path_of("cert_file", cert), secret_file.path_of("key_file", key))
        except OSError as error:  # ssl.SSLError is one
            raise Unusable(_not_loaded(error, cert, key)) from error
        except (ValueError, IndexError) as error:
            raise Unusable(f"cert_file: {cert} is damaged; copy it there again") from error
        return end, subject


@dataclass(frozen=True, slots=True)
class Tls:
    """What was read of the files, ready to connect with.

    Attributes:
        context: for ssl.
        mark: of the files it was read from.
        expires: when this pole's certificate ends, seconds since 1970; None: it has none.
        subject: whom that is made out to, in DER.
    """

    context: ssl.SSLContext
    mark: bytes
    expires: int | None = None
    subject: bytes = b""


class HandshakeFailed(OSError):
    """TLS did not come about; the cause says why."""


class TlsSocket(ssl.SSLSocket):
    """Closes itself where the handshake fails, which paho leaves to the garbage collector, and keeps the last alert.

    With TLS 1.3 a broker refuses a certificate after the handshake: the alert comes with the first read.
    """

    alert: ssl.SSLError | None = None

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # ssl's signature
        """Shake hands."""
        try:
            super().do_handshake(block)
        except OSError as error:
            self.close()
            raise HandshakeFailed(str(error)) from error

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            if error.reason in ALERTS:
                self.alert = error
            raise

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:
        """Write. Where that fails because the broker has closed, the alert that says why may lie there unread."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            with contextlib.suppress(OSError):
                self.recv()
            raise


def refuses_us(error: BaseException | None) -> bool:
    """Tell whether the broker refused this pole's certificate, or asks for one."""
    return isinstance(error, ssl.SSLError) and error.reason in ALERTS


def explain(error: BaseException | None, files: TlsFiles, host: str, port: int) -> str:
    """Tell why TLS did not come about, and the next step."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _not_trusted(error, files, host)
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason in ALERTS and files.cert is None:
        return "the broker asks for a certificate, and this pole has none; set cert_file and key_file"
    if reason in ALERTS:
        text = f"the broker refuses this pole's certificate, cert_file, {files.cert}: it {ALERTS[reason]}"
        return f"{text}; have it renewed, or see the broker's log"
    if reason in TOO_OLD:
        text = "it speaks no TLS 1.2 or newer; the broker must be set to"
    elif reason in NOT_TLS:
        text = 'that is not TLS; correct the port in "url" (mqtts:// is 8883, wss:// is 443)'
    elif isinstance(error, TimeoutError):
        text = f'it does not answer ({error}); see the port in "url"'
    elif isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError):
        text = 'it ends the connection; the port in "url" may be one without TLS, else see the broker\'s log'
    else:
        text = str(error)
    return f"no TLS with {host}:{port}: {text}"


def _not_loaded(error: OSError, cert: str, key: str) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    if reason in NO_PAIR:
        step = "put both there as they were made together"
        if key.startswith(secret_file.CREDENTIAL):
            step = "if it is of a new key, restart the service, which has the key of its start"
        return f"key_file: {key} does not belong to the certificate in cert_file, {cert}; {step}"
    if reason in TOO_WEAK:
        return f"cert_file: {cert} or its key is too weak; make one with EC P-256, or RSA of 2048 bits"
    return f"key_file: {key}, or cert_file, {cert}, is damaged{_in_brackets(reason)}; copy both there again"


def _in_brackets(reason: str | None) -> str:
    return f" ({reason})" if reason else ""  # OpenSSL does not always say


def _not_trusted(error: ssl.SSLCertVerificationError, files: TlsFiles, host: str) -> str:
    code = error.verify_code
    if code in OTHER_AUTHORITY:
        known = f"by a CA in ca_file, {files.ca}" if files.ca else "by a CA that the machine trusts"
        text = f"it is not signed {known}; put the certificate of the CA that signed it into a file named by ca_file"
    elif code in (HOST_MISMATCH, ADDRESS_MISMATCH):
        text = f'it is made out to another name than {host}; write a name that it has into "url"'
    elif code == EXPIRED:
        text = f"it has expired, or the pole's clock is wrong, {_clock()}; renew it at the broker, or see timedatectl"
    elif code == NOT_YET_VALID:
        text = f"it is not valid yet, or the pole's clock is wrong, {_clock()}; see timedatectl"
    else:
        text = f"{error.verify_message}; the broker needs another one"
    return f"the broker's certificate is not trusted: {text}"


def _clock() -> str:
    return f"which says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _validity(der: bytes) -> tuple[int, bytes]:
    """Return when a certificate ends, in seconds since 1970, and its subject. Raises ValueError, IndexError."""
    ((_, certificate),) = _elements(der)
    (_, signed), *_ = _elements(certificate)
    fields = [field for field in _elements(signed) if field[0] != VERSION_TAG]
    validity, subject = fields[3][1], fields[4][1]
    tag, text = list(_elements(validity))[1]
    form = "%y%m%d%H%M%SZ" if tag == UTC_TIME_TAG else "%Y%m%d%H%M%SZ"
    return int(datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC).timestamp()), subject


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Give each element of a sequence: its tag and its content."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        yield tag, der[at : at + length]
        at += length

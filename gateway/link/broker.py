"""A broker as a link knows it: where it is, what is sent to it and what comes from it, and how that fails."""

from dataclasses import dataclass

from gateway.host import secret_file
from gateway.host.secret_file import Unusable
from gateway.link.reason import DENIALS, FAULTS
from gateway.link.tls import Tls, TlsFiles


class UplinkDown(Exception):
    """The link is not there, or broke before the broker took the message. Keep it and send it again."""


class Cut(UplinkDown):
    """The broker ended the link without a word, or over a fault of a packet: one that was under way may be to blame."""


class Denied(UplinkDown):
    """The broker ended the link over what it does not take at present. It has nothing against the message itself.

    Attributes:
        code: MQTT 5 reason code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class NotAcknowledged(UplinkDown):
    """The broker left this message without an acknowledgement while it acknowledged later ones."""


class NotAuthorised(UplinkDown):
    """The broker does not let this pole in. A person must look; trying again soon does not help."""


class CertificateRefused(NotAuthorised):
    """The broker does not take this pole's certificate, or asks for one."""


class NotRead(UplinkDown):
    """The file of the password cannot be read. The text names it, and the next step."""


class NotTrusted(UplinkDown):
    """TLS does not come about with what lies in the files. What lay in them before may do."""


class OtherVersion(UplinkDown):
    """The broker speaks another version of MQTT."""


class ClosedEarly(OtherVersion):
    """It ended the connection without an answer: as some of another version do, and a balancer that restarts."""


class Refused(Exception):
    """The broker got the message and does not take it.

    Attributes:
        code: MQTT 5 reason code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def ended_by(why: str, code: int) -> UplinkDown:
    """Return what the end of a link is to a message that was under way, by the reason code of it."""
    if code in DENIALS:
        return Denied(why, code)
    return Cut(why) if code in FAULTS else UplinkDown(why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where the broker is and how to get in.

    What lies in files is read anew for each connection. A file is a path, or ``credential:NAME``.

    Attributes:
        host: name or address.
        port: TCP port.
        tls: speak TLS with these certificates; the name in the broker's is then always checked. None: no TLS.
        path: of WebSocket; "": MQTT without it.
        client: client id; a second connection with it ends the first.
        username: sent where there is a password.
        password_file: None: no user and password.
    """

    host: str
    port: int
    tls: TlsFiles | None = None
    path: str = ""
    client: str
    username: str
    password_file: str | None = None

    def read_tls(self) -> Tls | None:
        """Read certificates and key; None without TLS. Raises NotTrusted."""
        try:
            return self.tls.read() if self.tls else None
        except Unusable as error:
            raise NotTrusted(str(error)) from error

    def read_password(self) -> str | None:
        """Read the password. Raises NotRead."""
        try:
            return secret_file.read("password_file", self.password_file).strip() if self.password_file else None
        except Unusable as error:
            raise NotRead(str(error)) from error


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be published.

    Attributes:
        topic: where.
        payload: what.
        retain: the broker keeps it for those who come later.
        content_type: MIME type, told to readers of MQTT 5.
        encoding: "zstd" or "", told to readers of MQTT 5 as user property ``ce``.
        backfill: it is old, told to readers of MQTT 5 as user property ``backfill``.
    """

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str = "application/json"
    encoding: str = ""
    backfill: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """What was published to us.

    Attributes:
        topic: where.
        payload: what.
        retain: it lay with the broker already when we came.
        backfill: it is old; told by user property, in MQTT 5.
    """

    topic: str
    payload: bytes
    retain: bool
    backfill: bool = False

"""``polegate identity``: the key and the certificate that this pole shows to the broker. No network is needed.

The key is made here and never leaves; what leaves is a request, and what comes back is a certificate.
"""

import datetime as dt
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from gateway.commands.check import FILE, report
from gateway.config.faults import SettingsError
from gateway.config.settings_file import settings_of
from gateway.config.toml_file import TomlFile
from gateway.host.clock import Clock
from gateway.host.secret_file import CREDENTIAL
from gateway.identity import x509
from gateway.identity.pair import PairFiles
from gateway.identity.x509 import Certificate

EX_DATAERR, EX_NOINPUT, EX_CANTCREAT = 65, 66, 73  # sysexits.h
KEY_CREDENTIAL = "credential:mqtt-key"
KEY_OF_CREDENTIAL = Path("/etc/polegate/pole.key")  # as the unit says
STANDARD_INPUT = Path("-")  # over ssh it may be a socket, which /dev/stdin does not open
RENEW_AT = 1 / 3  # of its life, left

config = click.option("--config", "path", metavar="FILE", required=True, type=FILE, help="The configuration file.")


class Identity(NamedTuple):
    """What the configuration says of it.

    Attributes:
        pole: the id of the pole.
        files: where key and certificate are.
        is_credential: whether the service gets the key from systemd, which reads it when the service starts.
    """

    pole: str
    files: PairFiles
    is_credential: bool


class Unreadable(OSError):
    """A file that was named cannot be read."""


class Unfit(Exception):
    """Something cannot be used; the text says why, and the next step."""


@click.group("identity")
def command() -> None:
    """Make this pole's key, have it signed, and take the certificate. On the pole, as root."""


@command.command("csr")
@config
@click.option("--new-key", is_flag=True, help="Ask for a certificate of a new key, which waits beside the one in use.")
def csr(path: Path, *, new_key: bool) -> int:
    """Print a request for a certificate (CSR, PKCS #10), made out to the id of the pole in FILE.

    If there is no key yet it is made, on P-256, where `key_file` in FILE says; with "credential:mqtt-key", in
    /etc/polegate/pole.key. A key that is there is never written over.

    Exit code 0: printed. 65: the key cannot be used. 73: it cannot be written. 78: FILE has faults.
    """
    try:
        own = _identity(path)
        files = own.files
        with files.locked():
            place = files.next_key if new_key else files.key
            key = files.read_next() if new_key else files.read().key
            asks_with = x509.new_key() if key is None else key
            requested = _requested(asks_with, own.pole, place)
            if key is None:
                files.add_key(place, asks_with)
                click.echo(f"made a key: {place}", err=True)
        click.echo(requested, nl=False)
    except SettingsError as error:
        return report(error.faults)
    except OSError as error:
        return _not_written(error)
    except Unfit as error:
        return _unfit(error)
    return 0


@command.command("install")
@click.argument("cert", metavar="CERT", type=FILE)
@config
@click.option("--ca", metavar="CA", type=FILE, help="Who signs the certificates of poles, to check that he did.")
def install(cert: Path, path: Path, ca: Path | None) -> int:
    """Take the certificate in CERT (PEM; - reads it from the input), and the key it was asked for with.

    It must belong to a key that waits on this pole, be made out to its id, in time, and for clients. Key and
    certificate are put in place in one step: at no time do two lie there that do not fit. Those before are kept
    until the next.

    Exit code 0: taken. 65: it does not fit. 66: CERT or CA cannot be read. 73: it cannot be written. 78: FILE has
    faults.
    """
    try:
        own = _identity(path)
        found = _certificate(_bytes(cert), cert)
        _must_be_ours(found, own.pole, cert)
        clock_is_set = Clock().synchronised()
        _must_be_in_time(found, cert, clock_is_set=clock_is_set)
        _must_be_signed(found, ca, clock_is_set=clock_is_set)
        with own.files.locked():
            key, is_new_key = _key_of(found, own.files, cert)
            before = own.files.read().cert
            own.files.install(key, found.pem)
    except SettingsError as error:
        return report(error.faults)
    except Unreadable as error:
        return _not_read(error)
    except OSError as error:
        return _not_written(error)
    except Unfit as error:
        return _unfit(error)
    click.echo(f"{own.files.cert}: {found.subject}, number {found.serial}, until {found.ends:%Y-%m-%d %H:%M} UTC")
    click.echo(_next_step(found, before, has_old_key=own.is_credential and (is_new_key or before is None)))
    return 0


@command.command("show")
@config
def show(path: Path) -> int:
    """Print what this pole shows to the broker, how long it lasts, and whether key and certificate fit.

    Exit code 0: all is well. 1: it is due: less than a third of its life is left. 65: it does not fit, or is over. 66:
    there is none, or it may not be read. 78: FILE has faults.
    """
    try:
        own = _identity(path)
        pair, next_key = own.files.read(), own.files.read_next()
    except SettingsError as error:
        return report(error.faults)
    except OSError as error:
        return _not_read(error)
    if next_key is not None:
        click.echo(f"next key     {own.files.next_key} waits for its certificate")
    if pair.cert is None:
        click.echo(f"{own.files.cert} is not there; ask for one with: polegate identity csr --config {path}", err=True)
        return EX_NOINPUT
    try:
        found = _certificate(pair.cert, own.files.cert)
        left = found.life_left(dt.datetime.now(dt.UTC))
        for line in _told(found, own.files, left):
            click.echo(line)
        _must_be_ours(found, own.pole, own.files.cert)
        _must_fit(found, pair.key, own.files)
        _must_be_in_time(found, own.files.cert, clock_is_set=Clock().synchronised())
    except Unfit as error:
        return _unfit(error)
    return int(left < RENEW_AT)


def _identity(path: Path) -> Identity:
    """Read where it is. Raises SettingsError."""
    file = TomlFile(path)
    root = settings_of(file).root
    key, cert = root.uplink.key_file, root.uplink.cert_file
    if key is None or cert is None:
        lines = f'cert_file = "/etc/polegate/pole.pem" and key_file = "{KEY_CREDENTIAL}"'
        text = f'there is no "cert_file"; add {lines}, and let "url" begin with mqtts:// or wss://'
        raise SettingsError([file.fault(("uplink",), text)])
    if cert.startswith(CREDENTIAL):
        text = 'a certificate is no secret; write a path, as in "/etc/polegate/pole.pem", to renew it without a restart'
        raise SettingsError([file.fault(("uplink", "cert_file"), text)])
    is_credential = key.startswith(CREDENTIAL)
    if is_credential and key != KEY_CREDENTIAL:
        text = f'it is not known where that lies; write "{KEY_CREDENTIAL}", which is {KEY_OF_CREDENTIAL}, or a path'
        raise SettingsError([file.fault(("uplink", "key_file"), text)])
    place = KEY_OF_CREDENTIAL if is_credential else Path(key)
    if place == Path(cert):
        text = "key and certificate lie in one file; give the key another one, which nobody else may read"
        raise SettingsError([file.fault(("uplink", "key_file"), text)])
    return Identity(root.pole.id, PairFiles(place, Path(cert), shared=not is_credential), is_credential)


def _requested(key: bytes, pole: str, place: Path) -> str:
    try:
        return x509.request(key, pole).decode()
    except ValueError as error:
        raise Unfit(f"{place}: {error}; move it away, and a key is made") from error


def _certificate(pem: bytes, place: Path) -> Certificate:
    try:
        return x509.read(pem)
    except ValueError as error:
        raise Unfit(f"{place} holds no sound certificate in PEM ({error}); have it sent again") from error


def _is_of(key: bytes, found: Certificate) -> bool:
    try:
        return x509.public_of(key) == found.public
    except ValueError:  # no key at all is not this certificate's
        return False


def _must_be_ours(found: Certificate, pole: str, place: Path) -> None:
    if found.names != (pole,):
        raise Unfit(f"{place} is made out to {found.subject}; the common name must be the id of this pole, {pole}")
    if not found.for_clients:
        raise Unfit(f"{place} is not for clients; have it signed with the extended key usage clientAuth, or with none")


def _must_fit(found: Certificate, key: bytes | None, files: PairFiles) -> None:
    if key is None or not _is_of(key, found):
        raise Unfit(f"{files.key} is not the key of {files.cert}; install a certificate for it")


def _must_be_in_time(found: Certificate, place: Path, *, clock_is_set: bool) -> None:
    """Compare with the clock; where that was never set, a word is all there is to say."""
    now = dt.datetime.now(dt.UTC)
    if found.begins <= now <= found.ends:
        return
    text = f"{place} is valid from {found.begins:%Y-%m-%d %H:%M} to {found.ends:%Y-%m-%d %H:%M} UTC"
    if clock_is_set:
        raise Unfit(f"{text}, and now it is {now:%Y-%m-%d %H:%M}; have a new one signed")
    click.echo(f"warning: {text}; this pole's clock says {now:%Y-%m-%d %H:%M}, and is not set", err=True)


def _must_be_signed(found: Certificate, ca: Path | None, *, clock_is_set: bool) -> None:
    if ca is None:
        click.echo("who signed it is not checked; name the authority with --ca to have that done", err=True)
        return
    try:
        now = dt.datetime.now(dt.UTC) if clock_is_set else None
        fault = x509.chain_fault(found.pem, _bytes(ca), now)
    except ValueError as error:
        raise Unfit(f"{ca} holds no sound certificate in PEM ({error}); put the authority's there") from error
    if fault:
        raise Unfit(f"the certificate does not come from the authority in {ca}: {fault}")


def _key_of(found: Certificate, files: PairFiles, place: Path) -> tuple[bytes, bool]:
    """Find the private key of a certificate; tell whether it is another one than that in use. Raises Unfit, OSError."""
    keys = files.read().key, files.read_next()
    for key in keys:
        if key is not None and _is_of(key, found):
            return key, key != keys[0]
    step = "sign a request of polegate identity csr, which is made on this pole"
    raise Unfit(f"{place} belongs neither to {files.key} nor to {files.next_key}; {step}")


def _next_step(found: Certificate, before: bytes | None, *, has_old_key: bool) -> str:
    try:
        is_renamed = before is not None and x509.read(before).subject != found.subject
    except ValueError:
        is_renamed = False
    if has_old_key:
        return "the service has the key that was there at its start; restart it: systemctl restart polegate"
    if is_renamed:
        return "its subject is another one, which the service takes at its start only: systemctl restart polegate"
    return "a service that runs takes it within a minute"


def _told(found: Certificate, files: PairFiles, left: float) -> Iterator[str]:
    yield f"certificate  {files.cert}"
    yield f"subject      {found.subject}"
    yield f"issuer       {found.issuer}"
    yield f"number       {found.serial}"
    yield f"valid        {found.begins:%Y-%m-%d %H:%M} to {found.ends:%Y-%m-%d %H:%M} UTC"
    yield f"life left    {100 * left:.0f} %"
    yield f"key          {files.key}"


def _bytes(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
    except OSError as error:
        raise Unreadable(error.errno, error.strerror, str(path)) from error


def _unfit(error: Unfit) -> int:
    click.echo(str(error), err=True)
    return EX_DATAERR


def _not_read(error: OSError) -> int:
    click.echo(f"{error.filename} cannot be read: {error.strerror}; correct the name, or try sudo", err=True)
    return EX_NOINPUT


def _not_written(error: OSError) -> int:
    click.echo(f"{error.filename or 'the disk'}: {error.strerror}; see ls -l, or try sudo", err=True)
    return EX_CANTCREAT

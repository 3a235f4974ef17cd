"""What lies in the files of TLS: what can be used, and what is wrong with what cannot."""

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from gateway.host.secret_file import Unusable
from gateway.link.tls import TlsFiles, _validity
from tests.examples import examples
from tests.link.pki import Authority, Pair, private


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pole(authority: Authority) -> Pair:
    return authority.issue("pole-7")


def parsed(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.cert.read_bytes())


def wrong(files: TlsFiles) -> str:
    with pytest.raises(Unusable) as error:
        files.read()
    return str(error.value)


@pytest.mark.parametrize("days", [0.5, 10, 25 * 365, 100 * 365])  # from 2050 on the date has another form
def test_the_end_of_a_certificate_and_its_subject_are_read(authority: Authority, days: float) -> None:
    pair = authority.issue("pole-7", days=days)
    tls = authority.files(pair).read()
    assert tls.expires == int(parsed(pair).not_valid_after_utc.timestamp())
    assert authority.issue("pole-7", file="again").cert.read_text() != pair.cert.read_text()
    assert authority.files(authority.issue("pole-7", file="again")).read().subject == tls.subject
    assert authority.files(authority.issue("pole-8")).read().subject != tls.subject


@given(st.binary(max_size=200))
def test_no_bytes_are_a_certificate_that_breaks_more_than_itself(der: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        _validity(der)


def test_a_certificate_cut_anywhere_is_damaged(authority: Authority, pole: Pair) -> None:
    text = pole.cert.read_text()
    for end in (100, len(text) // 2, len(text) - 40):
        pole.cert.write_text(f"{text[:end]}\n-----END CERTIFICATE-----\n")
        assert "cert_file" in wrong(authority.files(pole))
        assert "damaged" in wrong(authority.files(pole))


def test_text_before_the_certificate_and_authorities_behind_it_do_no_harm(authority: Authority, pole: Pair) -> None:
    expected = authority.files(pole).read().expires
    pole.cert.write_text(f"Certificate:\n  Data: as openssl says\n{pole.cert.read_text()}{authority.cert.read_text()}")
    assert authority.files(pole).read().expires == expected


@pytest.mark.parametrize(
    "comment", ["# Főtanúsítvány\n".encode(), "# Autorité\n".encode("latin-1"), b"\xef\xbb\xbf", b"# \x00\xff\r\n"]
)
def test_comments_in_any_encoding_do_no_harm(authority: Authority, pole: Pair, comment: bytes) -> None:
    files = authority.files(pole)
    expected = files.read().expires
    bundle = comment + authority.cert.read_bytes() + comment + authority.below("second").cert.read_bytes() + comment
    authority.cert.write_bytes(bundle)
    for path in (pole.cert, pole.key):  # OpenSSL reads these itself, and takes a BOM for the first letter of a line
        path.write_bytes(comment.removeprefix(b"\xef\xbb\xbf") + path.read_bytes() + comment)
    mark = files.mark()
    assert files.read().expires == expected
    assert len(files.read().context.get_ca_certs()) == 2
    authority.cert.write_bytes(bundle + comment)
    assert files.mark() != mark


def test_a_bundle_that_is_cut_off_in_its_last_certificate_is_damaged(authority: Authority) -> None:
    bundle = authority.cert.read_text() + authority.below("second").cert.read_text()
    for end in (len(bundle) - 30, len(bundle) - 200, len(authority.cert.read_text()) + 28):
        authority.cert.write_text(bundle[:end])
        assert wrong(authority.files()).startswith(f"ca_file: {authority.cert} is damaged")


def test_a_comment_that_names_the_marks_of_pem_is_no_certificate(authority: Authority, pole: Pair) -> None:
    expected = authority.files(pole).read().expires
    remark = "# all from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE----- is one\n"
    for path in (authority.cert, pole.cert):
        path.write_text(remark + path.read_text() + remark)
    tls = authority.files(pole).read()
    assert len(tls.context.get_ca_certs()) == 1
    assert tls.expires == expected


@pytest.mark.parametrize("key", ["ca", "cert", "key"])
@examples(50)
@given(content=st.binary(max_size=60))
def test_whatever_is_in_a_file_is_told_and_breaks_no_more(
    tmp_path_factory: pytest.TempPathFactory, key: str, content: bytes
) -> None:
    """Whether it stands between the marks of PEM, or is all there is."""
    authority = Authority(tmp_path_factory.mktemp("any"))
    pole = authority.issue("pole-7")
    path = {"ca": authority.cert, "cert": pole.cert, "key": pole.key}[key]
    label = b"PRIVATE KEY" if key == "key" else b"CERTIFICATE"
    for text in (content, b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label, content, label)):
        path.write_bytes(text)
        assert f"{key}_file" in wrong(authority.files(pole))


def test_nothing_older_than_tls_1_2_and_always_the_name(authority: Authority) -> None:
    context = authority.files().read().context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1  # with a CA of our own, those of the machine count for nothing


def test_a_newer_python_takes_what_an_older_one_does(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 3.13 on Python asks for key identifiers, which many authorities do not write: the test's do not either."""
    make = ssl.create_default_context

    def strict(*, cadata: str | None) -> ssl.SSLContext:
        context = make(cadata=cadata)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    assert not authority.files().read().context.verify_flags & ssl.VERIFY_X509_STRICT


def test_another_content_of_a_file_is_another_mark_and_a_touched_file_is_not(authority: Authority, pole: Pair) -> None:
    files = authority.files(pole)
    mark = files.mark()
    pole.cert.touch()
    assert files.mark() == mark
    for path in (authority.cert, pole.cert, pole.key):
        path.write_text(path.read_text() + "\n")
        assert files.mark() != mark
        mark = files.mark()
    pole.key.unlink()
    assert files.mark() != mark


def test_a_key_of_another_certificate_is_told(authority: Authority, pole: Pair) -> None:
    other = authority.issue("pole-8")
    text = wrong(authority.files(Pair(pole.cert, other.key)))
    assert text.startswith(f"key_file: {other.key} does not belong to the certificate in cert_file, {pole.cert}; put")


def test_an_encrypted_key_is_told_and_nobody_is_asked_for_its_passphrase(authority: Authority, pole: Pair) -> None:
    pole.key.write_bytes(private(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    assert wrong(authority.files(pole)).startswith(f"key_file: {pole.key} is encrypted; nobody is there to type")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("ca", "holds no certificate; put the CA's there, in PEM"),
        ("cert", "holds no certificate; put this pole's there, in PEM"),
        ("key", "holds no private key; put there the one that cert_file was made with"),
    ],
)
def test_a_file_of_something_else_is_told_by_its_key(authority: Authority, pole: Pair, key: str, says: str) -> None:
    path = {"ca": authority.cert, "cert": pole.cert, "key": pole.key}[key]
    for content in (b"", b"something else\n", b"\xff\x00\x80"):
        path.write_bytes(content)
        assert wrong(authority.files(pole)) == f"{key}_file: {path} {says}"
    path.unlink()
    assert wrong(authority.files(pole)) == f"{key}_file: {path} is not there; put it there, or correct the path"
    path.mkdir()
    assert "cannot be read: Is a directory" in wrong(authority.files(pole))


def test_a_key_or_an_authority_that_is_damaged_is_told(authority: Authority, pole: Pair) -> None:
    pole.key.write_text("-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n")
    assert f"key_file: {pole.key}" in wrong(authority.files(pole))
    assert "damaged" in wrong(authority.files(pole))
    authority.cert.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    assert wrong(authority.files()).startswith(f"ca_file: {authority.cert} is damaged")


def test_a_file_that_the_system_does_not_let_us_read_is_told(
    authority: Authority, pole: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path, _encoding: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    assert wrong(authority.files(pole)) == (
        f"ca_file: {authority.cert} may not be read; let the user of the gateway read it: ls -l {authority.cert}"
    )


def test_a_credential_is_read_from_the_folder_that_systemd_names(
    authority: Authority, pole: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    pole.key.rename(folder / "mqtt-key")
    files = TlsFiles(ca=str(authority.cert), cert=str(pole.cert), key="credential:mqtt-key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert files.read().expires
    (folder / "mqtt-key").write_bytes(authority.issue("pole-8").key.read_bytes())
    assert wrong(files).endswith("if it is of a new key, restart the service, which has the key of its start")
    (folder / "mqtt-key").unlink()
    step = "add LoadCredential=mqtt-key:/PATH/OF/THE/FILE to the service with systemctl edit polegate, and restart it"
    assert wrong(files) == f'key_file: there is no credential "mqtt-key"; {step}'
    (folder / "mqtt-key").write_text("unprovisioned")  # the unit says so where there is no file
    step_there = "put it where LoadCredential says, see systemctl cat polegate, and restart the service"
    assert wrong(files) == f'key_file: the file of the credential "mqtt-key" is not there; {step_there}'
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert step in wrong(files)
    assert "only to a service" in wrong(files)

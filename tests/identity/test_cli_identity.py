"""``polegate identity``: from a pole without a key to one with a certificate, and to the next one."""

import base64
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.commands import identity
from gateway.host.clock import Clock
from gateway.identity.pair import PairFiles
from gateway.link.tls import TlsFiles
from hil.broker import program
from hil.daemon import polegate
from tests.commands.cli_scene import Ran, call
from tests.link.pki import FOR_SERVERS, Authority, private

EX_DATAERR, EX_NOINPUT, EX_CANTCREAT, EX_CONFIG = 65, 66, 73, 78
POLE = "pole-7"
OTHER_KIND = "2a8648ce3d0201", "2a8648ce3d027f"  # ecPublicKey, and an object identifier that means nothing
OTHER_VERSION = "a003020102", "a003020126"
ROOT = Path(__file__).parents[2]


@dataclass
class Pole:
    """A pole's folder, and who signs for it."""

    folder: Path
    authority: Authority

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / "pole.toml"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.folder / "pole.key"

    @property
    def cert(self) -> Path:
        """Its certificate."""
        return self.folder / "pole.pem"

    @property
    def next_key(self) -> Path:
        """The key that waits."""
        return self.folder / "pole.key.new"

    def configure(self, *lines: str) -> None:
        """Write its configuration, with these lines in [uplink]."""
        text = [f'[pole]\nid = "{POLE}"', '[uplink]\nurl = "mqtts://127.0.0.1"', *lines]
        self.config.write_text("\n".join(text) + "\n")

    def csr(self, *options: str) -> bytes:
        """Ask."""
        ran = call("identity", "csr", "--config", str(self.config), *options)
        assert ran.code == 0, ran.err
        return ran.out.encode()

    def install(self, cert: bytes, *options: str) -> Ran:
        """Take an answer."""
        (self.folder / "sent.pem").write_bytes(cert)
        return call("identity", "install", str(self.folder / "sent.pem"), "--config", str(self.config), *options)

    def show(self) -> Ran:
        """See what there is."""
        return call("identity", "show", "--config", str(self.config))

    def must_refuse(self, cert: bytes, *says: str) -> None:
        """Nothing is changed by what is not taken, and it is told why."""
        before = everything_in(self.folder)
        ran = self.install(cert, "--ca", str(self.authority.cert))
        assert ran.code == EX_DATAERR
        assert all(each in ran.err for each in says), ran.err
        (self.folder / "sent.pem").unlink()
        assert everything_in(self.folder) == before


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def does_fit(pole: Pole) -> bool:
    """Ask OpenSSL, as the gateway does. Raises Unusable."""
    return TlsFiles(cert=str(pole.cert), key=str(pole.key)).read().expires is not None


@pytest.fixture
def pole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pole:
    monkeypatch.setattr(Clock, "synchronised", lambda _: True)
    (tmp_path / "pole").mkdir()
    pole = Pole(tmp_path / "pole", Authority(tmp_path))
    pole.configure(f'cert_file = "{pole.cert}"', f'key_file = "{pole.key}"')
    return pole


def test_the_key_is_made_once_and_asked_for_in_the_name_of_the_pole(pole: Pole) -> None:
    asked = x509.load_pem_x509_csr(pole.csr())
    assert asked.is_signature_valid
    assert asked.subject.rfc4514_string() == f"CN={POLE}"
    public = asked.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)
    key = pole.key.read_bytes()
    assert mode(pole.key) in {0o600, 0o640}  # the second where there is a group of the service
    assert x509.load_pem_x509_csr(pole.csr()).public_key() == public
    assert pole.key.read_bytes() == key


def test_a_certificate_is_taken_with_its_key_and_renewed_for_the_same_or_for_a_new_one(pole: Pole) -> None:
    ca = str(pole.authority.cert)
    first = pole.authority.sign(pole.csr(), days=5)
    ran = pole.install(first, "--ca", ca)
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(rf"{pole.cert}: CN={POLE}, number [0-9a-f]+, until 20.*\n.*within a minute\n", ran.out)
    assert does_fit(pole)
    key = pole.key.read_bytes()

    second = pole.authority.sign(pole.csr())
    assert pole.install(second, "--ca", ca).code == 0
    assert (pole.key.read_bytes(), pole.cert.read_bytes()) == (key, second)

    asked = pole.csr("--new-key")
    assert pole.csr("--new-key") != asked  # ECDSA signs with chance
    new_key = pole.next_key.read_bytes()
    assert new_key != key
    assert (pole.key.read_bytes(), pole.cert.read_bytes()) == (key, second)
    assert f"{pole.next_key} waits for its certificate" in pole.show().out
    third = pole.authority.sign(asked)
    assert pole.install(third, "--ca", ca).code == 0
    assert (pole.key.read_bytes(), pole.cert.read_bytes()) == (new_key, third)
    assert does_fit(pole)
    assert not pole.next_key.exists()
    left = everything_in(pole.folder / "identity").values()
    assert {key, second, new_key, third} <= set(left)
    assert first not in left
    assert pole.install(third, "--ca", ca).code == 0  # again
    assert set(everything_in(pole.folder / "identity").values()) == set(left)


def test_what_a_technician_put_there_is_kept_until_the_next_but_one(pole: Pole) -> None:
    by_hand = pole.authority.issue(POLE)
    pole.key.write_bytes(by_hand.key.read_bytes())
    pole.cert.write_bytes(by_hand.cert.read_bytes())
    assert pole.show().code == 0
    assert pole.install(pole.authority.sign(pole.csr("--new-key"))).code == 0
    assert does_fit(pole)
    kept = set(everything_in(pole.folder / "identity").values())
    assert {by_hand.key.read_bytes(), by_hand.cert.read_bytes()} <= kept


def test_a_certificate_that_is_not_this_poles_is_not_taken(pole: Pole, tmp_path: Path) -> None:
    asked, ours = pole.csr(), pole.authority
    other = Authority(tmp_path, "other")
    stranger = private(ec.generate_private_key(ec.SECP256R1()))
    pole.must_refuse(ours.issue(POLE).cert.read_bytes(), "belongs neither to", str(pole.next_key))
    pole.must_refuse(ours.sign(asked, name="pole-8"), "made out to CN=pole-8", f"the id of this pole, {POLE}")
    pole.must_refuse(ours.sign(asked, usage=FOR_SERVERS), "not for clients", "clientAuth")
    pole.must_refuse(ours.sign(asked, days=-1), "valid from", "and now it is", "have a new one signed")
    pole.must_refuse(other.sign(asked), "does not come from the authority", "nobody in it signed CN=pole-7")
    pole.must_refuse(ours.below("middle").sign(asked), "whose issuer is CN=middle")
    pole.must_refuse(b"no certificate", "holds no sound certificate in PEM", "have it sent again")
    pole.must_refuse(stranger, "holds no sound certificate in PEM")
    assert pole.install(ours.sign(asked), "--ca", str(pole.config)).code == EX_DATAERR
    assert not pole.cert.exists()


def edited(pem: bytes, old: str, new: str) -> bytes:
    """Return a certificate or key with other bytes in its DER form."""
    first, *middle, last = pem.splitlines()
    der = base64.b64decode(b"".join(middle))
    assert bytes.fromhex(old) in der
    return b"\n".join([first, base64.b64encode(der.replace(bytes.fromhex(old), bytes.fromhex(new))), last, b""])


def test_a_certificate_or_key_of_a_kind_that_is_not_known_is_told(pole: Pole) -> None:
    cert, authority = pole.authority.sign(pole.csr()), pole.authority.cert.read_bytes()
    pole.must_refuse(edited(cert, *OTHER_KIND), "holds no sound certificate in PEM", "Unknown key type")
    pole.must_refuse(edited(cert, *OTHER_VERSION), "holds no sound certificate in PEM", "version")
    pole.authority.cert.write_bytes(edited(authority, *OTHER_VERSION))
    pole.must_refuse(cert, f"{pole.authority.cert} holds no sound certificate in PEM")
    pole.authority.cert.write_bytes(edited(authority, *OTHER_KIND) + authority)  # of the same name, and no issuer
    assert pole.install(cert, "--ca", str(pole.authority.cert)).code == 0
    key = pole.key.read_bytes()
    pole.key.write_bytes(edited(key, *OTHER_KIND))
    assert (pole.show().code, "is not the key of" in pole.show().err) == (EX_DATAERR, True)


def test_a_chain_is_followed_over_authorities_alone(pole: Pole) -> None:
    ours, middle = pole.authority, pole.authority.below("middle")
    between = middle.cert.read_bytes()
    pole.must_refuse(between + middle.sign(pole.csr()), "made out to CN=middle")
    false = ours.below("false", is_authority=False)
    pole.must_refuse(false.sign(pole.csr()) + false.cert.read_bytes(), "CN=false is no authority")
    old = ours.below("old", days=-1)
    pole.must_refuse(old.sign(pole.csr()) + old.cert.read_bytes(), "CN=old is valid from")
    cert = middle.sign(pole.csr())
    assert pole.install(cert + between, "--ca", str(ours.cert)).code == 0
    assert pole.cert.read_bytes() == cert + between


def test_an_authority_made_with_openssl_signs_as_the_readme_says(pole: Pole, tmp_path: Path) -> None:
    (tmp_path / "pole-17.csr").write_bytes(pole.csr())
    commands = re.findall(r"^ *(openssl (?:.*\\\n)*.*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    for command in commands:
        subprocess.run([program("bash"), "-c", command], cwd=tmp_path, capture_output=True, check=True)  # noqa: S603  # ours
    ca = str(tmp_path / "poles-ca.pem")
    assert pole.install((tmp_path / "pole-17.pem").read_bytes(), "--ca", ca).code == 0
    assert len(commands) == 2
    asked = x509.load_pem_x509_certificate(pole.cert.read_bytes())
    assert asked.extensions.get_extension_for_class(x509.ExtendedKeyUsage)


def test_a_certificate_that_names_no_use_is_for_any_and_so_is_one_of_version_1(pole: Pole, tmp_path: Path) -> None:
    assert pole.install(pole.authority.sign(pole.csr(), usage=None), "--ca", str(pole.authority.cert)).code == 0
    (tmp_path / "pole.csr").write_bytes(pole.csr())
    openssl, subject = program("openssl"), "/CN=old"
    for command in (
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", subject],
        ["x509", "-req", "-in", "pole.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "v1.pem"],
    ):
        subprocess.run([openssl, *command], cwd=tmp_path, capture_output=True, check=True)  # noqa: S603  # ours
    assert pole.install((tmp_path / "v1.pem").read_bytes(), "--ca", str(tmp_path / "ca.pem")).code == 0
    assert does_fit(pole)


def test_a_clock_that_is_not_set_is_no_judge(pole: Pole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "synchronised", lambda _: False)
    ran = pole.install(pole.authority.sign(pole.csr(), days=-1), "--ca", str(pole.authority.cert))
    assert ran.code == 0
    assert "warning: " in ran.err
    assert "this pole's clock says" in ran.err


def test_what_the_service_gets_as_its_key_is_where_the_key_is_made() -> None:
    unit = (ROOT / "systemd" / "polegate.service").read_text()
    name = identity.KEY_CREDENTIAL.removeprefix("credential:")
    assert f"\nLoadCredential={name}:{identity.KEY_OF_CREDENTIAL}\n" in unit


def test_a_certificate_comes_over_ssh_as_well(pole: Pole) -> None:
    cert = pole.authority.sign(pole.csr())
    here, there = socket.socketpair()
    with here, there:
        here.sendall(cert)
        here.shutdown(socket.SHUT_WR)
        command = [polegate(), "identity", "install", "-", "--config", str(pole.config)]
        subprocess.run(command, stdin=there.fileno(), capture_output=True, check=True)  # noqa: S603  # ours
    assert pole.cert.read_bytes() == cert


def test_who_signed_is_only_left_unchecked_with_a_word(pole: Pole) -> None:
    ran = pole.install(pole.authority.sign(pole.csr()))
    assert (ran.code, "--ca" in ran.err) == (0, True)


def test_show_tells_what_is_left_of_it_and_what_does_not_fit(pole: Pole) -> None:
    assert (pole.show().code, "ask for one with" in pole.show().err) == (EX_NOINPUT, True)
    for days, code, left in ((10, 0, "91 %"), (0.4, 1, "29 %")):
        assert pole.install(pole.authority.sign(pole.csr(), days=days)).code == 0
        ran = pole.show()
        assert (ran.code, ran.err) == (code, "")
        assert all(each in ran.out for each in (f"CN={POLE}", "CN=authority", str(pole.key), f"life left    {left}\n"))
    (pole.folder / "identity" / "current" / "pole.pem").write_bytes(pole.authority.issue(POLE).cert.read_bytes())
    assert (pole.show().code, "is not the key of" in pole.show().err) == (EX_DATAERR, True)
    pole.cert.unlink()
    pole.cert.write_bytes(pole.authority.sign(pole.csr(), days=-1))
    assert (pole.show().code, "have a new one signed" in pole.show().err) == (EX_DATAERR, True)


def test_from_an_rsa_key_or_a_damaged_one_there_is_a_way_to_a_new_one(pole: Pole) -> None:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key = rsa.generate_private_key(65537, 2048).private_bytes(pem, pkcs8, serialization.NoEncryption())
    pole.key.write_bytes(key)
    assert pole.install(pole.authority.sign(pole.csr())).code == 0
    assert (pole.key.read_bytes(), does_fit(pole)) == (key, True)
    pole.key.write_bytes(b"damaged")
    assert pole.install(pole.authority.sign(pole.csr("--new-key"))).code == 0
    assert does_fit(pole)


def test_a_key_of_another_kind_or_with_a_passphrase_is_told_and_left_alone(pole: Pole) -> None:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, serialization.NoEncryption())
    locked = private(ec.generate_private_key(ec.SECP256R1()), b"secret")
    for key, says in ((other, "another kind than EC or RSA"), (locked, "a passphrase"), (b"", str(pole.key))):
        pole.key.write_bytes(key)
        ran = call("identity", "csr", "--config", str(pole.config))
        assert (ran.code, ran.out) == (EX_DATAERR, "")
        assert says in ran.err
        assert "move it away" in ran.err
        assert pole.key.read_bytes() == key


def test_what_the_configuration_must_say_is_told_with_its_line(pole: Pole) -> None:
    cert = f'cert_file = "{pole.cert}"'
    for lines, says in (
        ([], 'add cert_file = "/etc/polegate/pole.pem" and key_file = "credential:mqtt-key"'),
        (['cert_file = "credential:c"', f'key_file = "{pole.key}"'], ":5: "),
        ([cert, 'key_file = "credential:other"'], 'write "credential:mqtt-key", which is /etc/polegate/pole.key'),
        ([cert, f'key_file = "{pole.cert}"'], "give the key another one"),
        ([f'key_file = "{pole.key}"'], 'is of no use without "cert_file"'),
    ):
        pole.configure(*lines)
        ran = call("identity", "csr", "--config", str(pole.config))
        assert (ran.code, says in ran.err) == (EX_CONFIG, True), ran.err
    assert list(pole.folder.iterdir()) == [pole.config]


def test_what_cannot_be_read_or_written_is_told(pole: Pole) -> None:
    missing = call("identity", "install", str(pole.folder / "none"), "--config", str(pole.config))
    assert (missing.code, "none cannot be read: No such file" in missing.err) == (EX_NOINPUT, True)
    pole.configure(f'cert_file = "{pole.folder}/none/pole.pem"', f'key_file = "{pole.folder}/none/pole.key"')
    ran = call("identity", "csr", "--config", str(pole.config))
    assert (ran.code, "No such file or directory; see ls -l, or try sudo" in ran.err) == (EX_CANTCREAT, True)


def test_a_key_that_systemd_hands_over_stays_roots_and_a_new_one_needs_a_restart(
    pole: Pole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "KEY_OF_CREDENTIAL", pole.key)
    pole.configure(f'cert_file = "{pole.cert}"', 'key_file = "credential:mqtt-key"')
    restart, at_once = "restart it: systemctl restart polegate", "within a minute"
    for options, says in (((), restart), ((), at_once), (("--new-key",), restart), ((), at_once)):
        ran = pole.install(pole.authority.sign(pole.csr(*options)))
        assert (ran.code, says in ran.out) == (0, True)
        assert (mode(pole.key), mode(pole.cert)) == (0o600, 0o644)
        assert [mode(key) for key in pole.folder.rglob("pole.key")] == [0o600] * len(
            list(pole.folder.rglob("pole.key"))
        )


def test_another_subject_needs_a_restart_as_the_gateway_takes_it_for_another_pole(pole: Pole) -> None:
    asked = pole.csr()
    assert pole.install(pole.authority.sign(asked)).code == 0
    ran = pole.install(pole.authority.sign(asked, name=POLE, organisation="city"))
    assert (ran.code, "systemctl restart" in ran.out) == (0, True)


def test_a_cut_at_any_point_leaves_a_key_and_its_certificate_and_loses_none() -> None:
    command = [sys.executable, "-m", "tests.identity.identity_cuts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  # ours
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_a_pair_is_on_the_disk_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut may leave a name with nothing behind it."""
    synced: set[int] = set()
    named: list[Path] = []
    rename, mkdir = Path.rename, Path.mkdir
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))

    def naming(new: Path, path: Path) -> Path:
        target = new.resolve()
        needed = [target, *(target.iterdir() if target.is_dir() else ())]
        needed += [target.parent, path.parent] if new.is_symlink() else []
        assert all(each.stat().st_ino in synced for each in needed), (path, needed)
        synced.discard(path.parent.stat().st_ino)
        named.append(path)
        return rename(new, path)

    def making(new: Path, *, exist_ok: bool = False) -> None:
        synced.discard(new.parent.stat().st_ino)
        mkdir(new, exist_ok=exist_ok)

    monkeypatch.setattr(Path, "rename", naming)
    monkeypatch.setattr(Path, "mkdir", making)
    files = PairFiles(tmp_path / "pole.key", tmp_path / "pole.pem", shared=False)
    files.add_key(files.key, b"1")
    files.install(b"1", b"cert of 1")
    files.add_key(files.next_key, b"2")
    files.install(b"2", b"cert of 2")
    assert sum(path.name == "current" for path in named) == 3
    assert {tmp_path.stat().st_ino, (tmp_path / "identity").stat().st_ino} <= synced

"""``polegate fleet``: from keys in files to a document that a pole believes."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.remote import document, envelope, trust_root
from gateway.remote.envelope import CONFIG_TYPE, ROOT_TYPE
from tests.commands.cli_scene import call
from tests.remote.scene import GOOD
from tests.store.buffer_bench import no_file_grows_beyond

EX_DATAERR, EX_CANTCREAT, EX_CONFIG = 65, 73, 78


@pytest.fixture
def office(tmp_path: Path) -> Path:
    """An operator's folder: keys, a root of trust, and a document that is to be signed."""
    keys = {}
    for name in ("r1", "r2", "c1", "c2", "x"):
        code, out, _ = call("fleet", "keygen", str(tmp_path / name))
        assert code == 0
        keys[name] = out.strip()
    del keys["x"]
    lines = ["version = 1", "epoch = 1", "[keys]", *(f'{name} = "{key}"' for name, key in keys.items())]
    for role, names in (
        ("root", '["r1", "r2"]'),
        ("fleet", '["c1", "c2"]'),
        ("pole", '["c1", "c2"]'),
        ("command", '["c1"]'),
    ):
        lines += [f"[roles.{role}]", f"keys = {names}", f"threshold = {1 if role in ('pole', 'command') else 2}"]
    (tmp_path / "root.toml").write_text("\n".join(lines))
    (tmp_path / "layer.toml").write_text(GOOD)
    (tmp_path / "document.toml").write_text(
        'stream = "fleet"\nseq = 7\nvalid = "7d"\nsettings = "layer.toml"\n[rollout]\nsalt = "r"\npermyriad = 500\n'
    )
    assert signed(tmp_path, "root.toml", "root.json", "r1", "r2") == 0
    return tmp_path


def signed(office: Path, what: str, out: str, *keys: str) -> int:
    arguments = [argument for key in keys for argument in ("--key", str(office / key))]
    return call("fleet", "sign", str(office / what), *arguments, "--out", str(office / out)).code


def test_a_key_is_kept_to_oneself_and_never_overwritten(office: Path) -> None:
    key = office / "c1"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(base64.b64decode((office / "c1.pub").read_text())) == 32
    before = key.read_bytes()
    ran = call("fleet", "keygen", str(key))
    assert (ran.code, key.read_bytes()) == (EX_CANTCREAT, before)
    assert "name another file" in ran.err


def test_of_a_pair_that_cannot_be_made_nothing_is_left_and_the_file_is_told_that_is_in_the_way(tmp_path: Path) -> None:
    key, public = tmp_path / "key", tmp_path / "key.pub"
    public.write_text("of another")
    ran = call("fleet", "keygen", str(key))
    assert ran == (EX_CANTCREAT, "", f"{public} cannot be made: File exists; name another file\n")
    assert public.read_text() == "of another"
    public.unlink()
    with no_file_grows_beyond(10):
        ran = call("fleet", "keygen", str(key))
    assert ran == (EX_CANTCREAT, "", f"{key} cannot be made: File too large; name another file\n")
    assert list(tmp_path.iterdir()) == []
    assert call("fleet", "keygen", str(key)).code == 0


def test_a_signed_document_that_cannot_be_written_is_told_by_its_name(office: Path) -> None:
    ran = call("fleet", "sign", str(office / "document.toml"), "--key", str(office / "c1"), "--out", "/dev/full")
    assert ran == (EX_CANTCREAT, "", "/dev/full cannot be written: No space left on device; name another file\n")


def test_operators_sign_one_after_the_other(office: Path) -> None:
    assert signed(office, "document.toml", "d.json", "c1") == 0
    alone = call("fleet", "verify", str(office / "d.json"), "--root", str(office / "root.json"))
    assert alone.code == EX_DATAERR
    assert "1 of the keys that may sign it signed; it takes 2" in alone.err
    assert signed(office, "d.json", "d.json", "c2", "c1") == 0
    both = call("fleet", "verify", str(office / "d.json"), "--root", str(office / "root.json"))
    assert both.code == 0
    assert both.out.startswith("fleet seq 7, ")
    assert "signed by c1, c2\n" + GOOD in both.out

    root = trust_root.first((office / "root.json").read_bytes())
    sealed = envelope.read((office / "d.json").read_bytes(), CONFIG_TYPE)
    assert len(sealed.signatures) == 2
    root.must_sign(sealed, "fleet")
    found = document.parsed(sealed.payload)
    assert (found.settings, found.expires - found.issued) == (GOOD, 7 * 86_400)
    assert found.rollout
    assert found.rollout.permyriad == 500


def test_settings_saved_by_a_windows_editor_are_signed_without_its_marks(office: Path) -> None:
    (office / "layer.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert signed(office, "document.toml", "d.json", "c1", "c2") == 0
    sealed = envelope.read((office / "d.json").read_bytes(), CONFIG_TYPE)
    assert document.parsed(sealed.payload).settings == GOOD


def test_the_document_in_the_readme_can_be_signed(office: Path) -> None:
    readme = (Path(__file__).parent.parent.parent / "README.md").read_text()
    shown = readme.split("```toml\n")[2].split("```")[0]
    (office / "document.toml").write_text(shown)
    assert signed(office, "document.toml", "d.json", "c1", "c2") == 0
    assert call("fleet", "verify", str(office / "d.json"), "--root", str(office / "root.json")).code == 0


def test_a_command_and_the_next_root_are_signed_alike(office: Path) -> None:
    (office / "command.toml").write_text(f'pole = "pole-1"\ndo = "cancel"\ntrial = "{"0" * 64}"\n')
    assert signed(office, "command.toml", "command.json", "c1") == 0
    told = call("fleet", "verify", str(office / "command.json"), "--root", str(office / "root.json"))
    assert (told.code, told.out) == (0, f"command to pole pole-1: cancel {'0' * 64}, signed by c1\n")

    text = (office / "root.toml").read_text()
    (office / "root2.toml").write_text(text.replace("version = 1", "version = 2"))
    assert signed(office, "root2.toml", "root2.json", "r1") == 0
    assert call("fleet", "verify", str(office / "root2.json"), "--root", str(office / "root.json")).code == EX_DATAERR
    assert signed(office, "root2.json", "root2.json", "r2") == 0
    assert call("fleet", "verify", str(office / "root2.json"), "--root", str(office / "root.json")).code == 0
    assert json.loads((office / "root2.json").read_text())["payloadType"] == ROOT_TYPE


@pytest.mark.parametrize(
    ("text", "key", "code", "told"),
    [
        ('stream = "fleet"\nseq = 7\nsettings = "layer.toml"', "c1", EX_DATAERR, '"valid"'),
        (
            'stream = "fleet"\nseq = 0\nvalid = "7d"\nsettings = "layer.toml"',
            "c1",
            EX_DATAERR,
            'no document: "seq" must be 1 or more, not 0',
        ),
        (
            'stream = "fleet"\nseq = 7\nvalid = "7d"\nsettings = "none.toml"',
            "c1",
            EX_CONFIG,
            "none.toml: is not there",
        ),
        (
            'stream = "fleet"\nseq = 7\nvalid = "7d"\nsettings = "bad.toml"',
            "c1",
            EX_CONFIG,
            "bad.toml:1: cannot be read",
        ),
        (
            'stream = "fleet"\nseq = 7\nvalid = "7d"\nsettings = "latin.toml"',
            "c1",
            EX_CONFIG,
            "latin.toml:2: byte e9 is not UTF-8; save the file as UTF-8",
        ),
        (
            'stream = "fleet"\nseq = 7\nvalid = "7d"\nsettings = "."',
            "c1",
            EX_CONFIG,
            ": is a folder; name the file in it",
        ),
        ('stream = "fleet', "c1", EX_CONFIG, "document.toml:1: cannot be read"),
        (
            'stream = "fleet"\nseq = 7\nvalid = "7d"\nsetings = "layer.toml"',
            "c1",
            EX_DATAERR,
            'document.toml: "setings" is not a known key; did you mean "settings"?',
        ),
        ('stream = "fleet"\nseq = 7', "c1", EX_DATAERR, 'document.toml: key "settings" is missing'),
        ("a = 1", "c1", EX_DATAERR, 'neither "stream"'),
        (
            'stream = "fleet"\nseq = 7\nvalid = "7d"\nsettings = "layer.toml"',
            "c1.pub",
            EX_DATAERR,
            "no key of polegate",
        ),
        ('stream = "fleet"\nseq = 7\nvalid = "7d"\nsettings = "layer.toml"', "none", EX_DATAERR, "none: No such file"),
        ("version = 1\n[roles]", "c1", EX_DATAERR, "no root of trust"),
        ('do = "confirm"', "c1", EX_DATAERR, "no command"),
    ],
)
def test_what_cannot_be_signed_is_told(office: Path, text: str, key: str, code: int, told: str) -> None:
    (office / "bad.toml").write_text("a =")
    (office / "latin.toml").write_bytes(b"[pole]\n# \xe9\n")
    (office / "document.toml").write_text(text)
    ran = call("fleet", "sign", str(office / "document.toml"), "--key", str(office / key), "--out", str(office / "out"))
    assert (ran.code, told in ran.err) == (code, True), ran.err
    assert not (office / "out").exists()


DOCUMENT = 'stream = "fleet"\nseq = 7\nvalid = "7d"\nsettings = "layer.toml"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            f"{DOCUMENT}[trial]\nwindow = 9",
            ['6: it is no document: [trial]: "window" is not a known key; did you mean'],
        ),
        (
            f'{DOCUMENT}[rollout]\nsalt = "r"\nshare = 5',
            [
                '5: it is no document: [rollout]: key "permyriad" is missing: ten-thousandths',
                '7: it is no document: [rollout]: "share" is not a known key; there are "permyriad" and "salt"',
            ],
        ),
        (
            f'{DOCUMENT}[window]\nfrom = "1:30"\nto = "02:00"\ndays = ["monday"]',
            [
                '6: it is no document: [window]: "from" is "1:30"; it has another form: hours and minutes, such as',
                '8: it is no document: [window]: "days" number 1 must be "mon", "tue", "wed", "thu", "fri", "sat" or',
            ],
        ),
        (f"{DOCUMENT}[trial]\nwindow_s = 60\nhold_s = 90", ['5: it is no document: "hold_s" must be less than']),
        ('pole = "p"\ndo = "confirm"\ntrail = ""', [" it is no command: key", '3: it is no command: "trail" is not a']),
        (
            "version = 1\nepoch = 1\nkeys = {}\n[roles.root]\nkeys = []\nthreshold = 1\ntreshold = 1",
            [
                "3: it is no root of trust",
                "5: it is no root of trust",
                '7: it is no root of trust: [roles.root]: "tres',
            ],
        ),
    ],
)
def test_what_does_not_fit_is_told_by_its_line_in_our_words(office: Path, text: str, told: list[str]) -> None:
    (office / "document.toml").write_text(text)
    keys = ["--key", str(office / "c1")]
    ran = call("fleet", "sign", str(office / "document.toml"), *keys, "--out", str(office / "out"))
    assert ran.code == EX_DATAERR
    lines = ran.err.splitlines()
    assert len(lines) == len(told), ran.err
    for line, begin in zip(lines, told, strict=True):
        assert line.startswith(f"{office}/document.toml:{begin}"), line


def test_a_rollout_tells_what_does_not_fit_in_the_same_words(office: Path) -> None:
    (office / "document.toml").write_text(f'{DOCUMENT}[rollout]\nsalt = "r"\nshare = 5')
    root = ["--root", str(office / "root.json"), "--broker", "mqtt://127.0.0.1:1", "--key", str(office / "c1")]
    ran = call("fleet", "rollout", str(office / "document.toml"), *root)
    text = '"share" is not a known key; there are "permyriad" and "salt"'
    assert ran == (EX_DATAERR, "", f"{office}/document.toml:7: it is no document: [rollout]: {text}\n")


PEM = "-----BEGIN {0}KEY-----\n{1}-----END {0}KEY-----\n"
OTHER = "it is a key of another kind"
NONE = "it is no private key in PEM, or damaged"


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | Ed25519PrivateKey, *, secret: bytes = b"") -> str:
    locked = BestAvailableEncryption(secret) if secret else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked).decode()


def pem_of(key: bytes) -> str:
    return PEM.format("PRIVATE ", base64.encodebytes(key).decode())


def public() -> str:
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


SM2 = "3041020100301306072a8648ce3d020106082a811ccf5501822d042730250201010420" + "01" * 32  # a curve not known here
UNKNOWN = "300c020100300506032a03040400"  # 1.2.3.4
NO_KEYS: dict[str, tuple[Callable[[], str], str]] = {
    "RSA": (lambda: pem(rsa.generate_private_key(65_537, 2048)), OTHER),
    "EC": (lambda: pem(ec.generate_private_key(ec.SECP256R1())), OTHER),
    "SM2": (lambda: pem_of(bytes.fromhex(SM2)), OTHER),
    "unknown": (lambda: pem_of(bytes.fromhex(UNKNOWN)), OTHER),
    "locked": (lambda: pem(Ed25519PrivateKey.generate(), secret=b"x"), "it has a passphrase"),
    "public": (public, "it is a public key"),
    "OpenSSH": (lambda: PEM.format("OPENSSH PRIVATE ", "b3BlbnNzaA==\n"), NONE),
    "cut": (lambda: pem(Ed25519PrivateKey.generate())[:80], NONE),
    "zeros": (lambda: pem_of(bytes(20)), NONE),
    "empty": (str, NONE),
}


@pytest.mark.parametrize("kind", NO_KEYS)
def test_what_is_no_key_is_told_in_one_line(office: Path, kind: str) -> None:
    key = office / "other.pem"
    make, why = NO_KEYS[kind]
    key.write_text(make())
    ran = call("fleet", "sign", str(office / "document.toml"), "--key", str(key), "--out", str(office / "out"))
    assert ran == (EX_DATAERR, "", f"{key} is no key of polegate fleet keygen: {why}\n")


@pytest.mark.parametrize(
    ("what", "root", "told"),
    [
        ("layer.toml", "root.json", "cannot be read as JSON"),
        ("d.json", "d.json", "d.json: it is of another type"),
        ("d.json", "layer.toml", "layer.toml: it cannot be read as JSON"),
        ("d.json", "none.json", "none.json: No such file"),
        ("x.json", "root.json", "no key that may sign it has signed it"),
    ],
)
def test_what_cannot_be_verified_is_told(office: Path, what: str, root: str, told: str) -> None:
    assert signed(office, "document.toml", "d.json", "c1", "c2") == 0
    assert signed(office, "document.toml", "x.json", "x") == 0
    ran = call("fleet", "verify", str(office / what), "--root", str(office / root))
    assert (ran.code, told in ran.err) == (EX_DATAERR, True), ran.err


@pytest.mark.parametrize("command", ["publish", "rollout"])
def test_a_root_of_trust_that_is_none_is_told_by_its_own_name(office: Path, command: str) -> None:
    root = ["--root", str(office / "layer.toml"), "--broker", "mqtt://127.0.0.1:1"]
    more = ["--key", str(office / "c1")] if command == "rollout" else []
    ran = call("fleet", command, str(office / "document.toml"), *root, *more)
    assert ran.code == EX_DATAERR
    assert ran.err.startswith(f"{office}/layer.toml: it cannot be read as JSON"), ran.err

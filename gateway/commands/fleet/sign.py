"""``polegate fleet keygen``, ``sign`` and ``verify``: from keys in files to what a pole believes. No broker is needed.

What is to be signed is a TOML file. A document::

    stream = "fleet"            # or "group/NAME", "pole/NAME"
    seq = 42                    # higher than all before; a number that was refused is used up
    valid = "7d"                # how long poles may take it; what is in force does not expire
    settings = "layer.toml"     # the whole layer: what it does not set, the layers below it do

and, where wanted, ``epoch``, ``not_before``, ``requires``, ``min_agent``, ``note``, ``[rollout]``, ``[window]`` and
``[trial]`` of :mod:`gateway.remote.document`. A root of trust has ``version``, ``epoch``, ``[keys]`` and
``[roles.NAME]``; a command has ``pole``, ``do``, ``trial`` and ``valid``.
"""

import base64
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gateway.commands.check import FILE, report
from gateway.commands.override import EX_CANTCREAT, Duration
from gateway.config.faults import SettingsError, mean
from gateway.config.toml_file import TomlFile, read
from gateway.config.toml_text import quoted
from gateway.remote import document, ed25519, envelope, trust_root
from gateway.remote.ed25519 import PrivateKey
from gateway.remote.envelope import COMMAND_TYPE, CONFIG_TYPE, ROOT_TYPE, Envelope, Signature
from gateway.remote.strict_json import Misfit
from gateway.remote.trust_root import Root
from gateway.remote.verdict import Rejected

EX_DATAERR = 65  # sysexits.h
UNUSABLE = SettingsError, Rejected, OSError, ValueError
COMMAND_VALID = "10m"


@click.command("keygen")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def keygen(path: Path) -> int:
    """Make a key: FILE is the private one, and keeps to you; FILE.pub the public one, for the root of trust.

    Exit code 0: made. 73: FILE or FILE.pub is there, or cannot be written; then neither is made.
    """
    pem = ed25519.new_private_key()
    public = base64.b64encode(PrivateKey(pem).public).decode()
    files = (path, 0o600, pem), (path.with_name(path.name + ".pub"), 0o644, public.encode() + b"\n")
    made: list[Path] = []
    for name, mode, data in files:
        try:
            with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                made.append(name)
                file.write(data)
        except OSError as error:
            for each in made:
                each.unlink()
            click.echo(f"{name} cannot be made: {error.strerror}; name another file", err=True)
            return EX_CANTCREAT
    click.echo(public)
    return 0


@click.command("sign")
@click.argument("path", metavar="FILE", type=FILE)
@click.option(
    "--key", "keys", metavar="KEY", required=True, multiple=True, type=FILE, help="A private key; may stand again."
)
@click.option("--out", metavar="SIGNED", required=True, type=click.Path(path_type=Path), help="Where it is written.")
def sign(path: Path, keys: tuple[Path, ...], out: Path) -> int:
    """Sign FILE: a document, root of trust or command in TOML, or one that is signed already, by more keys.

    Exit code 0: signed. 65: FILE or a key cannot be used. 73: SIGNED cannot be written. 78: FILE or its settings are no
    TOML, or cannot be read.
    """
    try:
        sealed = _unsigned(path) if path.suffix == ".toml" else envelope.read(path.read_bytes())
        written = signed(sealed, keys).written()
    except UNUSABLE as error:
        return refused(error, path)
    try:
        out.write_bytes(written)
    except OSError as error:
        click.echo(f"{out} cannot be written: {error.strerror}; name another file", err=True)
        return EX_CANTCREAT
    return 0


@click.command("verify")
@click.argument("path", metavar="SIGNED", type=FILE)
@click.option("--root", "root_path", metavar="ROOT", required=True, type=FILE, help="The root of trust, root.json.")
def verify(path: Path, root_path: Path) -> int:
    """Tell what SIGNED says, who signed it, and whether that is enough for ROOT.

    Exit code 0: it is. 65: it is not, or a file cannot be used. 78: its settings are no TOML.
    """
    try:
        root = root_in(root_path)
        sealed = envelope.read(path.read_bytes())
        role, name, settings = _shown(sealed)
        by_key = {base64.b64decode(text): name for name, text in root.keys.items()}
        signers = sorted(by_key[key] for key in sealed.signers(by_key))
        click.echo(f"{name}, signed by {', '.join(signers) or 'no key of the root'}")
        click.echo(settings, nl=False)
        if sealed.kind == ROOT_TYPE:
            new = trust_root.parsed(sealed.payload)
            if new.version != root.version:
                trust_root.following(root, path.read_bytes())
                return 0
        else:
            TomlFile(Path(name), settings)
        root.must_sign(sealed, role)
    except UNUSABLE as error:
        return refused(error, path)
    return 0


def root_in(path: Path) -> Root:
    """Read a root of trust. Raises OSError, and ValueError that names the file."""
    try:
        return trust_root.first(path.read_bytes())
    except Rejected as error:
        raise ValueError(f"{path}: {error.text}; --root takes the root of trust of the poles, root.json") from error


def signed(sealed: Envelope, keys: Sequence[Path]) -> Envelope:
    """Sign by keys in files, each once. Raises OSError, ValueError."""
    for name in keys:
        key = _private_key(name)
        others = [
            each for each in sealed.signatures if not ed25519.is_signed(key.public, each.signature, sealed.signed)
        ]
        signature = Signature(name.name, key.sign(sealed.signed))
        sealed = Envelope(sealed.kind, sealed.payload, [*others, signature])
    return sealed


def _unsigned(path: Path) -> Envelope:
    """Make of a TOML file what is signed. Raises SettingsError, Rejected, ValueError, OSError."""
    content = TomlFile(path).content
    if "roles" in content:
        return Envelope(ROOT_TYPE, trust_root.written({**content, "issued": int(time.time())}))
    if "do" in content:
        return Envelope(COMMAND_TYPE, _command(content, path))
    if "stream" in content:
        return Envelope(CONFIG_TYPE, _document(content, path))
    raise ValueError(
        f'{path}: it has neither "stream", as a document has, nor "roles" or "do"; see polegate fleet --help'
    )


def _document(content: dict[str, Any], path: Path) -> bytes:
    return document.written(drafted(content, path))


def drafted(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Make of a document's TOML what it says. Raises SettingsError, ValueError, OSError."""
    _must_be_known(content, path)
    settings = path.parent / str(content["settings"])
    text = read(settings)
    TomlFile(settings, text)
    said = _timed(content, path)
    defaults = {"epoch": 1, "not_before": said["issued"], "schema": document.SCHEMA}
    return {**defaults, **said, "settings": text}


def _must_be_known(content: dict[str, Any], path: Path) -> None:
    """Raise ValueError where a document has a key that there is not, or no settings."""
    known = {field.alias or name for name, field in document.Document.model_fields.items()} | {"valid"}
    for key in sorted(content.keys() - known):
        raise ValueError(f"{path}: {quoted(key)} is not a known key{mean(key, known)}")
    if "settings" not in content:
        raise ValueError(f'{path}: key "settings" is missing: the file that holds the whole layer')


def _command(content: dict[str, Any], path: Path) -> bytes:
    return document.written_command({"epoch": 1, **_timed({"valid": COMMAND_VALID, **content}, path)})


def _timed(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Put times in the place of how long it is valid."""
    now = int(time.time())
    try:
        seconds = Duration().convert(content.pop("valid", ""), None, None)
    except click.UsageError as error:
        raise ValueError(f'{path}: "valid": {error.message}') from error
    return {**content, "issued": now, "expires": now + seconds}


def _shown(sealed: Envelope) -> tuple[trust_root.Role, str, str]:
    """Return who must sign it, what it is called, and what it sets."""
    if sealed.kind == ROOT_TYPE:
        root = trust_root.parsed(sealed.payload)
        return "root", f"root of trust {root.version}, epoch {root.epoch}", ""
    if sealed.kind == COMMAND_TYPE:
        said = document.parsed_command(sealed.payload)
        return "command", f"command to pole {said.pole}: {said.do} {said.trial}", ""
    found = document.parsed(sealed.payload)
    return found.role, f"{found.name}, {document.digest(sealed.payload)}", found.settings


def _private_key(path: Path) -> PrivateKey:
    try:
        return PrivateKey(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no key of polegate fleet keygen: {error}") from error


def refused(error: Exception, path: Path | None = None) -> int:
    """Tell why what was given cannot be used, and return the exit code; ``path`` is the file that holds it."""
    match error:
        case SettingsError():
            return report(error.faults)
        case Misfit() if path and path.suffix == ".toml":
            file = TomlFile(path)
            faults = sorted(file.fault(place, text) for place, text in error.found())
            return unusable(
                "\n".join(str(replace(each, text=f"it is no {error.what}: {each.text}")) for each in faults)
            )
        case Rejected():
            return unusable(f"{path}: {error.text}" if path else error.text)
        case OSError():
            return unusable(f"{error.filename}: {error.strerror}")
        case _:
            return unusable(str(error))


def unusable(text: str) -> int:
    """Tell what is wrong with what was given, and return the exit code for that."""
    click.echo(text, err=True)
    return EX_DATAERR

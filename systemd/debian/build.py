"""``make deb``: the Debian package of one architecture, made on any of them.

The package carries the libraries it needs: Debian's are older, and pip is not for a system's Python. They are the
wheels of requirements-run.lock, checked by their hashes and laid over each other in one folder, those for Python 3.11
(Debian 12) and 3.13 (Debian 13): the name of an extension says which Python it is for, and all else in them is the
same. Nothing of the target is run, and nothing is compiled.

dpkg unpacks all of it beside what runs; the script ``release`` says how it comes to run, and how the release before
comes back.

The same commit gives the same bytes: what is newer than the commit gets its time, and everything belongs to root.

For 32-bit ARM three libraries have no wheel. dbus-fast is Python that may be compiled: the wheel of another machine is
taken without its extensions. zstandard and cffi, which cryptography calls, come from Debian, where every version has
what is called.
"""

import argparse
import email.parser
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOCK = ROOT / "requirements-run.lock"
SITE = Path("usr/lib/polegate/package")  # the script `release` says what becomes of it
DOC = Path("usr/share/doc/polegate")
PYTHONS = "3.11", "3.13"
GLIBC = 36  # of Debian 12: 2.36
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}
LEGACY = "manylinux2014", "manylinux2010", "manylinux1", "linux"
WITHOUT_EXTENSIONS = {"armhf": {"dbus-fast"}}
FROM_DEBIAN = {"armhf": {"cffi": "python3-cffi-backend", "zstandard": "python3-zstandard"}}
UNUSED = "zstandard/_cffi."  # for PyPy, and 24 MB
KEPT_METADATA = "METADATA", "entry_points.txt"
LICENCE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.IGNORECASE)
INSTALLED = {  # of systemd/
    "polegate.service": "usr/lib/systemd/system/polegate.service",
    "polegate-clock.service": "usr/lib/systemd/system/polegate-clock.service",
    "polegate-web.service": "usr/lib/systemd/system/polegate-web.service",
    "polegate-web.socket": "usr/lib/systemd/system/polegate-web.socket",
    "polegate.sysusers": "usr/lib/sysusers.d/polegate.conf",
    "polegate.tmpfiles": "usr/lib/tmpfiles.d/polegate.conf",
    "60-polegate.rules": "usr/lib/udev/rules.d/60-polegate.rules",
    "polegate.journald.conf": "usr/lib/systemd/journald.conf.d/polegate.conf",
}
PROGRAMS = {  # of systemd/debian/
    "launcher": "usr/bin/polegate",
    "release": "usr/lib/polegate/release",
}
CONFIGURATION = {"pole.toml": "etc/polegate/pole.toml"}  # of systemd/debian/; what dpkg never overwrites
EXAMPLES = "pole.toml", "minimal.toml", "broker", "receivers", "schema", "asyncapi.json"
NAMESPACE = uuid.UUID("8e7c5b1e-52b1-4c0e-9f60-1b0b8f0a7d11")  # of the serial numbers of our lists of parts


@dataclass(frozen=True, slots=True)
class Part:
    """A library that the package carries.

    Attributes:
        name: as it is called in the lock.
        version: its version.
        licence: as its author names it.
        hashes: SHA-256 of the wheels it was taken from.
    """

    name: str
    version: str
    licence: str
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        """The name it has in any list of parts."""
        return f"pkg:pypi/{self.name}@{self.version}"


def main() -> None:
    """Build what the arguments name."""
    parser = argparse.ArgumentParser(description="Build the Debian package.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder it is written to")
    parser.add_argument("arch", nargs="*", choices=[*MACHINES, []], help="architectures; all if none is named")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for arch in arguments.arch or MACHINES:
        print(build(arch, arguments.out))  # noqa: T201  # where it is


def build(arch: str, out: Path, *, wheels: Path | None = None, compression: str = "xz") -> Path:
    """Build the package of one architecture and return where it is.

    Args:
        arch: which.
        out: the folder it is written to.
        wheels: where those of a build before lie, or are to be left for the next one; None: nowhere.
        compression: as dpkg-deb calls it.
    """
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with tempfile.TemporaryDirectory(prefix="polegate-deb-") as name:
        work = Path(name)
        tree = work / "tree"
        parts = _libraries(arch, wheels or work / "wheels", tree)
        _own(work / "own", tree)
        _install(tree)
        _documents(tree, version, arch, parts)
        _control(tree, version, arch)
        _settle(tree, _commit_time())
        package = out / f"polegate_{version}_{arch}.deb"
        _run("dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", str(tree), str(package))
    return package


def _libraries(arch: str, wheels: Path, tree: Path) -> list[Part]:
    """Fetch the wheels of the lock and lay them over each other; return what they are."""
    lock = _requirements()
    wanted = {name: text for name, text in lock.items() if name not in FROM_DEBIAN.get(arch, {})}
    pure = {name: wanted.pop(name) for name in WITHOUT_EXTENSIONS.get(arch, ())}
    for python in PYTHONS:
        _download(wanted.values(), MACHINES[arch], python, wheels / python)
    if pure:
        _download(pure.values(), MACHINES["amd64"], PYTHONS[0], wheels / "pure")
    found: dict[str, tuple[Message, list[Path]]] = {}
    for wheel in sorted(wheels.rglob("*.whl")):
        metadata = _unpack(wheel, tree, extensions=wheel.parent.name != "pure")
        found.setdefault(_normal(metadata["Name"]), (metadata, []))[1].append(wheel)
    if missing := (wanted.keys() | pure.keys()) - found.keys():
        raise SystemExit(f"no wheel of {', '.join(sorted(missing))}")
    return [_part(name, metadata, from_) for name, (metadata, from_) in sorted(found.items())]


def _requirements() -> dict[str, str]:
    """Read the lock: the lines of each library by its name."""
    text = LOCK.read_text()
    if "python_version" in text or "python_full_version" in text:
        raise SystemExit(f"{LOCK.name} differs between Pythons, which one folder for both cannot")
    blocks = re.split(r"\n(?=\S)", text.strip())
    return {_normal(block.split("==")[0]): block for block in blocks}


def _download(requirements: Iterable[str], machine: str, python: str, folder: Path) -> None:
    """Fetch wheels, checked by their hashes, if they are not there yet."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    lock = folder / "lock.txt"
    lock.write_text("\n".join(requirements) + "\n")
    tags = [f"manylinux_2_{minor}" for minor in range(GLIBC, 4, -1)] + [*LEGACY]
    platforms = [f"--platform={tag}_{machine}" for tag in tags]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    _run(
        *pip, "--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp", *platforms,
        f"--python-version={python}", f"--dest={folder}", f"--requirement={lock}",
    )  # fmt: skip


def _unpack(wheel: Path, tree: Path, *, extensions: bool = True) -> Message:
    """Lay a wheel over what is there; return its metadata. What is there already must be the same."""
    metadata = Message()
    with zipfile.ZipFile(wheel) as archive:
        for name, content in _files(archive):
            if name.parts[0].endswith(".dist-info"):
                if name.name == "METADATA":
                    metadata = email.parser.BytesParser().parsebytes(content, headersonly=True)
                if name.name not in KEPT_METADATA:
                    continue
            if name.parts[0].endswith(".data"):
                continue
            if str(name).startswith(UNUSED) or (name.suffix == ".so" and not extensions):
                continue
            _put(tree / SITE / name, content)
        for licence, content in _licences(archive):
            _put(tree / DOC / "licences" / _normal(metadata["Name"]) / licence, content)
    return metadata


def _files(archive: zipfile.ZipFile) -> Iterator[tuple[Path, bytes]]:
    for entry in archive.infolist():
        path = Path(entry.filename)
        if not entry.is_dir() and path.suffix not in {".pxd", ".pyi", ".pyx", ".c"}:
            yield path, archive.read(entry)


def _licences(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    for path, content in _files(archive):
        if path.parts[0].endswith(".dist-info") and LICENCE.match(path.name):
            yield path.name, content


def _put(path: Path, content: bytes) -> None:
    if path.exists():
        if path.read_bytes() != content and path.name not in KEPT_METADATA:
            raise SystemExit(f"{path}: two wheels hold this file, and not the same")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _part(name: str, metadata: Message, wheels: Iterable[Path]) -> Part:
    classifiers = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier", []) if line.startswith("License")]
    licence = metadata["License-Expression"] or ", ".join(classifiers) or (metadata["License"] or "").split("\n")[0]
    hashes = dict.fromkeys(map(_sha256, wheels))
    return Part(name, metadata["Version"], licence, tuple(hashes))


def _own(work: Path, tree: Path) -> None:
    """Install polegate itself."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    _run(*pip, "--no-deps", "--no-build-isolation", f"--wheel-dir={work}", str(ROOT))
    (wheel,) = work.glob("*.whl")
    _unpack(wheel, tree)
    shutil.copytree(ROOT / "config" / "profiles", tree / SITE / "config/profiles")


def _install(tree: Path) -> None:
    for source, target in INSTALLED.items():
        _put(tree / target, (HERE.parent / source).read_bytes())
    for source, target in CONFIGURATION.items():
        _put(tree / target, (HERE / source).read_bytes())
    for source, target in PROGRAMS.items():
        _put(tree / target, (HERE / source).read_bytes())
        (tree / target).chmod(0o755)


def _documents(tree: Path, version: str, arch: str, parts: Iterable[Part]) -> None:
    examples = tree / DOC / "examples"
    for name in EXAMPLES:
        source = ROOT / "config" / name
        if source.is_dir():
            shutil.copytree(source, examples / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        else:
            _put(examples / name, source.read_bytes())
    _put(tree / DOC / "README.md.gz", gzip.compress((ROOT / "README.md").read_bytes(), mtime=0))
    _put(tree / DOC / "copyright", _copyright(parts).encode())
    _put(tree / DOC / "sbom.cdx.json", json.dumps(_sbom(version, arch, parts), indent=1).encode() + b"\n")


def _copyright(parts: Iterable[Part]) -> str:
    """Say under which licences the libraries stand; their texts lie beside it."""
    lines = ["polegate carries these libraries, each under its own licence:", ""]
    lines += [f"  {part.name} {part.version}: {part.licence}" for part in parts]
    lines += ["", "The texts of the licences are in /usr/share/doc/polegate/licences, as far as the wheels hold them."]
    return "\n".join(lines) + "\n"


def _sbom(version: str, arch: str, parts: Iterable[Part]) -> Mapping[str, object]:
    """Return the list of parts (CycloneDX 1.6)."""
    us = f"pkg:deb/polegate@{version}?arch={arch}"
    components = [
        {
            "type": "library",
            "bom-ref": part.purl,
            "name": part.name,
            "version": part.version,
            "purl": part.purl,
            "licenses": [{"license": {"name": part.licence}}],
            "properties": [{"name": "polegate:wheel:sha256", "value": hash_} for hash_ in part.hashes],
        }
        for part in parts
    ]
    refs = [part.purl for part in parts]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, ' '.join([us, *refs]))}",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": us, "name": "polegate", "version": version, "purl": us}
        },
        "components": components,
        "dependencies": [{"ref": us, "dependsOn": refs}],
    }


def _control(tree: Path, version: str, arch: str) -> None:
    folder = tree / "DEBIAN"
    depends = "".join(f", {package}" for package in FROM_DEBIAN.get(arch, {}).values())
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    text = (HERE / "control").read_text().format(version=version, arch=arch, depends=depends, size=size)
    _put(folder / "control", text.encode())
    _put(folder / "conffiles", "".join(f"/{target}\n" for target in CONFIGURATION.values()).encode())
    for script in ("preinst", "postinst", "prerm", "postrm"):
        _put(folder / script, (HERE / script).read_bytes())
        (folder / script).chmod(0o755)


def _settle(tree: Path, time: int) -> None:
    """Give everything the same modes and times, whoever builds."""
    for path in [tree, *tree.rglob("*")]:
        executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (time, time))
    os.environ["SOURCE_DATE_EPOCH"] = str(time)


def _commit_time() -> int:
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603  # ours


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # ours


if __name__ == "__main__":
    main()

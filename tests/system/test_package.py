"""The packages as files: the same bytes each time, for every machine, and with what must be in them."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hil.daemon import Daemon
from tests.system import scene
from tests.system.conftest import Once

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

BUILD = scene.builder()
LIMIT_S = 300.0  # an emulated processor on a busy machine
QEMU = {"arm64": "qemu-aarch64", "armhf": "qemu-arm"}
ELF_MACHINE = {"amd64": 62, "arm64": 183, "armhf": 40}  # elf.h


@pytest.fixture(params=list(BUILD.MACHINES))
def parts(request: pytest.FixtureRequest, built: Callable[[str], Path], once: Once) -> tuple[str, Path, Path]:
    """One architecture, its package, and that unpacked."""
    arch: str = request.param
    package = built(arch)

    def unpack(folder: Path) -> None:
        command = ["dpkg-deb", "--raw-extract", str(package), str(folder / "tree")]
        subprocess.run(command, check=True)  # noqa: S603  # ours

    return arch, package, once(f"unpacked-{arch}", unpack) / "tree"


def test_the_same_source_gives_the_same_bytes(parts: tuple[str, Path, Path], tmp_path: Path) -> None:
    arch, package, _ = parts
    again = scene.built(arch, tmp_path)
    assert _sha256(again) == _sha256(package)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("parts", QEMU, indirect=True)  # this machine's own is proved by test_machine
def test_the_gateway_runs_on_the_processors_of_a_pole(parts: tuple[str, Path, Path], tmp_path: Path) -> None:
    arch, package, _ = parts
    base = scene.ROOTS / arch
    if not base.is_dir():
        pytest.skip("there is no root folder for it; make test-system makes it")
    root = tmp_path / "root"
    shutil.copytree(base, root, symlinks=True, ignore=shutil.ignore_patterns("dev"))
    subprocess.run(["dpkg-deb", "--extract", str(package), str(root)], check=True)  # noqa: S603, S607  # ours
    launcher = root / "usr/bin/polegate"  # qemu for 32 bit looks for some files below the root, and not for others
    launcher.write_text(launcher.read_text().replace("/usr/lib", f"{root}/usr/lib"))
    command = tmp_path / "polegate"
    # Without -B: the second start finds what the first one compiled
    command.write_text(f'#!/bin/sh\nexec {QEMU[arch]} -L {root} {root}/usr/bin/python3 -I {launcher} "$@"\n')
    command.chmod(0o755)
    subprocess.run([str(command), "fleet", "keygen", str(tmp_path / "key")], check=True)  # noqa: S603  # signatures work
    with scene.site(tmp_path) as site:
        daemon = Daemon(tmp_path, command=str(command))
        ((port, there),) = site.binds.items()
        own = f'[buffer]\npath = "{tmp_path}/buffer.db"\n'
        daemon.config.write_text(site.configuration.replace(there, str(port)) + own)
        daemon.start()
        try:
            heard = site.heard()
            site.receiver.wait(lambda: {"air", "energy"} <= set(heard.packs), LIMIT_S, daemon.output())
        finally:
            code = daemon.stop()
    assert code == 0, daemon.output()
    assert not heard.holes()


def test_every_extension_is_for_this_machine_and_for_both_pythons(parts: tuple[str, Path, Path]) -> None:
    arch, _, tree = parts
    found: dict[str, set[str]] = {}
    for extension in (tree / BUILD.SITE).rglob("*.so"):
        head = extension.read_bytes()[:20]
        assert int.from_bytes(head[18:20], "little") == ELF_MACHINE[arch], extension
        module, python = re.fullmatch(r"(\w+)\.(?:cpython-(\d+)-.*|abi3)\.so", extension.name).groups()  # type: ignore[union-attr]
        pythons = {python} if python else {"311", "313"}  # abi3: of any
        found.setdefault(str(extension.parent / module), set()).update(pythons)
    assert found
    assert all(pythons == {"311", "313"} for pythons in found.values()), found
    assert (arch == "armhf") == (not any("dbus_fast" in name for name in found))


def test_the_list_of_parts_is_the_lock(parts: tuple[str, Path, Path]) -> None:
    arch, _, tree = parts
    told = json.loads((tree / BUILD.DOC / "sbom.cdx.json").read_text())
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+) ;", BUILD.LOCK.read_text(), re.MULTILINE))
    elsewhere = BUILD.FROM_DEBIAN.get(arch, {})
    assert {part["name"]: part["version"] for part in told["components"]} == {
        name: version for name, version in locked.items() if name not in elsewhere
    }
    hashes = set(re.findall(r"sha256:([0-9a-f]{64})", BUILD.LOCK.read_text()))
    for part in told["components"]:
        assert {each["value"] for each in part["properties"]} <= hashes
        assert part["properties"]
        assert part["licenses"][0]["license"]["name"], part["name"]
    depends = (tree / "DEBIAN/control").read_text()
    assert all(package in depends for package in elsewhere.values())


def test_the_licence_of_every_library_lies_beside_it(parts: tuple[str, Path, Path]) -> None:
    _, _, tree = parts
    told = json.loads((tree / BUILD.DOC / "sbom.cdx.json").read_text())
    texts = {folder.name for folder in (tree / BUILD.DOC / "licences").iterdir()}
    without = {part["name"] for part in told["components"]} - texts
    assert without <= {"pyserial", "pynmea2"}  # their wheels hold none; the copyright file names the licence
    copyright_ = (tree / BUILD.DOC / "copyright").read_text()
    assert all(f"{part['name']} {part['version']}: " in copyright_ for part in told["components"])


def test_what_is_in_etc_is_dpkgs_to_keep_and_no_owner_is_foreign(parts: tuple[str, Path, Path]) -> None:
    _, package, tree = parts
    in_etc = [f"/{file.relative_to(tree)}" for file in (tree / "etc").rglob("*") if file.is_file()]
    assert (tree / "DEBIAN/conffiles").read_text().splitlines() == in_etc == ["/etc/polegate/pole.toml"]
    assert not (tree / "var").exists()
    listing = subprocess.run(  # noqa: S603  # ours
        ["dpkg-deb", "--contents", str(package)],  # noqa: S607  # the same
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {line.split()[1] for line in listing.splitlines()} == {"root/root"}
    assert {line.split()[0][1:] for line in listing.splitlines()} == {"rwxr-xr-x", "rw-r--r--"}

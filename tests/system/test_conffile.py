"""The pole's configuration and dpkg: the file of the technician stays, and nobody is asked about it.

apt runs here without an input, so that any question ends it with an error.
"""

import shutil
from pathlib import Path

import pytest

from hil.machine import Machine
from tests.system import scene
from tests.system.conftest import Installed
from tests.system.scene import LIMIT_S, Site, install, main_pid, packs_come, status

pytestmark = scene.MARKS

FILE = "/etc/polegate/pole.toml"
FORMER, NEW = "0.0.9", "0.2.0"


@pytest.fixture
def former(package: Path, tmp_path: Path) -> Path:
    """A package of the time when pole.toml did not come with it."""

    def change(code: Path) -> None:
        tree = code.parents[3]
        shutil.rmtree(tree / "etc")
        (tree / "DEBIAN/conffiles").unlink()
        (tree / "DEBIAN/preinst").unlink()

    return scene.repacked(package, FORMER, tmp_path, change)


def in_folder(machine: Machine) -> str:
    return machine.run("stat", "--format=%n %a %U %G", "--", *machine.run("find", "/etc/polegate").split())


def edit(machine: Machine, text: str) -> None:
    """Write into the file that is there, as most editors do."""
    machine.run("sh", "-c", f"cat > {FILE}", text=text)


def must_be_kept(machine: Machine, text: str) -> None:
    assert machine.run("cat", FILE) == text
    assert in_folder(machine) == f"/etc/polegate 755 root root\n{FILE} 640 root polegate\n"
    known = machine.run("dpkg-query", "--show", "--showformat=${Conffiles}", "polegate")
    assert known.split()[::2] == [FILE]
    assert "newconffile" not in known
    assert machine.run("dpkg-divert", "--list", FILE) == ""


@pytest.mark.parametrize("base", scene.bases(), ids=lambda base: base.name)
def test_the_file_is_edited_in_place_and_outlives_upgrade_and_removal_but_not_purge(
    base: Path, package: Path, installed: Installed, around: Site, tmp_path: Path
) -> None:
    brought = (scene.builder().HERE / "pole.toml").read_text()
    with Machine(tmp_path / "machine", installed(base), around.binds) as machine:
        must_be_kept(machine, brought)
        install(machine, scene.repacked(package, NEW, tmp_path))
        must_be_kept(machine, brought)
        assert status(machine).startswith("not provisioned: ")
        pid = main_pid(machine)
        text = brought + around.configuration
        edit(machine, text)
        machine.run("systemctl", "reload", "polegate")
        machine.wait(lambda: status(machine) == "running", LIMIT_S, "the configuration is not taken")
        assert main_pid(machine) == pid
        install(machine, package)
        must_be_kept(machine, text)
        packs_come(machine, around)
        machine.run("apt-get", "remove", "--yes", "polegate")
        must_be_kept(machine, text)
        install(machine, package)
        must_be_kept(machine, text)
        packs_come(machine, around)
        machine.run("apt-get", "purge", "--yes", "polegate")
        assert machine.run("find", "/etc/polegate", check=False) == ""


def test_a_file_that_came_with_no_package_stays_where_it_is_and_nobody_is_asked(
    base: Path, package: Path, former: Path, around: Site, tmp_path: Path
) -> None:
    with Machine(tmp_path / "machine", [base], around.binds) as machine:
        install(machine, former)
        assert status(machine).startswith(f"not provisioned: {FILE}: is not there; ")
        machine.write(FILE, around.configuration)
        packs_come(machine, around)
        shutil.copy(package, machine.root / "root")
        machine.run("dpkg", "--unpack", f"/root/{package.name}")
        machine.run("sync")
        machine.cut()
        machine.boot()
        packs_come(machine, around)
        machine.run("dpkg", "--configure", "--pending")
        must_be_kept(machine, around.configuration)
        packs_come(machine, around)


def test_a_package_that_was_only_unpacked_or_not_even_that_goes_without_a_trace(
    base: Path, package: Path, tmp_path: Path
) -> None:
    with Machine(tmp_path / "machine", [base]) as machine:
        machine.run("mkdir", "/etc/polegate")
        machine.write(FILE, "# mine\n")
        whole = package.read_bytes()
        (machine.root / "root/half.deb").write_bytes(whole[: len(whole) // 2])
        (machine.root / "root/whole.deb").write_bytes(whole)
        for command in (
            ("--unpack", "/root/half.deb"),
            ("--unpack", "/root/whole.deb"),
            ("--remove", "polegate"),
        ):
            machine.run("dpkg", *command, check=False)
        assert machine.run("find", "/etc/polegate", "-type", "f") == f"{FILE}\n"
        assert machine.run("cat", FILE) == "# mine\n"
        install(machine, package)
        must_be_kept(machine, "# mine\n")
        machine.run("dpkg", "--unpack", "/root/whole.deb")
        machine.run("dpkg", "--purge", "polegate")
        for folder in ("/etc", "/usr", "/var", "/run"):
            left = machine.run("find", folder, "-xdev", "-iname", "*polegate*", "-not", "-path", "/var/cache/*")
            assert left == "", left

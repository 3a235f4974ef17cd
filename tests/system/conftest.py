"""What several tests of the package start from; what takes seconds to make is made once in a run, for all workers."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hil.machine import Machine
from tests.system import scene
from tests.system.scene import LIMIT_S, Site, install, status

Once = Callable[[str, Callable[[Path], object]], Path]
Installed = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Give a function that returns the folder of this name, with what is made in it by the first who asks."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent

    def once(name: str, make: Callable[[Path], object]) -> Path:
        place, new = shared / name, shared / f"{name}.new"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.is_dir():
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
                make(new)
                new.rename(place)
        return place

    return once


@pytest.fixture(scope="session")
def built(once: Once) -> Callable[[str], Path]:
    """Give a function that returns the package of an architecture."""

    def built(arch: str) -> Path:
        (package,) = once(f"package-{arch}", lambda out: scene.built(arch, out)).glob("*.deb")
        return package

    return built


@pytest.fixture(scope="session")
def package(built: Callable[[str], Path]) -> Path:
    return built(scene.ARCH)


@pytest.fixture(scope="session")
def installed(package: Path, once: Once) -> Installed:
    """Give a function that returns the folders of a machine with the package in it, and maybe more done to it."""

    def installed(base: Path, name: str = "as-it-is", then: Callable[[Machine], object] = lambda _: None) -> list[Path]:
        def make(folder: Path) -> None:
            with Machine(folder, [base]) as machine:
                install(machine, package)
                then(machine)
                machine.run("systemctl", "stop", "polegate")
                machine.run("sync")

        return [once(f"{base.name}-{name}", make) / "changes", base]

    return installed


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Site]:
    with scene.site(tmp_path) as site:
        yield site


@pytest.fixture
def base() -> Path:
    """Say which Debian the machine has."""
    return scene.bases()[0]


@pytest.fixture
def machine(base: Path, installed: Installed, around: Site, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the package, and a configuration for the devices around it."""
    with Machine(tmp_path / "machine", installed(base), around.binds) as machine:
        machine.wait(lambda: status(machine).startswith("not provisioned"), LIMIT_S, "it did not start")
        machine.write("/etc/polegate/pole.toml", around.configuration)
        machine.run("systemctl", "restart", "polegate")
        assert status(machine) == "running"
        yield machine

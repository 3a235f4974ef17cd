"""What several tests of the package start from."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hil.machine import Machine
from tests.system import scene
from tests.system.scene import LIMIT_S, Site, install, status


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene.built(scene.ARCH, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[Path]]:
    """Give a function that returns the folders of a machine with the package in them."""

    @functools.cache
    def installed(base: Path) -> list[Path]:
        with Machine(tmp_path_factory.mktemp("installed"), [base]) as machine:
            install(machine, package)
            machine.run("systemctl", "stop", "polegate")
            machine.run("sync")
        return [machine.changes, base]

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
def machine(base: Path, installed: Callable[[Path], list[Path]], around: Site, tmp_path: Path) -> Iterator[Machine]:
    """A machine with the package, and a configuration for the devices around it."""
    with Machine(tmp_path / "machine", installed(base), around.binds) as machine:
        machine.wait(lambda: status(machine).startswith("not provisioned"), LIMIT_S, "it did not start")
        machine.write("/etc/polegate/pole.toml", around.configuration)
        machine.run("systemctl", "restart", "polegate")
        assert status(machine) == "running"
        yield machine

"""Guests for the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import scene
from tests.vm.guest import Guest
from tests.vm.image import Image, cannot, image


@pytest.fixture(scope="session")
def disk() -> Image:
    if why := cannot():
        pytest.skip(why)
    return image()


@pytest.fixture
def around(tmp_path: Path) -> Iterator[scene.Site]:
    with scene.site(tmp_path) as site:
        yield site


@pytest.fixture
def guest(disk: Image, around: scene.Site, tmp_path: Path) -> Iterator[Guest]:
    """A guest in which the gateway polls the meters."""
    with disk.booted(tmp_path / "guest") as guest:
        scene.provision(guest, around.configuration)
        around.all_come()
        yield guest

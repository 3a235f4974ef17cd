"""Files of a buffer, for the tests of ``polegate buffer``."""

from pathlib import Path

import pytest

from tests.commands.buffer_scene import made


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """Give the file of a gateway that closed it."""
    return made("closed", tmp_path / "polegate")


@pytest.fixture
def left_open(tmp_path: Path) -> Path:
    """Give the file with its log, as a gateway leaves it."""
    return made("open", tmp_path / "polegate")

"""A disk that refuses to write."""

import os

import pytest


class Disk:
    """Refuses to write, from when on it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        write = os.write

        def refusing(file: int, data: bytes) -> int:
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
            return write(file, data)

        monkeypatch.setattr("gateway.remote.config_folder.os.write", refusing)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """One that works until it is told otherwise."""
    return Disk(monkeypatch)

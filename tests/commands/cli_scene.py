"""``polegate`` in this process: what it prints and how it ends."""

import contextlib
import io
import sys
from typing import NamedTuple
from unittest import mock

import pytest
import structlog

from gateway.__main__ import main


class Ran(NamedTuple):
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


_configure = structlog.configure
UNCACHED = {"cache_logger_on_first_use": False}  # a logger that was cached would be quiet in the tests that come after


def call(*arguments: str) -> Ran:
    """Run a command as a shell would."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["polegate", *arguments]),
        mock.patch.object(structlog, "configure", lambda **how: _configure(**how | UNCACHED)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main()
    structlog.reset_defaults()
    return Ran(int(end.value.code or 0), out.getvalue(), err.getvalue())

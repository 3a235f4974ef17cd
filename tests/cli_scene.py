"""``polegate`` in this process: what it prints and how it ends."""

import contextlib
import io
import sys
from typing import NamedTuple
from unittest import mock

import pytest

from gateway.__main__ import main


class Ran(NamedTuple):
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def call(*arguments: str) -> Ran:
    """Run a command as a shell would."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["polegate", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main()
    return Ran(int(end.value.code or 0), out.getvalue(), err.getvalue())

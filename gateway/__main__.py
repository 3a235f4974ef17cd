"""``polegate`` and ``python -m gateway``."""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from gateway.cli import polegate

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EX_USAGE, EX_CANTCREAT = 64, 73  # sysexits.h


class NotWritten(click.ClickException):
    """The standard output cannot be written. It is no OSError: no command is to take it for one of its files."""

    exit_code = EX_CANTCREAT


class SeenEnough(NotWritten):
    """Who reads the standard output has closed it: there is nothing to tell."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Keep quiet."""


class _Output(io.FileIO):
    """The standard output, which tells its own errors from those of other files."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write. Raises NotWritten."""
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise SeenEnough("nobody reads the standard output") from error
        except OSError as error:
            text = f"the standard output cannot be written: {error.strerror}; give a name in a folder with room"
            raise NotWritten(text) from error


class _Errors(io.FileIO):
    """The standard error, which drops what it cannot write: a gateway whose log is gone still has readings to keep."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write, or drop all of it."""
        try:
            written: int | None = super().write(data)
        except OSError:
            written = None  # as where it would have to wait
        return memoryview(data).nbytes if written is None else written


def main() -> None:
    """Run the command line; what is wrong with it ends with exit code 64."""
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):  # it is nothing where it is closed
        sys.stdout = _by_way_of(_Output, sys.stdout)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _by_way_of(_Errors, sys.stderr)
    elif sys.stderr is None:  # else another file of ours would be opened in its place
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # for as long as we run
    try:
        sys.exit(polegate(prog_name="polegate", standalone_mode=False))
    except NotWritten as error:
        error.show()
        with contextlib.suppress(NotWritten):  # else what is left is written in the end, with another exit code
            sys.stdout.close()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(EX_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)


def _by_way_of(kind: type[io.FileIO], given: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return the same stream, with its errors treated as they are there."""
    raw = kind(given.fileno(), "w", closefd=False)
    buffer = raw if given.write_through else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,  # a raw one serves too: Python does so with -u
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=given.line_buffering,
        write_through=given.write_through,
    )


if __name__ == "__main__":
    main()

"""``polegate`` and ``python -m gateway``."""

import contextlib
import io
import sys
from typing import TYPE_CHECKING

import click

from gateway.cli import polegate

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EX_USAGE, EX_CANTCREAT = 64, 73  # sysexits.h


class NotWritten(click.ClickException):
    """The standard output cannot be written. It is no OSError: no command is to take it for one of its files."""

    exit_code = EX_CANTCREAT


class _Output(io.FileIO):
    """The standard output, which tells its own errors from those of other files."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write. Raises NotWritten."""
        try:
            return super().write(data)
        except BrokenPipeError:  # who reads it has seen enough
            raise
        except OSError as error:
            text = f"the standard output cannot be written: {error.strerror}; give a name in a folder with room"
            raise NotWritten(text) from error


def main() -> None:
    """Run the command line; what is wrong with it ends with exit code 64."""
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):  # it is nothing where it is closed
        sys.stdout = _told(sys.stdout)
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


def _told(given: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return the same standard output, by way of what tells its errors."""
    raw = _Output(given.fileno(), "w", closefd=False)
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

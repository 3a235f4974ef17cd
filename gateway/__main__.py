"""``polegate`` and ``python -m gateway``."""

import sys

import click

from gateway.cli import polegate

EX_USAGE = 64  # sysexits.h


def main() -> None:
    """Run the command line; what is wrong with it ends with exit code 64."""
    try:
        sys.exit(polegate(prog_name="polegate", standalone_mode=False))
    except click.UsageError as error:
        error.show()
        sys.exit(EX_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The command line. A command is imported when it is called, so that none pays for what another needs."""

import importlib
from importlib.metadata import version

import click

COMMANDS = {
    "buffer": "look into a buffer: stats, verify, salvage, export, dead, retry",
    "check": "find every fault of a configuration file",
    "config": "show what is in force, and where each key is from",
    "decode": "print the values of a frame",
    "doctor": "tell what is not well with this pole, and what to do",
    "fleet": "sign for poles, publish, roll out, see what is in force",
    "identity": "this pole's key and certificate: csr, install, show",
    "override": "set a key for some hours, above what operators send",
    "probe": "read one device once and show bytes and values",
    "run": "run the gateway",
    "schema": "write what a pole says and hears: AsyncAPI and JSON Schema",
    "tail": "print the readings that come to a broker, and what is missing",
    "version": "tell which release runs, and which was given up",
    "web": "show in a browser how this pole is",
}


class Commands(click.Group):
    """Finds ``polegate NAME`` in ``gateway.commands.NAME``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"gateway.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands)
@click.version_option(version("polegate"), message="polegate %(version)s")
def polegate() -> None:
    """The agent in a smart light pole."""

"""``polegate schema``: the contract with a receiver, as files."""

import json
from pathlib import Path

import click

from gateway.words import asyncapi


@click.command("schema")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False))
def command(folder: Path) -> None:
    """Write what a pole says and hears to FOLDER.

    asyncapi.json is an AsyncAPI 3.0 document; schema/NAME.json is the JSON Schema (2020-12) of one kind of message.
    """
    try:
        (folder / "schema").mkdir(parents=True, exist_ok=True)
        for path, text in files().items():
            (folder / path).write_text(text)
    except OSError as error:
        raise click.FileError(str(folder), error.strerror or str(error)) from error


def files() -> dict[Path, str]:
    """Return what is to be written, by its place in the folder."""
    schemas = {Path("schema") / f"{name}.json": schema for name, schema in asyncapi.schemas().items()}
    return {
        path: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for path, content in {Path("asyncapi.json"): asyncapi.document(), **schemas}.items()
    }

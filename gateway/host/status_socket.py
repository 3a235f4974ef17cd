"""A door: a local socket that tells how the gateway does. Connect, read one JSON object, done.

Asking costs the gateway one object; not asking costs nothing. It never waits for a reader. Besides root, who is in the
service's group may ask: the folder lets nobody else in.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "status.sock"
SERVICE = Path("/run/polegate")
"""The folder that systemd gives to the service."""

READ_S = 2.0
ANSWER_S = 5.0
FOR_THE_GROUP = 0o660


async def serve(folder: Path, snapshot: Callable[[], dict[str, Any]]) -> None:
    """Answer for ever, at ``status.sock`` in a folder that only this run uses."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(json.dumps(snapshot()).encode() + b"\n")
            writer.close()
            async with asyncio.timeout(READ_S):
                await writer.wait_closed()
        except ConnectionError:
            pass
        except TimeoutError:  # who does not read is not told
            writer.transport.abort()

    path = folder / NAME
    path.unlink(missing_ok=True)  # of a run that was killed
    server = await asyncio.start_unix_server(answer, path)
    path.chmod(FOR_THE_GROUP)
    try:
        await server.serve_forever()
    finally:
        path.unlink(missing_ok=True)


def ask(folder: Path) -> object:
    """Return what the gateway answers that has this folder.

    Raises:
        OSError: nobody listens there, this user may not ask, or there is no answer in time.
        ValueError: what comes is no answer.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_S)
        sock.connect(str(folder / NAME))
        with sock.makefile("rb") as file:
            return json.loads(file.read())

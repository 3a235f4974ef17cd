"""A door: a local socket that tells how the gateway does. Connect, read one JSON object, done.

Asking costs the gateway one object; not asking costs nothing. It never waits for a reader.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "status.sock"
READ_S = 2.0


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
    try:
        await server.serve_forever()
    finally:
        path.unlink(missing_ok=True)

"""``polegate web``: a page for who stands at the pole with a phone.

It is a process of its own and knows what the gateway's status socket tells, like ``polegate doctor``; the gateway never
waits for it. Nothing can be changed: there is GET and HEAD, one request a connection, bounded in size and time, and
nobody who is slow keeps another waiting.

Only addresses and "localhost" are answered as ``Host``. Any web page may give its own name the address of this one (DNS
rebinding), and could then read it through the browser of somebody who reaches it; but that request bears the name.
"""

import asyncio
import contextlib
import ipaddress
import math
import re
import signal
import socket
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

import click

from gateway.commands.doctor import CONFIGURATION, EX_UNAVAILABLE, ask, in_json
from gateway.commands.web_page import POLICY, page
from gateway.host.notify import listening

PORT = 8080
HEAD_BYTES = 8192
READ_S = 5.0
SEND_S = 5.0
LOOK_S = 1.0
IDLE_S = 300.0
LET_IN_S = 0.1
MOST = 16  # who are answered at a time
CHUNK_BYTES = 4096
HTML, JSON, TEXT = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
ELSEWHERE = "Ask for the pole's address, or for localhost, instead of this name. No other name is answered.\n"
HEADERS = f"""\
Content-Security-Policy: {POLICY}
Cross-Origin-Opener-Policy: same-origin
Cross-Origin-Resource-Policy: same-origin
Referrer-Policy: no-referrer
X-Content-Type-Options: nosniff
X-Frame-Options: DENY
Cache-Control: no-store
Allow: GET, HEAD
Connection: close
"""


class Place(NamedTuple):
    """Where to listen."""

    host: str
    port: int


class PlaceType(click.ParamType[Place]):
    """``HOST:PORT``; an IPv6 address in brackets."""

    name = "place"

    def convert(self, value: str | Place, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """Divide it."""
        if isinstance(value, Place):
            return value
        found = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+):(\d{1,5})", value)
        if not found or int(found[2]) >= 1 << 16:
            self.fail(f"{value!r} is not like 127.0.0.1:{PORT} or [::1]:{PORT}", param, ctx)
        return Place(found[1].strip("[]"), int(found[2]))


class Reply(NamedTuple):
    """What is answered."""

    status: HTTPStatus
    body: str
    media: str = TEXT


@click.command("web")
@click.option(
    "--listen", "place", metavar="HOST:PORT", type=PlaceType(), default=f"127.0.0.1:{PORT}", show_default=True,
    help="Where; everybody who reaches it may read the page.",
)  # fmt: skip
def command(place: Place) -> int:
    """Show in a browser how the gateway that runs on this pole is, until SIGTERM or Ctrl-C.

    The page shows what polegate doctor finds, but for the faults of the file, and the latest values of each device; it
    asks again by itself. /status.json is the same for scripts. Nothing can be changed through it.

    Started by systemd for a socket, it takes that one, and ends when nobody has asked for five minutes.

    Exit code 69: HOST:PORT cannot be listened at.
    """
    sockets = listening()
    idle_s = IDLE_S if sockets else math.inf
    if not sockets:
        try:
            family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
            sockets = [socket.create_server(place, family=family)]
        except OSError as error:
            why = (error.strerror or str(error)).partition(" (")[0]  # there Python names the address again
            click.echo(f"{place.host}:{place.port}: {why}; name another one with --listen", err=True)
            return EX_UNAVAILABLE
        click.echo(f"http://{f'[{place.host}]' if ':' in place.host else place.host}:{sockets[0].getsockname()[1]}/")
    asyncio.run(_run(sockets, idle_s))
    return 0


async def _run(sockets: Sequence[socket.socket], idle_s: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(sockets, stop, idle_s)


async def serve(sockets: Sequence[socket.socket], stop: asyncio.Event, idle_s: float = math.inf) -> None:
    """Answer who comes, until ``stop``, or until nobody has come for so long. The sockets are closed then."""
    now = asyncio.get_running_loop().time
    last = now()
    visitors: set[asyncio.Task[None]] = set()

    def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal last
        last = now()
        if len(visitors) == MOST:
            writer.transport.abort()
            return
        visitor = asyncio.create_task(_answer(reader, writer))
        visitors.add(visitor)
        visitor.add_done_callback(visitors.discard)

    servers = [await asyncio.start_server(let_in, sock=sock, limit=HEAD_BYTES) for sock in sockets]
    while not stop.is_set() and (visitors or now() - last < idle_s):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(LOOK_S, last + idle_s - now())):
                await stop.wait()
    for server in servers:
        server.close()
    if not stop.is_set():  # a few may be in already; who comes now waits in systemd's socket for the next run
        await asyncio.sleep(LET_IN_S)
        await asyncio.gather(*visitors)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request. Who goes away, or takes too long, is not waited for."""
    try:
        try:
            async with asyncio.timeout(READ_S):
                head = await reader.readuntil(b"\r\n\r\n")
            reply = await _reply(head)
        except asyncio.LimitOverrunError:
            head, reply = b"", Reply(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "This is too long.\n")
        writer.write(_encoded(reply, with_body=not head.startswith(b"HEAD ")))
        writer.write_eof()
        async with asyncio.timeout(SEND_S):
            while await reader.read(CHUNK_BYTES):  # to close on what was not read would take the answer back
                pass
    except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.transport.abort()


async def _reply(head: bytes) -> Reply:
    """Answer a request: its line and its fields (RFC 9112, sections 3 and 5)."""
    line, *fields = head.decode("latin-1").split("\r\n")
    found = re.fullmatch(r"([A-Z]+) ([^\s?]+)(?:\?\S*)? HTTP/1\.[01]", line)
    hosts = [value.strip() for name, _, value in (field.partition(":") for field in fields) if name.lower() == "host"]
    if not found or len(hosts) != 1:
        return Reply(HTTPStatus.BAD_REQUEST, "This is no request of HTTP/1.1 with one Host.\n")
    method, path = found.groups()
    if not _is_address(hosts[0]):
        return Reply(HTTPStatus.MISDIRECTED_REQUEST, ELSEWHERE)
    if path not in {"/", "/status.json"}:
        return Reply(HTTPStatus.NOT_FOUND, "There are / and /status.json.\n")
    if method not in {"GET", "HEAD"}:
        return Reply(HTTPStatus.METHOD_NOT_ALLOWED, "Nothing can be changed here.\n")
    answer = await asyncio.to_thread(ask, CONFIGURATION, None)
    status = HTTPStatus.OK if answer.status else HTTPStatus.SERVICE_UNAVAILABLE
    return Reply(status, page(answer), HTML) if path == "/" else Reply(status, in_json(answer) + "\n", JSON)


def _is_address(host: str) -> bool:
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::\d*)?", host)
    if not found:
        return False
    name = found[1] or found[2]
    if name.lower() == "localhost":
        return found[1] is None
    try:
        return ipaddress.ip_address(name).version == (6 if found[1] else 4)
    except ValueError:
        return False


def _encoded(reply: Reply, *, with_body: bool) -> bytes:
    body = reply.body.encode(errors="replace")
    own = f"Content-Type: {reply.media}\nContent-Length: {len(body)}\n"
    head = f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\n{own}{HEADERS}\n"
    return head.replace("\n", "\r\n").encode() + (body if with_body else b"")

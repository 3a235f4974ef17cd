"""``polegate web``: what a browser gets, from a real gateway and without one, and from clients that mean harm."""

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import math
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.commands.web import HEAD_BYTES, IDLE_S, MOST, READ_S, SEND_S, serve
from gateway.commands.web_page import POLICY
from gateway.host import status_socket
from gateway.host.notify import listening
from gateway.words.messages import Details, DeviceState, Status
from hil.broker import free_port
from hil.daemon import polegate
from hil.process import Process
from hil.vclock import run
from tests.commands.cli_scene import call
from tests.commands.web_scene import HARMLESS, Seen
from tests.whole.bench_pole import POLE, Bench, bench
from tests.words.contract import some_state

COME_S = 20.0
WELL = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
MUCH_BYTES = 10_000_000  # more than the kernel holds for a reader that does not read


# --- of a real gateway, by a real process ---


class Web(Process):
    """``polegate web`` as a process, at a free port."""

    def __init__(self, folder: Path, runtime: Path, *before: str) -> None:
        env = {**os.environ, "RUNTIME_DIRECTORY": str(runtime)}
        listen = () if before else ("--listen", "127.0.0.1:0")
        super().__init__([*before, polegate(), "web", *listen], folder / "web.log", env=env)

    async def said(self, pattern: str) -> str:
        """Wait until it has printed that, and return what its group holds."""
        async with asyncio.timeout(COME_S):
            while True:
                if told := re.search(pattern, self.output()):
                    return told[1]
                await asyncio.sleep(0.02)


def fetch(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=COME_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def until_shown(port: int, code: int, *words: str) -> Seen:
    """Look again and again until the page says that."""
    async with asyncio.timeout(COME_S):
        while True:
            found, text = await asyncio.to_thread(fetch, port, "/")
            seen = Seen(text)
            if found == code and all(word in seen.text for word in words):
                return seen
            await asyncio.sleep(0.05)


def test_a_pole_is_shown_while_it_lives_while_things_fail_and_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(b: Bench, web: Web) -> None:
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(b.daemon.runtime))
        web.start()
        port = int(await web.said(r"http://127\.0\.0\.1:(\d+)/\n"))
        none = await until_shown(port, 503, "the gateway does not answer")
        assert "sudo systemctl start polegate" in none.text
        b.daemon.start()
        well = await until_shown(port, 200, "voltage_l1 | ", f"connected to 127.0.0.1:{b.relay.port}, MQTT 5")
        assert f"{POLE}: " in well.text
        assert re.search(r"voltage_l1 \| 2\d\d\.\d+ V \| ", well.text)
        assert re.search(r"frequency \| \d\d\.\d+ Hz", well.text)
        assert "meter-3 | last values 0 s ago; good: " in well.text
        assert re.search(r"buffer \| \d+ packs of \d+ values wait", well.text)
        assert set(well.elements) <= HARMLESS
        code, text = await asyncio.to_thread(fetch, port, "/status.json")
        shown, told = json.loads(text), json.loads((await asyncio.to_thread(call, "doctor", "--json")).out)
        assert code == 200
        assert shown.keys() == told.keys() == {"exit", "findings", "state"}
        assert shown["state"].keys() == told["state"].keys()
        assert shown["state"]["devices"]["meter-1"]["latest"]["voltage_l1"] > 0
        b.relay.cut()
        await until_shown(port, 200, "What is wrong | uplink | there is no link to a broker", "See `url` in [uplink]")
        await asyncio.to_thread(b.daemon.kill)
        await until_shown(port, 503, "it ended without order", "sudo systemctl restart polegate")
        assert await asyncio.to_thread(web.stop) == 0

    async def play() -> None:
        async with bench(tmp_path) as b:
            web = Web(tmp_path, b.daemon.runtime)
            try:
                await main(b, web)
            finally:
                web.kill()

    asyncio.run(play())


def test_it_takes_the_sockets_that_systemd_listens_at(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    listen = [f"--listen=127.0.0.1:{port}" for port in ports]
    web = Web(tmp_path, tmp_path, "systemd-socket-activate", *listen)

    async def main() -> None:
        await web.said(f"(Listening on 127.0.0.1:{ports[1]})")
        for port in ports:
            await until_shown(port, 503, "none runs here")

    web.start()
    try:
        asyncio.run(main())
        assert "http://" not in web.output()  # it listens nowhere else
        assert web.stop() == 0
    finally:
        web.kill()


def test_a_socket_that_was_given_to_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert listening() == []
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    assert listening() == []


def test_a_place_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = call("web", "--listen", place)
    assert (code, out) == (69, "")
    assert err == f"{place}: Address already in use; name another one with --listen\n"


@pytest.mark.parametrize("place", ["8080", "localhost", "localhost:", "localhost:65536", "::1:8080", "[::1]8080"])
def test_a_place_that_is_none_is_told(place: str) -> None:
    code, _, err = call("web", "--listen", place)
    assert code == 64
    assert "is not like 127.0.0.1:8080 or [::1]:8080" in err


# --- clients of all kinds ---


class Visitor:
    """One connection to the page."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def say(self, text: bytes) -> None:
        """Send something."""
        self.writer.write(text)

    async def told(self) -> bytes:
        """Return all that comes until the other side ends."""
        try:
            return await self._reader.read()
        finally:
            self.writer.close()


Knock = Callable[[], Awaitable[Visitor]]


@contextlib.asynccontextmanager
async def served(idle_s: float = math.inf) -> AsyncIterator[tuple[Knock, "asyncio.Task[None]"]]:
    """Serve the page; gives a function that connects to it, and the job."""
    stop = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]

        async def knock() -> Visitor:
            return Visitor(*await asyncio.open_connection("127.0.0.1", port))

        job = asyncio.create_task(serve([sock], stop, idle_s))
        try:
            yield knock, job
        finally:
            stop.set()
            await job


def play(scene: Callable[[Knock, "asyncio.Task[None]"], Awaitable[None]], idle_s: float = math.inf) -> None:
    """Run a scene; nothing of it may be left over."""

    async def main() -> None:
        unseen: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with served(idle_s) as (knock, job):
            await scene(knock, job)
        await asyncio.sleep(READ_S + SEND_S)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert unseen == []

    run(main())


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a gateway would answer."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    return tmp_path


def reply(request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a request and return what is answered: status, fields, body."""
    whole = b""

    async def scene(knock: Knock, _: object) -> None:
        nonlocal whole
        visitor = await knock()
        visitor.say(request)
        whole = await visitor.told()

    play(scene)
    head, _, body = whole.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return int(line.split()[1]), dict(field.split(": ", 1) for field in fields), body


def asking(host: str, method: str = "GET", path: str = "/") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def test_without_a_gateway_the_page_says_so_and_what_to_do() -> None:
    code, _, body = reply(WELL)
    seen = Seen(body.decode())
    assert code == 503
    assert "the gateway does not answer" in seen.text
    assert "none runs here | A new file is taken within seconds." in seen.text
    code, fields, body = reply(asking("localhost", path="/status.json"))
    assert (code, fields["Content-Type"]) == (503, "application/json")
    assert json.loads(body)["exit"] == 69


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "192.168.4.1", "[::1]:8080", "[fe80::1]"]
)
def test_an_address_is_answered(host: str) -> None:
    assert reply(asking(host))[0] == 503


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "pole-17.local", "a@127.0.0.1", ""),
        *("127.0.0.1:80@evil.example", "[127.0.0.1]", "::1", "[localhost]", "127.0.0.1/evil.example", "2130706433"),
    ],
)
def test_a_name_that_anybody_can_point_here_is_not_answered(host: str) -> None:
    code, _, body = reply(asking(host))
    assert code == 421
    assert body == b"Ask for the pole's address, or for localhost, instead of this name. No other name is answered.\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(method: str) -> None:
    code, fields, body = reply(asking("localhost", method) + b"x=y")
    assert (code, fields["Allow"], body) == (405, "GET, HEAD", b"Nothing can be changed here.\n")


@pytest.mark.parametrize(("head", "code"), [(asking("localhost", "POST"), b"405"), (b"", b"431")])
def test_who_sends_more_than_is_read_hears_the_answer_all_the_same(head: bytes, code: bytes) -> None:
    def send(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=COME_S) as sock:
            sock.sendall(head + bytes(MUCH_BYTES))
            return sock.recv(len("HTTP/1.1 405"))

    async def main() -> None:
        stop = asyncio.Event()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            job = asyncio.create_task(serve([sock], stop))
            assert await asyncio.to_thread(send, sock.getsockname()[1]) == b"HTTP/1.1 " + code
            stop.set()
            await job

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2\r\nHost: localhost\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (asking("localhost", path="/../etc/passwd"), 404),
        (asking("localhost", path="/favicon.ico"), 404),
        (asking("localhost", path="http://localhost/"), 404),
        (asking("localhost", path="/?a=b"), 503),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (HEAD_BYTES + 1) + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_good_request_is_told_so(request_: bytes, code: int) -> None:
    assert reply(request_)[0] == code


def test_a_browser_is_told_to_load_nothing_to_keep_nothing_and_to_show_it_in_no_frame() -> None:
    _, fields, body = reply(WELL)
    seen = Seen(body.decode())
    own = base64.b64encode(hashlib.sha256(seen.style.encode()).digest()).decode()
    assert fields["Content-Security-Policy"] == POLICY
    assert POLICY.split("; ") == [
        *("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
        f"style-src 'sha256-{own}'",
    ]
    assert (fields["Cache-Control"], fields["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert (fields["Referrer-Policy"], fields["X-Frame-Options"]) == ("no-referrer", "DENY")
    assert "url(" not in seen.style
    assert [value for name, value in seen.attributes if name in {"href", "src"}] == ["status.json"]
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name == "style"]
    assert ("http-equiv", "refresh") in seen.attributes


def test_the_head_alone_is_the_same_without_the_body() -> None:
    code, fields, body = reply(asking("localhost", "HEAD"))
    assert (code, body) == (503, b"")
    whole, more, text = reply(WELL)
    assert (whole, more, len(text)) == (code, fields, int(fields["Content-Length"]))


def test_who_is_slow_keeps_nobody_waiting_and_is_let_go() -> None:
    async def scene(knock: Knock, _: object) -> None:
        now = asyncio.get_running_loop().time
        begin = now()
        silent, slow, deaf = await knock(), await knock(), await knock()
        deaf.say(WELL)
        slow.say(WELL[:10])
        for byte in WELL[10:13]:
            await asyncio.sleep(1)
            slow.say(bytes([byte]))
        quick = await knock()
        quick.say(WELL)
        assert b"503" in await quick.told()
        assert now() - begin == pytest.approx(3, abs=0.1)
        assert await silent.told() == await slow.told() == b""
        assert now() - begin == pytest.approx(READ_S, abs=0.1)
        await asyncio.sleep(SEND_S)
        assert b"503" in await deaf.told()

    play(scene)


def test_those_who_hold_on_to_all_places_keep_them_for_seconds_only() -> None:
    async def scene(knock: Knock, _: object) -> None:
        begin = asyncio.get_running_loop().time()
        silent = [await knock() for _ in range(MOST)]
        assert await (await knock()).told() == b""
        assert asyncio.get_running_loop().time() == pytest.approx(begin, abs=0.1)
        await asyncio.sleep(READ_S)
        after = await knock()
        after.say(WELL)
        assert b"503" in await after.told()
        for each in silent:
            each.writer.close()

    play(scene)


def test_it_ends_when_nobody_has_asked_for_a_while_and_not_before() -> None:
    async def scene(knock: Knock, job: "asyncio.Task[None]") -> None:
        for _ in range(3):
            await asyncio.sleep(IDLE_S - 2)
            visitor = await knock()
            visitor.say(WELL)
            assert b"503" in await visitor.told()
        assert not job.done()
        deaf = await knock()
        deaf.say(WELL)
        await asyncio.sleep(IDLE_S - 2)
        assert not job.done()
        await asyncio.sleep(4)
        assert job.done()
        deaf.writer.close()

    play(scene, IDLE_S)


def test_by_itself_it_goes_on() -> None:
    async def scene(_: Knock, job: "asyncio.Task[None]") -> None:
        await asyncio.sleep(100 * IDLE_S)
        assert not job.done()

    play(scene)


def test_a_value_that_is_no_text_is_shown_as_far_as_it_is(runtime: Path) -> None:
    """JSON may hold half of a character."""
    details = Details(signs=[])
    status = Status(**dict(some_state("online", devices={"dust": DeviceState(good=1, lost={})})) | {"details": details})
    told = status.model_dump(exclude_none=True)
    told["devices"]["dust"]["latest"] = {"what": "a\udc80b"}

    async def main() -> None:
        gateway = asyncio.create_task(status_socket.serve(runtime, lambda: told))
        async with served() as (knock, _):
            visitor = await knock()
            visitor.say(WELL)
            seen = Seen((await visitor.told()).decode())
            assert "what | a?b" in seen.text
        gateway.cancel()
        await asyncio.wait([gateway])

    asyncio.run(main())

"""TLS, mutual TLS and WebSocket against Debian's mosquitto, and against servers that are wrong in one way."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.link.broker import Broker, CertificateRefused, Message, NotTrusted, UplinkDown
from gateway.link.mqtt_link import Link, Version
from gateway.link.tls import TlsFiles
from hil.bench.proc import rss_mb
from hil.relay import Relay
from tests.link.broker_scene import open_files, where
from tests.link.mosquitto_scene import LIMIT_S, Lab, forwarding, pack, play, until, uplink_to
from tests.link.pki import Authority, asking


async def refusal(at: Broker) -> UplinkDown:
    """Return what a connection fails with."""
    with pytest.raises(UplinkDown) as error:
        await Link(at, will=None, version=Version.V5).connect()
    return error.value


@contextlib.asynccontextmanager
async def serving(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server that gives this answer to whatever comes, and ends; with nothing to say it stays silent."""
    quiet = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        if not answer:
            await quiet.wait()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        quiet.set()
        server.close()
        await server.wait_closed()


def test_a_broker_of_the_right_authority_and_name_is_trusted_and_one_that_asks_gets_a_certificate(
    lab: Lab, ours: Authority
) -> None:
    broker = lab(asking(ours), web=asking(ours))
    own = ours.files(ours.issue("pole-7"))

    async def scene() -> None:
        for at in (where(broker.port, tls=own), where(broker.web_port, tls=own, path="/mqtt")):
            for version in (Version.V5, Version.V311):
                link = Link(at, will=None, version=version)
                await link.connect()
                await link.send(Message("topic", b"x" * 100_000))
                await link.close()

    play(scene)


def test_a_broker_without_tls_is_spoken_to_over_web_socket_at_the_path_of_the_url(lab: Lab) -> None:
    broker = lab("", web="")

    async def scene() -> None:
        async with uplink_to(where(broker.web_port, path="/any/path?x=1")) as uplink:
            await (await uplink.link()).send(Message("topic", b"payload"))
        wrong = await refusal(where(broker.port, path="/mqtt"))
        assert f"127.0.0.1:{broker.port} does not speak WebSocket at /mqtt" in str(wrong)
        assert 'correct the port and the path in "url"' in str(wrong)

    play(scene)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nSec-WebSocket-Accept:x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \xff\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"\x20\x02\x00\x00",
        b"\n" * 10,
    ],
)
def test_whatever_a_server_answers_that_speaks_no_web_socket_is_only_no_uplink(answer: bytes) -> None:
    async def scene() -> None:
        async with serving(answer) as port:
            assert "does not speak WebSocket at /mqtt" in str(await refusal(where(port, path="/mqtt")))

    play(scene)


def test_a_web_socket_handshake_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.link.mqtt_client.HANDSHAKE_S", 0.2)

    async def scene() -> None:
        async with serving(b"x" * 50_000_000) as port:
            assert "no end of its answer" in str(await refusal(where(port, path="/mqtt")))

    play(scene)


@pytest.mark.parametrize("path", ["", "/mqtt"])
def test_what_the_network_takes_only_in_parts_arrives_whole(lab: Lab, path: str) -> None:
    broker = lab("", web="")

    async def scene() -> None:
        relay = Relay(broker.web_port if path else broker.port)
        await relay.start()
        link = Link(where(relay.port, path=path), will=None, version=Version.V5)
        await link.connect()
        relay.stall()
        sends = [asyncio.ensure_future(link.send(Message("topic", bytes([n]) * 1_000_000))) for n in range(12)]
        done, _ = await asyncio.wait(sends, timeout=0.3)
        assert not done
        relay.restore()
        await asyncio.gather(*sends)
        assert relay.up > 12_000_000
        await link.close()
        await relay.close()

    play(scene)


@pytest.mark.parametrize("kind", ["not trusted", "no TLS", "no WebSocket", "no certificate"])
def test_a_connection_that_is_refused_is_closed_before_the_garbage_collector_comes(
    lab: Lab, ours: Authority, other: Authority, kind: str
) -> None:
    broker = lab("", web=asking(ours))
    at = {
        "not trusted": where(broker.web_port, tls=other.files(), path="/mqtt"),
        "no TLS": where(broker.port, tls=ours.files()),
        "no WebSocket": where(broker.port, path="/mqtt"),
        "no certificate": where(broker.web_port, tls=ours.files(), path="/mqtt"),
    }[kind]

    async def scene() -> None:
        kept = [await refusal(at)]
        before = open_files()
        kept += [await refusal(at) for _ in range(10)]  # an error that is kept keeps alive what it came from
        assert open_files() - before == Counter()

    play(scene)


def test_a_broker_that_is_not_trusted_is_told_by_what_is_wrong_with_it(
    lab: Lab, ours: Authority, other: Authority
) -> None:
    broker = lab(ours.issue("broker").lines, web=ours.issue("broker", file="web", host="broker.example").lines)

    async def scene() -> None:
        for files, says in [
            (other.files(), f"not signed by a CA in ca_file, {other.cert}; put the certificate of the CA"),
            (TlsFiles(), "not signed by a CA that the machine trusts; put the certificate of the CA"),
        ]:
            error = await refusal(where(broker.port, tls=files))
            assert type(error) is NotTrusted
            assert says in str(error)
        error = await refusal(where(broker.web_port, tls=ours.files(), path="/mqtt"))
        assert type(error) is NotTrusted
        assert 'made out to another name than 127.0.0.1; write a name that it has into "url"' in str(error)
        error = await refusal(where(broker.port, tls=ours.files(), host="localhost"))
        assert "made out to another name than localhost" in str(error)

    play(scene)


def test_an_expired_broker_is_not_trusted_and_the_clock_is_told_as_it_may_be_that(lab: Lab, ours: Authority) -> None:
    broker = lab(ours.issue("broker", days=-1).lines)

    async def scene() -> None:
        error = await refusal(where(broker.port, tls=ours.files()))
        assert type(error) is NotTrusted
        assert "it has expired, or the pole's clock is wrong, which says 20" in str(error)
        assert "renew it at the broker, or see timedatectl" in str(error)

    play(scene)


def test_a_broker_without_tls_on_the_port_is_told_and_never_spoken_to_in_clear(
    lab: Lab, ours: Authority, tmp_path: Path
) -> None:
    broker = lab()
    password = tmp_path / "password"
    password.write_text("secret")

    async def scene() -> None:
        error = await refusal(where(broker.port, tls=ours.files(), password_file=password))
        assert type(error) is NotTrusted
        assert f'no TLS with 127.0.0.1:{broker.port}: it ends the connection; the port in "url"' in str(error)
        async with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
            error = await refusal(where(port, tls=ours.files()))
            assert type(error) is NotTrusted
            assert 'that is not TLS; correct the port in "url"' in str(error)

    play(scene)
    assert "New client connected" not in (tmp_path / "mosquitto" / "broker.log").read_text()


def test_a_server_that_does_not_answer_the_handshake_is_given_up(
    ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paho.mqtt.client.Client._connect_timeout", 0.2, raising=False)

    async def scene() -> None:
        async with serving(b"") as port:
            error = await refusal(where(port, tls=ours.files()))
            assert type(error) is NotTrusted
            assert "it does not answer" in str(error)

    play(scene)


@contextlib.contextmanager
def speaking(authority: Authority, version: ssl.TLSVersion) -> Iterator[int]:
    """Run a server that speaks this version of TLS only, and asks for certificates; it has time for one client.

    In a thread, because asyncio's TLS does not send the alert of a handshake that failed.
    """
    pair = authority.issue("broker")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.cert)
    context.load_cert_chain(pair.cert, pair.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TLS 1.1, which is what this is about
        context.minimum_version = context.maximum_version = version

    def serve() -> None:
        client, _ = server.accept()
        with client, contextlib.suppress(OSError), context.wrap_socket(client, server_side=True):
            pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT_S)
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_a_broker_that_speaks_only_tls_1_1_is_told(ours: Authority) -> None:
    async def scene() -> None:
        with speaking(ours, ssl.TLSVersion.TLSv1_1) as port:
            error = await refusal(where(port, tls=ours.files()))
        assert type(error) is NotTrusted
        assert "it speaks no TLS 1.2 or newer; the broker must be set to" in str(error)

    play(scene)


def not_accepted(kind: str, ours: Authority, other: Authority) -> tuple[TlsFiles, str]:
    """Return files with a certificate that no broker accepts, and what is told of it."""
    if kind == "none":
        return ours.files(), "the broker asks for a certificate, and this pole has none; set cert_file and key_file"
    if kind == "expired":
        own, says = ours.issue("pole-7", days=-1), "it says that it has expired"
    else:
        own, says = other.issue("pole-7"), "it does not know the CA that signed it"
    text = f"the broker refuses this pole's certificate, cert_file, {own.cert}: {says}; have it renewed, or see the"
    return ours.files(own), text


KINDS = ["none", "expired", "of another authority"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["", "/mqtt"])
def test_a_certificate_that_the_broker_does_not_accept_is_told_and_is_no_question_of_the_version(
    lab: Lab, ours: Authority, other: Authority, kind: str, path: str
) -> None:
    broker = lab(asking(ours), web=asking(ours))
    files, says = not_accepted(kind, ours, other)

    async def scene() -> None:
        at = where(broker.web_port if path else broker.port, tls=files, path=path)
        error = await refusal(at)
        assert type(error) is CertificateRefused
        assert says in str(error)
        async with uplink_to(at) as uplink:
            await until(lambda: says in uplink.trouble)

    play(scene)


@pytest.mark.parametrize("kind", KINDS)
def test_so_is_one_that_is_refused_in_the_handshake_as_tls_1_2_does(
    ours: Authority, other: Authority, kind: str
) -> None:
    files, says = not_accepted(kind, ours, other)

    async def scene() -> None:
        with speaking(ours, ssl.TLSVersion.TLSv1_2) as port:
            error = await refusal(where(port, tls=files))
        assert type(error) is CertificateRefused
        assert says in str(error)

    play(scene)


def test_the_id_of_a_pole_is_of_no_use_to_who_has_the_certificate_of_another_one(lab: Lab, ours: Authority) -> None:
    """The lines that the README gives for mosquitto."""
    broker = lab(f"{asking(ours)}\nuse_identity_as_username true\nuse_username_as_clientid true")

    async def scene() -> None:
        async with uplink_to(where(broker.port, tls=ours.files(ours.issue("pole-7")))) as uplink:
            link = await uplink.link()
            thief = Link(where(broker.port, tls=ours.files(ours.issue("pole-8"))), will=None, version=Version.V5)
            await thief.connect()
            await thief.send(Message("topic", b"payload"))
            await link.send(Message("topic", b"payload"))
            assert await uplink.link() is link
            await thief.close()
            assert type(await refusal(where(broker.port, tls=ours.files()))) is CertificateRefused
            assert await uplink.link() is link

    play(scene)


def test_over_tls_packs_arrive_and_a_cut_is_noticed(lab: Lab, ours: Authority, tmp_path: Path) -> None:
    broker = lab(asking(ours))

    async def scene() -> None:
        at = where(broker.port, tls=ours.files(ours.issue("pole-7")))
        async with uplink_to(at) as uplink, forwarding(tmp_path, uplink) as buffer:
            for n in range(1, 201):
                buffer.put(pack(n), 10.0)
            await buffer.empty()
            await asyncio.to_thread(broker.kill)
            await until(lambda: not uplink.up)
            buffer.put(pack(201), 10.0)
            await asyncio.to_thread(broker.start)
            await buffer.empty()

    play(scene)


def test_a_connect_that_is_cancelled_does_not_take_over_the_session() -> None:
    """In real time: on the virtual clock there are no threads."""
    heard: list[bytes] = []
    came = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()
        came.set()

    async def scene() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connecting = asyncio.create_task(Link(where(port), will=None, version=Version.V5).connect())
        await asyncio.sleep(0)  # it is in its thread now
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()
        await came.wait()
        assert heard == [b""]  # no CONNECT
        server.close()

    play(scene)


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("", 50),
        ("/mqtt", 10),
        pytest.param("", 1000, marks=pytest.mark.soak),
        pytest.param("/mqtt", 300, marks=pytest.mark.soak),  # mosquitto looks after WebSocket ten times a second
    ],
)
def test_reconnects_over_tls_leave_no_task_no_file_and_no_memory_behind(
    lab: Lab, ours: Authority, monkeypatch: pytest.MonkeyPatch, path: str, count: int
) -> None:
    monkeypatch.setattr("gateway.link.uplink.LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr("tests.link.mosquitto_scene.LIMIT_S", 600.0)
    broker = lab(asking(ours), web=asking(ours))
    at = where(broker.web_port if path else broker.port, tls=ours.files(ours.issue("pole-7")), path=path)

    async def scene() -> None:
        memory, sockets = [], []
        async with uplink_to(at) as uplink:
            for number in range(count):
                link = await uplink.link()
                await link.send(Message("topic", b"payload"))
                if number in (count // 2, count - 1):
                    memory.append(rss_mb(os.getpid()))
                    sockets.append(sum(name.startswith("socket:") for name in open_files().elements()))
                link.abort()
                await link.broken()
                await until(lambda link=link: uplink._link is not link)  # type: ignore[misc]  # noqa: SLF001  # bound here
        assert sockets[1] <= sockets[0]  # what tests before this one left open may close meanwhile
        assert memory[1] - memory[0] < 1, memory
        await until(lambda: len(asyncio.all_tasks()) == 1)

    play(scene)

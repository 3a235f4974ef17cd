"""A certificate that is renewed while the gateway runs: taken without a gap, where it works."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.link.broker import Message
from gateway.link.tls import TlsFiles
from hil.broker import free_port
from hil.daemon import Daemon
from hil.receiver import Receiver
from tests.link.broker_scene import where
from tests.link.mosquitto_scene import LIMIT_S, Lab, forwarding, pack, play, until, uplink_to
from tests.link.pki import Authority, Pair, asking

CONFIG = """\
[pole]
id = "pole-7"
[uplink]
url = ["mqtts://127.0.0.1:{dead}", "wss://127.0.0.1:{port}/mqtt"]
ca_file = "{ca}"
cert_file = "{cert}"
key_file = "credential:mqtt-key"
[buffer]
path = "{folder}/buffer.db"
"""


def renewed(authority: Authority, days: float = 20, name: str = "pole-7") -> Pair:
    return authority.issue(name, file="renewed", days=days)


def test_a_renewed_certificate_is_taken_without_a_gap_and_its_end_is_told(
    lab: Lab, ours: Authority, tmp_path: Path
) -> None:
    broker = lab(asking(ours))
    own = ours.issue("pole-7")
    gaps: list[bool] = []

    async def scene() -> None:
        async with uplink_to(where(broker.port, tls=ours.files(own))) as uplink, forwarding(tmp_path, uplink) as buffer:
            first = await uplink.link()
            expires = uplink.state["certificate_expires"]
            assert isinstance(expires, int)
            renewed(ours).copy_to(own)
            n = 0
            while first is uplink._link or uplink._link is None:  # noqa: SLF001  # the gap is what this looks for
                n += 1
                buffer.put(pack(n), 10.0)
                gaps.append(not uplink.up)
                await asyncio.sleep(0.005)
            await buffer.empty()
            assert uplink.state["certificate_expires"] - expires == pytest.approx(10 * 86_400, abs=5)
            assert uplink.state["certificate_trouble"] == ""
            second = await uplink.link()
            assert first.ended.done()
            await asyncio.sleep(0.5)
            assert await uplink.link() is second  # and not again and again

    play(scene)
    assert sum(gaps) <= 2, gaps


def test_files_that_are_still_being_written_are_not_tried(
    lab: Lab, ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = lab(asking(ours))
    own, new = ours.issue("pole-7"), renewed(ours)
    text = new.cert.read_text()
    halves = iter([text[:length] for length in range(0, len(text), 100)])
    look = TlsFiles.mark

    def written_on(files: TlsFiles) -> bytes:
        half = next(halves, None)
        if half is None:
            new.copy_to(own)
        else:
            own.cert.write_text(half)
        return look(files)

    async def scene() -> None:
        async with uplink_to(where(broker.port, tls=ours.files(own))) as uplink:
            link = await uplink.link()
            monkeypatch.setattr(TlsFiles, "mark", written_on)
            with capture_logs() as logs:
                await link.broken()
            assert [line for line in logs if "not taken" in line["event"]] == []
            await until(lambda: uplink.up)

    play(scene)


@pytest.mark.parametrize("kind", ["another authority", "another key", "another name", "expired", "no certificate"])
def test_a_renewed_certificate_that_does_not_work_is_not_taken_and_a_sound_one_later_is(
    lab: Lab, ours: Authority, other: Authority, kind: str
) -> None:
    broker = lab(asking(ours))
    own = ours.issue("pole-7")

    def spoil() -> str:
        match kind:
            case "another key":
                own.key.write_bytes(renewed(ours).key.read_bytes())
                return "does not belong to the certificate in cert_file"
            case "no certificate":
                own.cert.write_text("")
                return f"cert_file: {own.cert} holds no certificate"
            case "another authority":
                renewed(other).copy_to(own)
                return "it does not know the CA that signed it"
            case "another name":
                renewed(ours, name="pole-8").copy_to(own)
                return "is made out to another name than the one in use"
            case _:
                renewed(ours, days=-1).copy_to(own)
                return "it says that it has expired"

    async def scene() -> None:
        async with uplink_to(where(broker.port, tls=ours.files(own))) as uplink:
            link = await uplink.link()
            expires = uplink.state["certificate_expires"]
            says = spoil()
            await until(lambda: says in uplink.state["certificate_trouble"])
            assert await uplink.link() is link
            await link.send(Message("topic", b"payload"))
            await asyncio.to_thread(broker.kill)  # the old one is good for reconnects too
            await until(lambda: not uplink.up)
            await asyncio.to_thread(broker.start)
            link = await uplink.link()
            assert says in uplink.state["certificate_trouble"]
            assert uplink.state["certificate_expires"] == expires
            renewed(ours).copy_to(own)
            await until(lambda: uplink.state["certificate_expires"] != expires)
            assert uplink.state["certificate_trouble"] == ""
            await (await uplink.link()).send(Message("topic", b"payload"))

    play(scene)


def test_the_gateway_goes_by_its_second_broker_with_a_key_from_systemd_and_tells_when_its_certificate_ends(
    lab: Lab, ours: Authority, tmp_path: Path
) -> None:
    broker = lab("", web=asking(ours))
    own = ours.issue("pole-7")
    (tmp_path / "credentials").mkdir()
    key = own.key.rename(tmp_path / "credentials" / "mqtt-key")
    daemon = Daemon(tmp_path, env={"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})
    daemon.config.write_text(
        CONFIG.format(dead=free_port(), port=broker.web_port, ca=ours.cert, cert=own.cert, folder=tmp_path)
    )
    with Receiver(broker.port) as receiver:
        daemon.start()
        heard = receiver.heard("pole-7")
        receiver.wait(lambda: heard.state.get("status") == "online", LIMIT_S, "the state")
        told = heard.state["uplink"]
        assert daemon.stop() == 0
    assert told["broker"] == f"127.0.0.1:{broker.web_port}"
    assert (told["up"], told["mqtt"], told["certificate_trouble"]) == (True, "5", "")
    assert "comes first in `url`, and is not taken: cannot connect" in told["note"]
    assert told["certificate_expires"] == ours.files(Pair(own.cert, key)).read().expires

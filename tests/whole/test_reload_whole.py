"""The file is changed while the pole runs: only what changed is touched, and what does not work goes back."""

import asyncio
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hil.broker import mosquitto
from hil.daemon import polegate
from tests.link.pki import Authority
from tests.whole.reload_scene import POLE, Scene, scene

ALL = ["meter-0", "meter-1", "meter-2", "noise-1", "noise-2"]


SLOW = """
import os, time
fsync = os.fsync
def slow(file):
    time.sleep(2.0 if os.path.exists("{busy}") else 0.0)
    fsync(file)
os.fsync = slow
"""
EVERY = 'port = "p1"\nprofile = "eastron-sdm630"\nevery = 1.0'


def test_only_what_changed_is_touched_and_what_is_refused_touches_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            ports, first = open_ports(s), s.configuration()
            s.reload()
            assert (await s.judged("accepted"))["digest"] == first["digest"]  # the same file again
            s.edit(EVERY, EVERY.replace("1.0", "0"))
            s.reload()
            told = await s.judged("refused")
            assert '[[device]] "meter-1": "every" must be 0.001 or more, not 0' in told["last"]["why"]
            await s.until(lambda: any(event["event"] == "configuration" for event in s.heard.events))
            alarm = next(event for event in s.heard.events if event["event"] == "configuration")
            assert (alarm["state"], alarm["code"], alarm["text"]) == ("raise", "not-taken", told["last"]["why"])
            s.edit(EVERY.replace("1.0", "0"), EVERY)
            s.edit(f'id = "{POLE}"', 'id = "other-pole"')
            s.reload()
            told = await s.judged("refused")
            why = '"id" in [pole] cannot be changed while the gateway runs; sudo systemctl restart polegate'
            assert told["last"]["why"] == f"PROBE: {why}"
            assert (told["digest"], told["since"]) == (first["digest"], first["since"])
            s.edit('id = "other-pole"', f'id = "{POLE}"')
            s.edit(EVERY, EVERY.replace("1.0", "0.5"))
            s.reload()
            told = await s.judged("accepted")
            assert told["digest"] != first["digest"]
            await s.good("meter-1", 4)
            await s.all_is_well(["meter-0", "meter-2", "noise-1", "noise-2"])
            assert min(s.steps("meter-1")) < 0.75
            assert open_ports(s) == ports

    asyncio.run(main())


@pytest.mark.soak
def test_a_card_that_takes_seconds_to_write_costs_no_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, site = tmp_path / "busy", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SLOW.format(busy=busy))
    monkeypatch.setenv("PYTHONPATH", str(site))

    async def main() -> None:
        async with scene(tmp_path) as s:
            busy.touch()
            s.edit(EVERY, EVERY.replace("1.0", "0.5"))
            s.reload()
            await s.judged("accepted", within=60.0)
            await s.all_is_well(["meter-0", "meter-2", "noise-1", "noise-2"])

    asyncio.run(main())


def test_a_wrong_broker_that_acknowledges_everything_gets_no_reading(tmp_path: Path) -> None:
    async def main() -> None:
        folder = tmp_path / "wrong"
        folder.mkdir()
        (folder / "acl").write_text("topic write #\n")
        wrong = mosquitto(folder, f"acl_file {folder / 'acl'}")
        wrong.start()
        try:
            async with scene(tmp_path, within=2.5) as s:
                s.edit(url(s), f'url = "mqtt://127.0.0.1:{wrong.port}"')
                s.reload()
                told = await s.judged("rolled-back", within=30.0)
                assert "RB_UPSTREAM: the uplink did not prove itself" in told["last"]["why"]
                await s.all_is_well(ALL)
                assert "gone" not in s.heard.states
        finally:
            wrong.stop()

    asyncio.run(main())


def test_a_trial_outlives_a_kill_and_an_end_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            first = s.configuration()["digest"]
            s.edit("unit = 1", "unit = 9")
            s.reload()
            await s.until(lambda: s.configuration().get("tried") == "local")
            digest = s.configuration()["digest"]
            s.daemon.kill()
            s.daemon.start()
            await s.until(lambda: s.configuration().get("tried") == "local")
            assert await asyncio.to_thread(s.daemon.stop) == 0
            await s.until(lambda: s.heard.states[-1:] == ["stopped"])
            s.daemon.start()
            await s.until(lambda: s.configuration().get("tried") == "local")
            assert s.configuration()["digest"] == digest != first
            s.edit("unit = 9", "unit = 1")
            s.reload()
            await s.until(lambda: s.configuration().get("digest") == first)
            await s.good("noise-1")
            await s.until(lambda: not s.heard.holes())

    asyncio.run(main())


def test_what_needs_a_restart_is_tried_by_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            s.edit("[buffer]", '[buffer]\nhistory = "1h"')
            assert await asyncio.to_thread(s.daemon.stop) == 0
            s.daemon.start()
            pid = s.daemon.pid
            await s.judged("accepted", within=30.0)
            assert s.daemon.pid == pid
            await s.until(lambda: 3 in epochs(s))  # it began anew by itself
            await s.until(lambda: not s.heard.holes())

    asyncio.run(main())


@pytest.mark.soak
def test_what_needed_a_restart_goes_back_by_one_and_is_told_after_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, within=2.5) as s:
            first = s.configuration()["digest"]
            s.edit("[buffer]", '[buffer]\nhistory = "2h"')
            s.edit(url(s), 'url = "mqtt://127.0.0.1:1"')
            assert await asyncio.to_thread(s.daemon.stop) == 0
            s.daemon.start()
            told = await s.judged("rolled-back", within=30.0)
            assert "RB_UPSTREAM" in told["last"]["why"]
            await s.until(lambda: 4 in epochs(s))
            await s.until(lambda: not s.heard.holes())  # neither of the third, in which there was no broker
            s.daemon.kill()
            s.daemon.start()
            await s.until(lambda: bool(s.configuration()))
            again = s.configuration()
            assert again["last"].pop("at") > told["last"].pop("at")
            assert (again["digest"], again["last"]) == (first, told["last"])
            await s.until(lambda: [e["epoch"] for e in s.heard.events if e["event"] == "configuration"][-1:] == [5])
            assert s.heard.events[-1]["code"] == "rolled-back"

    asyncio.run(main())


@pytest.mark.soak
def test_a_broker_that_is_not_there_is_tried_beside_the_link_there_is_and_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, within=2.5) as s:
            s.edit(url(s), 'url = "mqtt://127.0.0.1:1"')
            s.reload()
            told = await s.judged("rolled-back")
            assert "RB_UPSTREAM: the uplink did not prove itself" in told["last"]["why"]
            assert "refused" in told["last"]["why"]
            await s.all_is_well(ALL)
            assert "gone" not in s.heard.states

    asyncio.run(main())


@pytest.mark.soak
def test_an_authority_that_did_not_sign_the_brokers_certificate_is_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, within=2.5, tls=True) as s:
            other = Authority(tmp_path, "other")
            s.edit(str(s.authority.cert), str(other.cert))
            s.reload()
            told = await s.judged("rolled-back")
            assert "it is not signed by a CA in ca_file" in told["last"]["why"]
            await s.all_is_well(ALL)
            assert "gone" not in s.heard.states

    asyncio.run(main())


@pytest.mark.soak
def test_a_renamed_sensor_must_give_values_under_its_new_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            s.edit('id = "meter-1"', 'id = "meter-north"')
            s.reload()
            await s.judged("accepted")
            await s.all_is_well(["meter-0", "meter-2", "noise-1", "noise-2"])
            await s.until(lambda: f"{POLE}/meter-north/voltage_l1" in s.heard.latest)
            assert s.heard.latest[f"{POLE}/meter-1/voltage_l1"].unit == "V"
            assert s.heard.catalogues["energy"]["polegate:devices"].keys() == {"meter-0", "meter-north", "meter-2"}

    asyncio.run(main())


@pytest.mark.soak
def test_a_baud_rate_that_silences_a_line_is_given_up_and_all_others_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, within=2.5) as s:
            s.edit("baud = 9600", "baud = 1200")
            s.reload()
            await s.until(lambda: s.configuration().get("trial") is not None)
            told = await s.judged("rolled-back")
            assert told["last"]["why"] == "RB_SENSORS: no values since it was applied from noise-1, noise-2, and before"
            for device in ("noise-1", "noise-2"):
                await s.good(device)
            await s.all_is_well(["meter-0", "meter-1", "meter-2"])

    asyncio.run(main())


def url(s: Scene) -> str:
    """Return the line that names the broker."""
    return next(line for line in s.daemon.config.read_text().splitlines() if line.startswith("url"))


def epochs(s: Scene) -> set[int]:
    """Return the runs of the gateway of which packs have come."""
    return {epoch for packs in s.heard.packs.values() for epoch, _ in packs}


def open_ports(s: Scene) -> set[str]:
    """Return what the pole has open: serial ports, and connections by number of their socket."""
    names = [str(entry.readlink()) for entry in Path(f"/proc/{s.daemon.pid}/fd").iterdir()]
    return {name for name in names if name.startswith(("/dev/pts", "socket:"))}


def test_in_a_terminal_that_goes_away_it_ends(tmp_path: Path) -> None:
    config, log = tmp_path / "pole.toml", tmp_path / "log"
    config.write_text(
        f'[pole]\nid = "p"\n[uplink]\nurl = "mqtt://127.0.0.1:1"\n[buffer]\npath = "{tmp_path}/buffer.db"\n'
    )
    terminal, stdin = pty.openpty()
    command = ["setpriv", "--pdeathsig", "KILL", polegate(), "run", "--config", str(config)]
    with log.open("wb") as out, subprocess.Popen(command, stdin=stdin, stdout=out, stderr=out) as process:  # noqa: S603
        give_up = time.monotonic() + 20
        while "started" not in log.read_text():
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 0
    os.close(terminal)
    os.close(stdin)

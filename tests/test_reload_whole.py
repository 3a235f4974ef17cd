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
from tests.pki import Authority
from tests.reload_scene import POLE, Scene, scene

ALL = ["meter-0", "meter-1", "meter-2", "noise-1", "noise-2"]


def test_a_changed_interval_touches_that_device_and_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            ports = open_ports(s)
            digest = s.configuration()["digest"]
            s.edit(
                'port = "p1"\nprofile = "eastron-sdm630"\nevery = 1.0',
                'port = "p1"\nprofile = "eastron-sdm630"\nevery = 0.5',
            )
            s.reload()
            told = await s.judged("accepted")
            assert told["digest"] != digest
            await s.good("meter-1", 4)
            await s.all_is_well(["meter-0", "meter-2", "noise-1", "noise-2"])
            assert min(s.steps("meter-1")) < 0.75
            assert open_ports(s) == ports

    asyncio.run(main())


def test_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            ports = open_ports(s)
            before = s.configuration()
            s.reload()
            await s.until(lambda: "nothing is changed" in s.daemon.output())
            await s.all_is_well(ALL)
            assert s.configuration() == before
            assert open_ports(s) == ports

    asyncio.run(main())


def test_a_file_with_faults_is_refused_and_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            before = s.configuration()["digest"]
            s.edit(
                'port = "p1"\nprofile = "eastron-sdm630"\nevery = 1.0',
                'port = "p1"\nprofile = "eastron-sdm630"\nevery = 0',
            )
            s.reload()
            told = await s.judged("refused")
            assert told["digest"] == before
            assert '[[device]] "meter-1": "every" must be more than 0, not 0' in told["last"]["why"]
            await s.until(lambda: any(event["event"] == "configuration" for event in s.heard.events))
            alarm = next(event for event in s.heard.events if event["event"] == "configuration")
            assert (alarm["state"], alarm["code"], alarm["text"]) == ("raise", "not-taken", told["last"]["why"])
            await s.all_is_well(ALL)

    asyncio.run(main())


def test_a_broker_that_is_not_there_is_tried_beside_the_link_there_is_and_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, within=2.5) as s:
            url = next(line for line in s.daemon.config.read_text().splitlines() if line.startswith("url"))
            s.edit(url, 'url = "mqtt://127.0.0.1:1"')
            s.reload()
            told = await s.judged("rolled-back")
            assert "the uplink did not come back within" in told["last"]["why"]
            assert "refused" in told["last"]["why"]
            await s.all_is_well(ALL)
            assert "gone" not in s.heard.states

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
                url = next(line for line in s.daemon.config.read_text().splitlines() if line.startswith("url"))
                s.edit(url, f'url = "mqtt://127.0.0.1:{wrong.port}"')
                s.reload()
                told = await s.judged("rolled-back", within=30.0)
                assert "the uplink did not come back within" in told["last"]["why"]
                await s.all_is_well(ALL)
        finally:
            wrong.stop()

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
            assert told["last"]["why"] == "noise-1, noise-2 gave no values within 3 s, and did before"
            for device in ("noise-1", "noise-2"):
                await s.good(device)
            await s.all_is_well(["meter-0", "meter-1", "meter-2"])

    asyncio.run(main())


def open_ports(s: Scene) -> set[str]:
    """Return what the pole has open: serial ports, and connections by number of their socket."""
    names = [str(entry.readlink()) for entry in Path(f"/proc/{s.daemon.pid}/fd").iterdir()]
    return {name for name in names if name.startswith(("/dev/pts", "socket:"))}


@pytest.mark.soak
def test_what_was_rolled_back_is_told_where_a_restart_makes_it_true(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, within=2.5) as s:
            s.edit("unit = 1", "unit = 9")
            s.reload()
            told = await s.judged("rolled-back")
            assert told["last"]["why"] == "noise-1 gave no values within 3 s, and did before"
            s.daemon.kill()
            s.daemon.start()
            await s.until(lambda: bool(s.configuration()))
            again = s.configuration()
            assert again["digest"] == again["last"]["digest"] == told["last"]["digest"] != told["digest"]
            assert again["last"]["result"] == "rolled-back"
            assert "the gateway was started with it" in again["last"]["why"]
            await s.until(lambda: [e["epoch"] for e in s.heard.events if e["event"] == "configuration"][-1:] == [2])
            assert s.heard.events[-1]["code"] == "rolled-back"
            await s.until(lambda: not s.heard.holes())

    asyncio.run(main())


def test_who_is_killed_in_a_trial_starts_with_the_file_and_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            s.edit("unit = 1", "unit = 9")
            s.reload()
            await s.until(lambda: s.configuration().get("trial") is not None)
            digest = s.configuration()["digest"]
            s.daemon.kill()
            s.daemon.start()
            await s.until(lambda: bool(s.configuration()))
            told = s.configuration()
            assert (told["digest"], told["last"]["result"]) == (digest, "unproven")
            await s.until(lambda: not s.heard.holes())

    asyncio.run(main())


def test_another_pole_id_is_refused_with_the_command_that_takes_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            s.edit(f'id = "{POLE}"', 'id = "other-pole"')
            s.reload()
            told = await s.judged("refused")
            why = '"id" in [pole] cannot be changed while the gateway runs; sudo systemctl restart polegate'
            assert told["last"]["why"] == why
            assert s.daemon.running

    asyncio.run(main())


def test_sigterm_in_a_trial_ends_it_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as s:
            s.edit('id = "noise-1"', 'id = "street"')
            s.edit("unit = 1", "unit = 9")
            s.reload()
            await s.until(lambda: "on trial" in s.daemon.output())
            assert await asyncio.to_thread(s.daemon.stop) == 0
            await s.until(lambda: s.heard.states[-1:] == ["stopped"])
            assert s.heard.holes() == {}

    asyncio.run(main())


@pytest.mark.soak
def test_a_renamed_sensor_that_gives_nothing_under_its_new_name_gets_its_old_one_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, within=2.5) as s:
            await s.good("noise-1", 1)
            s.pair.slaves[1].alive = False  # a moment after it was read: to the pole it is well
            s.edit('id = "noise-1"', 'id = "street"')
            s.reload()
            told = await s.judged("rolled-back")
            assert told["last"]["why"] == "street gave no values within 3 s, and did before"
            s.pair.slaves[1].alive = True
            await s.all_is_well(["meter-0", "meter-1", "meter-2", "noise-2"])
            assert "noise-1" in (s.daemon.status() or {})["devices"]

    asyncio.run(main())


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

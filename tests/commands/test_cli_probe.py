"""``polegate probe`` on emulated lines: the real command, on real ttys and a real D-Bus, shows bytes and values."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import serial
from click.testing import CliRunner

from drivers.contract import NoReply, NotReady
from drivers.nmea0183 import Nmea0183 as Nmea0183Driver
from gateway.commands.probe import First, command
from hil.air import Air, Beacon
from hil.bluez import FakeBlueZ
from hil.bus import PrivateBus
from hil.daemon import polegate
from hil.line import Line
from hil.modbus_tcp import ModbusTcp
from hil.rs485 import Rs485
from hil.twins.modbus import noise, sdm630
from hil.twins.nmea0183 import Nmea0183
from hil.twins.ruuvi import RuuviTag
from hil.twins.sds011 import Sds011
from hil.uart import Replay, Uart
from hil.vclock import run
from hil.wire import Wire

END_S = 60
NO_RADIO_S = 30  # half of the time for which a tag is listened to
HEAD = '[pole]\nid = "p"\n[uplink]\nurl = "mqtt://127.0.0.1"\n'
PROFILE = "Check that the profile fits this model and firmware."
IN_VIEW = b"$GPGSV,3,3,10,24,06,166,35,28,09,271,36*7D\r\n"
ADAPTER = "Check that the adapter is plugged in and that `path` in the [port] section names it."
POWER = (
    "Check the power of the device, its address, that the two wires (A/B, or TX/RX) are not swapped, "
    "and whether it needs a longer `timeout`."
)


class Ran(NamedTuple):
    """What the command left: its exit code, and the lines it printed."""

    code: int
    out: list[str]
    err: list[str]


async def probe(folder: Path, device: str, sections: str, **env: str) -> Ran:
    path = folder / "pole.toml"
    path.write_text(HEAD + sections)
    process = await asyncio.create_subprocess_exec(
        *(polegate(), "probe", device, "--config", str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env},
    )
    async with asyncio.timeout(END_S):
        out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode().splitlines(), err.decode().splitlines())


@contextlib.asynccontextmanager
async def plugged(line: Line) -> AsyncIterator[None]:
    line.plug()
    try:
        yield
    finally:
        line.close()


def port(folder: Path, more: str = "") -> str:
    return f'[port.line]\npath = "{folder}/tty"\n{more}\n'


def device(name: str, driver: str, more: str) -> str:
    return f'[[device]]\nid = "{name}"\ndriver = "{driver}"\n{more}\n'


def modbus(name: str, unit: int, profile: str) -> str:
    return device(name, "modbus", f'port = "line"\nunit = {unit}\nprofile = "{profile}"')


def test_a_slave_on_a_shared_line_is_asked_and_what_went_over_the_wire_is_shown(tmp_path: Path) -> None:
    sections = port(tmp_path, "baud = 19200") + modbus("meter", 1, "eastron-sdm630")
    sections += modbus("noise", 2, "rs485-noise-meter")
    slave = noise(2)

    async def main() -> Ran:
        async with plugged(Rs485(Wire(tmp_path / "tty"), [sdm630(1), slave])):
            return await probe(tmp_path, "noise", sections)

    code, out, err = asyncio.run(main())

    assert (code, err) == (0, [])
    request, answer, value = out
    assert request == "> 02 03 00 00 00 01 84 39"
    assert answer.startswith("< 02 03 02 ")
    tenths = int.from_bytes(bytes.fromhex(answer[2:])[3:5], "big")
    assert value == f"sound_level  {tenths / 10} dB"


def test_a_meter_with_many_values_is_shown_in_rows_and_columns(tmp_path: Path) -> None:
    async def main() -> Ran:
        async with plugged(Rs485(Wire(tmp_path / "tty"), [sdm630(1)])):
            return await probe(tmp_path, "meter", port(tmp_path) + modbus("meter", 1, "eastron-sdm630"))

    code, out, err = asyncio.run(main())

    assert (code, err) == (0, [])
    wire, values = [line for line in out if line[0] in "<>"], [line for line in out if line[0] not in "<>"]
    assert [len(line[2:49].split()) for line in wire if line[0] == "<"] == [16, 16, 16, 16, 13, 9, 16, 1, 9]
    assert len(values) == 23
    columns = [line.split() for line in values]
    assert {len(line.partition("  ")[0]) <= len("apparent_power_l1") for line in values} == {True}
    assert len({line.index(column[1], len(column[0])) for line, column in zip(values, columns, strict=True)}) == 1
    assert columns[0][::2] == ["voltage_l1", "V"]


def test_a_silent_slave_is_told_with_the_next_step(tmp_path: Path) -> None:
    async def main() -> Ran:
        async with plugged(Rs485(Wire(tmp_path / "tty"), [noise(2)])):
            return await probe(tmp_path, "noise", port(tmp_path) + modbus("noise", 3, "rs485-noise-meter"))

    assert asyncio.run(main()) == (
        1,
        ["> 03 03 00 00 00 01 85 e8"],
        [f"noise: no-reply: no reply in time. {POWER}"],
    )


def test_a_slave_with_the_wrong_profile_is_told_what_it_says(tmp_path: Path) -> None:
    async def main() -> Ran:
        async with plugged(Rs485(Wire(tmp_path / "tty"), [noise(2)])):
            return await probe(tmp_path, "noise", port(tmp_path) + modbus("noise", 2, "eastron-sdm630"))

    code, out, err = asyncio.run(main())

    assert code == 1
    assert out[-1] == "< 02 84 01 72 c0"
    assert err == [f"noise: bad-frame: the device answers with exception 1: illegal function. {PROFILE}"]


def test_a_talker_is_heard_until_its_first_frame(tmp_path: Path) -> None:
    async def main() -> Ran:
        async with plugged(Uart(Wire(tmp_path / "tty"), Sds011())):
            return await probe(tmp_path, "dust", port(tmp_path) + device("dust", "sds011", 'port = "line"'))

    code, out, err = asyncio.run(main())

    assert (code, err) == (0, ["it talks by itself; listening for 10 s at the most"])
    assert out[0].startswith("< aa c0 ")
    assert [line.split()[::2] for line in out if line[0] == "p"] == [["pm2_5", "ug/m3"], ["pm10", "ug/m3"]]


def test_the_text_of_a_text_protocol_is_shown_beside_its_bytes(tmp_path: Path) -> None:
    async def main() -> Ran:
        async with plugged(Uart(Wire(tmp_path / "tty"), Nmea0183())):
            return await probe(tmp_path, "gnss", port(tmp_path) + device("gnss", "nmea0183", 'port = "line"'))

    code, out, _ = asyncio.run(main())

    assert code == 0
    assert out[0].startswith("< 24 47 50 52 4d 43 2c ")
    assert "  $GPRMC,0900" in out[0]
    assert any(line.startswith("latitude   60.20") and line.endswith(" deg") for line in out)


def test_a_talker_that_says_only_what_is_not_read_is_not_told_to_look_at_its_wires() -> None:
    async def main() -> None:
        gnss = Nmea0183Driver(id="gnss", driver="nmea0183", port="line")
        first = First(gnss, lambda: None)
        first.take(IN_VIEW)
        with pytest.raises(NotReady, match=r"none with a value that is read; the last: \$GPGSV,3,3,10,24"):
            await first.values()
        with pytest.raises(NoReply, match="nothing came for 15 s"):
            await First(gnss, lambda: None).values()

    run(main())


def test_a_talker_that_says_something_else_is_told_what_came(tmp_path: Path) -> None:
    async def main() -> Ran:
        noisy = Uart(Wire(tmp_path / "tty"), Replay([bytes.fromhex("aac0d4043a0aa16000ab")], 0.2, for_ever=True))
        async with plugged(noisy):
            return await probe(tmp_path, "dust", port(tmp_path) + device("dust", "sds011", 'port = "line"'))

    code, out, err = asyncio.run(main())

    assert code == 1
    assert out[0].startswith("< aa c0 d4 04 3a 0a a1 60 00 ab aa c0")
    assert err[-1] == (
        "dust: bad-frame: checksum is 00, the bytes give 1d. "
        "Wrong driver for this device, wrong baud rate, or a cable that picks up noise."
    )


def test_a_device_over_tcp_is_asked_like_any_other(tmp_path: Path) -> None:
    async def main() -> Ran:
        server = ModbusTcp([noise(1)])
        await server.start()
        try:
            path = f'[port.line]\npath = "tcp://127.0.0.1:{server.port}"\n'
            return await probe(tmp_path, "noise", path + modbus("noise", 1, "rs485-noise-meter"))
        finally:
            await server.close()

    code, out, _ = asyncio.run(main())

    assert code == 0
    assert out[0] == "> 00 01 00 00 00 06 01 03 00 00 00 01"
    assert out[-1].startswith("sound_level  ")


def test_a_port_that_is_not_there_is_told_with_the_next_step(tmp_path: Path) -> None:
    sections = port(tmp_path) + modbus("noise", 1, "rs485-noise-meter")

    assert asyncio.run(probe(tmp_path, "noise", sections)) == (
        1,
        [],
        [f"noise: port-gone: {tmp_path}/tty is not there. {ADAPTER}"],
    )


def test_a_fault_of_ours_in_opening_a_port_is_not_told_as_an_adapter_that_is_not_plugged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    path = tmp_path / "pole.toml"
    path.write_text(HEAD + port(tmp_path) + modbus("noise", 1, "rs485-noise-meter"))
    monkeypatch.setattr("gateway.sensors.serial_wire.serial.Serial", fail)
    monkeypatch.setattr("gateway.commands.probe.OPEN_S", 0.1)
    monkeypatch.setattr("gateway.commands.probe.log.start", int)  # the log is that of the tests

    ran = CliRunner().invoke(command, ["noise", "--config", str(path)])

    assert str(ran.exception) == "a fault"


def test_a_port_that_the_gateway_holds_is_told_with_how_to_see_who(tmp_path: Path) -> None:
    async def main() -> Ran:
        async with plugged(Rs485(Wire(tmp_path / "tty"), [noise(1)])):
            with serial.Serial(str(tmp_path / "tty"), exclusive=True):
                return await probe(tmp_path, "noise", port(tmp_path) + modbus("noise", 1, "rs485-noise-meter"))

    code, _, err = asyncio.run(main())

    assert code == 1
    step = f"Something else has it open; see it with: sudo fuser -v {tmp_path}/tty"
    assert err == [f"noise: port-gone: {tmp_path}/tty is in use. {step}"]


def test_a_device_that_the_file_does_not_have_is_told_which_are_near(tmp_path: Path) -> None:
    code, out, err = asyncio.run(probe(tmp_path, "nois", port(tmp_path) + modbus("noise", 1, "rs485-noise-meter")))

    assert (code, out) == (64, [])
    assert err[-1] == f'Error: {tmp_path}/pole.toml has no device "nois"; did you mean "noise"?'


def test_a_bad_configuration_is_told_as_a_check_tells_it(tmp_path: Path) -> None:
    code, out, err = asyncio.run(probe(tmp_path, "noise", modbus("noise", 1, "rs485-noise-meter")))

    assert (code, out) == (78, [])
    assert err == [f'{tmp_path}/pole.toml:8: [[device]] "noise": there is no section [port.line]']


ADDRESS = "CB:B8:33:4C:88:4F"
TAG = device("tag", "ruuvi", f'address = "{ADDRESS}"')


@pytest.mark.parametrize(("has_bus", "why"), [(False, "no system D-Bus: "), (True, "bluetoothd does not run")])
def test_a_machine_without_a_radio_is_told_and_not_listened_to_for_a_minute(
    tmp_path: Path, *, has_bus: bool, why: str
) -> None:
    async def main() -> Ran:
        bus = PrivateBus(tmp_path)
        address = bus.start() if has_bus else f"unix:path={tmp_path}/none"
        try:
            async with asyncio.timeout(NO_RADIO_S):
                return await probe(tmp_path, "tag", TAG, DBUS_SYSTEM_BUS_ADDRESS=address)
        finally:
            if has_bus:
                bus.stop()

    code, out, err = asyncio.run(main())

    assert (code, out) == (1, [])
    assert err[-1].startswith(f"tag: port-gone: bluetooth hci0: {why}")
    assert err[-1].endswith("the adapter is named in [bluetooth].")


def test_a_bluetooth_tag_is_heard_and_no_other(tmp_path: Path) -> None:
    tag = RuuviTag(ADDRESS, temperature=21.5)
    other = RuuviTag("CB:B8:33:4C:88:50", temperature=-5.0)

    async def main() -> Ran:
        bus = PrivateBus(tmp_path)
        address = bus.start()
        bluez = FakeBlueZ(address)
        try:
            await bluez.start()
            async with Air(bluez, 0) as air:
                for each, interval_s in ((other, 0.05), (tag, 0.2)):
                    air.add(Beacon(each.address, each.heartbeat, interval_s))
                return await probe(tmp_path, "tag", TAG, DBUS_SYSTEM_BUS_ADDRESS=address)
        finally:
            await bluez.stop()
            bus.stop()

    code, out, err = asyncio.run(main())

    assert (code, err) == (0, ["it talks by itself; listening for 60 s at the most"])
    assert out[0].startswith("< 05 10 cc ")
    assert out[1].endswith("cb b8 33 4c 88 4f")
    assert out[2].split() == ["temperature", "21.5", "Cel"]

"""What became of documents is kept as readings, also what was told before there was a pole to keep it."""

import asyncio
from pathlib import Path

from gateway.config.settings import Settings
from gateway.config.settings_file import load
from gateway.host.clock import Clock
from gateway.jobs.report import last_will
from gateway.link.uplink import Uplink
from gateway.remote.over_the_air import OverTheAir
from gateway.remote.verdict import Code, Verdict
from gateway.shares import brokers
from gateway.words import transition
from gateway.words.reading import Reading
from gateway.words.standing import Echo
from tests.remote.operator import root
from tests.remote.scene import LOCAL

NS_PER_MS = 1_000_000


class Still(Clock):
    """A clock that stands still."""

    def now(self) -> int:
        """Return the same for ever."""
        return 7 * NS_PER_MS


class Pole:
    """Runs anything."""

    async def apply(self, configuration: Settings, before: Echo) -> None:
        """Run so."""

    def healthy(self) -> frozenset[str]:
        """Name none."""
        return frozenset()

    def waits_for(self, devices: object) -> dict[str, float]:
        """Name none."""
        del devices
        return {}

    async def echo(self) -> Echo:
        """Lose it."""
        return Echo(taken=False, came_back=False)


def test_each_is_a_reading_of_its_own_also_where_two_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "root.json").write_bytes(root())
    own = LOCAL.replace("[remote]", f'[remote]\ntrust = "{tmp_path}/trust"\nstate = "{tmp_path}/config"')
    path = tmp_path / "pole.toml"
    path.write_text(own)
    early = [Verdict("fleet", 3, "aa", code, "it is so") for code in (Code.OK, Code.COMMITTED)]
    late = Verdict("pole/pole-1", 0, "", Code.SIG, "who signed it is not known")

    async def main() -> list[Reading]:
        settings = load(path)
        air = OverTheAir(path, settings, Still())
        await air.start()
        for verdict in early:
            air.tell(verdict)
        kept: list[Reading] = []
        uplink = Uplink(brokers(settings)[0], last_will("pole/1/pole-1"))
        air.lead(Pole(), uplink, {}, "pole/1/pole-1", keep=kept.append)
        assert kept == []
        job = asyncio.create_task(air.run(asyncio.Event()))
        await asyncio.sleep(0)
        air.tell(late)
        job.cancel()
        await asyncio.wait([job])
        return kept

    kept = asyncio.run(main())
    assert [reading.at // NS_PER_MS for reading in kept] == [7, 8, 9]
    assert [tuple(reading.values.values()) for reading in kept] == [
        ("fleet", 3, "aa", 0, "OK", "it is so"),
        ("fleet", 3, "aa", 1, "COMMITTED", "it is so"),
        ("pole/pole-1", 0, "", 103, "SIG", "who signed it is not known"),
    ]
    assert {(reading.device, reading.dataset) for reading in kept} == {("_configuration", "configuration")}
    assert [*kept[0].values] == [*transition.CHANNELS]

"""What became of documents is kept as readings, also what was told before there was a pole to keep it."""

import asyncio
from pathlib import Path

from gateway.config.settings import Settings
from gateway.config.settings_file import load
from gateway.host.clock import Clock
from gateway.jobs.report import last_will
from gateway.link.mqtt_link import Link
from gateway.link.uplink import Uplink
from gateway.remote.change import Change
from gateway.remote.verdict import Code, Verdict
from gateway.shares import brokers
from gateway.words import transition
from gateway.words.reading import Reading
from gateway.words.standing import NOTHING, Echo
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


async def lost(link: Link) -> Echo:
    """Lose what the pole says to itself."""
    del link
    return NOTHING


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
        change = Change(path, settings, Still())
        await change.start()
        for verdict in early:
            change.tell(verdict)
        kept: list[Reading] = []
        uplink = Uplink(brokers(settings)[0], last_will("pole/1/pole-1"))
        change.lead(Pole(), uplink, {}, topic="pole/1/pole-1", echo=lost, keep=kept.append)
        assert kept == []
        job = asyncio.create_task(change.run(asyncio.Event()))
        await asyncio.sleep(0)
        change.tell(late)
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

"""How the pole is: all in one look, and what of it a person should know at once."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.host.clock import Clock
from gateway.host.release import GivenUp
from gateway.jobs.pole_state import PoleState
from gateway.jobs.report import last_will
from gateway.link.uplink import Uplink
from gateway.store.buffer import Buffer
from gateway.store.journal import Journal
from gateway.words.health import DeviceHealth
from gateway.words.messages import Details
from gateway.words.reading import Pack
from gateway.words.standing import Standing, Verdict
from tests.link.broker_scene import where
from tests.store.buffer_bench import ROOMY
from tests.words.contract import must_be

NS = 1_000_000_000


class Watch(Clock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.boot = "the-boot"
        self.time = 100 * NS
        self.right = True

    def now(self) -> int:
        """Return nanoseconds since boot."""
        return self.time

    def utc_offset(self) -> int:
        """Return what to add for nanoseconds since 1970."""
        return 1_800_000_000 * NS

    def synchronised(self) -> bool:
        """Tell whether that is right."""
        return self.right


class Scene:
    """All that has something to tell."""

    def __init__(self, buffer: Buffer, given_up: GivenUp | None) -> None:
        self.clock = Watch()
        self.buffer = buffer
        self.dust = DeviceHealth()
        self.standing = Standing("ab12", 90 * NS, {})
        self.state = PoleState(
            clock=self.clock,
            uplink=Uplink(where(1), last_will("pole/1/pole-7")),
            buffer=buffer,
            journal=Journal(None, "the-boot"),
            health={"dust": self.dust},
            refused=dict,
            standing=lambda: self.standing,
            given_up=given_up,
        )


def play(folder: Path, scene: Callable[[Scene], Awaitable[None]], given_up: GivenUp | None = None) -> None:
    async def main() -> None:
        buffer = Buffer(folder / "buffer.db", ROOMY)
        await buffer.open("the-boot", 0, 0)
        await scene(Scene(buffer, given_up))
        await buffer.close()

    asyncio.run(main())


def test_it_tells_all_parts_as_they_are_now(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.buffer.put(Pack("air", 1, 1, 20, 0, b"[]"), 10.0)
        s.clock.time += 65 * NS
        s.dust.good, s.dust.last_good, s.dust.lost["no-reply"] = 7, 150 * NS, 2
        told = json.loads(s.state.now().encoded())
        must_be("state", told)
        assert told.items() >= {"status": "online", "boot": "the-boot", "epoch": 1, "uptime": 65}.items()
        assert (told["at"], told["clock"]) == (1_800_000_165, "synchronised")
        assert told["uplink"].pop("refused") == {}
        assert told["uplink"] == {"up": False, "trouble": "not connected yet", "note": "", "certificate_trouble": ""}
        assert told["buffer"].items() >= {"packs": 1, "readings": 20, "stored": 0, "dropped": 0, "dead": 0}.items()
        assert told["devices"] == {
            "dust": {"good": 7, "lost": {"no-reply": 2}, "age": 15.0, "lapse": "", "trouble": ""}
        }
        assert json.loads(s.state.now("stopped").encoded())["status"] == "stopped"

    play(tmp_path, scene)


def test_a_release_that_was_given_up_is_told(tmp_path: Path) -> None:
    given_up = GivenUp("1.1", "1.0", 1_800_000_000.0, "watchdog")

    async def scene(s: Scene) -> None:
        told = json.loads(s.state.now().encoded())
        must_be("state", told)
        why = "it did not prove healthy in three starts; the last ended with watchdog"
        assert told["given_up"] == {"version": "1.1", "why": why, "at": 1_800_000_000.0}

    play(tmp_path, scene, given_up)


def test_a_device_that_never_gave_anything_has_no_age(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        assert "age" not in json.loads(s.state.now().encoded())["devices"]["dust"]

    play(tmp_path, scene)


def test_people_at_the_pole_see_the_latest_values_too(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        s.dust.latest.update(pm10=7.3, pm2_5=None)
        told = json.loads(json.dumps(s.state.detailed(Details(signs=[]))))
        assert told["devices"]["dust"].pop("latest") == {"pm10": 7.3, "pm2_5": None}
        must_be("state", told)

    play(tmp_path, scene)


def test_counts_do_not_matter_and_troubles_do(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        before = s.state.what_matters()
        s.clock.time += 100 * NS
        s.dust.good += 1
        s.dust.lost["bad-frame"] += 1
        s.buffer.put(Pack("air", 1, 1, 20, 0, b"[]"), 10.0)
        assert s.state.what_matters() == before
        seen = {before}
        s.dust.lapse = "no-reply"
        seen.add(s.state.what_matters())
        s.clock.right = False
        seen.add(s.state.what_matters())
        s.buffer.depth.dropped = 1
        seen.add(s.state.what_matters())
        assert len(seen) == 4
        s.buffer.depth.dropped = 2
        assert s.state.what_matters() in seen

    play(tmp_path, scene)


def test_it_tells_which_configuration_runs_and_what_came_of_the_last_one(tmp_path: Path) -> None:
    async def scene(s: Scene) -> None:
        seen = {s.state.what_matters()}
        told = json.loads(s.state.now().encoded())
        assert told["configuration"] == {"digest": "ab12", "since": 1_800_000_090}
        verdict = Verdict("refused", "fleet", 0, "", "SIG: not signed by those who may", 80 * NS)
        s.standing = Standing("cd34", 95 * NS, {"fleet": 42}, "local", 12.34, verdict)
        seen.add(s.state.what_matters())
        told = json.loads(s.state.now().encoded())
        must_be("state", told)
        why = "SIG: not signed by those who may"
        assert told["configuration"] == {
            "digest": "cd34",
            "since": 1_800_000_095,
            "streams": {"fleet": 42},
            "trial": 12.3,
            "tried": "local",
            "last": {"result": "refused", "stream": "fleet", "digest": "", "why": why, "at": 1_800_000_080},
        }
        s.standing = s.standing._replace(left_s=11.0)
        assert s.state.what_matters() in seen
        s.standing = s.standing._replace(trial="")
        assert s.state.what_matters() not in seen
        seen.add(s.state.what_matters())
        s.standing = s.standing._replace(streams={"fleet": 43}, last=verdict._replace(seq=43))
        assert s.state.what_matters() not in seen
        assert json.loads(s.state.now().encoded())["configuration"]["last"]["seq"] == 43

    play(tmp_path, scene)

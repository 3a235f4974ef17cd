"""How the pole is: for the state message, and for people at the pole."""

import platform
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Literal

from gateway.host import storage
from gateway.host.clock import Clock
from gateway.host.release import GivenUp
from gateway.link.uplink import Uplink
from gateway.store.buffer import Buffer
from gateway.store.journal import Journal
from gateway.words.health import DeviceHealth
from gateway.words.messages import (
    BufferState,
    ConfigurationState,
    Details,
    DeviceState,
    GivenUpState,
    MendedState,
    State,
    Status,
    UplinkState,
    VerdictState,
)
from gateway.words.standing import Standing

NS = 1_000_000_000
VERSION = version("polegate")


class PoleState:
    """Looks at all parts that have something to tell."""

    def __init__(
        self,
        *,
        clock: Clock,
        uplink: Uplink,
        buffer: Buffer,
        journal: Journal,
        health: Mapping[str, DeviceHealth],
        refused: Callable[[], dict[str, str]],
        standing: Callable[[], Standing],
        given_up: GivenUp | None = None,
    ) -> None:
        """Make it; the gateway starts now.

        Args:
            clock: the machine's.
            uplink: the way to the broker.
            buffer: where packs wait.
            journal: keeps what is in RAM.
            health: of each device.
            refused: tells which datasets the broker does not take, and why.
            standing: tells which configuration runs.
            given_up: the release that went back to this one by itself.
        """
        self._given_up = given_up and GivenUpState(version=given_up.name, why=given_up.why, at=given_up.at)
        self._refused = refused
        self._standing = standing
        self._clock = clock
        self._uplink = uplink
        self._buffer = buffer
        self._journal = journal
        self._health = health
        self._started = clock.now()

    def now(self, status: Literal["online", "stopped"] = "online") -> State:
        """Tell how it is."""
        now = self._clock.now()
        return State(
            status=status,
            version=VERSION,
            given_up=self._given_up,
            python=platform.python_version(),
            boot=self._clock.boot,
            epoch=self._buffer.epoch,
            uptime=(now - self._started) // NS,
            at=self._utc(now),
            clock="synchronised" if self._clock.synchronised() else "unsynchronised",
            uplink=UplinkState(**self._uplink.state, refused=self._refused()),
            buffer=self._of_the_buffer(),
            configuration=self._of_the_configuration(),
            devices={name: _device(health, now) for name, health in self._health.items()},
        )

    def what_matters(self) -> Hashable:
        """Return the part whose change a person should know at once."""
        buffer = self._buffer
        kept = bool(buffer.depth.dropped), buffer.depth.set_aside, buffer.trouble, buffer.mended, self._journal.trouble
        uplink = self._uplink.certificate_trouble, tuple(self._refused())
        standing = self._standing()
        configuration = standing.digest, standing.trial, standing.last, tuple(standing.streams.items())
        lapses = tuple(health.lapse for health in self._health.values())
        return kept, uplink, configuration, self._clock.synchronised(), lapses

    def detailed(self, details: Details) -> dict[str, Any]:
        """Tell it to people at the pole: with what only they are told, and the latest values."""
        told = Status(**dict(self.now()), details=details).model_dump(exclude_none=True)
        for name, health in self._health.items():
            told["devices"][name]["latest"] = health.latest
        return told

    def _of_the_configuration(self) -> ConfigurationState:
        standing = self._standing()
        last = standing.last
        return ConfigurationState(
            digest=standing.digest,
            since=self._utc(standing.since),
            streams=dict(standing.streams) or None,
            trial=round(standing.left_s, 1) if standing.trial else None,
            tried=standing.trial or None,
            last=last
            and VerdictState(
                result=last.result,
                stream=last.stream,
                seq=last.seq or None,
                digest=last.digest,
                why=last.why,
                at=self._utc(last.at),
            ),
        )

    def _utc(self, at: int) -> float:
        return round((at + self._clock.utc_offset()) / NS, 3)

    def _of_the_buffer(self) -> BufferState:
        buffer, depth = self._buffer, self._buffer.depth
        return BufferState(
            packs=depth.packs,
            readings=depth.readings,
            stored=depth.stored,
            dead=depth.set_aside,
            commits=depth.commits,
            written=storage.written(),
            dropped=depth.dropped,
            dropped_readings=depth.dropped_readings,
            trouble=buffer.trouble,
            journal=self._journal.trouble or "ok",
            mended=MendedState(**asdict(buffer.mended)) if buffer.mended else None,
        )


def _device(health: DeviceHealth, now: int) -> DeviceState:
    return DeviceState(
        good=health.good,
        lost=dict(health.lost),
        age=None if health.last_good is None else round((now - health.last_good) / NS, 1),
        lapse=health.lapse,
        trouble=health.trouble,
    )

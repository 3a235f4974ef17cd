"""A job: take a configuration that was changed while the gateway runs, and give it back where it does not work.

A reload is asked for by a signal. A file with faults, or one that needs a restart, is refused, and what runs goes on.
One with the same content changes nothing. Any other is applied, and is then on trial:

* **the uplink** must work as it did just before: what the pole publishes is taken, and comes back;
* **each device** that gave values just before must give them again.

What was dead before proves nothing. When all of it has come the configuration is accepted; when something has not come
in time, the last accepted one is applied again. A reload that is asked for during a trial is looked at in the same way,
and what comes back is still the last one that was accepted.

How long a proof may take is said by the configuration that was accepted, not by the one on trial.

A trial does not outlive the process: at the start the file of the technician is what counts. A small file remembers
what was on trial or was rolled back, so that this is told where it is what the gateway was started with.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from gateway.config.faults import SettingsError
from gateway.host.notify import notify, notify_reloading
from gateway.host.trial_file import TrialFile, Tried
from gateway.words.standing import NOTHING, Changeable, Echo, Standing, Verdict

LOOK_S = 0.5

C = TypeVar("C")
log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Trial:
    """A configuration on trial.

    Attributes:
        devices: that gave values before.
        echo: what came of the uplink before.
        began: when, loop time.
        uplink_by: when the uplink must have proved itself.
        proof: waits for that; None: nothing is to be proved.
        why: what the uplink lacks.
    """

    devices: frozenset[str]
    echo: Echo
    began: float
    uplink_by: float
    proof: asyncio.Task[None] | None = None
    why: str = ""


class Reload(Generic[C]):
    """Takes changed configurations, on trial.

    Attributes:
        running: the configuration that runs.
    """

    def __init__(
        self,
        pole: Changeable[C],
        running: C,
        *,
        read: Callable[[], C],
        cannot: Callable[[C, C], str],
        digest: Callable[[C], str],
        uplink_within: Callable[[C], float],
        file: TrialFile,
        now: Callable[[], int],
    ) -> None:
        """Make it; ``run`` reloads.

        Args:
            pole: the running one.
            running: what it runs.
            read: reads the file. Raises SettingsError.
            cannot: tells why the second cannot take the place of the first without a restart; "" where it can.
            digest: gives what stands for the content: what has the same is the same.
            uplink_within: gives the seconds that the uplink has to prove itself.
            file: remembers what was tried.
            now: nanoseconds of CLOCK_BOOTTIME.
        """
        self._pole = pole
        self.running = self._accepted = running
        self._read = read
        self._cannot = cannot
        self._digest_of = digest
        self._digest = digest(running)
        self._uplink_within = uplink_within
        self._file = file
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._trial: _Trial | None = None
        self._since = now()
        self._last = self._started_with(file.read())

    @property
    def verdict(self) -> Verdict | None:
        """The last one; None: there was none since the start."""
        return self._last

    def standing(self) -> Standing:
        """Tell which configuration runs."""
        return Standing(self._digest, self._since, self._left(), self._last)

    async def run(self, asked: asyncio.Event) -> None:
        """Reload whenever that is set, for ever."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if self._trial is None else LOOK_S):
                        await asked.wait()
                if asked.is_set():
                    asked.clear()
                    await self._reload()
                if self._trial is not None:
                    await self._judge(self._trial)
        finally:
            self._end_trial()

    def _started_with(self, tried: Tried | None) -> Verdict | None:
        """Tell where the gateway was started with what is known not to work, or not known to."""
        if tried is None or tried.digest != self._digest:
            return None
        if tried.why:
            why = f"it was rolled back ({tried.why}), and runs because the gateway was started with it"
            log.error("the configuration was rolled back before", why=why)
            return Verdict("rolled-back", self._digest, why, self._since)
        why = "the gateway ended while it was on trial, and was started with it"
        log.warning("the configuration has not proved itself", why=why)
        return Verdict("unproven", self._digest, why, self._since)

    async def _reload(self) -> None:
        notify_reloading()
        try:
            new = self._read()
        except SettingsError as error:
            faults = [str(fault) for fault in error.faults]
            more = f" (and {len(faults) - 1} more: polegate check)" if len(faults) > 1 else ""
            self._refuse("", f"{faults[0]}{more}", faults)
        else:
            await self._take(new)
        notify(f"READY=1\nSTATUS={self._status()}")

    async def _take(self, new: C) -> None:
        digest = self._digest_of(new)
        if why := self._cannot(self.running, new):
            self._refuse(digest, why, [why])
        elif digest == self._digest:
            log.info("the configuration is the one that runs: nothing is changed", digest=digest)
            if self._trial is None and self._last is not None and self._last.result != "accepted":
                await self._accept()
        elif digest == self._digest_of(self._accepted):
            log.info("the configuration before the trial is back", digest=digest)
            await self._apply(new, NOTHING)
            await self._accept()
        else:
            await self._try(new)

    def _refuse(self, digest: str, why: str, faults: Collection[str]) -> None:
        log.error("the configuration is refused; the one that runs goes on", faults=faults)
        self._last = Verdict("refused", digest, why, self._now())

    async def _try(self, new: C) -> None:
        before = self._trial
        devices = before.devices if before else self._pole.healthy()
        echo = before.echo if before else await self._pole.echo()
        self._end_trial()
        await self._file.write(Tried(self._digest_of(new)))
        log.info("a configuration is on trial", digest=self._digest_of(new), devices=sorted(devices), uplink=echo.taken)
        began = self._loop.time()
        trial = self._trial = _Trial(devices, echo, began, began + self._uplink_within(self._accepted))
        try:
            await self._apply(new, echo)
        except Exception as error:
            log.exception("the configuration cannot be applied")
            await self._roll_back(f"it cannot be applied: {error!r}")
            return
        if echo.taken:
            trial.proof = asyncio.ensure_future(self._until_proved(trial))

    async def _until_proved(self, trial: _Trial) -> None:
        while (now := await self._pole.echo()).falls_short_of(trial.echo):
            trial.why = now.why
            await asyncio.sleep(LOOK_S)

    async def _judge(self, trial: _Trial) -> None:
        now = self._loop.time()
        proof = trial.proof
        is_proved = proof is None or (proof.done() and proof.result() is None)
        waiting = self._pole.waits_for(trial.devices)
        late = sorted(name for name, seconds in waiting.items() if now - trial.began >= seconds)
        if late:
            within = max(waiting[name] for name in late)
            await self._roll_back(f"{', '.join(late)} gave no values within {within:.0f} s, and did before")
        elif not is_proved and now >= trial.uplink_by:
            await self._roll_back(f"the uplink did not come back within {now - trial.began:.0f} s: {trial.why}")
        elif is_proved and not waiting:
            await self._accept()

    async def _accept(self) -> None:
        self._end_trial()
        self._accepted = self.running
        self._last = Verdict("accepted", self._digest, "", self._now())
        log.info("the configuration is accepted", digest=self._last.digest)
        await self._file.write(None)
        notify(f"STATUS={self._status()}")

    async def _roll_back(self, why: str) -> None:
        self._end_trial()
        digest = self._digest
        log.error("the configuration did not work; the one before is back", digest=digest, why=why)
        await self._file.write(Tried(digest, why))
        await self._apply(self._accepted, NOTHING)
        self._last = Verdict("rolled-back", digest, why, self._now())
        notify(f"STATUS={self._status()}")

    async def _apply(self, configuration: C, before: Echo) -> None:
        self.running = configuration
        self._digest = self._digest_of(configuration)
        self._since = self._now()
        await self._pole.apply(configuration, before)

    def _end_trial(self) -> None:
        if self._trial is not None and self._trial.proof is not None:
            self._trial.proof.cancel()
        self._trial = None

    def _left(self) -> float | None:
        """Return how long the trial may still take."""
        if self._trial is None:
            return None
        trial = self._trial
        waits = [trial.began + seconds for seconds in self._pole.waits_for(trial.devices).values()]
        if trial.proof is not None and not trial.proof.done():
            waits.append(trial.uplink_by)
        return max(0.0, max(waits, default=0.0) - self._loop.time())

    def _status(self) -> str:
        """Put it for systemctl status."""
        runs = f"configuration {self._digest} runs"
        if self._trial is not None:
            return f"{runs}, on trial"
        last = self._last
        if last is None or last.result == "accepted":
            return runs
        return f"{runs}; the last change: {last.result}, {last.why}"

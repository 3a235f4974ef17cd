"""``polegate tail``: the readings of any pole, as they come to the broker.

It is a receiver like any other: it subscribes, and what the broker does not give it, it does not know.
"""

import asyncio
import contextlib
import re
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import click

from gateway.commands.broker import WHERE, Place, access, first_of, made_of, stopped
from gateway.commands.check import FILE, report
from gateway.commands.tail_mend import Mending
from gateway.commands.tail_show import AsJson, AsText, Finding, Show
from gateway.config.faults import SettingsError
from gateway.config.settings_file import load
from gateway.config.toml_text import quoted
from gateway.host.clock import Clock
from gateway.link.broker import Message, Received, Refused, UplinkDown
from gateway.link.mqtt_link import Link
from gateway.words import records
from gateway.words.completeness import GRACE_S, Arrival, Watch, label_of, spans
from gateway.words.records import NoSenml, Record

LOOK_S = 1.0
NS = 1_000_000_000
ALL = "+"


class Level(click.ParamType[str]):
    """One level of a topic: a name, or + for all."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take it as it is."""
        if not re.fullmatch(r"\+|[A-Za-z0-9_-]+", value):
            self.fail(
                f"{quoted(value)} is no name: it holds only letters, digits, - and _; + stands for all", param, ctx
            )
        return value


@click.command("tail")
@click.option("--broker", "url", metavar="URL", help=WHERE)
@click.option("--config", "path", metavar="FILE", type=FILE, help="A pole's configuration: its broker, user and name.")
@access
@click.option("--pole", "poles", metavar="NAME", type=Level(), multiple=True, help="Only this pole, or + for all.")
@click.option("--dataset", "datasets", metavar="NAME", type=Level(), multiple=True, help="Only this dataset.")
@click.option("--verify", is_flag=True, help="Tell which packs are missing, and which came again.")
@click.option("--request-replay", is_flag=True, help="Ask the poles for packs that are missing; --verify as well.")
@click.option("--seconds", metavar="N", type=click.FloatRange(min=0, min_open=True), help="End after so long.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(
    *,
    url: str | None,
    path: Path | None,
    poles: Sequence[str],
    datasets: Sequence[str],
    verify: bool,
    request_replay: bool,
    seconds: float | None,
    as_json: bool,
    **more: Any,  # noqa: ANN401  # the rest of what says where the broker is, as click has it
) -> int:
    """Print the readings of poles as they come to the broker, until Ctrl-C.

    \b
      polegate tail --broker mqtt://192.168.1.10
      polegate tail --config pole.toml --dataset air --json
      polegate tail --broker mqtt://192.168.1.10 --verify --request-replay

    With --config it is the pole of that file, else all poles. --pole and --dataset may stand several times. A time with
    a ? is a guess: the pole's clock was not set.

    A pack is missing when a later one came, and for 90 seconds nothing that comes late: after an outage a pole sends
    what waited behind what is new. The end tells all that is missing. What was sent before tail began is not missed.

    Exit code 0: it was ended. 1: packs are missing (--verify). 64: the command is wrong. 69: the broker cannot be
    reached. 77: it does not let you in. 78: the configuration has faults.
    """  # noqa: D301  # click keeps the lines behind a backspace as they are
    if (url is None) == (path is None):
        raise click.UsageError("say either --broker URL or --config FILE")
    if path is not None and (wrong := [name for name, value in more.items() if value is not None]):
        raise click.UsageError(f"--{wrong[0].replace('_', '-')} is for --broker; with --config the file says it")
    try:
        settings = load(path) if path is not None else made_of(url or "", more)
    except SettingsError as error:
        return report(error.faults)
    step = "give --username and --password-file" if path is None else f"see [uplink] in {path}"
    tail = Tail(
        Place.of(settings, "tail", step),
        poles=poles or ([settings.root.pole.id] if path is not None else [ALL]),
        datasets=datasets or [ALL],
        show=AsJson() if as_json else AsText(),
        verify=verify or request_replay,
        request_replay=request_replay,
    )
    return tail.place.run(tail.run(_end(seconds)), f"read {' or '.join(tail.topics)}")


class Tail:
    """What runs.

    Attributes:
        place: the broker.
        topics: what is subscribed to.
    """

    def __init__(
        self,
        place: Place,
        *,
        poles: Sequence[str],
        datasets: Sequence[str],
        show: Show,
        verify: bool,
        request_replay: bool,
    ) -> None:
        """Make it.

        Args:
            place: where packs come from.
            poles: whose; "+" is all.
            datasets: of these; "+" is all.
            show: prints.
            verify: tell what is missing.
            request_replay: ask for it.
        """
        self.place = place
        prefix = place.prefix
        poles, datasets = _distinct(poles), _distinct(datasets)
        self.topics = [f"{prefix}/{pole}/data/{dataset}" for pole in poles for dataset in datasets]
        if request_replay:
            self.topics += [f"{prefix}/{pole}/event/replay" for pole in poles]
        self._prefix = prefix
        self._show = show
        self._watch = Watch() if verify else None
        self._mending = Mending(self._watch, place.client) if self._watch and request_replay else None
        self._clock = Clock()

    async def run(self, end: Coroutine[Any, Any, None]) -> int:
        """Print until the end has come, and return the exit code.

        Raises:
            NotAuthorised: the broker does not let us in.
            UplinkDown: it was never there.
            Refused: it does not let us subscribe.
        """
        await first_of(self._listen(), end)
        if self._watch is None:
            return 0
        self._show.sums(self._watch.tracks)
        return int(any(track.holes for track in self._watch.tracks.values()))

    async def _listen(self) -> None:
        link = await self.place.dial()
        self._say(f"connected to {self.place.text}; what comes to {' and '.join(self.topics)}:")
        while True:
            try:
                await first_of(self._hear(link), self._look(link))
            except UplinkDown as error:
                self._say(f"{error}; connecting again")
            finally:
                await link.close()
            link = await self.place.dial_again()
            self._say("connected again; what was sent meanwhile did not come")

    async def _hear(self, link: Link) -> None:
        async with contextlib.aclosing(link.hear(*self.topics)) as heard:
            async for received in heard:
                self._take(received)

    async def _look(self, link: Link) -> None:
        """See, from time to time, what is missing by now, and ask for it."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = asyncio.get_running_loop().time()
            if self._watch is not None:
                for pole, dataset, holes in self._watch.due(now, GRACE_S):
                    for epoch, seq in spans(holes).items():
                        self._show.finding(Finding("hole", pole, dataset, epoch, seq))
            if self._mending is not None:
                await self._ask(link, self._mending, now)

    async def _ask(self, link: Link, mending: Mending, now: float) -> None:
        for request in mending.unanswered(now):
            self._show.finding(request.finding("unanswered"))
        for request in mending.next(now):
            try:
                await link.send(Message(f"{self._prefix}/{request.pole}/command/replay", request.payload()))
            except UplinkDown:  # who hears is told it too, after what came before
                return
            except Refused as error:
                self._show.finding(request.finding("refused", str(error)))
            else:
                self._show.finding(request.finding("asked"))

    def _take(self, received: Received) -> None:
        pole, kind, name = received.topic.removeprefix(f"{self._prefix}/").split("/")
        if kind == "data":
            self._take_pack(pole, name, received)
        elif self._mending is not None:
            for finding in self._mending.take(pole, received.payload):
                self._show.finding(finding)

    def _take_pack(self, pole: str, dataset: str, received: Received) -> None:
        try:
            pack = records.read(received.payload, (self._clock.now() + self._clock.utc_offset()) / NS)
        except NoSenml as error:
            self._show.finding(Finding("unreadable", pole, dataset, why=str(error)))
            return
        self._show.pack(pole, dataset, pack)
        if self._watch is not None:
            self._count(self._watch, pole, dataset, pack, backfill=received.backfill)

    def _count(self, watch: Watch, pole: str, dataset: str, pack: Sequence[Record], *, backfill: bool) -> None:
        label = label_of({"backfill": backfill} | pack[0].labels)
        if label is None:
            self._show.finding(Finding("unnumbered", pole, dataset))
            return
        arrival = watch.take(pole, dataset, label, asyncio.get_running_loop().time())
        if arrival in {Arrival.MENDED, Arrival.REPEAT, Arrival.RESTART}:
            seq = label.seq, label.seq
            self._show.finding(Finding(arrival.value, pole, dataset, label.epoch, [seq]))

    def _say(self, text: str) -> None:
        click.echo(text, err=True)


def _distinct(names: Sequence[str]) -> list[str]:
    """Leave out what another name covers: a broker may send twice what is subscribed to twice."""
    return [ALL] if ALL in names else list(dict.fromkeys(names))


async def _end(seconds: float | None) -> None:
    """Wait until SIGINT or SIGTERM comes, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopped()

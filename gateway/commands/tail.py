"""``polegate tail``: the readings of any pole, as they come to the broker.

It is a receiver like any other: it subscribes, and what the broker does not give it, it does not know.
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import signal
import sys
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from gateway import shares
from gateway.commands.check import FILE, report
from gateway.commands.tail_mend import Mending
from gateway.commands.tail_show import AsJson, AsText, Finding, Show
from gateway.config.faults import SettingsError, from_pydantic
from gateway.config.settings import PoleSettings, Root, Settings, UplinkSettings
from gateway.config.settings_file import load
from gateway.config.toml_text import quoted
from gateway.host import log
from gateway.host.clock import Clock
from gateway.link.mqtt_link import (
    Broker,
    Link,
    Message,
    NotAuthorised,
    OtherVersion,
    Received,
    Refused,
    UplinkDown,
    Version,
)
from gateway.words import records
from gateway.words.completeness import GRACE_S, Arrival, Watch, label_of, spans
from gateway.words.records import NoSenml, Record

EX_UNAVAILABLE, EX_NOPERM = 69, 77  # sysexits.h
LOOK_S = 1.0
LONGEST_PAUSE_S = 10.0
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


EXISTING = click.Path(exists=True, dir_okay=False, resolve_path=True)


@click.command("tail")
@click.option(
    "--broker", "url", metavar="URL", help="Where the broker is: mqtts://HOST[:PORT], or mqtt:// without TLS."
)
@click.option("--config", "path", metavar="FILE", type=FILE, help="A pole's configuration: its broker, user and name.")
@click.option("--username", metavar="NAME", help="The MQTT user.")
@click.option("--password-file", metavar="FILE", type=EXISTING, help="The file that holds the password.")
@click.option("--ca-file", metavar="FILE", type=EXISTING, help="The CA that signed the broker's certificate (PEM).")
@click.option("--prefix", metavar="TOPIC", help="What all topics begin with, if not pole/1.")
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
        settings = load(path) if path is not None else _made_of(url, more)
    except SettingsError as error:
        return report(error.faults)
    client = f"polegate-tail-{secrets.token_hex(4)}"  # that of a pole would end the pole's connection
    brokers = [replace(broker, client=client) for broker in shares.brokers(settings)]
    log.start(logging.ERROR)  # what is wrong is said here
    show = AsJson() if as_json else AsText()
    tail = Tail(
        brokers,
        prefix=settings.root.uplink.prefix,
        poles=poles or ([settings.root.pole.id] if path is not None else [ALL]),
        datasets=datasets or [ALL],
        show=show,
        verify=verify or request_replay,
        request_replay=request_replay,
    )
    with asyncio.Runner() as runner:
        try:
            code = runner.run(tail.run(_end(seconds)))
        except NotAuthorised:
            who = f"the user {quoted(brokers[0].username)}" if brokers[0].password_file else "anybody without a user"
            step = "give --username and --password-file" if path is None else f"see [uplink] in {path}"
            click.echo(f"{tail.where} does not let {who} in; {step}", err=True)
            return EX_NOPERM
        except Refused as error:
            click.echo(f"{tail.where} does not let you read {' or '.join(tail.topics)}: {error}", err=True)
            return EX_NOPERM
        except UplinkDown as error:
            click.echo(
                f"{tail.where} cannot be reached: {error}; check the address, and that the broker runs", err=True
            )
            return EX_UNAVAILABLE
        if tail.is_dialling:  # in a thread that nothing can end, and that would be waited for
            sys.stdout.flush()
            os._exit(code)
        return code


def _made_of(url: str | None, given: dict[str, Any]) -> Settings:
    """Make settings of what the command says of the broker."""
    uplink = {key: value for key, value in given.items() if value is not None}
    if ("username" in uplink) != ("password_file" in uplink):
        raise click.UsageError("--username and --password-file belong together")
    try:
        root = Root(pole=PoleSettings(id="tail"), uplink=UplinkSettings.model_validate({"url": url} | uplink))
    except ValidationError as error:
        found = "; ".join(text for _, text in from_pydantic(error, UplinkSettings))
        raise click.UsageError(found.replace('"url"', "--broker").replace('"prefix"', "--prefix")) from None
    return Settings(root, (), ())


class Tail:
    """What runs.

    Attributes:
        where: the broker, in words.
        topics: what is subscribed to.
    """

    def __init__(
        self,
        brokers: Sequence[Broker],
        *,
        prefix: str,
        poles: Sequence[str],
        datasets: Sequence[str],
        show: Show,
        verify: bool,
        request_replay: bool,
    ) -> None:
        """Make it.

        Args:
            brokers: where packs come from, the best first.
            prefix: what all topics begin with.
            poles: whose; "+" is all.
            datasets: of these; "+" is all.
            show: prints.
            verify: tell what is missing.
            request_replay: ask for it.
        """
        places = [f"{broker.host}:{broker.port}" for broker in brokers]
        self.where = f"the broker{'s' if places[1:] else ''} at {' and '.join(places)}"
        poles, datasets = _distinct(poles), _distinct(datasets)
        self.topics = [f"{prefix}/{pole}/data/{dataset}" for pole in poles for dataset in datasets]
        if request_replay:
            self.topics += [f"{prefix}/{pole}/event/replay" for pole in poles]
        self._brokers = brokers
        self._prefix = prefix
        self._show = show
        self._watch = Watch() if verify else None
        self._mending = Mending(self._watch, brokers[0].client) if self._watch and request_replay else None
        self._clock = Clock()
        self._dialling: asyncio.Future[Link] | None = None

    @property
    def is_dialling(self) -> bool:
        """Tell whether a connection is being made still."""
        return self._dialling is not None and not self._dialling.done()

    async def run(self, end: Coroutine[Any, Any, None]) -> int:
        """Print until the end has come, and return the exit code.

        Raises:
            NotAuthorised: the broker does not let us in.
            UplinkDown: it was never there.
            Refused: it does not let us subscribe.
        """
        await _first_of(self._listen(), end)
        if self._watch is None:
            return 0
        self._show.sums(self._watch.tracks)
        return int(any(track.holes for track in self._watch.tracks.values()))

    async def _listen(self) -> None:
        link = await self._dial()
        self._say(f"connected to {self.where}; what comes to {' and '.join(self.topics)}:")
        while True:
            try:
                await _first_of(self._hear(link), self._look(link))
            except UplinkDown as error:
                self._say(f"{error}; connecting again")
            finally:
                await link.close()
            link = await self._dial_again()
            self._say("connected again; what was sent meanwhile did not come")

    async def _dial(self) -> Link:
        self._dialling = asyncio.ensure_future(_first_to_let_in(self._brokers))
        return await asyncio.shield(self._dialling)

    async def _dial_again(self) -> Link:
        retry, wait = retry_if_exception_type(UplinkDown), wait_random_exponential(max=LONGEST_PAUSE_S)
        return await AsyncRetrying(retry=retry, wait=wait)(self._dial)

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


async def _first_to_let_in(brokers: Iterable[Broker]) -> Link:
    """Connect to the best broker that there is. Raises UplinkDown."""
    failed: list[UplinkDown] = []
    for broker in brokers:
        try:
            return await _connected(broker)
        except UplinkDown as error:
            failed.append(error)
    raise next((error for error in failed if isinstance(error, NotAuthorised)), failed[-1])


async def _connected(broker: Broker) -> Link:
    """Connect with MQTT 5, else with 3.1.1. Raises UplinkDown."""
    try:
        return await _speak(broker, Version.V5)
    except OtherVersion as error:
        try:
            return await _speak(broker, Version.V311)
        except OtherVersion:
            raise error from None


async def _speak(broker: Broker, version: Version) -> Link:
    link = Link(broker, will=None, version=version, unheard=0)
    await link.connect()
    return link


async def _end(seconds: float | None) -> None:
    """Wait until SIGINT or SIGTERM comes, or the time is over."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def _first_of(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run until one of them ends, and end the others. Raises what that one raised."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()

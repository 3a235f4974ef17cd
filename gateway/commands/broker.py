"""Where the broker is, for commands that speak to one: options, connection, and what is told where there is none."""

import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import click
from pydantic import ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from gateway import shares
from gateway.config.faults import from_pydantic
from gateway.config.settings import PoleSettings, Root, Settings, UplinkSettings
from gateway.config.toml_text import quoted
from gateway.host import log
from gateway.link.broker import (
    Broker,
    CertificateRefused,
    NotAuthorised,
    NotRead,
    NotTrusted,
    OtherVersion,
    Refused,
    UplinkDown,
)
from gateway.link.mqtt_link import Link, Version

EX_UNAVAILABLE, EX_NOPERM = 69, 77  # sysexits.h
LONGEST_PAUSE_S = 10.0
EXISTING = click.Path(exists=True, dir_okay=False, resolve_path=True)
WHERE = "Where the broker is: mqtts://HOST[:PORT], or mqtt:// without TLS."

Command = TypeVar("Command", bound=Callable[..., Any])

ACCESS = (
    click.option("--username", metavar="NAME", help="The MQTT user."),
    click.option("--password-file", metavar="FILE", type=EXISTING, help="The file that holds the password."),
    click.option("--ca-file", metavar="FILE", type=EXISTING, help="The CA that signed the broker's certificate (PEM)."),
    click.option(
        "--cert-file", metavar="FILE", type=EXISTING, help="Your certificate (PEM), for a broker that asks for one."
    ),
    click.option("--key-file", metavar="FILE", type=EXISTING, help="The private key of that certificate (PEM)."),
    click.option("--prefix", metavar="TOPIC", help="What all topics of poles begin with, if not pole/1."),
)


def access(command: Command) -> Command:
    """Give a command the options that say how to get into a broker."""
    for option in reversed(ACCESS):
        command = option(command)
    return command


def made_of(url: str, given: dict[str, Any]) -> Settings:
    """Make settings of what a command says of the broker. Raises UsageError."""
    uplink = {key: value for key, value in given.items() if value is not None}
    if ("username" in uplink) != ("password_file" in uplink):
        raise click.UsageError("--username and --password-file belong together")
    try:
        root = Root(pole=PoleSettings(id="operator"), uplink=UplinkSettings.model_validate({"url": url} | uplink))
    except ValidationError as error:
        found = "; ".join(text for _, text in from_pydantic(error, UplinkSettings))
        for key in ("ca_file", "cert_file", "key_file", "prefix"):
            found = found.replace(f'"{key}"', f"--{key.replace('_', '-')}")
        raise click.UsageError(found.replace('"url"', "--broker")) from None
    return Settings(root, (), ())


class Place:
    """A broker, or several of which the best that is there counts, and how we come to it.

    Attributes:
        text: which, in words.
        prefix: what all topics of poles begin with.
        client: our client id.
    """

    def __init__(self, brokers: Sequence[Broker], prefix: str, step: str) -> None:
        """Make it.

        Args:
            brokers: where they are, the best first.
            prefix: what all topics of poles begin with.
            step: what to do where none of them lets us in.
        """
        self._brokers = brokers
        self._step = step
        self._dialling: asyncio.Future[Link] | None = None
        self.client = brokers[0].client
        self.prefix = prefix
        places = [f"{broker.host}:{broker.port}" for broker in brokers]
        self.text = f"the broker{'s' if places[1:] else ''} at {' and '.join(places)}"

    @classmethod
    def of(cls, settings: Settings, name: str, step: str) -> "Place":
        """Make the place that settings name; ``name`` is the begin of our client id."""
        client = f"polegate-{name}-{secrets.token_hex(4)}"  # that of a pole would end the pole's connection
        brokers = [replace(broker, client=client) for broker in shares.brokers(settings)]
        return cls(brokers, settings.root.uplink.prefix, step)

    async def dial(self) -> Link:
        """Connect. Raises UplinkDown, NotAuthorised."""
        self._dialling = asyncio.ensure_future(_first_to_let_in(self._brokers))
        return await asyncio.shield(self._dialling)

    async def dial_again(self) -> Link:
        """Connect, however long that takes."""
        retry, wait = retry_if_exception_type(UplinkDown), wait_random_exponential(max=LONGEST_PAUSE_S)
        return await AsyncRetrying(retry=retry, wait=wait)(self.dial)

    def run(self, work: Coroutine[Any, Any, int], doing: str) -> int:
        """Run a command's work and return its exit code; tell where the broker is not there or lets nobody in.

        Args:
            work: what is run.
            doing: what it does there, as in "the broker does not let you ...".
        """
        log.start(logging.ERROR)  # what is wrong is said here
        with asyncio.Runner() as runner:
            try:
                code = runner.run(work)
            except NotAuthorised as error:
                click.echo(f"{self.text} does not let {self._not_in(error)}", err=True)
                return EX_NOPERM
            except Refused as error:
                click.echo(f"{self.text} does not let you {doing}: {error}", err=True)
                return EX_NOPERM
            except (NotRead, NotTrusted) as error:  # which tell the next step
                click.echo(f"{self.text} cannot be reached: {error}", err=True)
                return EX_UNAVAILABLE
            except UplinkDown as error:
                click.echo(
                    f"{self.text} cannot be reached: {error}; check the address, and that the broker runs", err=True
                )
                return EX_UNAVAILABLE
            if self._dialling is not None and not self._dialling.done():
                sys.stdout.flush()  # it dials in a thread that nothing can end, and that would be waited for
                os._exit(code)
            return code

    def _not_in(self, error: NotAuthorised) -> str:
        """Tell who is not let in, why, and the next step."""
        first = self._brokers[0]
        if isinstance(error, CertificateRefused):
            return f"you in: {error}"
        if first.password_file:
            step = f"see that {first.password_file} holds the password of that user, and that the broker knows both"
            return f"the user {quoted(first.username)} in; {step}"
        return f"anybody without a user in; {self._step}"


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


async def stopped() -> None:
    """Wait until SIGINT or SIGTERM comes."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


async def first_of(*jobs: Coroutine[Any, Any, None]) -> None:
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

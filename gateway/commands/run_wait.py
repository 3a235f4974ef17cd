"""What ``polegate run`` does where there is no configuration yet, or one with faults.

A file without a setting, as the package brings it, is as good as none.

A person at a shell is told the faults, and it ends: he is there to mend them. As a service it stays and looks at the
file again and again, because nobody may be there to start it: what was put into the pole without a configuration, or
by somebody who mistyped, works from the moment the file is right. ``systemctl status`` shows what is missing; of a
service that ends and is started anew it would show that it fails.

A pole that ran before does not wait for him: what was in force last goes on, and the faults are told as those of any
edit. So it is whatever is wrong with the file, be it no TOML, no text or not to be read; only one that is not there
says that this pole is not to run.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.config.faults import NotProvisioned, SettingsError
from gateway.config.settings import STATE, BufferSettings, Settings
from gateway.config.settings_file import load, settings_of
from gateway.config.toml_file import LARGEST_BYTES, TomlFile
from gateway.config.toml_syntax import Unreadable, parse
from gateway.host.notify import watchdog_s
from gateway.jobs.tell_watchdog import FEEDS
from gateway.remote.config_folder import ConfigFolder, NewerState

LOOK_S = 5.0
ENDING = signal.SIGTERM, signal.SIGINT

log = structlog.get_logger()


def is_service() -> bool:
    """Tell whether systemd waits to hear how this process does."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def last_good(path: Path) -> Settings | None:
    """Return what the file said when it was in force last; None where that is not known, or there is no file."""
    place = _state_folder(path)
    if place is None:
        return None
    try:
        own = ConfigFolder(place).own()
        return None if own is None else settings_of(TomlFile(path, own))
    except (NewerState, SettingsError):
        return None


def _state_folder(path: Path) -> Path | None:
    """Find the folder of what was in force, as far as a file with faults tells it; None: there is no file."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES).decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return None
    except OSError:
        text = ""
    state, database = _key(text, "remote", "state"), _key(text, "buffer", "path")
    return Path(state) if state else Path(database or BufferSettings().path).parent / STATE


def _key(text: str, section: str, key: str) -> str:
    """Return a key of a section; of a file that is no TOML where its line is sound; "" where it is not there."""
    with contextlib.suppress(Unreadable):
        return _found(f"{text}\n", section, key)
    header = ""
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            header = line
        elif key in line:
            with contextlib.suppress(Unreadable):
                if value := _found(f"{header}\n{line}\n", section, key):
                    return value
    return ""


def _found(text: str, section: str, key: str) -> str:
    """Return a text of a section; "" where there is none. Raises Unreadable."""
    found = parse(text).get(section)
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) and "\0" not in value else ""


async def wait_for(path: Path, tell: Callable[[str], None]) -> Settings | None:
    """Return the settings once the file holds some without a fault; None: the service is to end before that.

    Args:
        path: the configuration.
        tell: tells systemd.
    """
    loop = asyncio.get_running_loop()
    end, look = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        end.set()
        look.set()

    for number in ENDING:
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, look.set)
    try:
        return await _look_until(path, tell, end, look)
    finally:
        for number in (*ENDING, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _look_until(
    path: Path, tell: Callable[[str], None], end: asyncio.Event, look: asyncio.Event
) -> Settings | None:
    pause = min(LOOK_S, (watchdog_s() or LOOK_S) / FEEDS)
    told = ""
    while not end.is_set():
        look.clear()
        try:
            return load(path)
        except SettingsError as error:
            if str(error) != told:
                told = str(error)
                _say(error, tell)
        tell("WATCHDOG=1")
        try:
            async with asyncio.timeout(pause):
                await look.wait()
        except TimeoutError:
            pass
    tell("STOPPING=1")
    return None


def _say(error: SettingsError, tell: Callable[[str], None]) -> None:
    faults = [str(fault) for fault in error.faults]
    if isinstance(error, NotProvisioned):
        log.warning("not provisioned: there is no configuration", why=faults[0], hint="Write it; it is then taken.")
        tell(f"READY=1\nSTATUS=not provisioned: {faults[0]}; it is taken once it is written")
        return
    for fault in faults:
        log.error("the configuration has a fault", fault=fault)
    more = f" (and {len(faults) - 1} more, see the log)" if faults[1:] else ""
    tell(f"READY=1\nSTATUS=waits for a configuration without faults: {faults[0]}{more}")

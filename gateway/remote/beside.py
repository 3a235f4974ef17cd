"""What is in force on this pole, for commands beside the gateway: they read what it keeps, and never write that."""

from pathlib import Path
from typing import NamedTuple

from gateway.config.faults import Fault, SettingsError
from gateway.config.settings_file import load
from gateway.config.toml_file import read, user
from gateway.host.clock import Clock
from gateway.remote.config_folder import ConfigFolder, NewerState
from gateway.remote.config_state import State
from gateway.remote.override import Override
from gateway.remote.settings_layers import Configuration, compose
from gateway.remote.verdict import Rejected

NS = 1_000_000_000


class NotReadable(SettingsError):
    """What the gateway keeps of documents and overrides cannot be read."""


class Seen(NamedTuple):
    """What is in force.

    Attributes:
        folder: where its documents are.
        state: which of them are in force.
        found: what they come to.
        overrides: those that have not ended.
    """

    folder: ConfigFolder
    state: State
    found: Configuration
    overrides: list[Override]


def in_force(path: Path, *more: Override, edited: bool = False) -> Seen:
    """Compose what is in force on this pole.

    Args:
        path: the pole's own file.
        more: overrides that are laid on top.
        edited: take that file as it is now, though the gateway may have to take it yet.

    Raises:
        SettingsError: the file has faults, alone or with what lies over it.
        NotReadable: what lies over it cannot be read.
    """
    place = load(path).root.state
    folder = ConfigFolder(place)
    try:
        folder.must_be_readable()
        state = folder.load()
        own, documents = folder.layers(state)
        overrides = [*live(folder, Clock()), *more]
        text = read(path) if own is None or edited else own
        return Seen(folder, state, compose(path, text, documents, overrides), overrides)
    except PermissionError as error:
        raise NotReadable([Fault(str(place), 0, f"may not be read by user {user()}; try sudo")]) from error
    except (NewerState, ValueError) as error:
        raise NotReadable([Fault(str(place), 0, str(error))]) from error
    except Rejected as error:
        raise SettingsError([Fault(str(place), 0, str(error))]) from error


def live(folder: ConfigFolder, clock: Clock) -> list[Override]:
    """Return the overrides that have not ended. Raises ValueError where their file is damaged."""
    boottime = clock.now() / NS
    utc = boottime + clock.utc_offset() / NS
    return [each for each in folder.overrides() if not each.is_over(clock.boot, boottime, utc)]

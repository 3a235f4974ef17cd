"""What of the pole's own file has no effect, in words: at its line, with what holds instead and the next step."""

import datetime as dt
from collections.abc import Iterator, Sequence

from gateway.config.faults import Fault
from gateway.config.layers import Drift, dotted
from gateway.config.toml_text import in_toml, quoted
from gateway.remote.override import Override
from gateway.remote.settings_layers import Configuration

PINS = "remote", "pins"


def told(found: Configuration, overrides: Sequence[Override]) -> list[Fault]:
    """Tell of every key that does not have the value one may expect.

    Args:
        found: what is in force.
        overrides: those of which it is made.
    """
    return sorted(_told(found, each, overrides) for each in found.merged.drift)


def _told(found: Configuration, drift: Drift, overrides: Sequence[Override]) -> Fault:
    merged, key = found.merged, drift.key
    name = dotted(key)
    match drift.standing:
        case "SHADOWED":
            value = in_toml(merged.origin[key].entries[key].value)
            step = f"to keep yours, write {quoted(name)} into `pins` in [remote]"
            return _at(found, drift, f"is SHADOWED: {drift.by} sets {value}; {step}")
        case "PINNED":
            document = merged.pinned[key]
            value = in_toml(document.entries[key].value)
            text = f"{name} is PINNED: {document.name} sets {value} in vain; to take that, remove the pin"
            return merged.local.fault(PINS, text) or Fault(merged.name, 0, text)
        case "OVERRIDDEN":
            return _at(found, drift, "; ".join(_overridden(name, overrides)))


def _overridden(name: str, overrides: Sequence[Override]) -> Iterator[str]:
    for each in overrides:
        if each.key == name:
            until = dt.datetime.fromtimestamp(each.until, dt.UTC)
            yield f"is OVERRIDDEN with {each.value} until {until:%Y-%m-%d %H:%M} UTC, for: {each.why}"
    yield f"polegate override end {name} ends that"


def _at(found: Configuration, drift: Drift, text: str) -> Fault:
    """Blame the key in the pole's own file, or the file where the key does not stand in it."""
    local, key = found.merged.local, drift.key
    if local.file is None or key not in local.entries:
        return Fault(found.merged.name, 0, f"{dotted(key)} {text}")
    return local.file.fault(local.entries[key].place, f'"{key[-1]}" {text}')

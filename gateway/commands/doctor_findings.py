"""What is well with a pole and what is not, from what its gateway tells and the file says; each with the next step.

Nothing is judged here that the gateway judges: what is wrong, and what to do, are its own words.
"""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from gateway.config.settings import Settings
from gateway.config.toml_file import read
from gateway.jobs.signs import CORRECT
from gateway.remote.config_state import LOCAL
from gateway.remote.document import digest
from gateway.words.messages import ConfigStream, Reported, SignState, Status

SEE = "See {} in [uplink]{}; readings are kept until the broker is back."
OPENING = "username", "password_file", "ca_file", "cert_file", "key_file"  # keys of what opens the broker
JOURNAL = "See that there is room: df -h /run. It is tried again by itself."
ROOM = 'Raise `max_bytes` in [buffer], or see why the broker was away for so long: journalctl -u polegate -g "uplink".'
RELOAD = "sudo systemctl reload polegate takes it, on trial."
OVERRIDE = "polegate override end KEY --config FILE ends the one that does not fit."
ANOTHER = "The operators must send another one, with a higher seq."
WAIT = "Wait: what does worse than what ran before goes back by itself."


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        level: ``wrong``: there is something to do; ``note``: one should know it.
        subject: what it is about.
        text: how it is.
        step: what to do; "" for nothing.
    """

    level: Literal["ok", "note", "wrong"]
    subject: str
    text: str
    step: str = ""


def of_gateway(status: Status, path: Path, settings: Settings | None) -> Iterator[Finding]:
    """Tell all of a gateway that answers.

    Args:
        status: what it answers.
        path: the configuration file.
        settings: what that says; None: it has faults, or this user may not read it.
    """
    yield Finding("ok", "gateway", f"polegate {status.version} runs for {_span(status.uptime)}")
    yield from _of_configuration(status, path, settings)
    yield from _of_devices(status)
    yield from _of_uplink(status)
    yield from _of_buffer(status)
    yield from _of_signs(status, "clock")


def _of_configuration(status: Status, path: Path, settings: Settings | None) -> Iterator[Finding]:
    told, details = status.configuration, status.details
    yield Finding("ok", "configuration", f"{told.digest} runs since {utc(told.since)}")
    if told.trial is not None:
        of = details.reported.trial if details.reported else None
        name = _name(of.stream, of.seq) if of else "it"
        yield Finding("note", "configuration", f"{name} is on trial; {told.trial:.0f} s are left at the most", WAIT)
    if told.last:
        why = f": {told.last.why}" if told.last.why else ""
        yield Finding("note", "configuration", f"the last change was {told.last.result} at {utc(told.last.at)}{why}")
    yield from (finding for finding in _of_signs(status, "configuration") if finding.level != "ok")
    if details.reported:
        yield from _of_documents(details.reported)
    for line in details.drift:
        yield Finding("note", "configuration", line)
    if settings and _is_edited(status, path):
        yield Finding("wrong", "configuration", f"{path} was edited since the gateway read it", RELOAD)


def _of_documents(reported: Reported) -> Iterator[Finding]:
    for name, stream in reported.streams.items():
        yield _of_stream(name, stream)
    last = reported.last
    if last and (last.stream, last.text) not in {(name, each.why) for name, each in reported.streams.items()}:
        seq = f" seq {last.seq}" if last.seq else ""
        yield Finding("note", "configuration", f"told last: {last.stream}{seq}: {last.name}: {last.text}")
    if reported.trouble:
        text = f"the overrides are left out, since they do not fit any more: {reported.trouble}"
        yield Finding("wrong", "configuration", text, OVERRIDE)


def _of_stream(name: str, stream: ConfigStream) -> Finding:
    what = _name(name, stream.seq)
    own = "the file as it was before" if stream.fate or stream.waits else "the file"
    in_force = own if name == LOCAL else f"{name} seq {stream.active_seq}"
    runs = f"{in_force} is in force" if stream.active else f"nothing of {name} is in force"
    if stream.fate:
        text = f"{what} did not come into force: {stream.fate}: {stream.why}; {runs}"
        return Finding("wrong", "configuration", text, CORRECT if name == LOCAL else ANOTHER)
    if stream.waits:
        return Finding("note", "configuration", f"{what} waits, or is on trial; {runs}")
    return Finding("ok", "configuration", runs)


def _name(stream: str, seq: int) -> str:
    return "the edited file" if stream == LOCAL else f"{stream} seq {seq}"


def _is_edited(status: Status, path: Path) -> bool:
    """Tell whether the file is not the one that the gateway has read last."""
    reported = status.details.reported
    local = reported.streams.get(LOCAL) if reported else None
    return local is not None and digest(read(path).encode()) != local.sha  # as the gateway reads it


def _of_devices(status: Status) -> Iterator[Finding]:
    signs = {sign.subject: sign for sign in status.details.signs if sign.event == "device"}
    good = 0
    for name, device in status.devices.items():
        sign = signs.get(name)
        if sign and sign.code:
            yield _of_sign(sign)
        elif device.age is None:
            yield Finding(
                "note",
                f"device {name}",
                "it gave nothing yet",
                "Wait: what keeps it from that is told within a minute.",
            )
        else:
            good += 1
    if good:
        yield Finding("ok", "devices", f"{good} of {len(status.devices)} give values")
    if not status.devices:
        yield Finding("note", "devices", "there is no [[device]]: the pole reports only its own state")


def _of_uplink(status: Status) -> Iterator[Finding]:
    uplink = status.uplink
    if uplink.up:
        yield Finding("ok", "uplink", f"connected to {uplink.broker}, MQTT {uplink.mqtt}")
    else:
        yield Finding("wrong", "uplink", f"there is no link to a broker: {uplink.trouble}", _to_see(uplink.trouble))
    if uplink.note:
        yield Finding("note", "uplink", uplink.note)
    if uplink.certificate_expires is not None:
        yield Finding("ok", "certificate", f"it ends {utc(uplink.certificate_expires)}")
    yield from (finding for finding in _of_signs(status, "uplink") if finding.level != "ok")


def _to_see(trouble: str) -> str:
    """Return where to look: the keys that the trouble names; where it names none, it may be anything on the way."""
    keys = " and ".join(f"`{key}`" for key in OPENING if re.search(rf"\b{key}\b", trouble))
    return SEE.format(keys, "") if keys else SEE.format("`url`", ", the network of the pole, and the broker")


def _of_buffer(status: Status) -> Iterator[Finding]:
    buffer = status.buffer
    text = f"{buffer.packs} packs of {buffer.readings} values wait, {buffer.stored} of them on the disk"
    yield Finding("ok", "buffer", text)
    if buffer.dropped:
        text = f"{buffer.dropped} packs of {buffer.dropped_readings} values had to give way since the start"
        yield Finding("note", "buffer", text, ROOM)
    if buffer.journal != "ok":
        text = f"a crash would lose what is not on the disk yet: {buffer.journal}"
        yield Finding("wrong", "journal", text, JOURNAL)
    yield from _of_signs(status, "buffer")


def _of_signs(status: Status, event: str) -> Iterator[Finding]:
    return (_of_sign(sign) for sign in status.details.signs if sign.event == event)


def _of_sign(sign: SignState) -> Finding:
    if not sign.code:
        return Finding("note" if sign.hint else "ok", _subject(sign), sign.text, sign.hint)
    level: Literal["note", "wrong"] = "note" if sign.is_normal else "wrong"
    return Finding(level, _subject(sign), f"{sign.code} since {utc(sign.since)}: {sign.text}", sign.hint)


def _subject(sign: SignState) -> str:
    kinds = {"device": "device ", "uplink": "dataset "}
    others = {("uplink", "certificate"): "certificate", ("buffer", "dead"): "dead letters"}
    return others.get((sign.event, sign.subject)) or kinds.get(sign.event, "") + sign.subject


def utc(at: float) -> str:
    """Write a time, seconds since 1970, for people."""
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(seconds: int) -> str:
    return str(dt.timedelta(seconds=seconds))

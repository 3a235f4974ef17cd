"""What of the settings each part is handed, in plain values; and what two settings differ in."""

import hashlib
import json
from collections.abc import Mapping

from drivers.contract import OnPort
from gateway.config.settings import Settings
from gateway.link.broker import Broker
from gateway.link.tls import TlsFiles
from gateway.sensors.crew import Roster, Way
from gateway.store.pack_room import Terms
from gateway.words.catalogue import Site, Source
from gateway.words.transition import Transitions

DIGEST_DIGITS = 12
RESTART = "sudo systemctl restart polegate"
REMOTE = "enabled", "trust", "state"  # what of [remote] holds from start to end


def brokers(settings: Settings) -> list[Broker]:
    """Tell where the brokers are and how to get in, the best first."""
    uplink = settings.root.uplink
    files = TlsFiles(ca=uplink.ca_file, cert=uplink.cert_file, key=uplink.key_file)
    return [
        Broker(
            host=broker.host,
            port=broker.port,
            tls=files if broker.tls else None,
            path=broker.path,
            client=settings.root.pole.id,
            username=uplink.username or settings.root.pole.id,
            password_file=uplink.password_file,
        )
        for broker in uplink.brokers
    ]


def way(settings: Settings, port: str) -> Way:
    """Tell what the line of a [port] section is."""
    section = settings.root.port[port]
    return Way(tcp=section.tcp) if section.tcp else Way(section.path, settings=settings.line(port))


def roster(settings: Settings) -> Roster:
    """Tell who is to be read, and by what."""
    ports = dict.fromkeys(device.port for device in settings.devices if isinstance(device, OnPort))
    return Roster(settings.devices, {port: way(settings, port) for port in ports}, settings.root.bluetooth.adapter)


def site(settings: Settings) -> Site:
    """Tell where the pole stands."""
    pole = settings.root.pole
    return Site(pole.description, pole.latitude, pole.longitude)


def sources(settings: Settings) -> tuple[Source, ...]:
    """Tell what the catalogue describes: the devices, and what becomes of changes of the configuration."""
    return (*settings.devices, Transitions())


def licences(settings: Settings) -> dict[str, dict[str, str]]:
    """Tell of each dataset that is described on what terms others may use it."""
    return {name: _licence(settings, name) for name in {source.home for source in sources(settings)}}


def terms(settings: Settings) -> dict[str, Terms]:
    """Tell of each dataset how it fares when the buffer is full."""
    names = {*settings.root.dataset, *(device.home for device in settings.devices)}
    return {name: Terms(settings.dataset(name).priority, settings.dataset(name).when_full) for name in names}


def touched(old: Settings, new: Settings) -> set[str]:
    """Name the datasets that are packed or described in another way."""
    names = {source.home for source in (*sources(old), *sources(new))}
    return {name for name in names if _of_dataset(old, name) != _of_dataset(new, name)}


def renamed(old: Settings, new: Settings) -> Mapping[str, str]:
    """Tell which devices have another id and are equal else: old to new."""
    left = {device.id: device for device in old.devices}
    came = {device.id: device for device in new.devices}
    pairs = {}
    for name in left.keys() - came.keys():
        for other in came.keys() - left.keys():
            if left[name].model_copy(update={"id": other}) == came[other]:
                pairs[name] = other
    return pairs


def needs_restart(old: Settings, new: Settings) -> str:
    """Tell why the one cannot take the place of the other while the gateway runs; "" where it can."""
    before, after = _fixed(old), _fixed(new)
    if not (changed := [key for key in before if before[key] != after[key]]):
        return ""
    return f"{' and '.join(changed)} cannot be changed while the gateway runs; {RESTART}"


def digest(settings: Settings) -> str:
    """Return what stands for the content of settings."""
    content = [settings.root.model_dump(mode="json", exclude={"device"})]
    content += [device.model_dump(mode="json") for device in settings.devices]
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def _fixed(settings: Settings) -> dict[str, object]:
    """Return what holds from the start of the gateway to its end."""
    root = settings.root
    return {
        '"id" in [pole]': root.pole.id,
        '"prefix" in [uplink]': root.uplink.prefix,
        **{f'"{key}" in [buffer]': value for key, value in root.buffer},
        **{f'"{key}" in [remote]': value for key, value in root.remote if key in REMOTE},
    }


def _licence(settings: Settings, dataset: str) -> dict[str, str]:
    section = settings.dataset(dataset)
    facts = {"owner": section.owner, "licence": section.licence, "access": section.access}
    return {key: fact for key, fact in facts.items() if fact}


def _of_dataset(settings: Settings, name: str) -> object:
    return site(settings), settings.dataset(name), {each.id: each for each in settings.devices if each.home == name}

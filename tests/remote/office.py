"""An operator's folder: keys, a root of trust, a document; and what lies at the broker."""

import base64
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway.remote import document, ed25519, envelope, trust_root
from gateway.remote.document import Document
from gateway.remote.ed25519 import PrivateKey
from gateway.remote.envelope import ROOT_TYPE, Envelope, Signature
from tests.commands.cli_scene import Ran, call

OLD, NEW, BAD = "[dataset.air]\npriority = 3\n", "[dataset.air]\npriority = 7\n", "[dataset.air]\npriority = 9\n"
LIMIT_S = 60.0
EPOCH = 1_700_000_000


class Office:
    """The folder, and the commands that are run in it.

    Attributes:
        folder: where all of it lies.
        port: of the broker.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._public: dict[str, str] = {}
        self._numbers = itertools.count()
        for name in ("r1", "c1", "c2", "x", "cmd"):
            pem = ed25519.new_private_key()
            (folder / name).write_bytes(pem)
            self._public[name] = base64.b64encode(PrivateKey(pem).public).decode()
        self.root("root.json")

    def root(self, name: str, version: int = 1, epoch: int = 1, operators: Sequence[str] = ("c1", "c2")) -> None:
        """Sign a root of trust."""
        keys = {name: self._public[name] for name in ("r1", "cmd", *operators)}
        both = {"keys": list(operators), "threshold": len(operators)}
        roles = {
            "root": {"keys": ["r1"], "threshold": 1},
            "fleet": both,
            "group": both,
            "pole": {"keys": list(operators), "threshold": 1},
            "command": {"keys": ["cmd"], "threshold": 1},
        }
        content = {"version": version, "epoch": epoch, "issued": EPOCH, "keys": keys, "roles": roles}
        bare = Envelope(ROOT_TYPE, trust_root.written(content))
        key = PrivateKey((self.folder / "r1").read_bytes())
        sealed = Envelope(ROOT_TYPE, bare.payload, [Signature("r1", key.sign(bare.signed))])
        (self.folder / name).write_bytes(sealed.written())

    def document(self, layer: str, /, **more: object) -> Path:
        """Write a document, and the layer that it names."""
        path = self.folder / "document.toml"
        path.with_suffix(".layer").write_text(layer)
        content = {"stream": "fleet", "valid": "7d", "settings": f"{path.stem}.layer", **more}
        path.write_text("".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in content.items()))
        return path

    def signed(self, layer: str, seq: int, *keys: str, **more: object) -> Path:
        """Sign a document."""
        path = self.document(layer, seq=seq, **more)
        out = self.folder / f"signed-{next(self._numbers)}.json"
        ran = call("fleet", "sign", str(path), *self.keys(*(keys or ("c1", "c2"))), "--out", str(out))
        assert ran.code == 0, ran.err
        return out

    def keys(self, *names: str) -> list[str]:
        """Return the options that name keys."""
        return [text for name in names for text in ("--key", str(self.folder / name))]

    def at_broker(self, *, root: str = "root.json") -> list[str]:
        """Return the options that name root and broker."""
        return ["--root", str(self.folder / root), *self.broker()]

    def broker(self) -> list[str]:
        """Return the options that name the broker."""
        return ["--broker", f"mqtt://127.0.0.1:{self.port}"]

    def publish(self, path: Path, *more: str, root: str = "root.json") -> Ran:
        """Run ``fleet publish``."""
        return call("fleet", "publish", str(path), *self.at_broker(root=root), *more)

    def rollout(self, path: Path, *more: str, keys: Sequence[str] = ("c1", "c2")) -> Ran:
        """Run ``fleet rollout``."""
        return call("fleet", "rollout", str(path), *self.keys(*keys), *self.at_broker(), *more)

    def lies(self, topic: str = "fleet/1/config/all") -> bytes:
        """Return what is retained at the broker; empty: nothing."""
        came: list[bytes] = []
        done = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)

        def hear(_: object, __: object, message: mqtt.MQTTMessage) -> None:
            if message.topic == "end":
                done.set()
            elif message.retain:
                came.append(bytes(message.payload))

        client.on_message = hear
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        client.subscribe([(topic, 1), ("end", 1)])
        client.publish("end", b"", 1)  # comes behind what is retained
        assert done.wait(LIMIT_S)
        client.disconnect()
        client.loop_stop()
        return b"".join(came)

    def document_there(self, topic: str = "fleet/1/config/all") -> Document:
        """Return the document that is retained at the broker."""
        return document.parsed(envelope.read(self.lies(topic)).payload)

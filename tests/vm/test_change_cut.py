"""The power goes while a change of the configuration is under way, over the air or by an edit, at random moments.

After each cut the pole comes back with the old configuration or the new one, says which, sends again, and settles. The
owner and the licence in the catalogue tell which one runs: documents set the one, edits the other.
"""

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.vm.guest import HOST, Guest
from tests.vm.image import Image
from tests.vm.scene import LIMIT_S, POLE, Site, provision

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

CHANGES = 8
LONGEST_S = 15.0
TWICE = 0.3  # the chance of a second cut
STREAM = f"pole/{POLE}"
REMOTE = "[remote]\nenabled = true\n[reload]\nuplink_within = 20\n"
ROLES = ("root", "fleet", "group", "pole", "command")
TERMS = "[trial]\nwindow_s = 60\nhold_s = 4\n"
NOWHERE = f'[uplink]\nurl = "mqtt://{HOST}:9"\n'  # discard: nobody listens there
RIGHT_TIME = "mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized"


class Operator:
    """Signs with the commands, publishes, and reads what the pole reports."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._reports: list[dict[str, Any]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="operator", protocol=mqtt.MQTTv5)
        self._client.on_message = lambda _c, _d, message: self._reports.append(json.loads(message.payload))
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(f"pole/1/{POLE}/config/reported", qos=1)
        self._client.loop_start()
        folder.mkdir()
        self._fleet("keygen", "key")
        public = (folder / "key.pub").read_text().strip()
        roles = "".join(f'[roles.{role}]\nkeys = ["k"]\nthreshold = 1\n' for role in ROLES)
        (folder / "root.toml").write_text(f'version = 1\nepoch = 1\n[keys]\nk = "{public}"\n{roles}')
        self._fleet("sign", "root.toml", "--key", "key", "--out", "root.json")

    def close(self) -> None:
        """Go."""
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def root(self) -> str:
        """The root of trust."""
        return (self._folder / "root.json").read_text()

    def send(self, seq: int, settings: str) -> None:
        """Sign a document and publish it."""
        (self._folder / "layer.toml").write_text(settings)
        head = f'stream = "{STREAM}"\nseq = {seq}\nvalid = "1d"\nsettings = "layer.toml"\n'
        (self._folder / "document.toml").write_text(head + TERMS)
        self._fleet("sign", "document.toml", "--key", "key", "--out", "signed.json")
        signed = (self._folder / "signed.json").read_bytes()
        self._client.publish(f"pole/1/{POLE}/config/desired", signed, qos=1, retain=True).wait_for_publish(LIMIT_S)

    def forget(self) -> None:
        """Forget what was reported until now."""
        self._reports.clear()

    @property
    def report(self) -> dict[str, Any]:
        """What was reported last."""
        return self._reports[-1] if self._reports else {}

    def _fleet(self, *arguments: str) -> None:
        command = [str(Path(sys.executable).parent / "polegate"), "fleet", *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder)  # noqa: S603  # ours


class Changes:
    """One pole whose configuration changes while its power is cut.

    Attributes:
        outcomes: what became of each change.
    """

    def __init__(self, guest: Guest, around: Site, operator: Operator, seed: int) -> None:
        self._guest = guest
        self._around = around
        self._operator = operator
        self._dice = random.Random(seed)  # noqa: S311  # it picks moments
        self._owner = self._licence = 0  # of what is in force
        self._text = around.configuration + REMOTE
        self.outcomes: list[str] = []

    def begin(self) -> None:
        """Give the gateway its configuration, and wait until it sends."""
        self._guest.write("/etc/polegate/trust/root.json", self._operator.root)
        provision(self._guest, self._text)
        self._guest.run("sh", "-c", RIGHT_TIME)
        self._sends()

    def send(self, seq: int, *, good: bool) -> None:
        """Send a document and cut the power at a moment."""
        self._operator.send(seq, f'[dataset.counts]\nowner = "owner-{seq}"\n' + ("" if good else NOWHERE))
        self._cut()
        stream = self._settled(STREAM, lambda stream: stream["seq"] == seq)
        assert good or stream["fate"], "what takes the broker away is in force"
        assert stream["active_seq"] == (self._owner if stream["fate"] else seq), stream
        self._owner = stream["active_seq"]
        self._tells(stream["fate"] or "COMMITTED", [self._licence])

    def edit(self, number: int) -> None:
        """Change the file, reload, and cut the power at a moment."""
        text = self._text.replace("[dataset.counts]\n", f'[dataset.counts]\nlicence = "licence-{number}"\n')
        self._guest.write("/etc/polegate/pole.toml", text)
        self._guest.run("systemctl", "reload", "polegate")
        self._cut()
        stream = self._settled("local", lambda _: True)
        self._tells(stream["fate"] or "edited", [self._licence if stream["fate"] else number])

    def _cut(self) -> None:
        """Cut the power, sometimes a second time as soon as it sends again, and wait until it does."""
        for _ in range(2 if self._dice.random() < TWICE else 1):
            time.sleep(self._dice.uniform(0, LONGEST_S))
            self._around.power_cut(self._guest)
            self._operator.forget()
            self._guest.boot()
            self._guest.run("sh", "-c", RIGHT_TIME)
            self._sends()

    def _sends(self) -> None:
        self._guest.wait(lambda: self._operator.report, LIMIT_S, "it does not report its configuration")
        self._around.all_come()

    def _settled(self, name: str, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until nothing is tried or waits to be, and return what is told of a stream."""

        def settled() -> bool:
            report = self._operator.report
            streams = report["streams"]
            waits = "trial" in report or any(stream["waits"] for stream in streams.values())
            return not waits and name in streams and is_it(streams[name])

        self._guest.wait(settled, LIMIT_S, f"it does not settle: {self._operator.report}")
        stream: dict[str, Any] = self._operator.report["streams"][name]
        return stream

    def _tells(self, outcome: str, licences: list[int]) -> None:
        """Wait until the catalogue says what runs; readings come under it."""

        def told() -> tuple[int, int]:
            text = json.dumps(self._around.heard.catalogues["counts"])
            owner, licence = (re.search(rf"{word}-(\d+)", text) for word in ("owner", "licence"))
            return int(owner[1]) if owner else 0, int(licence[1]) if licence else 0

        self.outcomes.append(outcome)
        wanted = [(self._owner, licence) for licence in licences]
        self._guest.wait(lambda: told() in wanted, LIMIT_S, f"{self.outcomes}: {wanted} is in force, and not told")
        self._licence = told()[1]
        self._around.all_come()


def test_after_a_cut_in_a_change_the_old_or_the_new_configuration_runs_and_nothing_is_lost(
    disk: Image, around: Site, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    operator = Operator(tmp_path / "operator", around.broker.port)
    try:
        with disk.booted(tmp_path / "guest") as guest:
            changes = Changes(guest, around, operator, seed=79)
            changes.begin()
            for number in range(1, CHANGES + 1):
                if number % 3:
                    changes.send(number, good=number % 4 != 0)
                else:
                    changes.edit(number)
            guest.wait(lambda: not around.lost(), LIMIT_S, "readings are lost")
            assert around.heard.holes() == {}
            assert around.invented() == {}
    finally:
        operator.close()
    record_property("outcomes", changes.outcomes)
    assert {"COMMITTED", "edited"} <= set(changes.outcomes)

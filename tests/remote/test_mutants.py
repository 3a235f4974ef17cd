"""The tests of configuration over the air find what is broken on purpose: each of these changes makes one fail."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
PARTS = "gateway", "drivers", "hil", "config", "tests", "pyproject.toml", "README.md"
TESTS_FAILED = 1


class Mutant(NamedTuple):
    """A change: where, what stands there once, and what stands there then."""

    file: str
    old: str
    new: str


COMMIT, INCOMING, LEDGER, THREAD = "confirmed_commit.py", "incoming.py", "config_ledger.py", "one_thread.py"
MUTANTS = {
    "no fsync of the file before the rename": Mutant("config_folder.py", "os.fsync(file)", "pass"),
    "no fsync of the folder": Mutant("config_folder.py", "os.fsync(folder)", "pass"),
    "written in place": Mutant("config_folder.py", "new = self._path / (name + NEW)", "new = self._path / name"),
    "one state slot": Mutant(
        "config_folder.py", "self._next = SLOTS[1 - SLOTS.index(self._next)]", "self._next = SLOTS[0]"
    ),
    "the state that is damaged is believed": Mutant(
        "config_folder.py", "if head != hashlib.sha256(body).hexdigest().encode():", "if not body:"
    ),
    "a document that is damaged is believed": Mutant(
        "config_folder.py", "payload is not None and digest(payload) == sha", "payload is not None"
    ),
    "applied before the journal": Mutant(
        COMMIT,
        "        await self._plant.find_way()\n",
        "        await self._plant.find_way()\n        await self._apply(wanted)\n",
    ),
    "the pole waits for the disk": Mutant(LEDGER, "return await thread.do(work)", "return work()"),
    "who is cancelled leaves the disk to it": Mutant(THREAD, "        return False", "        return super().cancel()"),
    "who is cancelled while he writes is not": Mutant(THREAD, "                task.cancel()", "                pass"),
    "who is cancelled once is cancelled twice": Mutant(THREAD, "task.uncancel()", "pass"),
    "a state that is being written is told": Mutant(
        LEDGER,
        "        await _on_thread(lambda: self._write(state))\n        self.state = self._saved = state",
        "        self.state = self._saved = state\n        await _on_thread(lambda: self._write(state))",
    ),
    "what was cut short is not applied again": Mutant("in_force.py", "self.is_applied = False  # until", "# until"),
    "a document does not wait for its turn": Mutant(
        INCOMING,
        "        async with self._ledger.turn:\n            return await self._hear(stream, raw)",
        "        return await self._hear(stream, raw)",
    ),
    "a root does not wait for its turn": Mutant(
        INCOMING,
        "        async with self._ledger.turn:\n            return await self._hear_root(raw)",
        "        return await self._hear_root(raw)",
    ),
    "a tick does not wait for its turn": Mutant(
        COMMIT,
        "async with self._ledger.turn:\n            await self._ledger.save_late()",
        "if True:\n            await self._ledger.save_late()",
    ),
    "an edit does not wait for its turn": Mutant(
        COMMIT,
        "async with self._ledger.turn:\n            self._may_restart = False",
        "if True:\n            self._may_restart = False",
    ),
    "a command does not wait for its turn": Mutant(
        COMMIT,
        "async with self._ledger.turn:\n                await self._obey",
        "if True:\n                await self._obey",
    ),
    "an end does not wait for its turn": Mutant(
        COMMIT,
        "async with self._ledger.turn:\n            if trial := self.state.trial:\n                await self",
        "if True:\n            if trial := self.state.trial:\n                await self",
    ),
    "no tombstone": Mutant("config_state.py", "waits=False, fate=code, why=why", "waits=False"),
    "the old is applied before the tombstone": Mutant(
        COMMIT,
        "        await self._end_trial(code, text)\n        await self._reapply(before)",
        "        self._ledger.state = self.state.but(trial=None)\n        await self._reapply(before)\n"
        "        self._ledger.load()\n        await self._end_trial(code, text)",
    ),
    "the trial ends in one write and its fate in another": Mutant(
        COMMIT,
        "await self._ledger.go_on(self.state.with_stream(trial.stream, standing).but(trial=None))",
        "await self._ledger.go_on(self.state.but(trial=None)); "
        "await self._ledger.go_on(self.state.with_stream(trial.stream, standing))",
    ),
    "committed when applied": Mutant(
        COMMIT,
        "            await self._apply(wanted)\n        except Unfit as error:\n            await self._roll",
        "            await self._apply(wanted)\n            await self._commit(self.state.trial)\n"
        "        except Unfit as error:\n            await self._roll",
    ),
    "attempts are not counted": Mutant(COMMIT, "attempts=trial.attempts + 1", "attempts=trial.attempts"),
    "a stop in order counts": Mutant(COMMIT, "attempts=trial.attempts - 1", "attempts=trial.attempts"),
    "what cannot be counted is tried": Mutant(
        COMMIT,
        'await self._end_trial(Code.STORAGE, f"its attempts cannot be counted, so it is not tried: {error}")',
        "del error",
    ),
    "a restart begins the window anew": Mutant(COMMIT, "if not same_boot:", "if True:"),
    "a boot keeps the deadline": Mutant(COMMIT, "if not same_boot:", "if False:"),
    "the highest number is not kept": Mutant(
        INCOMING, "seq, epoch = found.document.seq, found.document.epoch", "seq, epoch = 0, 0"
    ),
    "the document is written after its number": Mutant(
        INCOMING,
        "            await self._ledger.keep(found.payload)\n"
        "            floor = max(state.floor, found.document.issued)\n"
        "            await self._ledger.save(state.with_stream(stream, new).but(floor=floor))\n",
        "            floor = max(state.floor, found.document.issued)\n"
        "            await self._ledger.save(state.with_stream(stream, new).but(floor=floor))\n"
        "            await self._ledger.keep(found.payload)\n",
    ),
    "signatures are counted": Mutant(
        "envelope.py",
        "found = len(self.signers(keys))",
        "found = sum(ed25519.is_signed(k, s.signature, self.signed) for s in self.signatures for k in set(keys))",
    ),
    "the type is not bound": Mutant("envelope.py", "kind = self.kind.encode()", 'kind = b""'),
    "the type is not looked at": Mutant("envelope.py", "if kind is not None and envelope.kind != kind:", "if False:"),
    "the threshold is one": Mutant("envelope.py", "if found < threshold:", "if False:"),
    "a number that was used is accepted again": Mutant("admission.py", "if sha != standing.sha:", "if False:"),
    "older numbers are accepted": Mutant(
        "admission.py", "if (found.epoch, found.seq) < (standing.epoch, standing.seq):", "if False:"
    ),
    "what was taken back is accepted again": Mutant("admission.py", "if standing.fate:", "if False:"),
    "the clock raises the floor": Mutant(
        INCOMING, "floor = max(state.floor, found.document.issued)", "floor = self._plant.utc() or 0"
    ),
    "the floor is ignored": Mutant(INCOMING, "max(self._ledger.state.floor, self._trust.floor)", "0"),
    "the floor of the root is ignored": Mutant(
        INCOMING, "max(self._ledger.state.floor, self._trust.floor)", "self._ledger.state.floor"
    ),
    "a new epoch does not set the time right": Mutant(INCOMING, "root.issued if is_new_epoch else", ""),
    "a clock that is not set is believed": Mutant("admission.py", "if self.clock is None:", "if False:"),
    "signed in the future": Mutant("admission.py", "if found.issued > now.known():", "if False:"),
    "expiry is ignored": Mutant("document.py", "if now >= self.expires:", "if False:"),
    "not_before is ignored": Mutant("document.py", "if now < self.not_before:", "if False:"),
    "true is a number": Mutant(
        "document.py",
        "model_config = ConfigDict(frozen=True, strict=True, extra",
        "model_config = ConfigDict(frozen=True, strict=False, extra",
    ),
    "the stream is not bound to the topic": Mutant("admission.py", "if found.stream != stream:", "if False:"),
    "the epoch is ignored": Mutant("admission.py", "if epoch != root.epoch:", "if False:"),
    "a key of any role will do": Mutant(
        "trust_root.py",
        "signers = self.roles.get(role)",
        'signers = self.roles.get("pole" if role == "command" else role)',
    ),
    "a clean-up takes the trial's document": Mutant("config_state.py", 'self.trial.sha if self.trial else ""', '""'),
    "a clean-up takes what the other slot needs": Mutant(
        "config_folder.py", "for state in self._slots.values() for", "for state in [*self._slots.values()][:1] for"
    ),
    "the hold is not begun anew by a link that is": Mutant(COMMIT, "max(well_since, seen.since)", "well_since"),
    "what was proven before counts": Mutant("gates.py", "way.back is not None and way.back > applied_at", "True"),
    "silent devices do not count": Mutant(
        "gates.py", "set(trial.sensors) - set(plant.good_since(applied_at))", "set()"
    ),
    "devices that were dead count": Mutant("gates.py", "sorted(plant.well_in(wanted))", "sorted(wanted.patience_s)"),
    "it is tried before it is known what is well": Mutant(
        COMMIT, "and self._something_waits() and self._has_settled()", "and self._something_waits()"
    ),
    "what tells nothing is tried for ever": Mutant(COMMIT, "standing.tries + 1 < MOST_TRIES", "True"),
    "nobody needs to confirm": Mutant(COMMIT, "elif trial.by_server and not trial.confirmed:", "elif False:"),
    "a retained command is obeyed": Mutant("admission.py", "if retained:", "if False:"),
    "a command for another trial is obeyed": Mutant(
        COMMIT, "if trial is None or found.trial != trial.sha:", "if trial is None:"
    ),
    "a command for another pole is obeyed": Mutant("admission.py", "if found.pole != pole:", "if False:"),
    "a command never expires": Mutant("admission.py", "if now.known() >= found.expires:", "if False:"),
    "a new root is not checked against its own keys": Mutant(
        "trust_root.py", '    new.must_sign(envelope, "root")\n', ""
    ),
    "a new root is not checked against the old keys": Mutant(
        "trust_root.py",
        '    envelope = read(raw, ROOT_TYPE)\n    root.must_sign(envelope, "root")\n    new =',
        "    envelope = read(raw, ROOT_TYPE)\n    new =",
    ),
    "a root may skip a version": Mutant("trust_root.py", "if new.version != root.version + 1:", "if False:"),
    "a root may lower the epoch": Mutant("trust_root.py", "if new.epoch < root.epoch:", "if False:"),
    "what waits outlives the keys that signed it": Mutant(
        INCOMING, "waits=each.waits and name == LOCAL", "waits=each.waits"
    ),
    "a root that is damaged is gone back behind": Mutant(
        "trust_chain.py", "if self._last.version < self._least:", "if False:"
    ),
    "a root that did not come into force is": Mutant(
        "trust_chain.py", "self._last.version < least and (raw", "True and (raw"
    ),
    "any stream is taken": Mutant(INCOMING, "if stream not in self._in_force.running.streams:", "if False:"),
    "keys of the pole may be set from remote": Mutant("layers.py", "if is_of_the_pole(key):", "if False:"),
    "files may be named from remote": Mutant("layers.py", "key[-1] in SECRETS and", "False and"),
    "TLS may be taken away from remote": Mutant("layers.py", 'elif key == ("uplink", "url") and', "elif False and"),
    "pins are ignored": Mutant(
        "layers.py", "if layer in remote and any(_covers(pin, key) for pin in pins):", "if False:"
    ),
    "floods are told": Mutant("config_ledger.py", "now - self._refused_at[kind] >= PAUSE_S", "True"),
    "a doubled key is read": Mutant("strict_json.py", "if len(found) < len(pairs):", "if False:"),
    "NaN is read": Mutant("strict_json.py", ", parse_constant=_no_number", ""),
    "depth is not looked at": Mutant("strict_json.py", "if depth > MOST_DEPTH:", "if False:"),
    "size is not looked at": Mutant("strict_json.py", "if len(raw) > LARGEST_BYTES:", "if False:"),
    "an acknowledgement is enough where it came back before": Mutant(
        "gates.py", "gates.downlink if trial.upstream else gates.upstream", "gates.upstream"
    ),
    "not even an acknowledgement is asked for": Mutant(
        "gates.py", "if (trial.upstream or trial.one_way) and not", "if trial.upstream and not"
    ),
    "an acknowledgement from before counts": Mutant(
        "gates.py", "way.taken is not None and way.taken > applied_at", "True"
    ),
    "what came while the old was being ended counts": Mutant(
        "in_force.py", "self.applied_at = self._plant.now()  # what", "pass  # what"
    ),
    "an edit that was refused is not looked at again": Mutant(
        "in_force.py", "(standing.fate and standing.fate < Code.APPLY)", "False"
    ),
    "an edit that was rolled back is tried again": Mutant(
        "in_force.py", "standing.fate < Code.APPLY)", "standing.fate > Code.OK)"
    ),
    "what runs is what the file says though it was never kept": Mutant(
        "in_force.py", "active = await self.ledger.keep(self._own.encode())", "active = sha"
    ),
    "a profile that was tried stays": Mutant(
        "in_force.py", "before if before is not None and is_tried else wanted", "wanted"
    ),
    "a profile is never looked at again": Mutant("in_force.py", "waits=again", "waits=False"),
    "an edit during the trial of one waits": Mutant(COMMIT, "own.sha != trial.sha and not own.fate", "False"),
    "a faulty edit ends the trial of one": Mutant(
        COMMIT, "own.sha != trial.sha and not own.fate", "own.sha != trial.sha"
    ),
    "an edit starts the gateway anew while it runs": Mutant(
        COMMIT, "if stream != LOCAL or not self._may_restart:", "if stream != LOCAL:"
    ),
    "a document starts the gateway anew": Mutant(
        COMMIT, "if stream != LOCAL or not self._may_restart:", "if not self._may_restart:"
    ),
    "what needs a restart never comes into force": Mutant(
        COMMIT, "if stream != LOCAL or not self._may_restart:", "if True:"
    ),
    "an older polegate cannot read the state": Mutant(
        "config_folder.py", "state.model_dump(exclude_defaults=True)", "state.model_dump()"
    ),
    "the way is proven while nobody asks": Mutant("prove_way.py", "await self._asked.wait()", "pass"),
    "a link to another broker than the one that is tried proves it": Mutant(
        "prove_way.py", "self._link.ended.done() or self._uplink.astray:", "self._link.ended.done():"
    ),
    "what was proven before a change is proven": Mutant("change.py", "self._prover.renew()", "pass"),
    "where no document can come is a way back": Mutant(
        "change.py", "if self._remote and self._remote.refused else way", "if False else way"
    ),
    "going back needs what a trial needs": Mutant(
        "change.py",
        "if trial is None:\n            return NOTHING",
        "if trial is None:\n            return Echo(True, True)",
    ),
    "an alarm is ended by another stream": Mutant(
        "change.py", "return bad[-1] if bad else self._last", "return self._last"
    ),
    "what was rolled back is forgotten by a restart": Mutant(
        "change.py", "if each.fate and each.fate.result:", "if False:"
    ),
    "a renamed device is not waited for": Mutant("change.py", "names.get(name, name) for name in", "name for name in"),
    "who floods gets all of the processor": Mutant("remote.py", "REST = 9.0", "REST = 0.0"),
    "what was dropped in a flood is lost": Mutant(
        "remote.py", "dropped, waiting = link.dropped, MOST_UNHEARD", "dropped = link.dropped"
    ),
    "a trial is reported each second": Mutant("remote.py", "report.trial and _but_left(report.trial)", "report.trial"),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed(tmp_path: Path, name: str) -> None:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, tmp_path / part)
    mutant = MUTANTS[name]
    (path,) = (tmp_path / "gateway").rglob(mutant.file)
    text = path.read_text()
    assert text.count(mutant.old) == 1, "it does not stand there once"
    path.write_text(text.replace(mutant.old, mutant.new))
    tests = sorted((ROOT / "tests" / "remote").glob("test_*.py"), key=lambda path: path.stem.endswith("cuts"))
    found = [str(path.relative_to(ROOT)) for path in tests if path.name != Path(__file__).name]  # the slow ones last
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *found]
    with tempfile.TemporaryDirectory() as own:  # pytests that share a folder clear it up for one another, and fail
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DEBUG_TEMPROOT": own}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert ran.returncode == TESTS_FAILED, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert " failed" in ran.stdout

"""What a pole reports of its configuration: which is in force, on trial, and what became of the last change."""

from typing import Any

from gateway.remote.config_state import Trial
from gateway.remote.confirmed_commit import ConfirmedCommit
from gateway.words import messages


def reported(commit: ConfirmedCommit[Any]) -> messages.Reported:
    """Tell which configuration is in force, and why."""
    state, last, running = commit.state, commit.last, commit.running
    return messages.Reported(
        root=state.root,
        streams={
            name: messages.ConfigStream(
                seq=each.seq,
                sha=each.sha,
                active_seq=each.active_seq,
                active=each.active,
                waits=each.waits,
                fate=each.fate.name if each.fate else "",
                why=each.why,
            )
            for name, each in state.streams.items()
        },
        trial=state.trial and _of_trial(commit, state.trial),
        last=last
        and messages.ConfigVerdict(
            stream=last.stream, seq=last.seq, sha=last.sha, code=last.code, name=last.code.name, text=last.text
        ),
        drift=dict(running.drift),
        effective=running.fingerprint,
        trouble=running.trouble,
    )


def _of_trial(commit: ConfirmedCommit[Any], trial: Trial) -> messages.ConfigTrial:
    gates = commit.gates
    return messages.ConfigTrial(
        stream=trial.stream,
        seq=trial.seq,
        sha=trial.sha,
        attempt=trial.attempts,
        confirmed=trial.confirmed,
        left_s=round(commit.left_s or 0),
        gates=gates and messages.ConfigGates(upstream=gates.upstream, downlink=gates.downlink, sensors=gates.silent),
    )

"""A door: which releases of polegate lie side by side on this pole, and what became of one that was no good.

The package keeps them, and ``systemd/debian/release`` decides which one runs; that script says what lies where. The
gateway writes one file, ``proved`` in its own state folder: the name of the release that made progress for minutes on
end, which is then nothing that goes back by itself any more. All else is root's, and only read here.

Whatever is read may have been written by a newer or an older package: what is not understood counts as not there.
"""

import os
from pathlib import Path
from typing import NamedTuple

from gateway.host import durable

CODE = Path(__file__).resolve().parents[2]
ROOT = Path("/")
PROVED = "proved"


class GivenUp(NamedTuple):
    """A release that went back by itself.

    Attributes:
        name: its version.
        back_to: the release that runs since.
        at: when, seconds since 1970 by the machine's clock.
        end: how its last start ended, in systemd's word: ``exit-code``, ``signal``, ``watchdog`` ..., or ``cut-off``.
    """

    name: str
    back_to: str
    at: float
    end: str

    @property
    def why(self) -> str:
        """The same in words."""
        return f"it did not prove healthy in three starts; the last ended with {self.end}"


class Releases(NamedTuple):
    """What there is.

    Attributes:
        current: the one that runs from the next start on; "": no package keeps them.
        previous: the one to go back to; "": none.
        starts: how often the current one was started without having proved healthy; 0: it need not.
        given_up: the one that went back by itself, since the last package was installed.
    """

    current: str = ""
    previous: str = ""
    starts: int = 0
    given_up: GivenUp | None = None


def own() -> str:
    """Return the name of the release that this process runs; "": it is none that a package keeps."""
    return CODE.name if CODE.parent == ROOT / "usr/lib/polegate/releases" else ""


def look() -> Releases:
    """Return what there is."""
    state = ROOT / "var/lib/polegate-release"
    current, previous = _named(state / "current"), _named(state / "previous")
    of, count, *_ = _words(state / "starts", 2)
    return Releases(
        current,
        "" if previous == current else previous,
        int(count) if of and of == current and count.isdecimal() else 0,
        _given_up(state / "given-up"),
    )


def is_on_trial() -> bool:
    """Tell whether the release that this process runs is one that has not proved healthy, with one to go back to."""
    there = look()
    return bool(there.starts) and there.current == own() and is_proved() is False


def is_proved() -> bool | None:
    """Tell whether this release has proved healthy; None: this user may not know. Where no package keeps it: True."""
    if not own():
        return True
    try:
        return _mark().read_text().strip() == own()
    except PermissionError:
        return None
    except (OSError, ValueError):
        return False


def prove() -> None:
    """Note that this release is healthy. Raises OSError."""
    durable.replace(_mark(), f"{own()}\n".encode())


def _mark() -> Path:
    folder = os.environ.get("STATE_DIRECTORY", "").split(":")[0] or ROOT / "var/lib/polegate"
    return Path(folder, PROVED)


def _named(link: Path) -> str:
    try:
        return link.readlink().name if link.is_dir() else ""
    except OSError:
        return ""


def _given_up(file: Path) -> GivenUp | None:
    name, back_to, at, end = _words(file, 4)
    return GivenUp(name, back_to, float(at), end) if end and at.isdecimal() else None


def _words(file: Path, count: int) -> list[str]:
    """Return the first words of a file; empty ones where it cannot be read."""
    try:
        words = file.read_text().split()
    except (OSError, ValueError):
        words = []
    return (words + [""] * count)[:count]

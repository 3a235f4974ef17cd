"""A machine with a real systemd, in a container (systemd-nspawn): it boots in a second and ends with the test.

Its root is an overlay on folders that stay as they are. It shares the network of the test machine, so that emulated
poles and brokers on loopback are there for it, and nothing else. Measured traps:

* ``systemd-nspawn`` that is killed leaves the container running; what is ended is the container's process 1.
* Who runs tests may be killed at any moment, with all of its group. A process apart from it takes everything away.
* The device filter of a unit is only real where the container sees cgroup v2 and may load BPF; it then needs a cgroup
  of its own beside those of the test machine.
* systemd-nspawn forbids to ask whether the clock is right, to whoever it is.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

CGROUPS = Path("/sys/fs/cgroup")
BOOT_S = 60.0
END_S = 30.0
LOOK_S = 0.2
SYSCALLS = "bpf adjtimex clock_adjtime"
UP = {"running", "degraded"}
GUARD = """
read -r _  # ends when nobody holds the other end any more
processes() { find "$@" -name cgroup.procs -exec cat {} + | sort -u; }
while running=$(processes "$@"); [ -n "$running" ]; do
    kill -s KILL $running
    sleep 0.02
done
if mountpoint --quiet root; then umount root || umount --lazy root; fi
rm -rf work
find "$@" -depth -type d -exec rmdir {} +
"""


class Machine:
    """The machine. ``with`` boots it; afterwards nothing of it is left but ``changes``.

    Attributes:
        name: what its cgroups are called by.
        root: its root folder as seen from here, while it runs.
        changes: the folder with what is different from the folders below.
    """

    def __init__(self, folder: Path, below: Sequence[Path], binds: Mapping[Path, str] | None = None) -> None:
        """Set it; ``boot`` starts it.

        Args:
            folder: where it may write; not on a tmpfs or an overlay itself.
            below: root folders, the uppermost first.
            binds: files of the test machine to where it sees them.
        """
        self._folder = folder
        self._below = below
        self._binds = binds or {}
        self.name = f"polegate-{uuid.uuid4().hex[:8]}"
        self._guard: subprocess.Popen[bytes] | None = None
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self.root = folder / "root"
        self.changes = folder / "changes"

    def __enter__(self) -> Self:
        """Boot it."""
        work = self._folder / "work"
        for folder in (self.root, self.changes, work):
            folder.mkdir(parents=True, exist_ok=True)
        for cgroup in self._cgroups():
            cgroup.mkdir()
        with (self._folder / "console.log").open("ab") as log:
            self._guard = subprocess.Popen(  # noqa: S603  # ours
                ["/bin/sh", "-c", GUARD, "sh", *map(str, self._cgroups())],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self._folder, start_new_session=True,
            )  # fmt: skip
        try:
            self._mount(work)
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _mount(self, work: Path) -> None:
        below = ":".join(map(str, self._below))
        _run(
            "mount",
            "-t",
            "overlay",
            "overlay",
            "-o",
            f"lowerdir={below},upperdir={self.changes},workdir={work}",
            str(self.root),
        )
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")

    def __exit__(self, *_: object) -> None:
        """End it and take away what it needed."""
        assert self._guard is not None  # noqa: S101  # it was started
        try:
            self.cut()
        finally:
            self._guard.communicate(timeout=END_S)
        if self._guard.returncode:
            raise RuntimeError(f"something of {self.name} is left\n{self._console()}")

    def boot(self) -> None:
        """Start it and wait until it is up."""
        command = [
            "systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self.name}", "--register=no",
            "--keep-unit", "--boot", "--console=pipe", "--capability=CAP_BPF,CAP_PERFMON",
            f"--system-call-filter={SYSCALLS}", *(f"--bind={here}:{there}" for here, there in self._binds.items()),
        ]  # fmt: skip
        enter = " ".join(f"echo 0 > {cgroup}/cgroup.procs;" for cgroup in self._cgroups())
        with (self._folder / "console.log").open("ab") as log:
            self._nspawn = subprocess.Popen(  # noqa: S603  # ours
                ["setpriv", "--pdeathsig", "TERM", "sh", "-c", f'{enter} exec "$@"', "sh", *command],  # noqa: S607  # found by PATH
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        self._until(lambda: self._find_leader() and self._state() in UP, BOOT_S, "the machine is not up")

    def run(self, *command: str, check: bool = True, text: str | None = None) -> str:
        """Run a command in it, as root, and return what it wrote; with ``text`` as its input."""
        done = subprocess.run(  # noqa: S603  # ours
            ["nsenter", "--target", str(self._leader), "--all", *command],  # noqa: S607  # the same
            capture_output=True, text=True, check=False, input=text if text is not None else "",
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file in it as an editor does: nobody sees half of it."""
        self.run("sh", "-c", 'cat > "$1.new" && mv "$1.new" "$1"', "sh", path, text=text)

    def outside(self, *command: str) -> None:
        """Run a command with all that the test machine may do, on the files of the container."""
        _run("nsenter", "--target", str(self._leader), "--mount", *command)

    def shows(self, unit: str, name: str) -> str:
        """Return what ``systemctl show`` tells of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def wait(self, true: Callable[[], object], within: float, what: str) -> None:
        """Wait until something is true; what the machine has logged comes with the error."""
        self._until(true, within, what)

    def reboot(self) -> None:
        """Have it go down in order, and boot it again."""
        self.run("systemctl", "reboot", check=False)
        self._ended()
        self.boot()

    def cut(self) -> None:
        """End it without a word, as when the power goes; only what the kernel had taken from it stays."""
        if self._leader:
            os.kill(self._leader, signal.SIGKILL)
        self._ended()

    def log(self) -> str:
        """Return its journal."""
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", check=False)

    def _ended(self) -> None:
        if self._nspawn is None:
            return
        self._nspawn.wait(END_S)
        self._nspawn, self._leader = None, 0

    def _cgroups(self) -> list[Path]:
        """Name the cgroups it needs: one in each hierarchy that systemd uses on the test machine."""
        return [tree / f"{self.name}.d" for tree in _cgroup_trees()]

    def _find_leader(self) -> int:
        assert self._nspawn is not None  # noqa: S101  # it was started
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        try:
            self._leader = int((children.read_text().split() or ["0"])[0])
        except FileNotFoundError:
            self._leader = 0
        return self._leader

    def _state(self) -> str:
        return self.run("systemctl", "is-system-running", check=False).strip()

    def _until(self, true: Callable[[], object], within: float, what: str) -> None:
        give_up = time.monotonic() + within
        while not true():
            if time.monotonic() > give_up or (self._nspawn and self._nspawn.poll() is not None):
                raise TimeoutError(f"{what}\n{self._console()}\n{self.log()[-6000:] if self._leader else ''}")
            time.sleep(LOOK_S)

    def _console(self) -> str:
        return (self._folder / "console.log").read_text(errors="replace")[-2000:]


def _cgroup_trees() -> list[Path]:
    return [CGROUPS / name for name in ("systemd", "unified") if (CGROUPS / name).is_dir()] or [CGROUPS]


def why_not() -> str:
    """Tell why no machine can be had here; "" where it can, once systemd-nspawn is installed."""
    if os.geteuid():
        return "it needs root"
    for tree in _cgroup_trees():
        if not os.access(tree, os.W_OK):
            return f"no cgroup can be made: {tree} is read-only"
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        for part in ("low", "up", "work", "all"):
            (Path(name) / part).mkdir()
        options = f"lowerdir={name}/low,upperdir={name}/up,workdir={name}/work"
        try:
            _run("unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, f"{name}/all")
        except subprocess.CalledProcessError as error:
            return f"no overlay can be mounted: {error.stderr.decode().strip()}"
    return ""


def why_no_boot(base: Path) -> str:
    """Boot a root folder as it is, and tell why that cannot be done here; "" where it can."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        try:
            with Machine(Path(name), [base]):
                return ""
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            return f"systemd does not boot in a container: {error}"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # ours


if __name__ == "__main__":
    print(why_no_boot(Path(sys.argv[1]).resolve()) if sys.argv[1:] else why_not())  # noqa: T201  # for make

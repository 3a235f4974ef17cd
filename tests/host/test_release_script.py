"""The script that keeps releases side by side, without root or systemd: on folders of a test, cut off at each step."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "systemd" / "debian" / "release"
STEPS = "mkdir", "cp", "rm", "ln", "mv", "sync"
CUT = f"""#!/bin/sh
# The power goes before the step of that number
n=$(($(cat "$STEPS/n") + 1))
echo $n >"$STEPS/n"
[ "$n" != "$CUT_AT" ] || kill -{signal.SIGKILL.value} 0
exec %s "$@"
"""


class Disk:
    """What the package and the script see as the machine's root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root / "usr/lib/polegate/package"
        self.releases = root / "usr/lib/polegate/releases"
        self.state = root / "var/lib/polegate-release"
        self.mark = root / "var/lib/polegate/proved"
        self.mark.parent.mkdir(parents=True)
        self.steps = root / "steps"
        self.steps.mkdir()
        for name in STEPS:
            program = self.steps / name
            program.write_text(CUT % shutil.which(name))
            program.chmod(0o755)
        self.job("")

    def job(self, job: str) -> None:
        """Set what systemd says is to be done with the service."""
        systemctl = self.steps / "systemctl"
        systemctl.write_text(f"#!/bin/sh\necho '{job}'\n")
        systemctl.chmod(0o755)

    def unpack(self, content: str) -> None:
        """Do as dpkg does: files are renamed into their place, and those that are no more are removed."""
        new = self.package / "gateway" / "code.py.dpkg-new"
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(content)
        new.rename(new.with_suffix(""))

    def run(self, *command: str, cut: int = 0, result: str = "") -> str:
        """Run the script, cut off before a step; 0: not at all. Return what it logs."""
        (self.steps / "n").write_text("0")
        env = {
            "PATH": f"{self.steps}:{os.environ['PATH']}",
            "DPKG_ROOT": str(self.root),
            "STEPS": str(self.steps),
            "CUT_AT": str(cut),
            "SERVICE_RESULT": result,
        }
        done = subprocess.run(  # noqa: S603  # ours
            ["/bin/sh", str(SCRIPT), *command],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        assert done.returncode == (-signal.SIGKILL if cut else 0), done.stderr
        return done.stderr

    def steps_of(self, *command: str) -> int:
        """Run it whole, and return how many steps that takes."""
        self.run(*command)
        return int((self.steps / "n").read_text())

    def install(self, version: str, content: str = "") -> None:
        """Do as an upgrade does, up to the restart."""
        self.unpack(content or version)
        self.run("take", version)

    def crash(self, result: str = "exit-code") -> str:
        """Start the service, have it fail, and return what the start logged."""
        said = self.run("start")
        self.run("stop", result=result)
        return said

    def stop(self) -> None:
        """End the service in order."""
        self.job("815")
        self.run("stop", result="success")
        self.job("")

    def prove(self, name: str) -> None:
        """Do as a healthy gateway does."""
        self.mark.write_text(f"{name}\n")

    def link(self, name: str) -> str:
        """Return the release that a link names; "" for none."""
        link = self.state / name
        return link.readlink().name if link.is_symlink() else ""

    def code(self) -> str:
        """Return what the launcher would run."""
        release = self.state / "current"
        return ((release if (release / "gateway").is_dir() else self.package) / "gateway" / "code.py").read_text()

    def kept(self) -> set[str]:
        """Return the releases there are."""
        return {path.name for path in self.releases.iterdir()}


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    disk = Disk(tmp_path / "disk")
    disk.install("1.0")
    disk.run("start")
    disk.prove("1.0")
    return disk


def test_releases_lie_side_by_side_without_a_copy(disk: Disk) -> None:
    disk.install("1.1")
    assert disk.kept() == {"1.0", "1.1"}
    assert (disk.link("current"), disk.link("previous")) == ("1.1", "1.0")
    assert disk.code() == "1.1"
    assert (disk.state / "previous/gateway/code.py").read_text() == "1.0"
    assert (disk.package / "gateway/code.py").samefile(disk.releases / "1.1/gateway/code.py")


def test_only_the_one_before_is_kept(disk: Disk) -> None:
    for version in ("1.1", "1.2", "1.3"):
        disk.install(version)
        disk.run("start")
        disk.prove(version)
    assert disk.kept() == {"1.2", "1.3"}
    assert (disk.link("current"), disk.link("previous")) == ("1.3", "1.2")


def test_three_starts_that_fail_are_enough(disk: Disk) -> None:
    disk.install("1.1")
    for _ in range(3):
        assert disk.crash("watchdog") == ""
        assert disk.code() == "1.1"
    before = time.time()
    assert "<3>release 1.1 did not prove healthy in 3 starts, the last ended with watchdog: back to 1.0" in disk.crash()
    assert disk.code() == "1.0"
    name, back_to, at, end = (disk.state / "given-up").read_text().split()
    assert (name, back_to, end) == ("1.1", "1.0", "watchdog")
    assert int(before) <= int(at) <= time.time()
    for _ in range(5):
        assert disk.crash() == ""
        assert disk.code() == "1.0"


def test_what_has_proved_healthy_may_crash_as_often_as_it_likes(disk: Disk) -> None:
    disk.install("1.1")
    disk.crash()
    disk.run("start")
    disk.prove("1.1")
    for _ in range(5):
        disk.crash()
    assert disk.code() == "1.1"
    assert not (disk.state / "starts").exists()


def test_what_ends_in_order_does_not_count_and_what_ends_by_itself_does(disk: Disk) -> None:
    disk.install("1.1")
    for _ in range(5):
        disk.run("start")
        disk.stop()
    assert (disk.state / "starts").read_text() == "1.1 0 stopped\n"
    disk.crash()
    disk.run("start")
    disk.stop()
    for _ in range(2):
        disk.crash("success")  # nobody asked for it
    assert disk.code() == "1.1"
    disk.crash()
    assert disk.code() == "1.0"


def test_a_power_cut_counts_since_it_may_be_the_release_that_hangs_the_machine(disk: Disk) -> None:
    disk.install("1.1")
    for _ in range(3):
        disk.run("start")
    assert "the last ended with cut-off" in disk.run("start")
    assert disk.code() == "1.0"


def test_without_one_before_it_goes_on_trying(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.install("1.0")
    for _ in range(5):
        disk.crash()
    assert (disk.code(), disk.link("previous")) == ("1.0", "")


def test_one_that_is_on_trial_is_never_what_is_gone_back_to(disk: Disk) -> None:
    disk.install("1.1")
    disk.crash()
    disk.install("1.2")
    assert (disk.link("current"), disk.link("previous")) == ("1.2", "1.0")
    for _ in range(4):
        disk.crash()
    assert disk.code() == "1.0"


def test_what_was_given_up_may_be_installed_again_and_is_on_trial_again(disk: Disk) -> None:
    disk.install("1.1")
    for _ in range(4):
        disk.crash()
    disk.install("1.1")
    assert not (disk.state / "given-up").exists()
    for _ in range(3):
        disk.crash()
        assert disk.code() == "1.1"
    disk.crash()
    assert disk.code() == "1.0"


def test_to_go_back_by_hand_is_an_installation_like_another(disk: Disk) -> None:
    disk.install("1.1")
    disk.run("start")
    disk.prove("1.1")
    disk.install("1.0")
    assert (disk.link("current"), disk.link("previous"), disk.code()) == ("1.0", "1.1", "1.0")
    for _ in range(4):
        disk.crash()
    assert disk.code() == "1.1"


def test_to_go_back_by_hand_from_one_on_trial_leaves_none_to_fall_back_to(disk: Disk) -> None:
    disk.install("1.1")
    disk.install("1.0")
    for _ in range(5):
        disk.crash()
    assert disk.code() == "1.0"


def test_the_same_version_with_other_content_changes_nothing_that_runs(disk: Disk) -> None:
    running = disk.releases / "1.0/gateway/code.py"
    disk.install("1.0", "another")
    assert running.read_text() == "1.0"
    assert (disk.link("current"), disk.link("previous"), disk.code()) == ("1.0+2", "1.0", "another")
    disk.install("1.0", "another")
    assert (disk.link("current"), disk.link("previous")) == ("1.0+2", "1.0")


def test_an_old_proof_does_not_hold_for_another_of_the_same_name(disk: Disk) -> None:
    shutil.rmtree(disk.releases)
    shutil.rmtree(disk.state)
    disk.install("1.0", "another")
    assert not disk.mark.exists()


@pytest.mark.parametrize("content", ["", "rubbish", "1.1", "1.1 x exit-code", "1.1 \n", "\0\0\0"])
def test_a_count_that_rotted_counts_anew(disk: Disk, content: str) -> None:
    disk.install("1.1")
    disk.crash()
    (disk.state / "starts").write_text(content)
    for _ in range(3):
        disk.crash()
        assert disk.code() == "1.1"
    disk.crash()
    assert disk.code() == "1.0"


def test_a_mark_that_is_no_file_blocks_no_start(disk: Disk) -> None:
    disk.install("1.1")
    disk.mark.unlink()
    os.mkfifo(disk.mark)
    for _ in range(4):
        disk.crash()
    assert disk.code() == "1.0"


def test_an_emptied_var_leaves_what_the_package_holds(disk: Disk) -> None:
    shutil.rmtree(disk.state)
    assert disk.code() == "1.0"
    assert disk.run("start") == ""
    assert disk.run("stop", result="exit-code") == ""


def cuts(disk: Disk, folder: Path, *command: str) -> Iterator[Disk]:
    """Run a command on copies of a disk, cut off before each of its steps."""
    count = copied(disk, folder / "whole").steps_of(*command)
    assert count >= 3
    for number in range(1, count + 1):
        cut = copied(disk, folder / str(number))
        cut.run(*command, cut=number)
        yield cut


def copied(disk: Disk, root: Path) -> Disk:
    copy = Disk(root)
    shutil.rmtree(root)
    shutil.copytree(disk.root, root, symlinks=True)
    for link in copy.state.glob("*"):
        if link.is_symlink():
            name = link.readlink().name
            link.unlink()
            link.symlink_to(copy.releases / name)
    return copy


def test_an_installation_that_is_cut_off_leaves_a_release_that_is_whole(disk: Disk, tmp_path: Path) -> None:
    disk.install("1.1-rc1")
    for _ in range(4):
        disk.crash()
    disk.unpack("1.1")
    for cut in cuts(disk, tmp_path / "cuts", "take", "1.1"):
        assert cut.code() == cut.link("current")
        cut.run("start")  # the machine comes up
        cut.stop()
        cut.run("take", "1.1")  # dpkg --configure --pending
        assert (cut.link("current"), cut.link("previous"), cut.code()) == ("1.1", "1.0", "1.1")
        assert cut.kept() == {"1.0", "1.1"}
        assert not (cut.state / "given-up").exists()


def test_the_way_back_that_is_cut_off_is_gone_at_the_next_start(disk: Disk, tmp_path: Path) -> None:
    disk.install("1.1")
    for _ in range(3):
        disk.crash()
    for cut in cuts(disk, tmp_path / "cuts", "start"):
        assert cut.code() == cut.link("current")
        cut.run("start")
        assert (cut.link("current"), cut.code()) == ("1.0", "1.0")
        assert (cut.state / "given-up").read_text().startswith("1.1 1.0 ")
        cut.crash()
        assert cut.code() == "1.0"


def test_a_start_that_is_cut_off_counts_once_at_the_most(disk: Disk, tmp_path: Path) -> None:
    disk.install("1.1")
    for cut in cuts(disk, tmp_path / "cuts", "start"):
        for _ in range(2):
            cut.crash()
        assert cut.code() == "1.1"
        cut.crash()
        cut.crash()
        assert cut.code() == "1.0"

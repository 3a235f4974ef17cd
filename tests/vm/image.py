"""``python -m tests.vm.image``: the guest's disk with the package of this checkout, and the state after its first boot.

It takes a minute or two, and nothing where the package and what is laid beside it are those of the last time.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.vm.guest import ACCELERATION, Guest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".system"
BASE = CACHE / "vm"  # made by make test-vm
IMAGE = CACHE / "vm-image"
PROGRAMS = "qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs"
DISK = "1500M"
KVM = Path("/dev/kvm")
KVM_BOOT_S = 40.0  # eight times what it takes; a KVM that is there and does not work says nothing
LIMIT_S = 300.0

LAID = "agent.py", "radio.py", "guest.py", "image.py"  # what the disk and the state depend on
MASKED = [
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service", "systemd-timesyncd.service",
    "systemd-logind.service", "systemd-pstore.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
    "systemd-update-utmp.service",
]  # fmt: skip
FILES = {
    "etc/fstab": "/dev/vda / ext4 defaults,commit=300 0 1\n",  # as in guest.KERNEL
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/hostname": "pole\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/systemd/system/agent.service": "[Service]\nExecStart=/usr/bin/python3 -ISB /usr/local/lib/agent.py\n",
    "etc/udev/rules.d/90-guest.rules": 'SUBSYSTEM=="virtio-ports", ATTR{name}=="polegate.agent", TAG+="systemd", '
    'SYMLINK+="virtio-ports/$attr{name}", ENV{SYSTEMD_WANTS}="agent.service"\n'
    'SUBSYSTEM=="net", ACTION=="add", KERNEL=="eth0", RUN+="/sbin/ip addr add 10.0.2.15/24 dev eth0", '
    'RUN+="/sbin/ip link set eth0 up", RUN+="/sbin/ip route add default via 10.0.2.2"\n',
}


@dataclass(frozen=True)
class Image:
    """What guests start from.

    Attributes:
        folder: where it lies.
        acceleration: a key of ACCELERATION.
    """

    folder: Path
    acceleration: str

    def booted(self, folder: Path) -> Guest:
        """Return a guest that has just booted, with the package installed and not configured."""
        return Guest(folder, self.folder, self.folder / "booted.qcow2", self.acceleration, self.folder / "state")

    def off(self, folder: Path) -> Guest:
        """Return a guest that is switched off."""
        return Guest(folder, self.folder, self.folder / "disk.qcow2", self.acceleration)


def cannot() -> str:
    """Tell why nothing can be proved here; "" where it can."""
    return why_not() or ("" if (IMAGE / "made.json").exists() else "there is no guest; make test-vm makes it")


def image() -> Image:
    """Return the one that was made last."""
    return Image(IMAGE, json.loads((IMAGE / "made.json").read_text())["acceleration"])


def why_not() -> str:
    """Tell why no guest can be had here; "" where it can."""
    if os.geteuid():
        return "it needs root"
    if os.uname().machine != "x86_64":
        return "it is for x86-64"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def make() -> None:
    """Make it, if it is not there."""
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="vm-work-") as name:
        work = Path(name)
        build = [sys.executable, str(ROOT / "systemd/debian/build.py"), "--out", str(work), "amd64"]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # ours
        (package,) = work.glob("*.deb")
        sources = [package, BASE / "var/lib/dpkg/status", *(HERE / name for name in LAID)]
        digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
        made = IMAGE / "made.json"
        if made.exists() and json.loads(made.read_text())["digest"] == digest:
            return
        new = work / "image"
        new.mkdir()
        _lay(work / "root", package, new)
        acceleration = _boot(new)
        (new / made.name).write_text(json.dumps({"digest": digest, "acceleration": acceleration}))
        shutil.rmtree(IMAGE, ignore_errors=True)
        new.rename(IMAGE)


def _lay(root: Path, package: Path, image: Path) -> None:
    """Make the disk, and beside it the kernel and its initial RAM disk."""
    _run("cp", "--archive", "--reflink=auto", str(BASE), str(root))
    for name, text in FILES.items():
        (root / name).write_text(text)
    for script in ("agent.py", "radio.py"):
        shutil.copy(HERE / script, root / "usr/local/lib")
    shutil.copy(package, root / "root/package.deb")
    inside = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root}/proc", "chroot", str(root)]
    _run(*inside, "dpkg", "--install", "/root/package.deb")
    _run(*inside, "systemctl", "mask", *MASKED)
    for name in ("vmlinuz", "initrd"):
        (found,) = (root / "boot").glob(f"{name}*-amd64")
        shutil.copy(found, image / name)
    raw = root.with_name("disk.raw")
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(raw), DISK)
    _run("qemu-img", "convert", "-O", "qcow2", str(raw), str(image / "disk.qcow2"))


def _boot(folder: Path) -> str:
    """Boot it, keep the state in which it then is, and tell which acceleration works here."""
    for acceleration in ACCELERATION:
        if acceleration == "kvm" and not os.access(KVM, os.R_OK | os.W_OK):
            continue
        guest = Image(folder, acceleration).off(folder / "first")
        try:
            guest.boot(KVM_BOOT_S if acceleration == "kvm" else LIMIT_S)
            up = {"running", "degraded"}
            is_up = ["systemctl", "is-system-running"]
            guest.wait(lambda: guest.run(*is_up, check=False).strip() in up, LIMIT_S, "it is not up")  # noqa: B023  # at once
            failed = guest.run("systemctl", "--failed", "--no-legend")
            if failed:
                raise SystemExit(f"the guest is not well: {failed}\n{guest.log()}")
            guest.run("sync")
            guest.save(folder / "state")
        except (TimeoutError, RuntimeError, ConnectionError):
            if acceleration == "tcg":
                raise
        else:
            booted = folder / "booted.qcow2"
            guest.disk.rename(booted)
            _run("qemu-img", "rebase", "-u", "-F", "qcow2", "-b", "disk.qcow2", str(booted))  # the folder will move
            return acceleration
        finally:
            guest.__exit__()
            shutil.rmtree(folder / "first")
    raise AssertionError("unreachable")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # ours
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout}\n{done.stderr}")


def main() -> None:
    """Make it, or tell why there can be none."""
    parser = argparse.ArgumentParser(description="Make the guest of make test-vm.")
    parser.add_argument("--why-not", action="store_true", help="print what is missing, and make nothing")
    if parser.parse_args().why_not:
        print(why_not())  # noqa: T201  # the Makefile asks
    else:
        make()


if __name__ == "__main__":
    main()

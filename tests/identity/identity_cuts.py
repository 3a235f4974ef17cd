"""The victim of the cuts: installs a certificate, and ends without a word before the n-th thing it does to the files.

Run as ``python -m tests.identity.identity_cuts``: for each n, and each state that a pole can be in, a child is cut,
what it left is looked at, and the installation is done again. Prints how many cuts there were.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from gateway.identity.pair import Pair, PairFiles

CUT = 9
CHANGES = {"os.rename", "os.symlink", "os.remove", "os.mkdir", "os.chmod", "os.rmdir", "shutil.rmtree", "open"}
OLD, NEW = b"old key", b"new key"
CERT_OF = {OLD: b"cert of old key", NEW: b"cert of new key"}
AGAIN = b"another cert of old key"


def nothing(files: PairFiles) -> None:
    files.add_key(files.next_key, NEW)


def a_key(files: PairFiles) -> None:
    files.add_key(files.key, NEW)


def from_a_technician(files: PairFiles) -> None:
    files.key.write_bytes(OLD)
    files.cert.write_bytes(CERT_OF[OLD])
    files.add_key(files.next_key, NEW)


def installed(files: PairFiles) -> None:
    files.add_key(files.key, OLD)
    files.install(OLD, CERT_OF[OLD])
    files.add_key(files.next_key, NEW)


def renewed(files: PairFiles) -> None:
    installed(files)
    files.install(OLD, AGAIN)


def a_certificate_put_there_by_hand(files: PairFiles) -> None:
    installed(files)
    files.cert.unlink()
    files.cert.write_bytes(AGAIN)


STATES = [nothing, a_key, from_a_technician, installed, renewed, a_certificate_put_there_by_hand]


def place(folder: Path) -> PairFiles:
    return PairFiles(folder / "pole.key", folder / "certs" / "pole.pem", shared=False)


def is_matching(found: Pair) -> bool:
    if found.cert is None:
        return True
    return found in {Pair(OLD, CERT_OF[OLD]), Pair(OLD, AGAIN), Pair(NEW, CERT_OF[NEW])}


def cut_before(number: int, task: Callable[[], None]) -> bool:
    """Do something in a child that is cut before its n-th change of files; tell whether it was."""
    child = os.fork()
    if child == 0:
        seen = 0

        def look(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event in CHANGES and not (event == "open" and not int(str(arguments[2])) & os.O_CREAT):
                if seen == number:
                    os._exit(CUT)
                seen += 1

        sys.addaudithook(look)
        task()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == CUT


def cut_everywhere(state: Callable[[PairFiles], None]) -> int:
    """Cut at each point in turn; return how many there are."""
    number = 0
    while True:
        folder = Path(tempfile.mkdtemp(prefix="polegate-cut-"))
        try:
            files = place(folder)
            files.cert.parent.mkdir()
            state(files)
            before = files.read()
            was_cut = cut_before(number, lambda files=files: files.install(NEW, CERT_OF[NEW]))  # type: ignore[misc]  # bound here
            found = files.read()
            assert is_matching(found), (state.__name__, number, found)
            assert NEW in {found.key, files.read_next()}, (state.__name__, number)
            assert before.key is None or before.key in kept(folder), (state.__name__, number)
            files.install(NEW, CERT_OF[NEW])
            assert files.read() == Pair(NEW, CERT_OF[NEW]), (state.__name__, number)
            assert files.read_next() is None
            assert before.key is None or before.key in kept(folder), (state.__name__, number)
            files.install(NEW, CERT_OF[OLD])
            assert kept(folder) == {NEW, CERT_OF[NEW], CERT_OF[OLD]}, (state.__name__, number)
        finally:
            shutil.rmtree(folder)
        if not was_cut:
            return number
        number += 1


def kept(folder: Path) -> set[bytes]:
    """Return what lies in any file."""
    return {path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    os.fsync = lambda fd: None  # noqa: ARG005  # a process that ends loses nothing that it has written
    print(sum(map(cut_everywhere, STATES)))  # noqa: T201  # for the test

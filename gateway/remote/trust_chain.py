"""A door: the root of trust in force, from the one that was put on the pole to the latest that followed it.

Each is checked against the one before at every start: nothing that lies on the disk is believed for lying there.
"""

from pathlib import Path

import structlog

from gateway.remote import trust_root
from gateway.remote.config_folder import ConfigFolder
from gateway.remote.trust_root import Root
from gateway.remote.verdict import Code, Rejected

FIRST = "root.json"

log = structlog.get_logger()


class TrustChain:
    """The chain."""

    def __init__(self, folder: Path) -> None:
        """Name the folder in which the first root is."""
        self._first = folder / FIRST
        self._last: Root | None = None
        self._least = 0
        self._why = "no root of trust was read"

    def load(self, folder: ConfigFolder, least: int) -> None:
        """Read the chain.

        Args:
            folder: where later roots are.
            least: version that was in force. None before it is enough; one that lies there and is later never came
                into force, and must come again.
        """
        self._least = least
        try:
            self._last = trust_root.first(self._first.read_bytes())
            while self._last.version < least and (raw := folder.root(self._last.version + 1)):
                self._last = trust_root.following(self._last, raw)
        except OSError as error:
            self._why = f"{self._first} cannot be read: {error.strerror}; put the root of trust there"
        except Rejected as error:
            self._why = error.text
        if self._last is None or self._last.version < least:
            log.warning("no document is believed", why=self._why)

    @property
    def root(self) -> Root:
        """The root in force. Raises Rejected where there is none."""
        if self._last is None:
            raise Rejected(Code.SIG, f"there is no root of trust: {self._why}")
        if self._last.version < self._least:
            raise Rejected(Code.SIG, f"root {self._least} of trust was in force and is damaged; send it again")
        return self._last

    @property
    def floor(self) -> int:
        """Seconds since 1970: it is not earlier than the root in force was signed."""
        return self._last.issued if self._last else 0

    def follow(self, raw: bytes) -> tuple[Root, bool]:
        """Read the root that follows, and tell whether it begins a new epoch. Raises Rejected."""
        if self._last is None:
            raise Rejected(Code.SIG, f"there is no root of trust that it could follow: {self._why}")
        root = trust_root.following(self._last, raw)
        return root, root.epoch > self._last.epoch

    def take(self, root: Root) -> None:
        """Put a root in force, once it is on the disk."""
        self._last = root

"""Files that open the broker: a path, or a credential that systemd hands to the service.

``credential:NAME`` stands for the file NAME in ``$CREDENTIALS_DIRECTORY``. The prefix is written out, so that a
mistyped path is never looked for there, and the other way round. What cannot be read is told by the key it stands
under, with the next step.
"""

import os
from pathlib import Path

CREDENTIAL = "credential:"
FALLBACK = "unprovisioned"  # what the unit sets where the file of a credential is missing, so that the service starts


class Unusable(Exception):
    """What lies in a file cannot be used. The text names the key, says why, and what to do."""


def path_of(key: str, place: str) -> Path:
    """Return where a file is. Raises Unusable where it is a credential, and systemd handed over none."""
    if not place.startswith(CREDENTIAL):
        return Path(place)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise Unusable(f"{_no_credential(key, place)}. systemd hands them only to a service; elsewhere write a path")
    return Path(folder) / place.removeprefix(CREDENTIAL)


def read(key: str, place: str) -> str:
    """Read a file of text. Raises Unusable."""
    return _read(key, place, None)


def read_pem(key: str, place: str) -> str:
    """Read a file of PEM. Raises Unusable.

    What stands around the PEM may be in any encoding, names in the comments of a bundle say. In Latin-1 each byte is
    a letter, so all can be read, and PEM is the same as in ASCII.
    """
    return _read(key, place, "latin-1")


def _read(key: str, place: str, encoding: str | None) -> str:
    path = path_of(key, place)
    try:
        text = path.read_text(encoding)
    except FileNotFoundError:
        if place.startswith(CREDENTIAL):
            raise Unusable(_no_credential(key, place)) from None
        raise Unusable(f"{key}: {path} is not there; put it there, or correct the path") from None
    except PermissionError:
        raise Unusable(f"{key}: {path} may not be read; let the user of the gateway read it: ls -l {path}") from None
    except UnicodeDecodeError:
        raise Unusable(f"{key}: {path} holds no text") from None
    except OSError as error:
        raise Unusable(f"{key}: {path} cannot be read: {error.strerror}; see ls -l {path}") from None
    if place.startswith(CREDENTIAL) and text == FALLBACK:
        step = "put it where LoadCredential says, see systemctl cat polegate, and restart the service"
        raise Unusable(f'{key}: the file of the credential "{path.name}" is not there; {step}')
    return text


def _no_credential(key: str, place: str) -> str:
    name = place.removeprefix(CREDENTIAL)
    step = f"add LoadCredential={name}:/PATH/OF/THE/FILE to the service with systemctl edit polegate, and restart it"
    return f'{key}: there is no credential "{name}"; {step}'

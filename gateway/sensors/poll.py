"""A job: poll one device, at its interval, for ever.

Polls lie on a grid from the first one on, so that a slow poll does not shift those after it. A device that gave no
answer twice in a row is asked less often: polls are left out, for up to a minute in the end. So it costs the others on
its line one time-out a minute, not one a poll, and it is heard within a minute of coming back. A port that is not
there costs the line nothing, so it is looked for at every poll, though once a second at the most: nobody waits for a
device meanwhile, and polls a millisecond apart would take the whole processor. So is a driver that fails.
"""

import asyncio

from drivers.contract import Asked, BadFrame, DeviceError, NoReply, Port, PortGone
from gateway.sensors.account import Account

PATIENCE = 2  # failures before the pause grows
AT_ONCE_S = 1.0  # what fails without a wait for the device is not tried more often
FIRST_PAUSE_S, LONGEST_PAUSE_S = 4.0, 60.0


async def poll(device: Asked, port: Port, account: Account) -> None:
    """Poll for ever. Whatever the device or its driver does stays here."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    failures = 0
    while True:
        at_once = 0.0
        try:
            account.took(await device.poll(port))
            failures = 0
        except DeviceError as error:
            account.lost(error)
            failures = failures + 1 if isinstance(error, NoReply | BadFrame) else 0
            at_once = AT_ONCE_S if isinstance(error, PortGone) else 0.0
        except Exception as error:  # noqa: BLE001  # anybody's driver: its fault must not end the others
            account.lost(account.bug(error))
            at_once = AT_ONCE_S
        due = next_poll(due, loop.time(), device.every, max(pause(failures), at_once))
        await asyncio.sleep(due - loop.time())


def pause(failures: int) -> float:
    """Return how many seconds to leave a device alone after that many failures in a row."""
    if failures < PATIENCE:
        return 0.0
    return float(min(FIRST_PAUSE_S * 2 ** min(failures - PATIENCE, 10), LONGEST_PAUSE_S))


def next_poll(due: float, now: float, every: float, leave_out: float) -> float:
    """Return the next instant of the grid: past now, and past as many more as fit in ``leave_out`` seconds."""
    missed = max(0, int((now - due) // every))
    return due + max(missed + 1, int(leave_out // every)) * every

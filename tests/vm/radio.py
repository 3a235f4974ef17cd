"""Runs in the guest: a Bluetooth controller for the kernel (``/dev/vhci``), which hears what the test machine sends.

It is of the kind that knows LE only: it scans, and does nothing else. The test machine puts an advert on a virtio port
as a line: the address, the RSSI in dBm, the AD structures in hex. The controller passes it on while the kernel has it
scan. It needs Python's own library and nothing else.

Source: Bluetooth Core Specification 4.2, vol. 2 part E: 7.3 to 7.5 and 7.8 (commands), 7.7.14 (Command Complete),
7.7.65.2 (LE Advertising Report); vol. 4 part A (the byte before each packet); Linux, drivers/bluetooth/hci_vhci.c.
"""

import os
import select
import struct

AIR = "/dev/virtio-ports/polegate.air"
COMMAND, EVENT, VENDOR = 1, 4, 0xFF  # the byte before a packet; the last is vhci's own
PRIMARY = b"\x00"
COMMAND_COMPLETE, LE_META, ADVERTISING_REPORT = 0x0E, 0x3E, 0x02
NOT_CONNECTABLE, RANDOM_ADDRESS = 3, 1
UNKNOWN_COMMAND = b"\x01"
SUCCESS = b"\x00"
CORE_4_2 = 8
ADDRESS = bytes.fromhex("00aa01dcba5a")
LE_ONLY = bytes([0, 0, 0, 0, 0x60, 0, 0, 0])  # features: LE, and no BR/EDR
ADVERTISING_STATES = bytes([0xFF, 0xFF, 0xFF, 0x3F, 0, 0, 0, 0])
SCAN_ENABLE = 0x200C
ANSWERS = {
    0x1001: SUCCESS + struct.pack("<BHBHH", CORE_4_2, 0, CORE_4_2, 0xFFFF, 0),  # Read Local Version
    0x1002: SUCCESS + bytes(64),  # Read Local Supported Commands: none beyond those that must be
    0x1003: SUCCESS + LE_ONLY,  # Read Local Supported Features
    0x1009: SUCCESS + ADDRESS,  # Read BD_ADDR
    0x2002: SUCCESS + struct.pack("<HB", 27, 4),  # LE Read Buffer Size
    0x2003: SUCCESS + bytes(8),  # LE Read Local Supported Features
    0x2007: SUCCESS + b"\x00",  # LE Read Advertising Channel Tx Power
    0x200F: SUCCESS + b"\x08",  # LE Read White List Size
    0x201C: SUCCESS + ADVERTISING_STATES,  # LE Read Supported States
    **dict.fromkeys(
        (
            0x0C03,  # Reset
            0x0C01, 0x2001,  # Set Event Mask, LE Set Event Mask
            0x0C6D,  # Write LE Host Support
            0x2005,  # LE Set Random Address
            0x2006, 0x2008, 0x2009, 0x200A,  # LE Set Advertising ...
            0x200B, SCAN_ENABLE,  # LE Set Scan ...
            0x2010, 0x2011, 0x2012,  # LE ... White List
        ),
        SUCCESS,
    ),
}  # fmt: skip


def complete(opcode: int) -> bytes:
    """Return the answer to a command."""
    told = struct.pack("<BH", 1, opcode) + ANSWERS.get(opcode, UNKNOWN_COMMAND)
    return bytes([EVENT, COMMAND_COMPLETE, len(told)]) + told


def report(line: bytes) -> bytes:
    """Return the event for an advert."""
    address, rssi, data = line.decode().split(" ")
    advert = bytes.fromhex(data)
    told = struct.pack("BBBB", ADVERTISING_REPORT, 1, NOT_CONNECTABLE, RANDOM_ADDRESS)
    told += bytes.fromhex(address.replace(":", ""))[::-1] + bytes([len(advert)]) + advert + struct.pack("b", int(rssi))
    return bytes([EVENT, LE_META, len(told)]) + told


def main() -> None:
    """Be the controller until it is killed."""
    air = os.open(AIR, os.O_RDONLY | os.O_NONBLOCK)
    host = os.open("/dev/vhci", os.O_RDWR)
    os.write(host, bytes([VENDOR]) + PRIMARY)
    scans = False
    waiting = b""
    while True:
        ready, _, _ = select.select([host, air], [], [])
        if host in ready:
            packet = os.read(host, 1024)
            if packet[0] == COMMAND:
                (opcode,) = struct.unpack_from("<H", packet, 1)
                if opcode == SCAN_ENABLE:
                    scans = packet[4] == 1
                os.write(host, complete(opcode))
        if air in ready:
            *lines, waiting = (waiting + os.read(air, 4096)).split(b"\n")
            for line in lines if scans else []:
                os.write(host, report(line))


if __name__ == "__main__":
    main()

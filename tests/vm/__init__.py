"""The package on a machine of its own kernel, in QEMU: see ``make test-vm``.

What a container cannot show is shown here: the power goes and takes the kernel's page cache along, adapters come and
go with their driver, the kernel ends what takes too much memory, Bluetooth is the kernel's and BlueZ's own.

``image`` makes the disk, once for each state of the checkout, and boots it once. ``guest`` is the machine. ``scene``
is what stands around it, on the test machine: broker, relay, meters. ``agent`` and ``radio`` run inside.
"""

"""``make bench``: what the gateway costs, measured on the installed program from outside.

Each scenario is a module with ``async def measure(folder, polegate) -> dict[str, float]``. Figures are of one run of
one machine: quote the ratios, which were measured beside something else in the same run.

=============  ==================================================================================
``load``       200 readings/s over Modbus TCP: CPU, bytes on the wire and on the flash
``start``      from exec to the first pack at the broker; memory after a minute, with Bluetooth
``line_use``   polls a second on RS-485, against what the wire allows
``dead``       what one dead slave of ten costs the others
``service``    a cold start, memory and CPU under the limits of the unit; the packages; the unit
``buffer``     the buffer against one row per reading: bytes, CPU, memory, fsyncs; the start with three days in it
=============  ==================================================================================
"""

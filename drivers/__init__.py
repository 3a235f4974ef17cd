"""Drivers: bytes in, quantities out.

A driver is one module that holds one frozen model. The model is the ``[[device]]`` section of the configuration
and knows how to read one kind of device; see :mod:`drivers.contract` for what it may and must do. It opens
nothing, logs nothing, reads no clock, and knows nothing of the gateway.

Drivers are found by the entry point group ``polegate.drivers``, ours and anybody else's.
"""

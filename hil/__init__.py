"""The bench: hardware in the loop, with the hardware emulated.

Emulated devices ("twins") speak on real ttys (pty) and on a real D-Bus, so that the gateway runs unmodified,
down to pyserial and bleak. The bench knows the gateway only as a process, the drivers not at all: every twin is
written from the datasheet, so that a mistake in a driver meets somebody who read the same page and understood
it otherwise.

=============  ============================================================================
``vclock``     an event loop on real file descriptors whose clock jumps
``wire``       a pty that can be plugged and pulled like a USB adapter
``rs485``      one pair of wires, many slaves, byte timing, faults
``uart``       one device on one wire: answers, or talks by itself, or replays a capture
``modbus_tcp`` the same slaves behind a TCP socket
``bus``        a private ``dbus-daemon``
``bluez``      an emulated ``org.bluez`` on it
``adverts``    Bluetooth LE advertising data as it is on the air
``broker``     MQTT brokers as processes: embedded, mosquitto
``cluster``    several that are one, whose nodes can be killed: ``nats``, ``rabbitmq``
``machine``    a machine with a real systemd, in a container
``reader``     a receiver: decodes the packs and proves them complete
``pole``       all of it together: the pole of ``make demo``
=============  ============================================================================
"""

"""Why a broker does not take something: reason codes, MQTT 5 section 2.4.

paho gives the codes of 3.1.1, and an end without a word, as these.
"""

UNSPECIFIED = 0x80
UNSUPPORTED_VERSION = 0x84
TAKEN_OVER = 0x8E
PACKET_TOO_LARGE = 0x95
NOT_AUTHORISED = {0x86, 0x87, 0x8C}  # bad user name or password, not authorised, bad authentication method

HOPELESS = {0x90, PACKET_TOO_LARGE, 0x99}
"""Of a message that no other try can bring through: topic name invalid, packet too large, payload format invalid."""

FAULTS = {UNSPECIFIED, 0x81, 0x82, 0x83, *HOPELESS}
"""Of the end of a link over a packet that has one, or may: malformed, protocol error, not to be processed here.

All others but the denials are about the broker or the connection (section 3.14.2.1): it stops, is busy, has moved.
"""

DENIALS = {0x87, 0x96, 0x97}
"""Of the end of a link over what is not taken at present: not authorised, message rate too high, quota exceeded."""

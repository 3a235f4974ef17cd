"""A GNSS receiver that reports once a second in NMEA 0183: GGA, RMC, GSA, GSV, VTG (9600 8N1).

A sentence is ``$``, comma-separated fields, ``*``, the XOR of what is between in two hex digits, CR LF. What the
receiver does not know yet is an empty field.

Source: NMEA 0183 V3.01 sentence layouts as in the vectors' receiver logs; field widths are a u-blox 8's.
"""

from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import xor

from hil.faults import seeded
from hil.truth import Said, Truth, Wander, now

_METRES_PER_DEGREE = 111_120.0
_METRES_PER_NAUTICAL_MILE = 1852.0
_IN_VIEW = (3, 6, 9, 11, 14, 17, 19, 22, 24, 32)
_USED = 8


class Nmea0183:
    """The receiver, on a pole that does not move.

    Args:
        seed: for the wander of the fix and the satellites' places.
        latitude: degrees, north positive.
        longitude: degrees, east positive.
        altitude: m above mean sea level.
        utc: UTC now.
        cold_s: how long it searches before its first fix.
    """

    period = 1.0

    def __init__(
        self,
        *,
        seed: int = 0,
        latitude: float = 60.20550,
        longitude: float = 24.65590,
        altitude: float = 21.4,
        utc: datetime = datetime(2026, 6, 1, 9, 0, tzinfo=UTC),
        cold_s: float = 0.0,
    ) -> None:
        dice = seeded(seed, "nmea0183")
        self._latitude = Wander(dice, latitude, 2.0 / _METRES_PER_DEGREE)
        self._longitude = Wander(dice, longitude, 3.0 / _METRES_PER_DEGREE)
        self._altitude = Wander(dice, altitude, 3.0)
        self._knots = Wander(dice, 0.05, 0.04)
        self._course = Wander(dice, 180.0, 170.0)
        self._hdop = Wander(dice, 1.1, 0.3)
        self._sky = [(dice.randrange(5, 90), dice.randrange(360), dice.randrange(18, 48)) for _ in _IN_VIEW]
        self._utc = utc - timedelta(seconds=now())
        self._fix_at = now() + cold_s
        self._said = Said()

    def truth(self, at: float | None = None) -> Truth:
        """Return what was sent last at a time (s of the loop; None is now).

        Degrees to 1e-7 (sent as minutes to 1e-5, so compare to 1e-7), m, m/s (of RMC's knots) to 1e-4, degrees.
        Without a fix there are only ``fix_quality`` and ``satellites``, both 0.
        """
        return self._said.at(at)

    def speak(self) -> bytes:
        """Return one second's sentences."""
        sentences = self._fix() if now() >= self._fix_at else self._search()
        return b"".join(map(sentence, sentences))

    def _search(self) -> list[str]:
        self._said.note({"fix_quality": 0, "satellites": 0})
        return [
            "GPRMC,,V,,,,,,,,,,N",
            "GPVTG,,,,,,,,,N",
            "GPGGA,,,,,,0,00,,,,,,,",
            "GPGSA,A,1,,,,,,,,,,,,,,,",
            "GPGSV,1,1,00",
        ]

    def _fix(self) -> list[str]:
        at = now()
        utc = self._utc + timedelta(seconds=at)
        clock = f"{utc:%H%M%S}.{utc.microsecond // 10000:02}"
        north, latitude = _minutes(self._latitude.at(at), 2, "NS")
        east, longitude = _minutes(self._longitude.at(at), 3, "EW")
        altitude = round(self._altitude.at(at), 1)
        knots = round(self._knots.at(at), 3)
        course = round(self._course.at(at), 2)
        hdop = round(self._hdop.at(at), 2)
        self._said.note(
            {
                "latitude": latitude,
                "longitude": longitude,
                "altitude": altitude,
                "speed": round(knots * _METRES_PER_NAUTICAL_MILE / 3600, 4),
                "course": course,
                "fix_quality": 1,
                "satellites": _USED,
                "hdop": hdop,
            }
        )
        used = ",".join(f"{number:02}" for number in _IN_VIEW[:_USED]) + "," * (12 - _USED)
        kmh = knots * _METRES_PER_NAUTICAL_MILE / 1000
        return [
            f"GPRMC,{clock},A,{north},{east},{knots:.3f},{course:.2f},{utc:%d%m%y},,,A",
            f"GPVTG,{course:.2f},T,,M,{knots:.3f},N,{kmh:.3f},K,A",
            f"GPGGA,{clock},{north},{east},1,{_USED:02},{hdop:.2f},{altitude:.1f},M,19.6,M,,",
            f"GPGSA,A,3,{used},{hdop + 0.8:.2f},{hdop:.2f},{hdop + 0.3:.2f}",
            *self._in_view(),
        ]

    def _in_view(self) -> list[str]:
        """Return the GSV sentences, four satellites each."""
        satellites = [
            f",{number:02},{elevation:02},{azimuth:03},{strength:02}"
            for number, (elevation, azimuth, strength) in zip(_IN_VIEW, self._sky, strict=True)
        ]
        groups = ["".join(satellites[first : first + 4]) for first in range(0, len(satellites), 4)]
        return [f"GPGSV,{len(groups)},{n},{len(_IN_VIEW):02}{group}" for n, group in enumerate(groups, 1)]


def _minutes(degrees: float, width: int, signs: str) -> tuple[str, float]:
    """Return the field pair ``ddmm.mmmmm,N`` and the degrees it stands for."""
    hundred_thousandths = round(abs(degrees) * 60 * 1e5)
    whole, rest = divmod(hundred_thousandths, 60 * 10**5)
    text = f"{whole:0{width}}{rest // 10**5:02}.{rest % 10**5:05},{signs[degrees < 0]}"
    sent = round(hundred_thousandths / 6e6, 7)
    return text, -sent if degrees < 0 else sent


def sentence(content: str) -> bytes:
    """Return a sentence as it is on the wire."""
    checksum = reduce(xor, content.encode())
    return f"${content}*{checksum:02X}\r\n".encode()

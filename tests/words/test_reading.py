"""A reading: what in it is a value, and what tells of one that is not there."""

from gateway.words.reading import ACCEPTED, REJECTED, Quality, Reading


def test_the_channels_of_a_reading_are_those_with_a_value_whatever_they_are_called() -> None:
    values: dict[str, int | str | Quality] = {
        "quality": Quality(ACCEPTED, "ok"),
        "fix_quality": 1,
        "air-quality": "good",
        "hdop/quality": Quality(REJECTED, "no-reading"),
    }
    assert Reading("gnss", "position", 0, {**values}).channels == ("fix_quality", "air-quality")

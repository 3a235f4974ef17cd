"""What several tests of rollouts share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.broker import mosquitto
from tests.remote.office import Office


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Office]:
    """Run a broker, with rules where a test has some, and an operator's folder beside it."""
    extra = ""
    if rules := getattr(request, "param", ""):
        (tmp_path / "rules").write_text(rules)
        extra = f"acl_file {tmp_path}/rules"
    running = mosquitto(tmp_path, extra)
    running.start()
    yield Office(tmp_path, running.port)
    running.stop()

"""Alarms and changes of the configuration are few and each counts: their datasets have other defaults."""

from pathlib import Path

import pytest

from gateway.config.settings import DatasetSettings
from tests.config.settings_scene import faults, read

LEAST = '[pole]\nid = "pole-7"\n[uplink]\nurl = "mqtt://broker"\n'
HURRY = DatasetSettings(send_every=0.2, commit_within=0.2, priority=9, when_full="keep")


@pytest.mark.parametrize("section", ["", "[dataset.air]\npriority = 1\n", "[dataset.alarm]\n[dataset.configuration]\n"])
def test_they_are_on_the_disk_in_a_fifth_of_a_second_and_stay_longest(tmp_path: Path, section: str) -> None:
    settings = read(tmp_path, LEAST + section)
    assert settings.dataset("alarm") == settings.dataset("configuration") == HURRY
    assert settings.dataset("noise") == DatasetSettings()


def test_what_the_section_says_holds(tmp_path: Path) -> None:
    settings = read(tmp_path, LEAST + '[dataset.alarm]\ncommit_within = 1.0\nowner = "city"\n')
    assert settings.dataset("alarm") == HURRY.model_copy(update={"commit_within": 1.0, "owner": "city"})


@pytest.mark.parametrize(
    "wrong", ["alarm = 3\n", "configuration = 3\n", "[dataset.alarm]\npriority = 10\n", "[[dataset.alarm]]\n"]
)
def test_what_is_wrong_with_it_is_told(tmp_path: Path, wrong: str) -> None:
    text = f"{LEAST}[dataset]\n{wrong}" if not wrong.startswith("[") else LEAST + wrong
    assert len(faults(tmp_path, text)) == 1


def test_a_history_is_written_as_people_say_it(tmp_path: Path) -> None:
    for written, seconds in (("30m", 1800), ("12h", 43_200), ("7d", 604_800)):
        assert read(tmp_path, f'{LEAST}[buffer]\nhistory = "{written}"\n').root.buffer.history_s == seconds
    assert read(tmp_path, LEAST).root.buffer.history_s == 0
    (fault,) = faults(tmp_path, f'{LEAST}[buffer]\nhistory = "a week"\n')
    assert 'is written "30m", "12h" or "7d"' in fault

"""The signs of trouble: what is wrong with devices, buffer and clock, in a word, in words and with the next step."""

import errno
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.jobs.signs import Certificate, Refusal, Sign, Signs
from gateway.store.pack_sql import Mended
from gateway.words.health import DeviceHealth
from gateway.words.standing import Verdict

NS = 1_000_000_000


@dataclass
class Pole:
    """All that is looked at."""

    time: int = 100 * NS
    right: bool = True
    trouble: str = ""
    mended: Mended | None = None
    health: dict[str, DeviceHealth] = field(default_factory=dict)
    dead: int = 0
    refused: dict[str, Refusal] = field(default_factory=dict)
    certificate: Certificate = field(default_factory=Certificate)
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        self.signs = Signs(
            self,
            self.health,
            lambda: self.trouble,
            lambda: self.mended,
            dead=lambda: self.dead,
            refused=lambda: self.refused,
            certificate=lambda: self.certificate,
            verdict=lambda: self.verdict,
        )

    def now(self) -> int:
        """Return nanoseconds since boot."""
        return self.time

    def utc_offset(self) -> int:
        """Return what to add for nanoseconds since 1970."""
        return 0

    def synchronised(self) -> bool:
        """Tell whether that is right."""
        return self.right

    def look(self, subject: str) -> Sign:
        """Look a second later."""
        self.time += NS
        return next(sign for sign in self.signs.look() if sign.subject == subject)


def test_a_pole_that_is_well_shows_no_sign() -> None:
    pole = Pole(health={"dust": DeviceHealth()})
    assert [(sign.event, sign.subject, sign.code) for sign in pole.signs.look()] == [
        ("device", "dust", ""),
        ("uplink", "certificate", ""),
        ("buffer", "buffer", ""),
        ("buffer", "dead", ""),
        ("clock", "clock", ""),
        ("configuration", "configuration", ""),
    ]


def test_a_device_is_told_in_the_words_of_its_error() -> None:
    health = DeviceHealth(lapse="no-reply", since=7 * NS, text="nothing came", hint="Check the power.")
    health.lapses["no-reply"] = 3
    sign = Pole(health={"dust": health}).look("dust")
    assert sign == Sign("device", "dust", "no-reply", 7 * NS, {"no-reply": 3}, "nothing came", "Check the power.")


def test_a_dataset_that_the_broker_does_not_take_is_a_sign_until_it_does() -> None:
    pole = Pole()
    pole.refused["air"] = Refusal("not-authorised", "the broker refuses with reason 0x87", "Let the pole publish.")
    sign = pole.look("air")
    assert sign == Sign("uplink", "air", "not-authorised", 101 * NS, {"not-authorised": 1}, *pole.refused["air"][1:])
    assert pole.look("air") == sign
    del pole.refused["air"]
    over = pole.look("air")
    assert (over.code, over.since, over.hint) == ("", 103 * NS, "")


def test_a_certificate_is_a_sign_two_weeks_before_it_ends_and_where_a_new_one_does_not_work() -> None:
    day = 86_400
    pole = Pole(certificate=Certificate(15 * day))
    assert pole.look("certificate").code == ""
    pole.time += day * NS
    sign = pole.look("certificate")
    assert (sign.code, sign.text) == ("expires", "the pole's certificate ends in 14.0 days")
    assert "`cert_file`" in sign.hint
    pole.certificate = Certificate(15 * day, "it is of another authority")
    assert pole.look("certificate")[2:] == (
        "not-renewed",
        pole.time,
        sign.times,
        "it is of another authority",
        sign.hint,
    )
    assert sign.times == {"expires": 1, "not-renewed": 1}


def test_packs_that_no_broker_takes_are_a_sign_with_the_command_that_lists_them() -> None:
    pole = Pole(dead=3)
    sign = pole.look("dead")
    assert (sign.event, sign.code, sign.text) == ("buffer", "dead-letters", "packs that no broker takes: 3")
    assert "polegate buffer dead" in sign.hint
    pole.dead = 0
    assert pole.look("dead").code == ""


def _full(path: Path) -> None:
    with sqlite3.connect(path) as sql:
        sql.execute("PRAGMA max_page_count = 2")
        sql.execute("CREATE TABLE t (x)")
        sql.execute("INSERT INTO t VALUES (zeroblob(100000))")


def _read_only(path: Path) -> None:
    path.touch()
    sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute("CREATE TABLE t (x)")


def _no_folder(path: Path) -> None:
    sqlite3.connect(path / "nowhere" / "buffer.db")


def _no_space(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def _read_only_system(path: Path) -> None:
    raise OSError(errno.EROFS, "Read-only file system", str(path))


@pytest.mark.filterwarnings("ignore:unclosed database")  # the collector closes what a raised error left
@pytest.mark.parametrize(
    ("does", "code", "hint"),
    [
        (_full, "disk-full", "Make room"),
        (_no_space, "disk-full", "Make room"),
        (_read_only, "read-only", "dmesg"),
        (_read_only_system, "read-only", "dmesg"),
        (_no_folder, "not-writable", "folder"),
    ],
)
def test_what_sqlite_and_the_kernel_say_of_the_buffer_is_put_in_a_word(
    tmp_path: Path, does: Callable[[Path], None], code: str, hint: str
) -> None:
    with pytest.raises((sqlite3.Error, OSError)) as raised:
        does(tmp_path / "buffer.db")
    pole = Pole(trouble=f"cannot be opened: {raised.value}")
    sign = pole.look("buffer")
    assert (sign.code, sign.times) == (code, {code: 1})
    assert str(raised.value) in sign.text
    assert hint in sign.hint
    assert pole.look("buffer") == sign  # the same trouble goes on
    pole.trouble = ""
    over = pole.look("buffer")
    assert (over.code, over.times, over.hint) == ("", {code: 1}, "")
    assert over.since == pole.time
    pole.trouble = sign.text
    assert pole.look("buffer").times == {code: 2}


def test_a_file_that_was_damaged_and_mended_shows_though_it_works_again() -> None:
    pole = Pole()
    assert pole.look("buffer").times == {}
    pole.mended = Mended("a page is torn", 40, 2, "/var/lib/polegate/buffer.db.damaged-1")
    sign = pole.look("buffer")
    assert (sign.code, sign.times) == ("", {"damaged": 1})
    assert "a page is torn" in sign.text
    assert "40 packs are kept, 2 were" in sign.text
    assert sign.hint == "polegate buffer salvage /var/lib/polegate/buffer.db.damaged-1"
    assert pole.look("buffer").times == {"damaged": 1}
    pole.mended = Mended("a page is torn", 40, 2, "")
    assert pole.look("buffer").times == {"damaged": 2}
    assert pole.look("buffer").hint == ""


def test_a_clock_that_is_not_right_is_told_since_when() -> None:
    pole = Pole()
    pole.right = False
    sign = pole.look("clock")
    assert (sign.code, sign.since, sign.times) == ("unsynchronised", pole.time, {"unsynchronised": 1})
    assert "time server" in sign.hint
    pole.right = True
    assert pole.look("clock").code == ""


def test_what_was_wrong_with_a_device_is_over_when_it_is_taken_out() -> None:
    pole = Pole(
        health={"dust": DeviceHealth(lapse="no-reply", since=7 * NS, text="nothing came"), "tag": DeviceHealth()}
    )
    assert pole.look("dust").code == "no-reply"
    del pole.health["dust"], pole.health["tag"]
    over = pole.look("dust")
    assert (over.code, over.since, over.text, over.hint) == ("", pole.time, "it was taken out of the configuration", "")
    assert pole.look("dust") == over
    pole.health["dust"] = DeviceHealth()
    assert pole.look("dust").text == "it gives values"


def test_a_configuration_that_was_not_taken_is_a_sign_until_one_is_accepted() -> None:
    pole = Pole()
    for result, code in (("refused", "not-taken"), ("rolled-back", "rolled-back"), ("accepted", "")):
        pole.verdict = Verdict(result, "local", 0, "ab12", "the tag is silent", pole.time)  # type: ignore[arg-type]  # they are
        sign = pole.look("configuration")
        assert (sign.event, sign.code, sign.since) == ("configuration", code, sign.since)
        assert (sign.text == "the tag is silent") == bool(code)
        assert ("systemctl reload" in sign.hint) == bool(code)
    assert pole.look("configuration").times == {"not-taken": 1, "rolled-back": 1}
    pole.verdict = Verdict("rolled-back", "fleet", 42, "ab12", "the tag is silent", pole.time)
    assert "under the next number" in pole.look("configuration").hint


def test_people_at_the_pole_are_told_what_is_wrong_and_whether_that_is_normal_for_a_while() -> None:
    pole = Pole(
        time=400 * NS, health={"gnss": DeviceHealth(lapse="not-ready", since=150 * NS, text="no fix", hint="Wait.")}
    )
    pole.right = False
    told = {sign.subject: sign for sign in pole.signs.told()}
    gnss = told["gnss"]
    assert (gnss.event, gnss.code, gnss.since, gnss.text, gnss.hint) == (
        "device",
        "not-ready",
        150.0,
        "no fix",
        "Wait.",
    )
    assert gnss.is_normal
    assert told["clock"].is_normal
    assert (told["buffer"].code, told["buffer"].is_normal) == ("", False)
    pole.time = 450 * NS
    assert not next(sign for sign in pole.signs.told() if sign.subject == "gnss").is_normal
    pole.health["gnss"].lapse = "no-reply"
    pole.health["gnss"].since = 449 * NS
    assert not next(sign for sign in pole.signs.told() if sign.subject == "gnss").is_normal

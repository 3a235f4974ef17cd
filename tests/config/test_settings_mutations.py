"""Whatever a hand does to a sound file, it loads, or a person can read why not."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.faults import Fault, SettingsError
from tests.config.settings_scene import PROFILE, SOUND, read
from tests.examples import examples

EVERYTHING = f"""\
{SOUND}every = 5.0
dataset = "weather"

[buffer]
path = "/var/lib/polegate/buffer.db"
max_bytes = 8_388_608

[bluetooth]
adapter = "hci0"

[port.spare]
path = "tcp://10.0.0.7:502"

[port.dust]
path = "/dev/ttyS9"
baud = 9600
parity = "even"
stop_bits = 2

[dataset.energy]
send_every = 2.0
owner = "city"

[[device]]
id = "dust"
driver = "sps30"
port = "dust"
warm_up = 5
timeout = 0.5
"""
EVERY_KEY = f"""\
function = 4
word_order = "low-first"
most_registers = 60
baud = 4800
parity = "none"
stop_bits = 1
recorded = false
{PROFILE}scale = 0.1
offset = 5
invalid = [0xffff, 1]
lwm2m = "3317/5700"
"""
VALUES = (
    *("1", "-1", "0", "1.5", "nan", "inf", "-inf", "1e400", "0x7fff_ffff_ffff_ffff_ffff", "9" * 30, "07", "1_0"),
    *('"x"', '""', "''", '"a b"', '"a/b"', '"rs485"', '"meter"', '"mine"', '"ruuvi"', '"modbus"', '"sds011"', '"9600"'),
    *("true", "false", "[]", "[1]", '["x", 1.5]', "[[1], [2]]", "{}", "{ a = 1 }", "[{ a = 1 }, { b = [2] }]", "[{}]"),
    *("2026-01-01", "12:00:00", "2026-01-01T12:00:00Z", '"""a\nb"""', "[\n1,\n2,\n]", "x", "", "[", "{", '"', "'''"),
    *('"tcp://h:1"', '"/dev/null"', '"mqtt://b:1"', '"mqtt://u:p@b"', '"\\u001b[2J"', '"a\\u0000"', f'"{"y" * 300}"'),
)
LINES = (
    *("[pole]", "[uplink]", "[[pole]]", "[device]", "[[device]]", "[port]", "[port.x]", '[port."a b"]', "[[port]]"),
    *(
        "[dataset]",
        "[dataset.air]",
        "[buffer.x]",
        "[[register]]",
        "[register]",
        "[[device.x]]",
        "[device.id]",
        "[a.b.c]",
    ),
    *(
        "x = 1",
        "id = 1",
        "port = 5",
        "device = 5",
        "pole.id = 1",
        '"" = 1',
        "a.b = 1",
        '"a.b" = { c = [1, { d = 1 }] }',
    ),
    *("# comment", "", "garbage", "= 1", "]", "}", ",", '"""', "\0", "\t\t", "é = 1", "x = 1 y = 2"),
)
PYDANTIC = re.compile(
    r"Input|Value error|[Vv]alid|pydantic|[Ss]hould|Extra|permitted|literal|[Uu]nexpected|argument|parse|required|"
    r"Error|Traceback|type=|<class|\b(?:str|int|dict|float|bool|tuple|None|NoneType|True|False|Path|datetime|object)\b"
)
"""The words of the library that finds the faults, and of Python."""
Mutation = Callable[[list[str], int], list[str]]


def replaced(value: str) -> Mutation:
    return lambda lines, at: [*lines[:at], f"{lines[at].partition('=')[0]}= {value}", *lines[at + 1 :]]


def renamed(letters: str) -> Mutation:
    def rename(lines: list[str], at: int) -> list[str]:
        name, equals, value = lines[at].partition(" = ")
        return [*lines[:at], name[:-1] + letters + equals + value, *lines[at + 1 :]]

    return rename


def inserted(line: str) -> Mutation:
    return lambda lines, at: [*lines[:at], line, *lines[at:]]


def typed(character: str, place: int) -> Mutation:
    """Hit a key somewhere in the line, in the place of what stands there."""

    def hit(lines: list[str], at: int) -> list[str]:
        spot = place % (len(lines[at]) + 1)
        return [*lines[:at], lines[at][:spot] + character + lines[at][spot + 1 :], *lines[at + 1 :]]

    return hit


def dropped(lines: list[str], at: int) -> list[str]:
    return [*lines[:at], *lines[at + 1 :]]


def doubled(lines: list[str], at: int) -> list[str]:
    return [*lines[: at + 1], *lines[at:]]


def cut(lines: list[str], at: int) -> list[str]:
    return lines[: at + 1]


WHOLE_LINES: tuple[Mutation, ...] = (dropped, doubled, cut)
MUTATIONS = st.one_of(
    st.sampled_from(WHOLE_LINES),
    st.sampled_from(VALUES).map(replaced),
    st.sampled_from(["", "x", "_", "-", " ", ".x", "S"]).map(renamed),
    st.sampled_from(LINES).map(inserted),
    st.builds(typed, st.text(max_size=2), st.integers(0, 60)),
)
HANDS = st.lists(st.tuples(MUTATIONS, st.integers(0, 200)), min_size=1, max_size=4)


def spoil(text: str, hands: list[tuple[Mutation, int]]) -> str:
    lines = text.splitlines()
    for mutate, at in hands:
        lines = mutate(lines, at % len(lines)) or [""]
    return "\n".join(lines)


def faults_of(text: str, profile: str) -> list[Fault]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            settings = read(Path(folder), text.encode("utf-8", "surrogatepass"), profile)
        except SettingsError as error:
            return error.faults
    assert len(settings.devices) == len(settings.root.device), "a device of the file is not one of the pole"
    return []


def must_be_readable(fault: Fault, texts: dict[str, str]) -> None:
    own_words = re.sub(r'"[^"]*"', "", fault.text)  # what stands in quotes is the file's
    assert not PYDANTIC.search(own_words), fault
    assert fault.text.isprintable(), fault
    assert fault.text == fault.text.strip(), fault
    lines = texts[Path(fault.file).name].count("\n") + 1
    assert 0 <= fault.line <= lines, fault
    if fault.line == 0:  # what is not there has no line
        assert re.search(
            r"^section .* is missing|^holds no setting|^key .* is missing|has no \[\[register\]\]", fault.text
        ), fault


@examples(500)
@given(HANDS)
def test_a_spoilt_configuration_loads_or_every_fault_can_be_read(hands: list[tuple[Mutation, int]]) -> None:
    text = spoil(EVERYTHING, hands)

    found = faults_of(text, PROFILE)

    assert found == sorted(set(found))
    for fault in found:
        must_be_readable(fault, {"pole.toml": text, "mine.toml": PROFILE})


@examples(300)
@given(HANDS)
def test_a_spoilt_profile_loads_or_every_fault_can_be_read(hands: list[tuple[Mutation, int]]) -> None:
    profile = spoil(EVERY_KEY, hands)

    for fault in faults_of(SOUND, profile):
        must_be_readable(fault, {"pole.toml": SOUND, "mine.toml": profile})


def test_the_files_that_are_spoilt_are_sound_before() -> None:
    assert faults_of(EVERYTHING, EVERY_KEY) == []


def test_whatever_key_gets_a_value_of_the_wrong_kind_its_own_line_is_blamed() -> None:
    for text, is_profile in ((EVERYTHING, False), (EVERY_KEY, True)):
        for number, line in enumerate(text.splitlines(), 1):
            if " = " not in line:
                continue
            for mutate in (replaced("[[1], [2]]"), replaced("2026-01-01"), renamed("zzz")):
                spoilt = spoil(text, [(mutate, number - 1)])
                found = faults_of(SOUND, spoilt) if is_profile else faults_of(spoilt, PROFILE)
                assert number in {fault.line for fault in found}, (line, found)

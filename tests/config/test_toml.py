"""TOML with the line of every key."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market.config import toml
from compute_market.config.files import render_default
from compute_market.config.toml import DecimalText
from compute_market.errors import UsageError

TRICKY = '''\
a = "x # y [" # " """ \'\'\' [
b = """
c = 1 \\""" "" """""
d = [ # ]
  "]", \'[\', [1, # [[
  2],
  """
]
""",
]
e = \'\'\'
# \'\' " \\\'\'\'
"f # " = \'\\\' # \'

  # [g]
[h.i] # j = 1
\t"k" = {l = "}", m = [{n = 1}]}
o.p = """"""
[[q]]
r = """"a"""
[[q]]
r = \'\'\'\'b\'\'\'\'
'''


def test_read_tells_the_line_of_every_key() -> None:
    document, lines = toml.read(TRICKY, "f")
    assert list(document) == ["a", "b", "d", "e", "f # ", "h", "q"]
    assert lines == {
        ("a",): 1,
        ("b",): 2,
        ("d",): 4,
        ("e",): 11,
        ("f # ",): 13,
        ("h",): 16,
        ("h", "i"): 16,
        ("h", "k"): 17,
        ("h", "k", "l"): 17,
        ("h", "k", "m"): 17,
        ("h", "o"): 18,
        ("h", "o", "p"): 18,
        ("q",): 19,
        ("q", "r"): 20,
    }


def test_read_of_lines_that_end_as_on_windows_tells_the_same() -> None:
    assert toml.read(TRICKY.replace("\n", "\r\n"), "f")[1] == toml.read(TRICKY, "f")[1]


def test_read_takes_time_as_the_length_grows() -> None:
    """Not as its square, by which the longer one would take 64 times as long."""

    def seconds(lines: int) -> float:
        text = 'a = """\n' + "text\n" * lines + '"""\nb = [\n' + "1,\n" * lines + "]\n"
        began = time.perf_counter()
        _, found = toml.read(text, "f")
        taken = time.perf_counter() - began
        assert found == {("a",): 1, ("b",): lines + 3}
        return taken

    seconds(10)
    short, long = (min(seconds(lines) for _ in range(3)) for lines in (1_000, 8_000))
    assert long < 30 * short


@pytest.mark.parametrize("text", ["a = 1\nb = " + "[" * 9_000, "a = 1\nb = " + "1" * 5_000])
def test_read_names_the_line_of_what_no_parser_takes(text: str) -> None:
    with pytest.raises(UsageError, match=r"^f:2: "):
        toml.read(text, "f")


PLAIN_LINES = [
    "# Mine – see the default file.",
    "a = 1_000\t",
    "c = 0.25# a comment",
    "_d = true",
    'e = "x # y" # "z"',
    'f = ""',
    "",
    " [g]",
    "  h = [] \t",
    "1 = 0",
    'j-k=[ "l" ,"m" ]',
    "[2]",
]


def test_read_plain_reads_every_kind_of_plain_line() -> None:
    assert toml.read_plain("\n".join(PLAIN_LINES)) == (
        {
            "a": 1000,
            "c": DecimalText("0.25"),
            "_d": True,
            "e": "x # y",
            "f": "",
            "g": {"h": [], "1": 0, "j-k": ["l", "m"]},
            "2": {},
        },
        {
            ("a",): 2,
            ("c",): 3,
            ("_d",): 4,
            ("e",): 5,
            ("f",): 6,
            ("g",): 8,
            ("g", "h"): 9,
            ("g", "1"): 10,
            ("g", "j-k"): 11,
            ("2",): 12,
        },
    )
    assert toml.read_plain(b"a = 1") == ({"a": 1}, {("a",): 1})
    assert toml.read_plain(render_default()) is not None


PIECES = [
    *("a", "b", "_", "-", "0", "7", ".", "=", " = ", '"', "'", "\\", "#", "[", "]", "{", "}", ","),
    *(" ", "\t", "\n", "\r\n", "\r", "\x7f", "\u2028", "\ufeff", "\u00e4", "\u00b2", "\ud800"),
    *("\na = ", "\nb = ", "\n[a]\n", "\n[b]\n", "true", "false", "1_0", "0.5", "1e3", "+1", "inf"),
    *('"c"', '["c", "d"]', '""', '"""', "1979-05-27", "0x1", "e", "7" * 41),
]


@given(
    st.lists(st.sampled_from(PIECES)).map("".join),
    st.permutations(PLAIN_LINES).map("\n".join),
    st.integers(0, 200),
    st.integers(0, 3),
)
def test_read_plain_reads_what_any_parser_would_or_nothing(
    pieces: str, lines: str, at: int, gone: int
) -> None:
    """Alone, and within a plain document of which something is gone."""
    for text in (pieces, lines[:at] + pieces + lines[at + gone :]):
        if (plain := toml.read_plain(text)) is not None:
            # By their text, which tells `True` from `1`, and another order.
            assert repr(plain) == repr(toml.read_any(text, "f"))


@pytest.mark.parametrize(
    "content", [b"a = \xff", b"a = 1\nb = 01", "a = 1\r\n", "a.b = 1", "a = '1'"]
)
def test_read_plain_leaves_all_else_to_the_parser(content: bytes | str) -> None:
    assert toml.read_plain(content) is None

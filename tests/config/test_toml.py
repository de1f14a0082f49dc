"""TOML with the line of every key."""

import time

import pytest

from compute_market.config import toml
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

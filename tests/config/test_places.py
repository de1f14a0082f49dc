"""The line of every key of a TOML file, however deep."""

import pytest

from compute_market.config import places
from compute_market.errors import UsageError

TEXT = """\
# A comment, and "[not.a.table]".
top = 1
multi = [
    "a", # [[x]]
    "b",
]
inline = { left = 1, right = [{ deep = 2 }] }
long = '''
[[fake]]
'''

[[shops]]
name = "one"

[shops.door]
width = 1

[[shops.shelves]]
height = 1
[[shops.shelves]]
height = 2

[[shops]]
name = "two"
a.dotted.key = 3
  [[shops.shelves]]
  height = 3

[plain.table]
"quoted key" = 1
"""

LINES = {
    ("top",): 2,
    ("multi",): 3,
    ("multi", 1): 3,
    ("inline", "right", 0, "deep"): 7,
    ("long",): 8,
    ("shops",): 12,
    ("shops", 0): 12,
    ("shops", 0, "name"): 13,
    ("shops", 0, "door"): 15,
    ("shops", 0, "door", "width"): 16,
    ("shops", 0, "shelves"): 18,
    ("shops", 0, "shelves", 0, "height"): 19,
    ("shops", 0, "shelves", 1): 20,
    ("shops", 0, "shelves", 1, "height"): 21,
    ("shops", 1): 23,
    ("shops", 1, "name"): 24,
    ("shops", 1, "a", "dotted", "key"): 25,
    ("shops", 1, "shelves", 0): 26,
    ("shops", 1, "shelves", 0, "height"): 27,
    ("plain", "table"): 29,
    ("plain", "table", "quoted key"): 30,
}


def test_read_knows_the_line_of_every_place() -> None:
    document, lines = places.read(TEXT, "s.toml")
    assert {place: lines.get(place) for place in LINES} == LINES
    assert ("fake",) not in lines
    assert ("x",) not in lines
    assert document["shops"][1]["shelves"] == [{"height": 3}]


def test_read_counts_lines_that_end_in_two_characters() -> None:
    _, lines = places.read(TEXT.replace("\n", "\r\n").encode(), "s.toml")
    assert {place: lines.get(place) for place in LINES} == LINES


@pytest.mark.parametrize("content", [b"\xff", "x = [1", "[a]\n[a]", f"x = {'[' * 2000}"])
def test_read_refuses_what_is_no_toml(content: bytes | str) -> None:
    with pytest.raises(UsageError, match=r"^s\.toml:\d"):
        places.read(content, "s.toml")

"""The series of a simulation as pictures on a terminal."""

from typing import Any

import pytest

from tb_cli.frame import plots
from tb_cli.frame.plots import curves_of, pictures, sparkline
from tests.support.cli import without


def sample(at_secs: int, **changed: Any) -> dict[str, Any]:
    band = {"p25": 3, "median": 5, "p75": 9}
    found = {
        "at_secs": at_secs,
        "utilization": at_secs / 1000,
        "queued": {"high": 0, "normal": 0, "low": 0},
        "pending": 0,
        "shares": {"buyers": {"a": 0.1}, "providers": {}},
        "prices": {"industrial": band if at_secs else None, "consumer": None},
    }
    return found | changed


SERIES = [sample(at_secs) for at_secs in (0, 60, 120)]


@pytest.fixture
def plotext() -> None:
    """An extra that need not be installed."""
    if missing := without("python:plotext"):
        pytest.skip(missing)


@pytest.fixture(params=["plotext", "sparklines"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sparklines":
        monkeypatch.setattr(plots, "_has_plotext", lambda: False)
    else:
        request.getfixturevalue("plotext")
    return str(request.param)


@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize("width", [80, 120])
def test_pictures_fit_the_terminal(width: int, color: bool, way: str) -> None:
    lines = list(pictures(SERIES, width=width, color=color))
    plain = [plots._ESCAPES.sub("", line) for line in lines]
    assert max(map(len, plain)) <= width
    assert (lines != plain) == (color and way == "plotext")
    titles = [line.partition(":")[0].partition(", 2 in all")[0] for line in plain]
    for title in ("utilization, % by minute", "buyers, % by minute", "prices, industrial"):
        assert any(line.startswith(title) for line in titles)


def test_what_never_was_is_not_drawn(way: str) -> None:
    text = "\n".join(pictures(SERIES, width=80, color=False))
    for title in ("waiting jobs", "providers", "consumer"):
        assert title not in text
    assert "waiting jobs" in "\n".join(
        pictures([*SERIES, sample(180, pending=3)], width=80, color=False)
    )


def test_curves_are_the_largest_parties() -> None:
    shares = {f"b{number}": number / 100 for number in range(9)}
    series = [sample(0, shares={"buyers": shares, "providers": {}}), sample(60)]
    curves = dict(curves_of(series))["buyers, % by minute"]
    assert [name for name, _ in curves] == ["a", "b8", "b7", "b6"]
    assert curves[1][1] == [8.0, 0.0]


def test_what_never_changes_is_one_line_through_the_middle(way: str) -> None:
    band = {"p25": 5, "median": 5, "p75": 5}
    series = [sample(at, prices={"industrial": band, "consumer": None}) for at in (0, 60, 120)]
    lines = list(pictures(series, width=80, color=False))
    begin = next(n for n, line in enumerate(lines) if line.startswith("prices, industrial"))
    drawn = lines[begin + 1 :]
    assert "median" not in "\n".join(drawn)
    if way == "sparklines":
        assert drawn == ["   ▄▄▄ max 5"]
    else:
        inked = [n for n, line in enumerate(drawn) if any("⠀" < mark <= "⣿" for mark in line)]
        assert len(inked) == 1
        # On the row that says what it is.
        assert drawn[inked[0]].lstrip().startswith("5.0┤")


@pytest.mark.usefixtures("plotext")
def test_each_row_of_a_plot_has_the_number_of_its_height() -> None:
    series = [sample(60 * at, utilization=at / 6) for at in range(7)]
    lines = list(pictures(series, width=80, color=False))
    rows = [line.partition("┤") for line in lines[2 : plots.HEIGHT]]
    rows = [(label.strip(), inked) for label, tick, inked in rows if tick]
    assert [label for label, _ in rows] == ["100.0", "83.3", "66.7", "50.0", "33.3", "16.7", "0.0"]
    # A line that rises evenly is in each of them, the higher the further to the right.
    begins = [next(n for n, mark in enumerate(inked) if "⠀" < mark <= "⣿") for _, inked in rows]
    assert begins == sorted(begins, reverse=True)


@pytest.mark.usefixtures("plotext")
@pytest.mark.parametrize("color", [True, False])
def test_names_of_curves_stand_below_each_other_where_there_is_no_room(color: bool) -> None:
    lines = [plots._ESCAPES.sub("", each) for each in pictures(SERIES, width=20, color=color)]
    begin = lines.index("prices, industrial, by minute:")
    assert [line[2:] for line in lines[begin + 1 : begin + 4]] == ["p25", "median", "p75"]


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([0, 7, 14], 10, "▁▅█"),
        ([None, 1, 1], 10, " ▄▄"),  # It never changes.
        ([None, 1, 0], 10, " █▁"),
        ([0, 0], 10, "▁▁"),
        ([], 10, ""),
        ([1, 2, 3, 4, 5, 6, 7, 8], 4, "▂▄▆█"),
    ],
)
def test_sparkline_is_scaled_to_the_greatest(
    values: list[float | None], width: int, line: str
) -> None:
    assert sparkline(values, width) == line

"""Charts as inline SVG: shapes alone, stretched to the width there is, with their text beside them.

Each is one picture with a text that says what it shows, for who does not see it; numbers stand in
the tables. Nothing in it is styled inline, which the content-security policy forbids: colours come
from classes. Whatever is put into an attribute is escaped.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from markupsafe import Markup

# What the shapes are drawn on, whatever the picture is stretched to.
_WIDTH: Final = 600
_HEIGHT: Final = 120
_BAR_HEIGHT: Final = 10
_GAP: Final = 2
# As many values are drawn at most; more are joined to their means.
VALUES_MAX: Final = 300
# So many times the usual is far above it.
_FAR: Final = 4


def window(prices: Sequence[int], p25: int, median: int, p75: int) -> Markup:
    """Prices, the newest on the right, over the band of their middle half."""
    highest = highest_shown(prices, p75)
    shown = thinned([min(price, highest) for price in prices], VALUES_MAX)
    scale = _Scale(min(shown), max(shown))
    top, bottom = scale.y(p75), scale.y(p25)
    drawn = shown * 2 if len(shown) == 1 else shown  # One alone is a line from edge to edge.
    step = _WIDTH / (len(drawn) - 1)
    points = " ".join(f"{n * step:.1f},{scale.y(value)}" for n, value in enumerate(drawn))
    text = (
        f"The last {len(prices)} prices, from {prices[0]} to {prices[-1]}; half of them are within "
        f"{p25} to {p75}, their median is {median}.{_cut(prices, highest)}"
    )
    return _picture(
        text,
        Markup('<rect class="band" x="0" y="{}" width="{}" height="{}"/>').format(
            top, _WIDTH, max(1, round(bottom - top, 1))
        ),
        _line("median", scale.y(median)),
        Markup('<polyline class="series" points="{}"/>').format(points),
        *_marks(prices, highest),
    )


def columns(
    values: Sequence[int], text: str, limit: int | None = None, usual: int | None = None
) -> Markup:
    """Values as columns, the oldest on the left; a line for a limit they should stay below.

    The limit is left out where it is far above all of them, since nothing else could be seen. What
    is far above the `usual` is cut off.
    """
    ceiling = max(values) if usual is None else highest_shown(values, usual)
    shown = thinned([min(value, ceiling) for value in values], VALUES_MAX)
    highest = max(*shown, 1)
    has_limit = limit is not None and limit <= 4 * highest
    scale = _Scale(0, max(highest, limit or 0) if has_limit else highest)
    step = _WIDTH / len(shown)
    drawn = [
        Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
            "over" if limit is not None and value > limit else "column",
            round(number * step, 1),
            scale.y(value),
            round(max(step - _GAP, step / 2), 1),
            round(_HEIGHT - scale.y(value), 1),
        )
        for number, value in enumerate(shown)
    ]
    if limit is not None and has_limit:
        drawn.append(_line("limit", scale.y(limit)))
    return _picture(text + _cut(values, ceiling), *drawn, *_marks(values, ceiling))


def highest_shown(values: Sequence[int], usual: int) -> int:
    """How high a chart goes: what is far above the usual would flatten all the rest."""
    return min(max(values), max(1, _FAR * usual))


def _cut(values: Sequence[int], ceiling: int) -> str:
    count = sum(value > ceiling for value in values)
    return f" {count} of them, above {ceiling}, are cut off." if count else ""


def _marks(values: Sequence[int], ceiling: int) -> list[Markup]:
    """A mark at the upper edge for each value that is cut off, as wide as its place."""
    step = _WIDTH / len(values)
    width = round(max(step, _GAP), 1)
    mark = Markup('<rect class="mark" x="{}" y="0" width="{}" height="3"/>')
    return [
        mark.format(round(number * step, 1), width)
        for number, value in enumerate(values)
        if value > ceiling
    ]


def bar(part: int, whole: int, text: str, mark: int | None = None) -> Markup:
    """A part of a whole, and a mark it should stay below. What is above the mark is marked."""
    width = _of(part, whole)
    shapes = [
        Markup('<rect class="track" x="0" y="0" width="{}" height="{}"/>').format(
            _WIDTH, _BAR_HEIGHT
        ),
        Markup('<rect class="{}" x="0" y="0" width="{}" height="{}"/>').format(
            "over" if mark is not None and part > mark else "fill", width, _BAR_HEIGHT
        ),
    ]
    if mark is not None:
        at = min(_of(mark, whole), _WIDTH - _GAP)
        shapes.append(
            Markup('<rect class="mark" x="{}" y="0" width="3" height="{}"/>').format(
                at, _BAR_HEIGHT
            )
        )
    return _picture(text, *shapes, height=_BAR_HEIGHT, kind="bar")


def stacked(parts: Sequence[int], text: str) -> Markup:
    """Parts of their sum, side by side in the order given; empty ones take no place."""
    total, so_far = max(1, sum(parts)), 0
    shapes = []
    for number, part in enumerate(parts, 1):
        start, end = _of(so_far, total), _of(so_far + part, total)
        so_far += part
        if end > start:
            shapes.append(
                Markup('<rect class="part-{}" x="{}" y="0" width="{}" height="{}"/>').format(
                    number, start, round(max(1, end - start - _GAP), 1), _BAR_HEIGHT
                )
            )
    return _picture(text, *shapes, height=_BAR_HEIGHT, kind="bar")


def thinned(values: Sequence[int], most: int) -> list[int]:
    """At most so many values: the means of neighbours where there are more."""
    count = min(most, len(values))
    bounds = [len(values) * place // count for place in range(count + 1)] if count else []
    parts = [values[start:end] for start, end in pairwise(bounds)]
    return [sum(part) // len(part) for part in parts]


class _Scale:
    """Where values are drawn, with room above and below; those of one height in the middle."""

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._span = most - least

    def y(self, value: int) -> float:
        if not self._span:
            return _HEIGHT / 2
        room = _HEIGHT - 4
        return round(2 + room - room * (value - self._least) / self._span, 1)


def _of(part: int, whole: int) -> float:
    return round(_WIDTH * min(part, whole) / whole, 1) if whole > 0 else 0


def _line(kind: str, y: float) -> Markup:
    return Markup('<line class="{}" x1="0" x2="{}" y1="{}" y2="{}"/>').format(kind, _WIDTH, y, y)


def _picture(text: str, *shapes: Markup, height: int = _HEIGHT, kind: str = "chart") -> Markup:
    drawn = Markup("").join(shapes)
    return Markup(
        '<svg class="{}" role="img" aria-label="{}" viewBox="0 0 {} {}" '
        'preserveAspectRatio="none">{}</svg>'
    ).format(kind, text, _WIDTH, height, drawn)

"""The series of a simulation as pictures: plots by plotext where it is installed, else sparklines.

They are for eyes, on a terminal; what is in them is in `--jsonl` and `--csv` as numbers.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

HEIGHT = 10
WIDTH_MAX = 120
_STEPS = "▁▂▃▄▅▆▇█"
_MIDDLE = "▄"  # of what never changes: a full bar would look like a limit that was reached
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
# Curves of one picture: with colors all are fine lines, without each has a mark of its own.
_COLORS = (12, 208, 10, 13)
_MARKS = ("•", "+", "x", "o")

# Some of what they are drawn with, each of a block of its own.
MARKS = "┤⣀▄•━"

_BAND = ("p25", "median", "p75")

# A name and its values in order of time; None where there is none.
Curve = tuple[str, list[float | None]]


def pictures(series: Sequence[dict[str, Any]], *, width: int, color: bool) -> Iterator[str]:
    """Pictures of utilization, waiting jobs, shares and price bands, as lines."""
    minutes = [sample["at_secs"] / 60 for sample in series]
    draw = _plot if _has_plotext() else _sparklines
    for title, curves in curves_of(series):
        if any(value for _, values in curves for value in values):
            yield ""
            yield from draw(title, minutes, curves, min(width, WIDTH_MAX), color)


def curves_of(series: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Curve]]]:
    """What is drawn: a title, and the curves in one picture."""
    yield "utilization, % by minute", [("", [sample["utilization"] * 100 for sample in series])]
    waiting: list[float | None] = [sum(sample["queued"].values()) for sample in series]
    pending: list[float | None] = [sample["pending"] for sample in series]
    yield "waiting jobs by minute", [("for a slot", waiting), ("for an offer", pending)]
    for role in ("buyers", "providers"):
        shares = [sample["shares"][role] for sample in series]
        peaks: dict[str, float] = {}
        for each in shares:
            for party, share in each.items():
                peaks[party] = max(share, peaks.get(party, 0.0))
        largest = sorted(peaks, key=lambda party: (-peaks[party], party))[: len(_MARKS)]
        yield (
            f"{role}, % by minute",
            [(party, [each.get(party, 0.0) * 100 for each in shares]) for party in largest],
        )
    for lane in series[0]["prices"] if series else ():
        bands = [sample["prices"][lane] for sample in series]
        curves = [(name, [band and band[name] for band in bands]) for name in _BAND]
        # Bands that are one price are one curve.
        same = all(values == curves[0][1] for _, values in curves)
        yield f"prices, {lane}, by minute", [("", curves[0][1])] if same else curves


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Values as bars of one line, at most `width` of them; a blank where there is none.

    The greatest is a full bar; what never changes is half of one.
    """
    if len(values) > width:
        values = [values[place * len(values) // width] for place in range(width)]
    known = [value for value in values if value is not None]
    most = max(known, default=0)

    def bar(value: float) -> str:
        if not most:
            return _STEPS[0]
        return _MIDDLE if most == min(known) else _STEPS[int(value * 7 / most + 0.5)]

    return "".join(" " if value is None else bar(value) for value in values)


def _has_plotext() -> bool:
    from importlib.util import find_spec

    return find_spec("plotext") is not None


def _sparklines(
    title: str, minutes: Sequence[float], curves: Sequence[Curve], width: int, color: bool
) -> Iterator[str]:
    yield f"{title}, {minutes[-1]:.0f} in all"
    names = max(len(name) for name, _ in curves)
    for name, values in curves:
        most = max((value for value in values if value is not None), default=0)
        yield f"  {name.ljust(names)} {sparkline(values, max(8, width - names - 14))} max {most:g}"


def _plot(
    title: str, minutes: Sequence[float], curves: Sequence[Curve], width: int, color: bool
) -> Iterator[str]:
    import plotext

    plotext.clear_figure()
    plotext.plot_size(width - 1, HEIGHT)
    plotext.theme("clear")
    for (_, values), shade, mark in zip(curves, _COLORS, _MARKS, strict=False):
        known = [(at, each) for at, each in zip(minutes, values, strict=True) if each is not None]
        if known:
            marker = "braille" if color or len(curves) == 1 else mark
            plotext.plot(*zip(*known, strict=True), marker=marker, color=shade)
    heights = {each for _, values in curves for each in values if each is not None}
    # What never changes runs through the middle.
    plotext.ylim(0, 2 * heights.pop() if len(heights) == 1 else None)
    yield from _headed(title, curves, width, color)
    for line in plotext.build().splitlines():
        yield line if color else _ESCAPES.sub("", line).rstrip()


def _headed(title: str, curves: Sequence[Curve], width: int, color: bool) -> Iterator[str]:
    """What is drawn, and what each curve is: on one line where there is room."""
    named = [
        (mark, shade, name)
        for (name, _), shade, mark in zip(curves, _COLORS, _MARKS, strict=False)
        if name
    ]
    if len(curves) == 1:
        yield ": ".join([title, *(name for _, _, name in named)])
        return
    shown = [
        f"\x1b[38;5;{shade}m━\x1b[0m {name}" if color else f"{mark} {name}"
        for mark, shade, name in named
    ]
    if len(title) + sum(len(name) + 4 for _, _, name in named) <= width:
        yield f"{title}: {'  '.join(shown)}"
    else:
        yield f"{title}:"
        yield from shown

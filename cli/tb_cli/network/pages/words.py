"""Numbers, times, names and links as a page shows them, each as HTML.

What others wrote is made printable and escaped here or by the templates, which escape whatever is
no `Markup`.
"""

import time
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup, escape

from compute_market.amounts import PPM
from compute_market.text import clipped, legible, printable
from tb_cli.frame.render import shown
from tb_cli.frame.reports import span
from tb_cli.frame.times import local

NONE: Final = Markup("–")
_NARROW_SPACE: Final = "\u202f"
# Characters of a text that a table shows.
_SHOWN_MAX: Final = 300
# Characters of an id that stands on one line.
_UNBROKEN_MAX: Final = 24
# What an id may have beside letters and digits, of which a path needs nothing quoted.
_PLAIN_IN_PATHS: Final = ":@+-._"


def plain(value: Any) -> Any:
    """A value as text that cannot turn the order of what stands around it; markup as it is."""
    if value is None:
        return NONE
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(legible(clipped(value, _SHOWN_MAX)))
    return value


def number(value: int | None) -> Markup:
    """A whole number, its digits in groups of three."""
    return NONE if value is None else Markup(f"{value:,}".replace(",", _NARROW_SPACE))


def share(ppm: int) -> Markup:
    """Parts per million as percent, with a decimal where there is little of it."""
    percent = ppm * 100 / PPM
    return Markup(f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %")


def lasting(ms: int) -> Markup:
    return escape(span(ms))


def instant(at_ms: int | None) -> Markup:
    """When something was or will be, in the time zone of the server."""
    if at_ms is None:
        return NONE
    return Markup('<time datetime="{}">{}</time>').format(_machine(at_ms), local(at_ms))


def relative(at_ms: int | None, now_ms: int) -> Markup:
    """The same as how long ago it was, or in how long it will be."""
    if at_ms is None:
        return NONE
    away_ms = abs(now_ms - at_ms)
    text = span(away_ms - away_ms % 1000)
    told = f"in {text}" if at_ms > now_ms else f"{text} ago"
    if away_ms < 1000:
        told = "just now"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        _machine(at_ms), local(at_ms), told
    )


def link(name: str | None, to: str) -> Markup:
    """A link to the page of a job, an offer or a party by its id: `to` is the path above it."""
    if name is None:
        return NONE
    kind = "id" if len(name) <= _UNBROKEN_MAX else "long"
    return Markup('<a class="{}" href="{}">{}</a>').format(kind, address(to, name), name)


def address(to: str, name: str) -> str:
    return f"{to}/{quote(name, safe=_PLAIN_IN_PATHS)}"


def label(token: str) -> str:
    """A name of the market's vocabulary in words."""
    return token.replace("_", " ")


def sentence(text: str) -> Markup:
    """A clause as a sentence; commands in it stand between backticks."""
    parts = plain(f"{text[:1].upper()}{text[1:]}.").split("`")
    marked = (
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
    return Markup("").join(marked)


def pairs(document: dict[str, Any]) -> str:
    """Fields of a small record, each behind its name."""
    return ", ".join(f"{label(name)} {shown(value)}" for name, value in document.items()) or "–"


def _machine(at_ms: int) -> str:
    """An instant as machines read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ms // 1000))

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
# Characters of an id and of a number that stand on one line.
_UNBROKEN_MAX: Final = 24
_NUMBER_MAX: Final = 15
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
    """A whole number, its digits in groups of three. A very long one can break between them."""
    if value is None:
        return NONE
    text = f"{value:,}".replace(",", _NARROW_SPACE)
    if len(text) <= _NUMBER_MAX:
        return Markup(text)
    parts = Markup(f"{_NARROW_SPACE}<wbr>").join(text.split(_NARROW_SPACE))
    return Markup('<span class="huge">{}</span>').format(parts)


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
    told = f"{local(at_ms)} {zone(at_ms)}"
    return Markup('<time datetime="{}">{}</time>').format(_machine(at_ms), told)


def zone(at_ms: int) -> str:
    """The time zone of the server at an instant, by its name."""
    return time.strftime("%Z", time.localtime(at_ms // 1000))


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
        _machine(at_ms), f"{local(at_ms)} {zone(at_ms)}", told
    )


def link(name: str | None, to: str) -> Markup:
    """A link to the page of a job, an offer or a party by its id: `to` is the path above it."""
    if name is None:
        return NONE
    if len(name) <= _UNBROKEN_MAX:
        return Markup('<a class="id" href="{}">{}</a>').format(address(to, name), name)
    whole = Markup('<a class="long" href="{}" title="{}">{}</a>')
    return whole.format(address(to, name), name, name)


def name(text: str | None) -> Markup:
    """The same for what has no page. Tables cut a long one, and the whole is its title."""
    if text is None:
        return NONE
    if len(text) <= _UNBROKEN_MAX:
        return Markup('<span class="id">{}</span>').format(plain(text))
    return Markup('<span class="long" title="{}">{}</span>').format(plain(text), plain(text))


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

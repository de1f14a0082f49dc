"""What the types of records say of their fields, in words for a table: values, bounds, defaults.

And how a table gets into a page, between the marks that bear its name.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect as types


def with_tables(page: str, tables: dict[str, list[str]]) -> str:
    """A page with the rows of each table between its marks; the words around them stay."""
    for name, rows in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = before + begin + "".join(f"{row}\n" for row in rows) + end + after
    return page


def comments_of(table: Any) -> dict[str, str]:
    """The comment that stands behind each field where its type is written."""
    return dict(re.findall(r"^    (\w+):.*?  # (.*)$", inspect.getsource(table), re.MULTILINE))


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def anchor(heading: str) -> str:
    """The fragment that leads to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def default(field: types.Field) -> str:
    """What a key is that is left out; nothing for a list or a table that has its own defaults."""
    if field.default_factory is not types.NODEFAULT:
        found = field.default_factory()
        return f"`{msgspec.json.encode(found).decode()}`" if found == [] else ""
    if field.default is types.NODEFAULT:
        return "*needed*"
    if field.default is None or isinstance(field.default, msgspec.Struct):
        return "none"
    return shown(field.default)


def shown(found: Any) -> str:
    return f"`{msgspec.json.encode(found).decode()}`".replace('`"', "`").replace('"`', "`")


def value(kind: types.Type, link: Callable[[Any], str]) -> str:
    """What a key takes, in words; `link` names another table of the page."""
    if isinstance(kind, types.UnionType):
        parts = [value(each, link) for each in kind.types if not isinstance(each, types.NoneType)]
        if "number" in parts:
            parts.remove("whole number")
        return " or ".join(parts)
    if isinstance(kind, types.StructType):
        return link(kind.cls)
    if isinstance(kind, types.ListType):
        return f"list of: {value(kind.item_type, link)}"
    if isinstance(kind, types.DictType):
        return f"table of {value(kind.key_type, link)} to {value(kind.value_type, link)}"
    if isinstance(kind, types.LiteralType):
        return ", ".join(f"`{each}`" for each in sorted(kind.values, key=str))
    words = {
        types.IntType: "whole number",
        types.DecimalType: "number",
        types.BoolType: "`true`, `false`",
        types.StrType: "text",
        types.AnyType: "anything",
    }
    return words[type(kind)] + _bounds(kind)


def _bounds(kind: Any) -> str:
    least, most = (getattr(kind, name, None) for name in ("ge", "le"))
    above = getattr(kind, "gt", None)
    if above is not None:
        return f" above {above}" + ("" if most is None else f", at most {most}")
    if (least is None and most is None) or least == -(2**63 - 1):
        return ""
    if most is None or most >= 2**63 - 1:
        return f", {least} or more"
    return f", {least}…{most}"

"""TOML with the line of every key, however deep it is, and also in arrays of tables.

Beside `toml`, which knows as much as a flat file needs and which every command imports.
"""

from collections.abc import Iterator
from typing import Any

from compute_market.config import toml

# The keys that lead to a value, and the numbers of elements of arrays: ("providers", 0, "units").
Place = tuple[str | int, ...]


def read(content: bytes | str, source: str) -> tuple[dict[str, Any], dict[Place, int]]:
    """Parse TOML; return the document and the line on which each of its places begins.

    What stands within one statement stands on its first line. Raises UsageError as `toml.read`
    does.
    """
    document, _ = toml.read(content, source)
    text = content if isinstance(content, str) else content.decode()
    return document, _lines(text)


def _lines(text: str) -> dict[Place, int]:
    import tomllib

    lines: dict[Place, int] = {}
    sizes: dict[Place, int] = {}  # of arrays of tables, as far as they have been read
    table: Place = ()
    for first, statement in toml.statements(text):
        try:
            parsed: Any = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if statement.startswith("["):
            table = ()
            keys = _header(parsed)
            for number, key in enumerate(keys, 1):
                table = (*table, key)
                lines.setdefault(table, first)
                if number == len(keys) and statement.startswith("[["):
                    sizes[table] = sizes.get(table, 0) + 1
                if table in sizes:
                    table = (*table, sizes[table] - 1)
                    lines.setdefault(table, first)
        else:
            for place in _places(parsed):
                lines.setdefault((*table, *place), first)
    return lines


def _header(parsed: Any) -> list[str]:
    """The keys of a header, which was parsed as a document of its own."""
    keys: list[str] = []
    while parsed:
        if isinstance(parsed, list):
            parsed = parsed[0]
        else:
            ((key, parsed),) = parsed.items()
            keys.append(key)
    return keys


def _places(value: Any) -> Iterator[Place]:
    """Every place within a value."""
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, inner in entries:
        yield (key,)
        for place in _places(inner):
            yield (key, *place)

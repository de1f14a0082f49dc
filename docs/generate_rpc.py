"""Writes the tables of `rpc.md`, the endpoint, from those that it answers by.

Run it with `python docs/generate_rpc.py` after a method has changed; a test compares the two.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import NODEFAULT
from msgspec.structs import fields

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "cli"), str(ROOT / "docs")]

# What these import is found by the path above, so they stand behind it.
from type_tables import with_tables

from compute_market import rpc
from compute_market.rpc import Method
from tb_cli.network.openapi import OPERATIONS

TARGET = ROOT / "docs" / "rpc.md"
_ACCESS = {
    "anyone": "anyone",
    "token": "the token",
    "signature": "a key in `[net] trusted`",
}


def render() -> str:
    """The page as it is, with the tables as they are to be."""
    return with_tables(TARGET.read_text(encoding="utf-8"), _tables())


def _tables() -> dict[str, list[str]]:
    methods = ["| method | parameters | it needs | what it answers |", "|---|---|---|---|"]
    methods += [
        f"| `{method.name}` | {_parameters(method)} | {_ACCESS[method.access]} | {method.summary} |"
        for method in rpc.METHODS.values()
    ]
    errors = ["| code | what is wrong |", "|---|---|"]
    errors += [f"| {code.number} | {code.meaning} |" for code in rpc.CODES]
    paths = ["| path | what it answers |", "|---|---|"]
    paths += [f"| `{path}` | {summary} |" for path, summary in _paths()]
    return {"methods": methods, "errors": errors, "paths": paths}


def _parameters(method: Method) -> str:
    if method.params is None:
        return "an envelope of one bundle, and its bytes behind it"
    told = [_parameter(each) for each in fields(method.params)]
    return ", ".join(told) or "none"


def _parameter(field: Any) -> str:
    if field.default is NODEFAULT:
        return f"`{field.name}`"
    default = "" if field.default is None else f"={field.default}"
    return f"[`{field.name}{default}`]"


def _paths() -> Iterator[tuple[str, str]]:
    yield "POST /", "JSON-RPC 2.0."
    for method in rpc.METHODS.values():
        if method.reads:
            yield f"GET /{method.name}", method.summary
        elif method.params is None:
            yield f"POST /{method.name}", method.summary
    for each in OPERATIONS:
        yield f"GET {each.path}", each.summary


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")

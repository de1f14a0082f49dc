"""What of a document anybody may have who reaches a server, without a token.

That is the market: its jobs, offers, parties, prices and money. What is of this machine alone stays
here: who works on it, what was typed, where files lie, and how other markets are reached.
"""

from collections.abc import Callable
from itertools import dropwhile
from typing import Any, Final

from compute_market.config import addresses
from compute_market.errors import UsageError
from tb_cli.frame.verbs import Group, Verb
from tb_cli.tree import TREE

_OF_THIS_MACHINE: Final = frozenset(("user", "host", "pid", "path"))


def public(document: Any) -> Any:
    """A document without what is not for everybody, by the names of its fields, at any depth.

    Of a command its verb is left, and of a destination its kind and host. Errors of forwarding name
    files and addresses: that there was one is left.
    """
    if isinstance(document, dict):
        return {
            name: _SHOWN[name](value) if name in _SHOWN else public(value)
            for name, value in document.items()
            if name not in _OF_THIS_MACHINE
        }
    if isinstance(document, list | tuple):
        return [public(each) for each in document]
    return document


def _verb_of(command: str | None) -> str | None:
    """The verb of a command line, behind the options of all of them; None without any."""
    found: list[str] = []
    node: Group | Verb = TREE
    for word in dropwhile(lambda each: each not in TREE.commands, (command or "").split()):
        if not isinstance(node, Group) or word not in node.commands:
            break
        node = node.commands[word]
        found.append(word)
    return " ".join(found) or None


def _host_of(dest: str | None) -> str | None:
    if dest is None:
        return None
    scheme, colon, _ = dest.partition(":")
    try:
        found = addresses.parse(dest)
    except UsageError:
        return f"{scheme}:…" if scheme in ("dir", "exec") else "…"
    host = f"[{found.host}]" if ":" in found.host else found.host
    return f"{scheme}{colon}//{host}:{found.port}"


def _has_failed(error: str | None) -> str | None:
    return None if error is None else "not delivered"


_SHOWN: Final[dict[str, Callable[[Any], Any]]] = {
    "command": _verb_of,
    "dest": _host_of,
    "last_error": _has_failed,
}

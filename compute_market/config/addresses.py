"""Addresses of other markets, and destinations of bundles: what may be one, and its parts.

Nothing in an address is a secret, so that it can be stored and shown; one that has a user or a
password in it is refused, and not repeated in the error.
"""

from typing import Final

from msgspec import Struct

from compute_market import home
from compute_market.config.rows import DESTINATION_SCHEMES, URL_SCHEMES
from compute_market.errors import UsageError
from compute_market.text import clipped, quoted

_LENGTH_MAX: Final = 4096  # bytes of a destination
_PORTS: Final = {"http://": 80, "https://": 443}
_PORT_MAX: Final = 65_535
_PORT_DIGITS: Final = 5
# Of the name of a host (RFC 1035), in characters.
_HOST_MAX: Final = 253
_LABEL_MAX: Final = 63
_HINT: Final = "dir:PATH, http://HOST/…, https://HOST/… or exec:PROGRAM is one"
_OWN_HINT: Final = "a relative directory is one in the home; give an absolute one, or a plain name"


class Url(Struct, frozen=True, gc=False):
    """The parts of an address."""

    is_secure: bool
    host: str  # an IPv6 address without brackets
    port: int
    path: str
    query: str  # with its question mark, "" without one


def parse(url: str) -> Url:
    """The parts of an address of HTTP.

    Raises UsageError for one whose host no system can look up, with a port that is none, with a
    user, a fragment, a blank or a letter beyond ASCII: who may do what is told by signatures.
    """
    scheme = next(filter(url.startswith, URL_SCHEMES), None)
    if scheme is None:
        raise UsageError(f"{_shown(url)} is no address that begins with http:// or https://")
    if not url.isascii() or not url.isprintable() or " " in url or "#" in url:
        raise UsageError(f"{_shown(url)}: an address has no fragment, blank or letter beyond ASCII")
    rest = url[len(scheme) :]
    authority = rest.partition("/")[0].partition("?")[0]
    tail = rest[len(authority) :]
    if "@" in authority:
        raise UsageError("an address has no user and no password in it")
    host, port = _host_and_port(url, authority)
    path, mark, query = tail.partition("?")
    return Url(scheme == "https://", host, port or _PORTS[scheme], path, mark + query)


def check_destination(dest: str) -> None:
    """Raise UsageError for what no bundle can be forwarded to, wherever it is read."""
    scheme = next(filter(dest.startswith, DESTINATION_SCHEMES), None)
    rest = "" if scheme is None else dest[len(scheme) :]
    if not rest or not dest.isprintable() or len(dest.encode()) > _LENGTH_MAX:
        raise UsageError(f"{_shown(dest)} is no destination", hint=_HINT)
    if scheme in URL_SCHEMES:
        parse(dest)
    elif scheme == "dir:" and rest[0] != "/":
        _check_in_home(dest, rest)


def _check_in_home(dest: str, path: str) -> None:
    """Raise UsageError unless it is a place in the home where nothing of the home's own is."""
    parts = path.rstrip("/").split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or parts[0].startswith("~"):
        raise UsageError(f"{_shown(dest)} leads out of the home", hint=_OWN_HINT)
    if parts[0] in home.OWN:
        raise UsageError(f"{_shown(dest)}: {parts[0]} in the home is its own", hint=_OWN_HINT)


def _host_and_port(url: str, authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        is_host = bool(bracket) and _is_ipv6(host) and rest[:1] in ("", ":")
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = authority.partition(":")
        is_host = _is_name(host)
    if not is_host:
        raise UsageError(f"{_shown(url)}: no host has such a name")
    if not colon:
        return host, None
    is_number = port.isdigit() and len(port) <= _PORT_DIGITS
    if not is_number or not 0 < int(port) <= _PORT_MAX:
        raise UsageError(f"{_shown(url)}: no port has such a number")
    return host, int(port)


def _is_name(host: str) -> bool:
    """Whether a resolver can be asked for it."""
    labels = host.removesuffix(".").split(".")
    return len(host) <= _HOST_MAX and all(
        0 < len(label) <= _LABEL_MAX and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )


def _is_ipv6(text: str) -> bool:
    from ipaddress import IPv6Address  # Few have one.

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    """It as an error names it, unless it may have a password in it."""
    return "what was given" if "@" in text else clipped(quoted(text))

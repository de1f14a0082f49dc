"""Where a server listens: an address of its own, or the sockets that it was handed."""

import errno
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from compute_market.errors import BusyError, UsageError, file_error
from compute_market.text import cause_of, clipped

_BACKLOG: Final = 128


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError for a bad address, BusyError for one in use.

    With port 0 the system chooses one.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise UsageError(f"--host {clipped(host)!a} is no name of a host") from error
    except OSError as error:
        raise UsageError(f"--host {clipped(host)!a}: {cause_of(error)}") from error
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        where = f"port {port} of {host}"
        if error.errno == errno.EADDRINUSE:
            raise BusyError(
                f"{where} is in use",
                hint="give another --port, or end what listens there; --port 0 takes any",
            ) from error
        raise file_error(where, error) from error
    return listening


def url_of(listening: socket.socket, *, secure: bool) -> str:
    """The address of what listens; that of a socket in the file system has its path."""
    scheme = "https" if secure else "http"
    if listening.family == socket.AF_UNIX:
        return f"{scheme}+unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def hosts_of(listening: Sequence[socket.socket], host: str | None) -> frozenset[str]:
    """What a server that listens there, and was told to at `host`, is called.

    None where another machine can reach it: nobody knows here what it is called there.
    """
    if not all(map(_is_local, listening)):
        return frozenset()
    of_inet = (each for each in listening if each.family == socket.AF_INET)
    addresses = (str(each.getsockname()[0]) for each in of_inet)
    given = () if host is None else (host.lower(),)
    return frozenset(("localhost", "127.0.0.1", "[::1]", *addresses, *given))


def _is_local(listening: socket.socket) -> bool:
    """Whether no other machine can reach it."""
    if listening.family == socket.AF_UNIX:
        return True
    host = str(listening.getsockname()[0])
    return ip_address(host.partition("%")[0]).is_loopback

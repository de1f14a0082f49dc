"""What systemd, or what else starts services in its way, hands to a server and is told by it.

The protocols are those of sd_listen_fds(3) and sd_notify(3). Without the variables that they go by
nothing is handed over, and nobody is told.
"""

import os
import socket
import stat
import time
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from typing import Final

from compute_market.errors import UsageError

_FIRST_DESCRIPTOR: Final = 3  # of those handed over
_DESCRIPTORS_MAX: Final = 64


def handed_over(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets that listen already, none if there are none for this process.

    Taken once: the variables are gone afterwards, and no child of this process has the sockets.
    Raises UsageError for what is no listening stream socket.
    """
    mine = environment.pop("LISTEN_PID", None) == str(os.getpid())
    count = environment.pop("LISTEN_FDS", "0")
    environment.pop("LISTEN_FDNAMES", None)
    if not mine or not count.isdecimal() or int(count) > _DESCRIPTORS_MAX:
        return []
    return list(_sockets(int(count)))


def _sockets(count: int) -> Iterator[socket.socket]:
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            is_socket = False
        if not is_socket:
            raise UsageError(f"descriptor {descriptor} was handed over, and is no socket")
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise UsageError(
                f"descriptor {descriptor} was handed over, and is no socket that listens",
                hint="ListenStream= with Accept=no is what is meant",
            )
        yield found


class ServiceManager:
    """Who has started this process and wants to know how it is; nobody without NOTIFY_SOCKET."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        # An address that begins with @ is one of no file.
        self._address = address.replace("@", "\0", 1) if address.startswith("@") else address
        watched = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._is_watched = environment.pop("WATCHDOG_USEC", "") != "" and watched

    def ready(self) -> None:
        self._tell("READY=1")

    def reloading(self) -> None:
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """To be told more often than the unit's WatchdogSec."""
        if self._is_watched:
            self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        """Whom nothing reaches does not keep anybody from serving."""
        if not self._address:
            return
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaking,
        ):
            speaking.setblocking(False)
            speaking.sendto(state.encode(), self._address)

"""The token of the server: whoever has it may change the market over the net.

It is a private file of the home, which is replaced as a whole: a server notices at once.
"""

import hmac
import os
import secrets
import stat
from typing import Final

from compute_market import home as names
from compute_market.errors import UsageError
from compute_market.store.creation import sync
from compute_market.store.translation import translated
from tb_cli.frame import private_files

TOKEN_BYTES: Final = 32
_TEXT_MAX: Final = 256  # bytes of the file


class Token:
    """The token in a file, as it is there whenever it is asked for."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None  # what tells the file that was read from another
        self._text = b""

    def make(self) -> None:
        """Make one where there is none. Raises as `read` and `write` do."""
        if read(self._path) is None:
            write(self._path, made(), replace=False)

    def is_it(self, given: bytes) -> bool:
        """Whether this is the token, in a time that tells nothing of it.

        Nothing is where there is no file. Raises UsageError for one that others may read or change.
        """
        found = _identity(self._path)
        if found is None or found != self._seen:
            self._text = (read(self._path) or "").encode()
            self._seen = found
        return bool(self._text) and hmac.compare_digest(given, self._text)


def read(path: str) -> str | None:
    """The token of a file; None where there is none.

    Raises UsageError for a file that others may read or change, a link, or what is no token.
    """
    content = private_files.read(path, secret=True, size_max=_TEXT_MAX)
    if content is None:
        return None
    text = content.strip()
    if not (text.isascii() and text.isalnum() and len(text) >= TOKEN_BYTES):
        raise UsageError(f"{path} holds no token", hint="`tb-cli serve token --rotate` makes one")
    return text.decode()


def made() -> str:
    """A new token, which nobody can guess."""
    return os.urandom(TOKEN_BYTES).hex()


def write(path: str, token: str, *, replace: bool) -> str:
    """Store a token, on the disk before this returns; the one that is stored then.

    Unless it is to replace one, one that is there by now stays.
    """
    _check_replaceable(path)
    new = f"{path}.{secrets.token_hex(8)}.new"
    private_files.write_new(new, token.encode() + b"\n")
    try:
        if replace:
            with translated(path):
                os.replace(new, path)
                sync(os.path.dirname(path))
                return token
        return token if private_files.give_name(new, path) else read(path) or token
    finally:
        if os.path.lexists(new):
            os.unlink(new)


def _check_replaceable(path: str) -> None:
    """Raise UsageError where something is in the way that is no file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise UsageError(f"{path}: {names.LINK}", hint="put what it leads to in its place")
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is not a file", hint="move it out of the way")


def _identity(path: str) -> tuple[int, ...] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns

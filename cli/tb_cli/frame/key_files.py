"""The keys of a home by their names: `NAME.key` is the seed of one's own, `NAME.pub` is another's.

A key that is being made has a second name, `.NAME.new`, until the log tells of it: a command that
was killed in between is finished by the same command once more.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from compute_market import home as files
from compute_market.errors import (
    BusyError,
    ConflictError,
    MarketError,
    NotFoundError,
    UsageError,
)
from compute_market.records import check_id
from compute_market.signatures import keys
from compute_market.signatures.keys import Key
from compute_market.signatures.signatures import KEY_ID_BYTES
from compute_market.store.translation import translated
from compute_market.text import cause_of
from tb_cli.frame import private_files
from tb_cli.frame.home import Home

_OWN, _PUBLIC = ".key", ".pub"
_HEX = frozenset("0123456789abcdef")


def check_name(name: str) -> str:
    """The name. Raises UsageError unless it is an id, and none that could be taken for a key id."""
    if _is_key_id(check_id(name, "the name of a key")):
        raise UsageError(f"{name} is what the id of a key looks like", hint="choose another name")
    return name


def names(home: Home) -> list[str]:
    """The names of all keys, in order. Raises UsageError for a directory that others may write."""
    private_files.check_directory(home.keys)
    try:
        listed = os.listdir(home.keys)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{home.keys}: {cause_of(error)}") from error
    ends = (_OWN, _PUBLIC)
    found = {file[: -len(_OWN)] for file in listed if file.endswith(ends) and file[0] != "."}
    return sorted(found)


def find(home: Home, name: str) -> Key | None:
    """The key of a name, of one's own or not; None where there is none.

    Raises UsageError for a file that others may change, or read if it is secret, IntegrityError for
    one that is damaged.
    """
    private_files.check_directory(home.keys)
    path = os.path.join(home.keys, check_name(name))
    if (text := private_files.read(path + _OWN, secret=True)) is not None:
        return keys.parse_secret(text, path + _OWN)
    if (text := private_files.read(path + _PUBLIC, secret=False)) is not None:
        return keys.parse_public(text, path + _PUBLIC)
    return None


def own(home: Home, name: str) -> Key:
    """A key of one's own, with its seed. Raises NotFoundError, else as `find` does."""
    key = find(home, name)
    if key is None:
        raise NotFoundError(f"no key {name}", hint=f"`tb-cli key new {name}` makes one")
    if key.seed is None:
        raise NotFoundError(f"key {name} is the public key of somebody else: it cannot sign")
    return key


def public(home: Home, name_or_key_id: str) -> Key:
    """A key by its name or its id. Raises NotFoundError, else as `find` does."""
    return named(home, name_or_key_id)[1]


def named(home: Home, name_or_key_id: str) -> tuple[str, Key]:
    """The same with its name, the first that it has."""
    by_id = _is_key_id(name_or_key_id)
    for name in names(home) if by_id else [name_or_key_id]:
        found = find(home, name)
        if found is not None and (not by_id or found.key_id.hex() == name_or_key_id):
            return name, found
    raise NotFoundError(
        f"no key {name_or_key_id}",
        hint="`tb-cli key list` lists them, `tb-cli key import-public` takes one from a file",
    )


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """With no other process making keys in the home. Raises BusyError if one does."""
    private_files.make_directory(home.keys)
    with translated(home.keys):
        descriptor = os.open(home.keys, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with translated(home.keys):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError("another process is making a key", hint="try again") from None
        yield
    finally:
        os.close(descriptor)


def is_begun(home: Home, name: str) -> bool:
    """Whether a killed command made the key, and the log may not tell of it."""
    begun = files.file_at(_begun(home, name))
    return begun is not None and begun in map(files.file_at, _paths(home, name))


@contextmanager
def written(home: Home, name: str, key: Key) -> Iterator[None]:
    """The key on the disk, but for an error of the market inside; the caller is `alone`.

    Raises ConflictError when the name is taken, and what making a store raises.
    """
    begun = _begun(home, name)
    if is_begun(home, name):
        yield
    else:
        _remove(begun)  # Of a command that was killed before it gave the key its name.
        text = keys.public_text(key) if key.seed is None else keys.secret_text(key)
        private_files.write_new(begun, text)
        try:
            own_path, public_path = _paths(home, name)
            path = public_path if key.seed is None else own_path
            if not private_files.give_name(begun, path):
                raise ConflictError(f"{path} exists")
            yield
        except MarketError:
            if is_begun(home, name):  # It has its name, even where that was told to have failed.
                _remove(path)
            _remove(begun)
            raise
    _remove(begun)


def _paths(home: Home, name: str) -> tuple[str, str]:
    path = os.path.join(home.keys, name)
    return path + _OWN, path + _PUBLIC


def _begun(home: Home, name: str) -> str:
    """The second name of a key that is being made. No id begins with a dot."""
    return os.path.join(home.keys, f".{name}.new")


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _is_key_id(text: str) -> bool:
    return len(text) == 2 * KEY_ID_BYTES and _HEX.issuperset(text)

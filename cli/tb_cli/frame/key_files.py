"""The keys of a home by their names: `NAME.key` is the seed of one's own, `NAME.pub` is another's.

A key that is being made has a second name, `.NAME.new`, until the log tells of it: a command that
was killed in between is finished by the same command once more.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from compute_market import home as files
from compute_market.errors import (
    BusyError,
    ConflictError,
    IntegrityError,
    MarketError,
    NotFoundError,
    UsageError,
)
from compute_market.records import check_id
from compute_market.signatures import keys
from compute_market.signatures.keys import Key
from compute_market.signatures.signatures import KEY_ID_BYTES
from compute_market.store.lock import Patience
from compute_market.store.translation import translated
from compute_market.text import cause_of
from tb_cli.frame import private_files
from tb_cli.frame.clocks import sleep
from tb_cli.frame.home import Home
from tb_cli.frame.render import note

_OWN, _PUBLIC = ".key", ".pub"
_HEX = frozenset("0123456789abcdef")


def check_name(name: str) -> str:
    """The name. Raises UsageError unless it is an id, and none that could be taken for a key id."""
    if _is_key_id(check_id(name, "the name of a key")):
        raise UsageError(f"{name} is what the id of a key looks like", hint="choose another name")
    return name


def names(home: Home) -> list[str]:
    """The names of all keys, in order. Raises UsageError for a directory that others may write."""
    return sorted({file[: -len(_OWN)] for file in _files(home)})


def _files(home: Home) -> list[str]:
    """The names of all files of keys: first those of one's own, each kind in order."""
    private_files.check_directory(home.keys)
    try:
        listed = os.listdir(home.keys)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{home.keys}: {cause_of(error)}") from error
    found = [file for file in listed if file.endswith((_OWN, _PUBLIC)) and file[0] != "."]
    return sorted(found, key=lambda file: (file.endswith(_PUBLIC), file))


def attempted(home: Home, name: str) -> Key | MarketError | None:
    """What `find` finds of a name that `names` told, or why its file is none of a key."""
    try:
        check_name(name)
    except UsageError as error:
        path = next(filter(os.path.lexists, _paths(home, name)), home.keys)
        return IntegrityError(
            f"{path}: {error.message}", hint="move it away, or rename it", reason="malformed"
        )
    try:
        return find(home, name)
    except MarketError as error:
        return error


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


def own(home: Home, name_or_key_id: str) -> Key:
    """A key of one's own, with its seed. Raises NotFoundError, else as `find` does."""
    return own_named(home, name_or_key_id)[1]


def own_named(home: Home, name_or_key_id: str) -> tuple[str, Key]:
    """The same with its name, which is another where the public part has a name of its own."""
    if _is_key_id(name_or_key_id):
        name, key = named(home, name_or_key_id)
    else:
        name, found = name_or_key_id, find(home, name_or_key_id)
        if found is None:
            raise NotFoundError(f"no key {name}", hint=f"`tb-cli key new {name}` makes one")
        key = found
        if key.seed is None:
            name, key = named(home, key.key_id.hex())
    if key.seed is None:
        raise NotFoundError(
            f"key {name_or_key_id} is the public key of somebody else: it cannot sign"
        )
    return name, key


def public(home: Home, name_or_key_id: str) -> Key:
    """A key by its name or its id. Raises NotFoundError, else as `find` does."""
    return named(home, name_or_key_id)[1]


def named(home: Home, name_or_key_id: str) -> tuple[str, Key]:
    """The same with its name: of an id that of a key of one's own, else the first there is.

    What else is in the way of an id, a file that holds no key, is warned of.
    """
    if _is_key_id(name_or_key_id):
        for name in dict.fromkeys(file[: -len(_OWN)] for file in _files(home)):
            found = attempted(home, name)
            if isinstance(found, MarketError):
                note(f"warning: {found.message}")
            elif found is not None and found.key_id.hex() == name_or_key_id:
                return name, found
    elif (found := find(home, name_or_key_id)) is not None:
        return name_or_key_id, found
    raise NotFoundError(
        f"no key {name_or_key_id}",
        hint="`tb-cli key list` lists them, `tb-cli key import-public` takes one from a file",
    )


@contextmanager
def alone(home: Home, timeout_ms: int = 0) -> Iterator[None]:
    """With no other process making keys in the home. Raises BusyError if one does for so long."""
    private_files.make_directory(home.keys)
    with translated(home.keys):
        descriptor = os.open(home.keys, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with translated(home.keys):
            if not Patience(timeout_ms, sleep).has_lock(descriptor):
                raise BusyError(
                    "another process is making a key",
                    hint="try again, or wait longer with --lock-timeout",
                )
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

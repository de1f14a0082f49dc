"""Copies of a home: its market at one moment, its settings, its log; as a directory or as a tar.

What is written here lies on the disk before its name says that it is whole.
"""

import filecmp
import os
import shlex
import shutil
import stat
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from compute_market import home as names
from compute_market.courier import leases
from compute_market.engine import Engine, open_store
from compute_market.errors import (
    BusyError,
    IntegrityError,
    MarketError,
    NotFoundError,
    UsageError,
)
from compute_market.home import failing
from compute_market.store.copies import backup
from compute_market.store.creation import sync
from compute_market.text import cause_of, quoted
from tb_cli.frame import bundle_copies, bundles, lines
from tb_cli.frame.clocks import now_ms, sleep
from tb_cli.frame.home import Home
from tb_cli.frame.render import note
from tb_cli.frame.session import Session

_DATA = f"{names.STORE}/{names.DATA}"
# What a copy is made of, beside bundles that wait. The market comes last: where it is, the rest is
# there.
PARTS = (names.CONFIG, names.CANCELLATIONS_LOG, names.PRICE_BOARD, _DATA)
_PIECE_BYTES = 2**20
# How files begin that hold a tar and are none, and what makes one of them.
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
_START_BYTES = 6
_MAKES_TAR = "`tb-cli state backup -` writes one"
_MAKES_DIRECTORY = "`tb-cli state backup DIR` makes one"


@contextmanager
def making(directory: str, prefix: str) -> Iterator[Home]:
    """A home under a name nobody can guess, in `directory`; taken away again, whatever happens.

    Its owner may have renamed it by then.
    """
    with failing(directory):
        path = tempfile.mkdtemp(prefix=prefix, dir=directory)
    try:
        yield Home(path)
    finally:
        # What went wrong before is the error, and not that this goes wrong too.
        shutil.rmtree(path, ignore_errors=True)


def fill(copy: Home, session: Session) -> None:
    """Write a copy of the session's home into an empty directory.

    Bundles that wait are part of it; one that is missing or damaged is warned of and left out.
    """
    with failing(copy.path), bundles.kept_as_it_is(session):
        os.mkdir(copy.market, mode=0o700)
        # Before the market, which then has every price that is on it.
        _copy_price_board(copy, session.home)
        backup(session.market.store, copy.market)
        settings = _settings(session.home)
        if settings is not None:
            with open(copy.config, "wb", opener=_private) as file:
                file.write(settings)
        with _market_of(copy, session) as market:
            market.follow_log(copy.cancellations)
            if market.view(leases.has_pending):
                bundle_copies.fill(copy, session.home, market)


def _copy_price_board(copy: Home, home: Home) -> None:
    """Copy the price board as it is, if it lies where it lies by default and can be read."""
    try:
        content = names.read(os.path.join(home.path, names.PRICE_BOARD))
    except FileNotFoundError:
        return
    except OSError as error:
        note(f"warning: {names.PRICE_BOARD}: {cause_of(error)}: it is not in the copy")
        return
    path = os.path.join(copy.path, names.PRICE_BOARD)
    os.mkdir(os.path.dirname(path), mode=names.DIRECTORY_MODE)
    with open(path, "wb", opener=_private) as file:
        file.write(content)


def write_log(copy: Home, session: Session) -> None:
    """Write the log of cancellations as the table of the copy has it."""
    with _market_of(copy, session) as market:
        market.follow_log(copy.cancellations)


def warn_of_bundles(copy: Home, session: Session) -> None:
    """Tell of bundles that wait in the market of a copy and are not in its spool."""
    with _market_of(copy, session) as market:
        for text in market.view(lambda txn: bundle_copies.problems(txn, copy)):
            note(f"warning: {text}")


def _market_of(copy: Home, session: Session) -> Engine:
    store = open_store(copy.path, session.config, sleep=sleep)
    return Engine(store, session.config, clock=now_ms)


def sync_all(copy: Home) -> None:
    """Bring everything in a copy to the disk."""
    with failing(copy.path):
        for directory, _, found in os.walk(copy.path, topdown=False):
            for name in found:
                sync(os.path.join(directory, name))
            sync(directory)


def size_of(copy: Home) -> int:
    """Bytes of the data file and of the bundles."""
    parts = (_DATA, *bundle_copies.parts_of(copy))
    return sum(os.stat(os.path.join(copy.path, part)).st_size for part in parts)


def _parts_of(copy: Home) -> list[str]:
    """What may be in a copy, in order."""
    return [*PARTS[:-1], *bundle_copies.parts_of(copy), PARTS[-1]]


# A tar.


def pack(copy: Home, stream: BinaryIO) -> None:
    """Write a copy as a tar. Raises BusyError when nobody takes it to the end."""
    try:
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for part in _parts_of(copy):
                path = os.path.join(copy.path, part)
                if os.path.exists(path):
                    entry = tarfile.TarInfo(part)
                    entry.size, entry.mode = os.stat(path).st_size, 0o600
                    entry.mtime = now_ms() // 1000
                    with open(path, "rb") as file:
                        tar.addfile(entry, file)
        stream.flush()
    except OSError as error:
        message = f"standard output: {cause_of(error)}: the backup is not whole"
        raise BusyError(message, hint="run it again") from error


def unpack(stream: BinaryIO, copy: Home) -> None:
    """Write what a tar holds into an empty directory.

    Raises IntegrityError for what is no tar or is cut off, NotFoundError for one without a market
    or nothing at all, UsageError for one that is compressed, or that holds anything that is no part
    of a backup.
    """
    found = []
    with failing("standard input"):
        begun = _Begun(stream)
    if not begun.start:
        raise NotFoundError("standard input is empty: no tar", hint=_MAKES_TAR)
    if (by := _compressed_by(begun.start)) is not None:
        raise UsageError("the tar is compressed", hint=_takes_compressed(by, "FILE"))
    try:
        with (
            failing("standard input"),
            tarfile.open(fileobj=cast("BinaryIO", begun), mode="r|") as tar,
        ):
            for entry in tar:
                name = os.path.normpath(entry.name)
                if entry.isdir() and name in (".", names.STORE, names.SPOOL, names.STATE):
                    continue
                is_part = name in PARTS or bundle_copies.is_part(name)
                if not is_part or not entry.isreg() or name in found:
                    raise UsageError(f"the tar holds {entry.name!r}, which is no part of a backup")
                content = tar.extractfile(entry)
                assert content is not None, "it is a regular file"
                _write(os.path.join(copy.path, name), content)  # type: ignore[arg-type]
                found.append(name)
    except (tarfile.TarError, EOFError) as error:
        raise IntegrityError(f"the tar is damaged: {error}", hint="use another backup") from error
    if _DATA not in found:
        raise NotFoundError("there is no market in the tar", hint=_MAKES_TAR)


class _Begun:
    """A stream of which the start has been looked at."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.start = self._ahead = stream.read(_START_BYTES)

    def read(self, size: int) -> bytes:
        part, self._ahead = self._ahead[:size], self._ahead[size:]
        return part + self._stream.read(size - len(part))


def _compressed_by(start: bytes) -> str | None:
    """The program that made what begins so, if one did that compresses."""
    return next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)


def _takes_compressed(by: str, path: str) -> str:
    return f"{by} -dc {path} | tb-cli state restore -"


def _write(path: str, content: BinaryIO) -> None:
    with failing(path):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "xb", opener=_private) as file:
            shutil.copyfileobj(content, file, _PIECE_BYTES)


def standard_input() -> BinaryIO:
    """Where a tar comes from. Raises UsageError for a terminal, or where nothing can be read."""
    if sys.stdin.isatty():
        raise UsageError("a tar is not typed on a terminal", hint="tb-cli state restore - < FILE")
    return lines.standard_input()


def standard_output() -> BinaryIO:
    """Where a tar goes. Raises UsageError for a terminal, or where nothing can be written."""
    if sys.stdout.isatty():
        raise UsageError("a tar is not for a terminal", hint="tb-cli state backup - > FILE")
    if getattr(sys.stdout, "name", None) == os.devnull:  # What stands in for it (`tb_cli.entry`).
        raise UsageError("standard output is closed", hint="tb-cli state backup - > FILE")
    return sys.stdout.buffer


# Into a home.


def check_directory(path: str) -> None:
    """Raise NotFoundError unless there is a market in the directory of a backup.

    Raises UsageError for a file, such as a tar.
    """
    named = quoted(path)
    with failing(named):
        if not os.path.lexists(path):
            raise NotFoundError(f"there is no backup {named}", hint=_MAKES_DIRECTORY)
        if not os.path.isdir(path):
            by, word = _compressed_by(_start_of(path)), shlex.quote(path)
            raise UsageError(
                f"the backup {named} is no directory",
                hint=f"a tar comes from stdin: tb-cli state restore - < {word}"
                if by is None
                else _takes_compressed(by, word),
            )
        if not Home(path).has_market():
            raise NotFoundError(f"there is no market in {named}", hint=_MAKES_DIRECTORY)


def _start_of(path: str) -> bytes:
    if not os.path.isfile(path):
        return b""
    with open(path, "rb") as file:
        return file.read(_START_BYTES)


def move_in(copy: Home, into: Home) -> None:
    """Give the parts of a copy their names in a home; the market, which makes it one, comes last.

    Raises UsageError when there is anything else in the home. A part that is there and has the
    same bytes is what a restore left that was killed here.
    """
    with failing(into.path):
        parts = _parts_of(copy)[:-1]
        if bundle_copies.has_others(into, copy):
            raise not_empty(into, names.SPOOL)
        for part in parts:
            new, old = (os.path.join(each.path, part) for each in (copy, into))
            if os.path.lexists(old) and not (os.path.exists(new) and _same(old, new)):
                raise not_empty(into, part)
        for part in (*parts, names.STORE):
            new = os.path.join(copy.path, part)
            if os.path.exists(new):
                os.makedirs(os.path.dirname(os.path.join(into.path, part)), 0o700, exist_ok=True)
                os.rename(new, os.path.join(into.path, part))
        state = os.path.join(into.path, names.STATE)
        for directory in filter(os.path.isdir, (into.spool, state, into.path)):
            sync(directory)


def not_empty(home: Home, name: str) -> MarketError:
    return UsageError(
        f"{home} is not empty: {name} is in it",
        hint="move it aside, or restore into another --home",
    )


def _same(one: str, other: str) -> bool:
    if not stat.S_ISREG(os.lstat(one).st_mode):
        return False
    return filecmp.cmp(one, other, shallow=False)


def _settings(home: Home) -> bytes | None:
    try:
        return names.read(home.config)
    except FileNotFoundError:
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

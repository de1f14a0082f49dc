"""The spool: bundles that were given to the courier, each once, in `spool/HASH` in the home.

A bundle is on the disk before its receipt is stored, and goes after the last of its receipts has.
Who sends holds a shared lock of the spool until that is done, who takes bundles away has it alone.
What is in `spool/new` while nobody sends was left by a process that was killed: there may be
bundles then that have no receipt, and the next `tick` looks for them.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import BinaryIO, Final

from compute_market import home as names
from compute_market.courier import courier
from compute_market.courier_records import BundleReceipt
from compute_market.errors import (
    BusyError,
    IntegrityError,
    MarketError,
    UsageError,
    file_error,
    way_out,
)
from compute_market.store.creation import sync
from compute_market.store.lock import Patience
from compute_market.store.translation import translated
from compute_market.store.txn import Txn
from compute_market.text import cause_of
from tb_cli.frame import private_files
from tb_cli.frame.bundle_content import Advance, Content, Piece, written
from tb_cli.frame.clocks import sleep
from tb_cli.frame.home import Home
from tb_cli.frame.session import Session

_HEX = frozenset("0123456789abcdef")
_HASH_DIGITS: Final = 64
# Receipts, and names, that are dealt with in one transaction.
_CHUNK: Final = 1000


def path_of(home: Home, bundle_hash: bytes) -> str:
    return os.path.join(home.spool, bundle_hash.hex())


def is_hash(name: str) -> bool:
    """Whether a name in the spool is that of a bundle."""
    return len(name) == _HASH_DIGITS and _HEX.issuperset(name)


def open_checked(home: Home, receipt: BundleReceipt) -> BinaryIO:
    """The bundle of a receipt, to be read; that it has the right hash is found out by reading.

    Raises IntegrityError when it is not there (`missing_bundle`) or is no file of the right size
    (`damaged_bundle`), BusyError when there is no descriptor left.
    """
    path = path_of(home, receipt.bundle_hash)
    try:
        descriptor = names.open_regular(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise IntegrityError(
            f"{path}: the bundle is missing",
            hint="send it again from where it came, or put it back",
            reason="missing_bundle",
        ) from error
    except OSError as error:
        if way_out(error.errno) is not None:
            raise file_error(path, error) from error
        raise _damaged(path, cause_of(error)) from error
    size = os.fstat(descriptor).st_size
    if size != receipt.size:
        os.close(descriptor)
        raise _damaged(path, f"it has {size} bytes, and had {receipt.size}")
    return open(descriptor, "rb")


def _damaged(path: str, problem: str) -> IntegrityError:
    return IntegrityError(
        f"{path}: the bundle is damaged: {problem}",
        hint="send it again from where it came: that puts it right",
        reason="damaged_bundle",
    )


@contextmanager
def spooled(
    session: Session, pieces: Iterable[Piece], *, room: int = 0, advance: Advance | None = None
) -> Iterator[Content]:
    """A bundle in the spool, on the disk, for a receipt that is stored inside.

    Without one in the end it is taken away again. `room` is how many bytes it takes, if that is
    known before. A dry run only hashes it. Raises what `pieces` raise, what making a store raises,
    and BusyError when others take bundles away for too long.
    """
    if session.dry_run:
        yield written(pieces, advance=advance)
        return
    home = session.home
    begun = home.spooling
    for directory in (home.spool, begun):
        private_files.make_directory(directory)
    path = _new_path(home)
    with _lock(session, fcntl.LOCK_SH) as descriptor:
        _check_room(home.spool, room)
        content = None
        try:
            content = _write_new(path, pieces, advance)
            _give_name(path, path_of(home, content.bundle_hash))
            yield content
        finally:
            if content is None or _is_settled(session, content.bundle_hash, descriptor):
                _remove(path)


def _new_path(home: Home) -> str:
    """One in the directory of bundles that are being sent, which is not there."""
    return os.path.join(home.spooling, os.urandom(8).hex())


def _write_new(path: str, pieces: Iterable[Piece], advance: Advance | None) -> Content:
    """Write a bundle to a file that is not there, and bring it to the disk."""
    with translated(path):
        descriptor = names.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            content = written(pieces, descriptor, advance)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        names.give_to_owner(path)
    return content


def _give_name(path: str, name: str) -> None:
    """Give a new bundle its name, also in place of what had it, which may be damaged."""
    again = f"{path}.again"
    with translated(name):
        try:
            os.link(path, name)
        except FileExistsError:
            os.link(path, again)
            os.replace(again, name)
        sync(os.path.dirname(name))


def _is_settled(session: Session, bundle_hash: bytes, descriptor: int) -> bool:
    """Take away a bundle that has no receipt after all; False where that cannot be found out, or
    others may be about to store one for the same bundle."""
    with suppress(MarketError, OSError):
        if not session.view(lambda txn: courier.is_kept(txn, bundle_hash)):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not session.view(lambda txn: courier.is_kept(txn, bundle_hash)):
                return _remove(path_of(session.home, bundle_hash))
        return True
    return False


def _check_room(spool: str, room: int) -> None:
    with translated(spool):
        disk = os.statvfs(spool)
    free = disk.f_bavail * disk.f_frsize
    if room > free:
        raise BusyError(
            f"{spool}: {room} bytes are needed and {free} are free",
            hint="free some disk space and try again",
        )


@contextmanager
def _lock(session: Session, kind: int, timeout_ms: int | None = None) -> Iterator[int]:
    """The spool's lock, shared by those who send, or alone."""
    spool = session.home.spool
    if timeout_ms is None:
        timeout_ms = round(session.config.lock_timeout_secs * 1000)
    with translated(spool):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(spool, flags)
    try:
        with translated(spool):
            is_had = Patience(timeout_ms, sleep).has_lock(descriptor, kind)
        if not is_had:
            raise BusyError(
                f"another process is at work in {spool}",
                hint="try again, or wait longer with --lock-timeout",
            )
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def kept_as_it_is(session: Session) -> Iterator[None]:
    """While nobody takes a bundle away. Raises BusyError when others do for too long."""
    if not os.path.isdir(session.home.spool):
        yield
        return
    with _lock(session, fcntl.LOCK_SH):
        yield


# What is not needed any more.


def prune(session: Session) -> int:
    """Forget receipts that ended long ago, and take their bundles away; how many receipts.

    Nothing while others send: the next time will do. Raises what an update of the market raises.
    """
    home = session.home
    private_files.check_directory(home.spool)
    is_due = session.view(courier.has_old)
    begun = home.spooling
    is_left = bool(_listed(begun))
    if session.dry_run or not (is_due or is_left):
        return 0
    for directory in (home.spool, begun):
        private_files.make_directory(directory)
    with ExitStack() as stack:
        try:
            stack.enter_context(_lock(session, fcntl.LOCK_EX, timeout_ms=0))
        except BusyError:
            return 0
        if is_left:
            _sweep(session)
        return _forget(session, _new_path(home)) if is_due else 0


def _forget(session: Session, mark: str) -> int:
    """Forget what is old; the file `mark` stands for a bundle that may be left over meanwhile."""
    private_files.write_new(mark, b"")
    count = 0
    is_clean = True
    while True:
        pruned = session.update(lambda txn: courier.prune(txn, _CHUNK))
        for bundle_hash in pruned.hashes:
            is_clean &= _remove(path_of(session.home, bundle_hash))
        count += pruned.receipts
        if pruned.receipts < _CHUNK:
            break
    if is_clean:
        _remove(mark)
    return count


def _sweep(session: Session) -> None:
    """Take away every bundle without a receipt, and what told that there may be some."""
    home = session.home
    is_clean = True
    with translated(home.spool), os.scandir(home.spool) as entries:
        hashes = (entry.name for entry in entries if is_hash(entry.name))
        while part := list(islice(hashes, _CHUNK)):
            for name in session.view(lambda txn: _without_receipt(txn, part)):
                is_clean &= _remove(os.path.join(home.spool, name))
    for name in _listed(home.spooling) if is_clean else ():
        _remove(os.path.join(home.spooling, name))


def _without_receipt(txn: Txn, hashes: list[str]) -> list[str]:
    return [name for name in hashes if not courier.is_kept(txn, bytes.fromhex(name))]


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{directory}: {cause_of(error)}") from error


def _remove(path: str) -> bool:
    """Whether it is not there any more."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True

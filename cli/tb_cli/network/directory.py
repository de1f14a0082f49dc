"""Bundles forwarded to a directory: a stick, or a folder that something else keeps in step.

`bundles/HASH` has a bundle, `envelopes/NAME.tb` says whose they are. Each file is written under
another name, brought to the disk, renamed, read back and verified.
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from blake3 import blake3

from compute_market import home
from compute_market.courier import envelope
from compute_market.courier_records import BundleReceipt
from compute_market.errors import BusyError, MarketError
from compute_market.text import cause_of, quoted
from tb_cli.frame.home import check_elsewhere
from tb_cli.network.destinations import PIECE_BYTES, Answer, Sender, failed, pieces

BUNDLES: Final = "bundles"
ENVELOPES: Final = "envelopes"
ENDING: Final = ".tb"  # of the name of an envelope

_NAME_DIGITS: Final = 32
_PART: Final = ".part"
_ZEROS: Final = bytes(PIECE_BYTES)
# Bundles that are known to be there are not looked at again, so many of them.
_KNOWN_MAX: Final = 4096
# File systems that know nothing of it: a directory need not be brought to the disk there.
_NO_SYNC: Final = (errno.EINVAL, errno.ENOTSUP)


class Directory:
    """A directory, whose bundles are as good as taken once they are on its disk.

    One whose path is not absolute is in the home, and made there; any other must be there: what
    is mounted at it may be missing. Raises UsageError for one that is the home's own.
    """

    batch = 500

    def __init__(self, path: str, sender: Sender) -> None:
        self._sender = sender
        self._path = os.path.abspath(os.path.join(sender.home, path))
        check_elsewhere(sender.home, self._path)
        self._is_relative = not os.path.isabs(path)
        self._is_inside = self._path.startswith(f"{sender.home}/")
        self._known: set[bytes] = set()
        self._is_closed = False
        self._key = sender.key()

    def send(self, receipts: Sequence[BundleReceipt]) -> list[Answer]:
        try:
            return self._sent(receipts)
        except OSError as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Write no more: a long bundle may be on its way to a slow disk."""
        self._is_closed = True

    def _sent(self, receipts: Sequence[BundleReceipt]) -> list[Answer]:
        self._make()
        answers: dict[int, Answer] = {}
        is_new = False
        for receipt in receipts:
            try:
                is_new |= self._bring(receipt)
            except MarketError as error:
                if self._is_closed:
                    raise
                answers[receipt.receipt_id] = failed(error)
            except OSError as error:  # It does not fit, say, or something else has its name.
                answers[receipt.receipt_id] = failed(self._unusable(error))
        if is_new:
            _sync(os.path.join(self._path, BUNDLES))
        good = [each for each in receipts if each.receipt_id not in answers]
        if good:
            entries = [envelope.entry_of(each) for each in good]
            text = envelope.text(self._sender.market_id, self._key, entries)
            name = envelope.digest_of(text).hex()[:_NAME_DIGITS] + ENDING
            self._write(ENVELOPES, name, lambda: (text,), blake3(text).digest())
            _sync(os.path.join(self._path, ENVELOPES))
        done = Answer("acknowledged")
        return [answers.get(each.receipt_id, done) for each in receipts]

    def _make(self) -> None:
        if self._is_inside:
            home.check_no_link_below(self._sender.home, self._path)
        if self._is_relative:
            home.make_directories(self._path)
        for name in (BUNDLES, ENVELOPES):
            path = os.path.join(self._path, name)
            if os.path.islink(path):  # It would lead off the stick.
                raise OSError(errno.ELOOP, home.LINK, path)
            if not os.path.isdir(path):
                with suppress(FileExistsError):
                    os.mkdir(path, home.DIRECTORY_MODE)
                home.give_to_owner(path)
                _sync(self._path)

    def _bring(self, receipt: BundleReceipt) -> bool:
        """Have a bundle there, and on the disk; whether it had to be written."""
        bundle_hash = receipt.bundle_hash
        if bundle_hash in self._known:
            return False
        path = os.path.join(self._path, BUNDLES, bundle_hash.hex())
        is_new = _hash_at(path) != bundle_hash
        if is_new:
            self._write(
                BUNDLES,
                bundle_hash.hex(),
                lambda: pieces(receipt, self._sender.open),
                bundle_hash,
            )
        else:
            # It may have been read from memory: who wrote it may have been killed before it was on
            # the disk.
            _sync(path)
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known.add(bundle_hash)
        return is_new

    def _write(
        self, directory: str, name: str, content: Callable[[], Iterable[bytes]], digest: bytes
    ) -> None:
        path = os.path.join(self._path, directory, name)
        part = os.path.join(self._path, directory, f".{os.urandom(8).hex()}{_PART}")
        descriptor = home.open_regular(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            try:
                for piece in content():
                    if self._is_closed:
                        raise BusyError(f"{quoted(path)}: interrupted", reason="not_delivered")
                    _put(descriptor, piece)
                # A hole at the end is no part of the file yet.
                os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
        home.give_to_owner(path)
        if _hash_at(path) != digest:
            raise OSError(errno.EIO, "what was written reads otherwise", path)

    def _unusable(self, error: OSError) -> MarketError:
        path = error.filename or self._path
        return BusyError(f"{quoted(path)}: {cause_of(error)}", reason="not_delivered")


def _put(descriptor: int, piece: bytes) -> None:
    """Write a piece; one of zeros as a hole, for a bundle may have large ones."""
    if len(piece) == PIECE_BYTES and piece == _ZEROS:
        os.lseek(descriptor, PIECE_BYTES, os.SEEK_CUR)
        return
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]


def _hash_at(path: str) -> bytes | None:
    """The hash of the file at a path as the disk has it, if there is one."""
    try:
        descriptor = home.open_regular(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    hasher = blake3()
    with open(descriptor, "rb") as file:
        # What was just written is to be read from the disk, not from memory.
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := file.read(PIECE_BYTES):
            hasher.update(piece)
    return hasher.digest()


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)

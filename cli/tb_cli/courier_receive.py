"""`compute courier receive`: takes in the bundles that were forwarded to a directory."""

import errno
import os
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from blake3 import blake3

from compute_market import home as names
from compute_market.courier import deliveries, envelope
from compute_market.courier.courier import id_text
from compute_market.courier.deliveries import Brought
from compute_market.courier.envelope import Entry, Envelope
from compute_market.errors import (
    IntegrityError,
    MarketError,
    NotFoundError,
    RefusedError,
    UsageError,
    exit_code,
    file_error,
    way_out,
)
from compute_market.signatures.canonical import malformed
from compute_market.store.txn import Txn
from compute_market.text import cause_of, quoted
from tb_cli.frame import inbox
from tb_cli.frame.guard import Terminated
from tb_cli.frame.render import emit, note, report
from tb_cli.frame.session import Session
from tb_cli.frame.signing import prepare_to_verify
from tb_cli.frame.verbs import argument, examples, takes
from tb_cli.network.directory import BUNDLES, ENDING, ENVELOPES

_PIECE_BYTES = 2**20
_ERRORS_SHOWN = 20
# Bundles that are known to be in the inbox are not looked at again, so many of them.
_KNOWN_MAX = 4096


@examples("tb-cli compute courier receive /media/stick")
@takes(argument("path", "PATH", "A directory that bundles were forwarded to, or one envelope."))
def receive(session: Session, path: str) -> int:
    """Each is taken once, if the key that signed for it is in `trusted` of [net] in config.toml,
    and kept in `inbox/HASH` in the home. What was taken stays where it came from, and is known when
    it is met again. The handoff of a job that has ended here is refused.
    """
    session.home.check_market()
    prepare_to_verify()
    intake = _Intake(session)
    try:
        for found in _envelopes(path):
            intake.take(found)
    except (KeyboardInterrupt, Terminated):
        note(f"interrupted: {intake.text}; run it again")
        raise
    except MarketError:  # Of this home, or of PATH as a whole.
        if intake.received:
            note(f"{intake.text}; run it again")
        raise
    document = {
        "received": intake.received,
        "seen": intake.seen,
        "failed": intake.failed,
        "changed": intake.received > 0,
        "errors": [error.document() for error in intake.errors],
    }
    emit(session, document, intake.text)
    if not session.json:
        for error in intake.errors:
            report(error, as_json=False)
        if intake.failed > len(intake.errors):
            note(f"and {intake.failed - len(intake.errors)} more errors")
    if not intake.errors:
        return 0
    is_partial = bool(intake.received or intake.seen)
    return exit_code("partial") if is_partial else intake.errors[0].exit_code


class _Intake:
    """What was taken of one envelope after the other."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: set[bytes] = set()
        self.received = 0
        self.seen = 0  # that had been taken before
        self.failed = 0
        self.errors: list[MarketError] = []  # the first of them

    @property
    def text(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"received {self.received} bundles, {self.seen} seen before{failed}"

    def take(self, path: str) -> None:
        """Take the bundles of one envelope, all that are right."""
        try:
            found = envelope.parse(_read(path), quoted(path))
            answers = self._session.view(partial(_known, found))
        except (IntegrityError, RefusedError) as error:
            self._fail(error)
            return
        bundles = os.path.join(os.path.dirname(os.path.dirname(path)), BUNDLES)
        new: list[Entry] = []
        for entry, answer in zip(found.entries, answers, strict=True):
            if answer is not None:
                self._count(answer)
                continue
            try:
                self._bring(bundles, entry)
                new.append(entry)
            except IntegrityError as error:
                self._fail(error)
        if new:
            for each in self._session.update(
                lambda txn: [deliveries.take(txn, found, entry) for entry in new]
            ):
                self._count(each)

    def _bring(self, bundles: str, entry: Entry) -> None:
        """Have a bundle in the inbox, whole and on the disk."""
        home = self._session.home
        if entry.bundle_hash in self._known:
            return
        kept = inbox.path_of(home, entry.bundle_hash)
        if not os.path.lexists(kept) or not _is_whole(kept, entry):
            source = os.path.join(bundles, entry.bundle_hash.hex())
            with _opened(source) as file:
                if self._session.dry_run:
                    if not _is_whole(source, entry):
                        raise IntegrityError(f"{quoted(source)} is damaged", reason="wrong_hash")
                else:
                    self._copy(file, source, entry)
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known.add(entry.bundle_hash)

    def _copy(self, file: BinaryIO, source: str, entry: Entry) -> None:
        with inbox.incoming(self._session.home, entry.bundle_hash, entry.size) as incoming:
            try:
                for piece in _pieces(file, source):
                    incoming.write(piece)
                incoming.finish()
            except IntegrityError as error:
                raise IntegrityError(
                    f"{quoted(source)}: {error.message}",
                    hint="have it forwarded again: `tb-cli compute courier resend ID` there",
                    reason=error.reason,
                ) from error
            incoming.keep()

    def _count(self, brought: Brought) -> None:
        if brought.taken.outcome == "refused":
            told = f"bundle {id_text(brought.taken.receipt_id)}: {brought.taken.error}"
            self._fail(RefusedError(told, reason="bundle_refused"))
        elif brought.is_new:
            self.received += 1
        else:
            self.seen += 1

    def _fail(self, error: MarketError) -> None:
        self.failed += 1
        if len(self.errors) < _ERRORS_SHOWN:
            self.errors.append(error)


def _known(found: Envelope, txn: Txn) -> list[Brought | None]:
    """The answer for each bundle that needs not be read. Raises RefusedError for a stranger's."""
    deliveries.check_sender(txn, found)
    return [deliveries.wanted(txn, found, entry) for entry in found.entries]


def _envelopes(path: str) -> Iterator[str]:
    """The envelopes that are meant, by name. Raises NotFoundError or UsageError for none."""
    if os.path.isfile(path):
        yield os.path.abspath(path)
        return
    directory = os.path.join(os.path.abspath(path), ENVELOPES)
    try:
        found = sorted(name for name in os.listdir(directory) if name.endswith(ENDING))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{quoted(path)}: no bundles were forwarded to it: there is no {ENVELOPES}/ in it",
            hint="name the directory that a market of somebody else forwards to",
        ) from error
    except OSError as error:
        raise UsageError(f"{quoted(directory)}: {cause_of(error)}") from error
    for name in found:
        yield os.path.join(directory, name)


def _read(path: str) -> bytes:
    """The bytes of an envelope. Raises IntegrityError for a file that goes on behind it."""
    with _opened(path) as file:
        try:
            found = envelope.read(file.readline, quoted(path))
            if file.read(1):
                raise malformed(f"{quoted(path)} goes on after its end")
        except OSError as error:
            raise _unreadable(path, error) from error
    return found


def _opened(path: str) -> BinaryIO:
    """A file of others. Raises IntegrityError for one that is not there or cannot be read."""
    try:
        return open(names.open_regular(path, os.O_RDONLY), "rb")
    except OSError as error:
        raise _unreadable(path, error) from error


def _is_whole(path: str, entry: Entry) -> bool:
    """Whether a file is the bundle that an envelope names."""
    hasher = blake3()
    size = 0
    with _opened(path) as file:
        for piece in _pieces(file, path):
            hasher.update(piece)
            size += len(piece)
    return (hasher.digest(), size) == (entry.bundle_hash, entry.size)


def _pieces(file: BinaryIO, path: str) -> Iterator[bytes]:
    try:
        while piece := file.read(_PIECE_BYTES):
            yield piece
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> MarketError:
    if way_out(error.errno) is not None:
        return file_error(quoted(path), error)
    is_missing = error.errno == errno.ENOENT
    return IntegrityError(
        f"{quoted(path)}: {cause_of(error)}",
        hint="it may come later; run it again then" if is_missing else None,
        reason="missing_bundle" if is_missing else "unreadable",
    )

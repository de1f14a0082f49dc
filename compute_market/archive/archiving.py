"""An archive from its first byte to its last: what ended long ago goes from a market to a file.

The file has each piece before the market lets go of it. A run that was killed is run again with the
same file, and goes on where it was.
"""

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from compute_market import chain
from compute_market.archive import archives, lines, selection
from compute_market.archive.files import ArchiveFile, damaged, open_or_none
from compute_market.archive.selection import Ended
from compute_market.archive_records import Archive
from compute_market.errors import ConflictError, IntegrityError, UsageError
from compute_market.records import Posting, replace
from compute_market.store.txn import Txn

# Pieces after which the data file is mapped anew, so that memory stays flat.
_PIECES_MAPPED: Final = 8

# What is counted of an archive, and of one run.
_COUNTS: Final = ("jobs", "receipts", "postings")

# Jobs or postings that go together.
_Piece = tuple[list[Ended], list[Posting]]
Run = Callable[[Callable[[Txn], Any]], Any]


class Runner(NamedTuple):
    """What runs the transactions of an archive, and is told how far it has come."""

    view: Run
    update: Run
    wall_ms: Callable[[], int]
    let_go: Callable[[], None]  # of what was read of the data file
    tell: Callable[[dict[str, int]], None] = lambda gone: None


def archive(run: Runner, path: str, before: int, archive_id: bytes) -> dict[str, Any]:
    """Move what ended before a unix second, and old deposits and withdrawals, to the file at a
    path; what has gone. `archive_id`, random bytes, is that of a new one.

    Raises UsageError for a file that is no archive of this market, ConflictError for one that it
    knows nothing of, IntegrityError for one that is damaged or gone, BusyError while another
    process writes it or the disk is full.
    """
    file = _opened(run, path)
    if file is None:
        if next(_pieces(run, before), None) is None:
            return nothing(path)
        file, begun = _begun(run, path, archive_id, before)
        with file:
            return _document(path, begun, _go_on(run, archive_id, file, begun))
    with file:
        found_id, known = _known(run, file, is_tried=False)
        if known.closed_ms is None:
            _check(file, known)
            known = _placed(run, found_id, file, known)
            file.cut()
            return _document(path, known, _go_on(run, found_id, file, known))
        return _whole(run, file, known, before)


def attempt(run: Runner, path: str, before: int) -> dict[str, Any]:
    """What would go, counted without a transaction that holds it all; nothing is written."""
    file = _opened(run, path)
    if file is None:
        return (
            nothing(path)
            if next(_pieces(run, before), None) is None
            else _counted(run, path, Archive(path, before, 0, 0, b""))
        )
    with file:
        _, known = _known(run, file, is_tried=True)
        if known.closed_ms is None:
            _check(file, known)
            return _counted(run, path, known)
        return _whole(run, file, known, before)


def of_use(listed: list[Archive]) -> list[Archive]:
    """Those that have something or may still get it, in their order.

    One that broke off before the market let go of anything is none any more once its file is gone,
    or a later archive has its path.
    """
    last = {each.path: each for each in sorted(listed, key=lambda each: each.begun_ms)}

    def is_of_use(each: Archive) -> bool:
        if each.closed_ms is not None or _has_any(each):
            return True
        return last[each.path] is each and os.path.lexists(each.path)

    return [each for each in listed if is_of_use(each)]


def lost(of: list[Archive]) -> tuple[list[str], list[str]]:
    """The paths of those whose file is gone, and of those whose file is too short; none is read."""
    gone, short = [], []
    for each in of:
        try:
            found = os.stat(each.path)
        except OSError:
            gone.append(each.path)
            continue
        # A whole one has its last line as well.
        if not stat.S_ISREG(found.st_mode):
            gone.append(each.path)
        elif found.st_size < each.length + (each.closed_ms is not None):
            short.append(each.path)
    return gone, short


def nothing(path: str) -> dict[str, Any]:
    """What is told where nothing went."""
    return {"path": path, "changed": False}


def _has_any(each: Archive) -> bool:
    """Whether the market has let go of something that is in an archive."""
    return bool(each.jobs or each.receipts or each.postings)


def _opened(run: Runner, path: str) -> ArchiveFile | None:
    """The file at a path; None where there is nothing, and nothing was.

    Raises IntegrityError where the market let go of something to a file there that is gone.
    """
    if not os.path.lexists(path) and _written_to(run, path):
        raise IntegrityError(
            f"{path} is gone, and what is in it is no longer in the market",
            hint="bring it back from its disk or a copy; a new archive needs another name",
        )
    return open_or_none(path)


def _written_to(run: Runner, path: str) -> set[str]:
    """The ids of archives of a path that have something."""
    place = _place(path)
    known: list[tuple[bytes, Archive]] = run.view(lambda txn: list(archives.listed(txn)))
    return {
        found.hex()
        for found, each in known
        if _has_any(each) and os.path.basename(each.path) == place[1] and _place(each.path) == place
    }


def _check(file: ArchiveFile, known: Archive) -> None:
    """Raise IntegrityError for a file that has not what the market let go of to it."""
    file.check(known.length, known.digest, _elsewhere(file, known))


def _elsewhere(file: ArchiveFile, known: Archive) -> str | None:
    """Where an archive lies, unless it is this file."""
    return None if _place(file.path) == _place(known.path) else known.path


def _placed(run: Runner, archive_id: bytes, file: ArchiveFile, known: Archive) -> Archive:
    """An archive that is gone on with, known by where its file lies now."""
    if _elsewhere(file, known) is None:
        return known
    path = _absolute(file.path)
    placed: Archive = run.update(lambda txn: archives.place(txn, archive_id, known, path))
    return placed


def _absolute(path: str) -> str:
    """A path from the root, as it was given; where `..` leads out of a link, without links."""
    found = os.path.abspath(path)
    return found if _place(found) == _place(path) else os.path.join(*_place(path))


def _place(path: str) -> tuple[str, str]:
    """What tells a file from others, there or not: its directory, all links followed, its name."""
    directory, name = os.path.split(path)
    return os.path.realpath(directory), name


def _is_one_of(file: ArchiveFile, ids: set[str]) -> bool:
    try:
        return lines.read_head(file.start(), file.path).id in ids
    except UsageError:
        return False


def _whole(run: Runner, file: ArchiveFile, known: Archive, before: int) -> dict[str, Any]:
    """What is told of an archive that is finished.

    Raises IntegrityError where it is so no longer, UsageError where there is more to go.
    """
    _check(file, known)
    if not lines.is_end(file.rest(), known):
        problem = "its last line is not the one that was written to it"
        raise damaged(file.path, problem, _elsewhere(file, known))
    if next(_pieces(run, before), None) is not None:
        raise UsageError(f"{file.path}: file exists", hint="choose another one for more jobs")
    return nothing(file.path)


def _begun(run: Runner, path: str, archive_id: bytes, before: int) -> tuple[ArchiveFile, Archive]:
    """A new archive, of which there is no more than the head."""
    run.view(lambda txn: archives.check_new(txn, archive_id))
    head = lines.of_head(run.view(lambda txn: lines.head(txn, archive_id, before)))
    file = ArchiveFile.make(path, head, archive_id.hex())
    try:
        return file, _note_begun(run, archive_id, file, before)
    except BaseException:
        file.close()
        raise


def _note_begun(run: Runner, archive_id: bytes, file: ArchiveFile, before: int) -> Archive:
    path = _absolute(file.path)
    begun = Archive(path, before, run.wall_ms(), file.length, file.digest)
    run.update(lambda txn: archives.begin(txn, archive_id, begun))
    return begun


def _known(run: Runner, file: ArchiveFile, *, is_tried: bool) -> tuple[bytes, Archive]:
    """What the market knows of a file.

    Raises UsageError for what is no archive of this market, IntegrityError for what is in the place
    of an archive that has something.
    """
    written = _written_to(run, file.path)
    if written and not _is_one_of(file, written):
        raise damaged(file.path, "it is not the archive that was written there")
    start = file.start()
    head = lines.read_head(start, file.path)
    archive_id, market = bytes.fromhex(head.id), run.view(chain.market_id)
    found = run.view(lambda txn: archives.find(txn, archive_id))
    if found is None and head.market_id != market.hex():
        raise UsageError(
            f"{file.path}: file exists, and is an archive of market {head.market_id}",
            hint="choose another file",
        )
    if found is None:
        length = start.index(b"\n") + 1
        if file.size > length:
            raise ConflictError(
                f"{file.path} is an archive that this market knows nothing of, as after a restore",
                hint="keep it, and choose another file",
            )
        # Whoever made it was killed before the market knew.
        file.check(length)
        found = Archive(file.path, head.before, head.begun_ms, file.length, file.digest)
        if not is_tried:
            found = _note_begun(run, archive_id, file, head.before)
    return archive_id, found


def _go_on(run: Runner, archive_id: bytes, file: ArchiveFile, begun: Archive) -> Archive:
    """Write what may go, piece by piece, each before the market lets go of it.

    Raises ConflictError, with nothing let go, once another process goes on with a copy of the file.
    """
    found = begun
    run.tell(_gone(begun, found))
    number = 0
    pieces = _pieces(run, found.before)
    while (piece := next(pieces, None)) is not None:
        number += 1
        ended, postings = piece
        text = lines.of_jobs(ended) + lines.of_postings(postings)
        file.add(text)
        grown = replace(found, length=file.length + len(text), digest=file.digest_with(text))
        went = run.update(
            partial(
                _let_go,
                archive_id=archive_id,
                known=found,
                grown=grown,
                ended=ended,
                postings=postings,
            )
        )
        if went is None:  # Another process was faster.
            file.cut()
            pieces = _pieces(run, found.before)
            continue
        file.keep(text)
        found = went
        if number % _PIECES_MAPPED == 0:
            run.let_go()
        run.tell(_gone(begun, found))
    end = run.view(lambda txn: lines.of_end(txn, found))
    file.add(end)
    run.update(partial(_close, archive_id=archive_id, known=found))
    return found


def _let_go(txn: Txn, archive_id: bytes, known: Archive, **piece: Any) -> Archive | None:
    archives.check_unchanged(txn, archive_id, known)
    return archives.let_go(txn, archive_id, **piece)


def _close(txn: Txn, archive_id: bytes, known: Archive) -> None:
    archives.check_unchanged(txn, archive_id, known)
    archives.close(txn, archive_id, known)


def _pieces(run: Runner, before: int) -> Iterator[_Piece]:
    """What may go: jobs that ended before a second, then postings from before it.

    Each is read in a transaction of its own, and may be gone by the time of the next.
    """
    after: bytes | None = None
    while True:
        ended, after = run.view(
            partial(selection.ended, before=before, after=after, limit=archives.PIECE_JOBS)
        )
        if ended:
            yield ended, []
        if after is None:
            break
    for postings in _postings(run, before):
        yield [], postings


def _postings(run: Runner, before: int, ended_before: int = 0) -> Iterator[list[Posting]]:
    """Postings that may go, those of jobs that ended before a second as well if one is given."""
    seq: int | None = 0
    while seq is not None:
        postings, seq = run.view(
            partial(
                selection.postings,
                before_ms=before * 1000,
                after=seq,
                limit=archives.PIECE_POSTINGS,
                ended_before=ended_before,
            )
        )
        if postings:
            yield postings


def _counted(run: Runner, path: str, begun: Archive) -> dict[str, Any]:
    """The document of an archive that is gone on with, had it been done."""
    jobs = receipts = 0
    for ended, _ in _pieces(run, begun.before):
        jobs += len(ended)
        receipts += sum(len(each.proofs) for each in ended)
    postings = sum(map(len, _postings(run, begun.before, ended_before=begun.before)))
    grown = replace(
        begun,
        jobs=begun.jobs + jobs,
        receipts=begun.receipts + receipts,
        postings=begun.postings + postings,
    )
    return _document(path, begun, grown)


def _document(path: str, begun: Archive, found: Archive) -> dict[str, Any]:
    """What went in one run, and what the file has by now."""
    total = {name: getattr(found, name) for name in _COUNTS}
    gone = _gone(begun, found)
    return {"path": path, "before": found.before, **gone, "total": total, "changed": True}


def _gone(begun: Archive, found: Archive) -> dict[str, int]:
    """What went to an archive since it was what it was."""
    return {name: getattr(found, name) - getattr(begun, name) for name in _COUNTS}

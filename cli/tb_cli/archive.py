"""`state archive`: what ended long ago goes from the market to a file."""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from compute_market import chain
from compute_market.archive import archives, lines, selection
from compute_market.archive.selection import Ended
from compute_market.archive_records import Archive
from compute_market.errors import ConflictError, UsageError
from compute_market.records import DEADLINE_MAX, Posting, replace
from tb_cli.frame import files, guard
from tb_cli.frame.archive_file import ArchiveFile, open_or_none
from tb_cli.frame.progress import StatusLine
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, option, takes

# Pieces after which the data file is mapped anew, so that memory stays flat.
_PIECES_MAPPED = 8

# Jobs or postings that go together.
_Piece = tuple[list[Ended], list[Posting]]


@takes(
    argument("target", "FILE", "Where they go: a new file, or one that was interrupted."),
    option(
        "--before",
        "How long ago a job has ended at least.",
        kind="integer",
        unit="seconds",
        least=0,
        most=DEADLINE_MAX,
        required=True,
    ),
)
@examples("tb-cli state archive --before 90d /backup/jobs-2026-11.jsonl")
def archive(session: Session, target: str, *, before: int) -> None:
    """Jobs go with their slices, their receipts and their postings, and so do old deposits and
    withdrawals. Ids and keys stay taken, balances go on from what they were, and the audit stays
    clean. A job stays while a receipt of it waits to be paid.

    The file has a piece before the market lets go of it. A run that was killed is run again with
    the same file, and goes on where it was.
    """
    files.check_text(target, "the file")
    end = session.view(lambda txn: max(0, txn.now - before))
    file = open_or_none(target)
    if file is None:
        if next(_pieces(session, end), None) is None:
            _tell(session, target, None)
        elif session.dry_run:
            _try(session, target, end)
        else:
            archive_id, file = _begun(session, target, end)
            with file:
                _go_on(session, archive_id, file)
        return
    with file:
        archive_id, known = _known(session, file)
        if known.closed_ms is None:
            if session.dry_run:
                _try(session, target, known.before)
            else:
                file.go_on(known.length, known.digest)
                _go_on(session, archive_id, file)
        elif next(_pieces(session, end), None) is None:
            _tell(session, target, None)
        else:
            raise UsageError(f"{target}: file exists", hint="choose another one for more jobs")


def _begun(session: Session, target: str, before: int) -> tuple[bytes, ArchiveFile]:
    """A new archive, of which there is no more than the head."""
    archive_id = os.urandom(archives.ID_BYTES)
    head = lines.of_head(session.view(lambda txn: lines.head(txn, archive_id, before)))
    file = ArchiveFile.make(target, head)
    try:
        _note_begun(session, archive_id, file, before)
    except BaseException:
        file.close()
        raise
    return archive_id, file


def _note_begun(session: Session, archive_id: bytes, file: ArchiveFile, before: int) -> Archive:
    path = os.path.abspath(file.path)
    begun = Archive(path, before, session.market.wall_ms(), file.length, file.digest)
    session.update(lambda txn: archives.begin(txn, archive_id, begun))
    return begun


def _known(session: Session, file: ArchiveFile) -> tuple[bytes, Archive]:
    """What the market knows of a file. Raises UsageError for what is no archive of this market."""
    start = file.start()
    head = lines.read_head(start, file.path)
    archive_id, market = bytes.fromhex(head.id), session.view(chain.market_id)
    if head.market_id != market.hex():
        raise UsageError(
            f"{file.path}: file exists, and is an archive of market {head.market_id}",
            hint="choose another file",
        )
    found = session.view(lambda txn: archives.find(txn, archive_id))
    if found is None:
        length = start.index(b"\n") + 1
        if file.size > length:
            raise ConflictError(
                f"{file.path} is an archive that this market knows nothing of, as after a restore",
                hint="keep it, and choose another file",
            )
        # Whoever made it was killed before the market knew.
        file.go_on(length)
        found = Archive(file.path, head.before, head.begun_ms, file.length, file.digest)
        if not session.dry_run:
            found = _note_begun(session, archive_id, file, head.before)
    return archive_id, found


def _go_on(session: Session, archive_id: bytes, file: ArchiveFile) -> None:
    """Write what may go, piece by piece, each before the market lets go of it."""
    found = session.view(lambda txn: archives.find(txn, archive_id))
    assert found is not None, "it has just begun"
    status = StatusLine()
    try:
        number = 0
        pieces = _pieces(session, found.before)
        while (piece := next(pieces, None)) is not None:
            number += 1
            ended, postings = piece
            text = lines.of_jobs(ended) + lines.of_postings(postings)
            file.add(text)
            grown = replace(found, length=file.length + len(text), digest=file.digest_with(text))
            went = session.update(
                partial(
                    archives.let_go,
                    archive_id=archive_id,
                    grown=grown,
                    ended=ended,
                    postings=postings,
                )
            )
            if went is None:  # Another process was faster.
                file.cut()
                pieces = _pieces(session, found.before)
                continue
            file.keep(text)
            found = went
            if number % _PIECES_MAPPED == 0:
                session.let_go()
            status.show(f"{found.jobs} jobs and {found.postings} postings")
    except (KeyboardInterrupt, guard.Terminated):
        status.clear()
        note(f"interrupted after {found.jobs} jobs; run it again with {file.path}")
        raise
    status.clear()
    end = session.view(lambda txn: lines.of_end(txn, found))
    file.add(end)
    session.update(lambda txn: archives.close(txn, archive_id, found))
    _tell(session, file.path, found)


def _pieces(session: Session, before: int) -> Iterator[_Piece]:
    """What may go: jobs that ended before a second, then postings from before it.

    Each is read in a transaction of its own, and may be gone by the time of the next.
    """
    after: bytes | None = None
    while True:
        ended, after = session.view(
            partial(selection.ended, before=before, after=after, limit=archives.PIECE_JOBS)
        )
        if ended:
            yield ended, []
        if after is None:
            break
    for postings in _postings(session, before):
        yield [], postings


def _postings(session: Session, before: int, ended_before: int = 0) -> Iterator[list[Posting]]:
    """Postings that may go, those of jobs that ended before a second as well if one is given."""
    seq: int | None = 0
    while seq is not None:
        postings, seq = session.view(
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


def _try(session: Session, target: str, before: int) -> None:
    """Count what would go, without a transaction that holds it all."""
    counts = {"jobs": 0, "receipts": 0, "postings": 0}
    for ended, _ in _pieces(session, before):
        counts["jobs"] += len(ended)
        counts["receipts"] += sum(len(each.proofs) for each in ended)
    counts["postings"] = sum(map(len, _postings(session, before, ended_before=before)))
    _emit(session, target, {"before": before, **counts}, changed=True)


def _tell(session: Session, target: str, found: Archive | None) -> None:
    if found is None:
        emit(session, {"path": target, "changed": False}, "nothing to archive")
        return
    names = ("before", "jobs", "receipts", "postings")
    counts = {name: getattr(found, name) for name in names}
    _emit(session, target, counts, changed=True)


def _emit(session: Session, target: str, counts: dict[str, Any], *, changed: bool) -> None:
    text = (
        f"archived {counts['jobs']} jobs, {counts['receipts']} receipts and "
        f"{counts['postings']} postings to {target}"
    )
    emit(session, {"path": target, **counts, "changed": changed}, text)

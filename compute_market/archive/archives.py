"""Archives: files that hold what the market has let go, and how far each of them has come.

A piece of an archive is written to its file and synced first; the transaction that removes the same
from the store then notes how long the file is by now. So whatever is killed, the file has all that
the store lacks, and what it has beyond that length was never removed. The only writer of its table.
"""

from collections.abc import Iterator
from typing import Any, Final

from compute_market import events
from compute_market.archive import removal, selection
from compute_market.archive.selection import Ended
from compute_market.archive_records import Archive
from compute_market.errors import ConflictError
from compute_market.records import Posting, replace
from compute_market.store.schema import ARCHIVES, POSTINGS, pack_u64
from compute_market.store.txn import Txn

ID_BYTES: Final = 16
# Jobs, and postings, that are looked at for one piece, which is one transaction.
PIECE_JOBS: Final = 1_000
PIECE_POSTINGS: Final = 10_000


def find(txn: Txn, archive_id: bytes) -> Archive | None:
    return txn.read(ARCHIVES, archive_id)


def listed(txn: Txn) -> Iterator[tuple[bytes, Archive]]:
    """All archives with their ids."""
    for key, payload in txn.scan(ARCHIVES):
        yield key, ARCHIVES.decode(key, payload)


def begin(txn: Txn, archive_id: bytes, archive: Archive) -> None:
    """Note a file that has its head and nothing else. Raises what `check_new` raises."""
    check_new(txn, archive_id)
    txn.write(ARCHIVES, archive_id, archive)


def check_new(txn: Txn, archive_id: bytes) -> None:
    """Raise ConflictError for the id of an archive that is known: no two files have the same."""
    known = find(txn, archive_id)
    if known is not None:
        raise ConflictError(f"{known.path} is the archive of the id {archive_id.hex()}")


def check_unchanged(txn: Txn, archive_id: bytes, known: Archive) -> None:
    """Raise ConflictError unless all is as one process left it that writes an archive.

    Two that go on with copies of one file at once would each lack what the other has.
    """
    found = find(txn, archive_id)
    if found != known:
        where = "" if found is None else f" in {found.path}"
        raise ConflictError(
            f"{known.path} is not the archive any more: another process goes on with it{where}"
        )


def place(txn: Txn, archive_id: bytes, known: Archive, path: str) -> Archive:
    """Note where a file lies that grows on. Raises what `check_unchanged` raises."""
    check_unchanged(txn, archive_id, known)
    placed = replace(known, path=path)
    txn.write(ARCHIVES, archive_id, placed)
    return placed


def let_go(
    txn: Txn,
    archive_id: bytes,
    grown: Archive,
    ended: list[Ended],
    postings: list[Posting],
) -> Archive | None:
    """Remove what a file has, which has `grown` by it in length; the archive with its new counts.

    None, with nothing done, when something is not as it was read: another process was faster.
    """
    is_there = all(selection.gathered(txn, each.job.job_id.encode()) == each for each in ended)
    if not is_there or any(txn.read(POSTINGS, pack_u64(each.seq)) != each for each in postings):
        return None
    removal.remove_jobs(txn, ended)
    removal.remove_postings(txn, postings, grown.before * 1000)
    counted = replace(
        grown,
        jobs=grown.jobs + len(ended),
        receipts=grown.receipts + sum(len(each.proofs) for each in ended),
        postings=grown.postings + len(postings),
    )
    txn.write(ARCHIVES, archive_id, counted)
    events.note(
        txn, "jobs_archived", archive=archive_id.hex(), jobs=len(ended), postings=len(postings)
    )
    return counted


def close(txn: Txn, archive_id: bytes, whole: Archive) -> None:
    """Note that a file is whole."""
    txn.write(ARCHIVES, archive_id, replace(whole, closed_ms=txn.now_ms))


def document(archive_id: bytes, archive: Archive) -> dict[str, Any]:
    """The JSON form of an archive."""
    return {
        "id": archive_id.hex(),
        "path": archive.path,
        "before": archive.before,
        "jobs": archive.jobs,
        "receipts": archive.receipts,
        "postings": archive.postings,
        "bytes": archive.length,
        "is_whole": archive.closed_ms is not None,
    }
